package listeners

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// stubborn is a net.Listener whose Accept fails until it is told otherwise.
type stubborn struct {
	fail   int // how many times Accept fails
	at     []time.Time
	conns  chan net.Conn
	closed chan struct{}
}

func (s *stubborn) Accept() (net.Conn, error) {
	s.at = append(s.at, time.Now())
	if len(s.at) <= s.fail {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}
func (s *stubborn) Close() error   { close(s.closed); return nil }
func (s *stubborn) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1883} }

// The predecessor's TCP listener ended for good at the first EMFILE.
func TestAcceptErrorsBackOffAndGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &stubborn{fail: 12, conns: make(chan net.Conn), closed: make(chan struct{})}
		var log bytes.Buffer
		l := NewNet("t1", ln)
		l.Logger = slog.New(slog.NewTextHandler(&log, nil))
		got, served := make(chan net.Conn), make(chan error)
		go func() { served <- l.Serve(func(c net.Conn) { got <- c }) }()

		a, b := net.Pipe()
		defer b.Close()
		ln.conns <- a
		if c := <-got; c != a {
			t.Errorf("handed over %v", c)
		}
		synctest.Wait() // the loop is in Accept again; nobody else writes ln.at
		for i := 1; i <= ln.fail; i++ {
			want := min(acceptBackoffMin<<(i-1), acceptBackoffMax)
			if pause := ln.at[i].Sub(ln.at[i-1]); pause != want {
				t.Errorf("pause %d was %v, want %v", i, pause, want)
			}
		}
		if n := strings.Count(log.String(), "trying again"); n != ln.fail {
			t.Errorf("%d lines logged, want %d:\n%s", n, ln.fail, log.String())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestCloseEndsABackOffAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &stubborn{fail: 1 << 20, closed: make(chan struct{})}
		l := NewNet("t1", ln)
		served := make(chan error)
		go func() { served <- l.Serve(func(net.Conn) {}) }()
		time.Sleep(time.Minute) // of the bubble's clock: deep in the longest pause
		synctest.Wait()
		start := time.Now()
		go l.Close()
		if err := <-served; err != nil || time.Since(start) != 0 {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		synctest.Wait()
	})
}

// A socket closed behind the listener's back can't be waited for.
func TestServeReportsAForeignClose(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := NewNet("t1", ln)
	ln.Close()
	if err := l.Serve(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
