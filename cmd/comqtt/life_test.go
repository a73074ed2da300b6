package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wind-c/comqtt/v3/broker/admin"
	"github.com/wind-c/comqtt/v3/wal"
)

// scripted is a server whose every step the test decides: what a real broker
// does when its disk hangs can't be had on demand. The real one runs in
// TestScripts.
type scripted struct {
	ready  chan struct{}
	served chan error // what Serve returns
	fatal  chan error
	closes chan error // what Close returns; never sent = it hangs
}

func (s *scripted) Serve(context.Context) error { return <-s.served }
func (s *scripted) Ready() <-chan struct{}      { return s.ready }
func (s *scripted) Fatal() <-chan error         { return s.fatal }
func (s *scripted) Close(context.Context) error { return <-s.closes }

// lifeTest runs steps against a life with a shutdown timeout of 30 s.
func lifeTest(t *testing.T, steps func(srv *scripted, l *life, signals chan<- os.Signal)) (announced int, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal, 2)
		srv := &scripted{
			ready: make(chan struct{}), served: make(chan error, 1), fatal: make(chan error, 1), closes: make(chan error, 1),
		}
		l := &life{
			p:   &program{signals: signals, lookupEnv: environment(nil)},
			s:   &settings{shutdownTimeout: 30 * time.Second},
			log: slog.New(slog.DiscardHandler), srv: srv,
			announce: func() { announced++ },
		}
		done := make(chan struct{})
		go func() { err = l.run(); close(done) }()
		synctest.Wait()
		steps(srv, l, signals)
		<-done
		// Let hanging calls end, so that the bubble can.
		close(srv.served)
		close(srv.closes)
	})
	return announced, err
}

func codeOf(err error) int { return (&program{stderr: discard{}}).report(err) }

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestLifeStopsOnASignal(t *testing.T) {
	announced, err := lifeTest(t, func(srv *scripted, l *life, signals chan<- os.Signal) {
		if st := l.status(); st.State != admin.Recovering {
			t.Errorf("state %v before ready", st.State)
		}
		close(srv.ready)
		synctest.Wait()
		if st := l.status(); st.State != admin.Ready {
			t.Errorf("state %v when ready", st.State)
		}
		signals <- syscall.SIGTERM
		synctest.Wait()
		if st := l.status(); st.State != admin.Stopping {
			t.Errorf("state %v while stopping", st.State)
		}
		srv.served <- nil
		srv.closes <- nil
	})
	if err != nil || announced != 1 {
		t.Errorf("got %v, announced %d times", err, announced)
	}
}

func TestLifeStopsDuringRecovery(t *testing.T) {
	announced, err := lifeTest(t, func(srv *scripted, _ *life, signals chan<- os.Signal) {
		signals <- os.Interrupt
		srv.closes <- nil
		srv.served <- nil
	})
	if err != nil || announced != 0 {
		t.Errorf("got %v, announced %d times", err, announced)
	}
}

func TestLifeSecondSignalStopsAtOnce(t *testing.T) {
	_, err := lifeTest(t, func(srv *scripted, _ *life, signals chan<- os.Signal) {
		close(srv.ready)
		signals <- os.Interrupt
		signals <- os.Interrupt // the same once more, as timeout(1) sends it
		synctest.Wait()
		time.Sleep(signalEcho) // of the bubble's clock
		signals <- syscall.SIGTERM
	})
	if code := codeOf(err); code != exitSignal+int(syscall.SIGTERM) {
		t.Errorf("exit %d: %v", code, err)
	}
}

func TestLifeShutdownTimeout(t *testing.T) {
	_, err := lifeTest(t, func(srv *scripted, _ *life, signals chan<- os.Signal) {
		close(srv.ready)
		signals <- syscall.SIGTERM
		synctest.Wait()
		time.Sleep(29 * time.Second) // of the bubble's clock
		srv.served <- nil            // half of it is done
	})
	if code := codeOf(err); code != exitFailed || !strings.Contains(err.Error(), "longer than 30s") {
		t.Errorf("exit %d: %v", code, err)
	}
}

func TestLifeFailures(t *testing.T) {
	poisoned := fmt.Errorf("broker: commit: %w", wal.ErrPoisoned)
	for name, tt := range map[string]struct {
		steps func(srv *scripted, l *life, signals chan<- os.Signal)
		code  int
	}{
		"recovery refuses": {func(srv *scripted, _ *life, _ chan<- os.Signal) {
			srv.served <- fmt.Errorf("recovery: %w", &wal.CorruptError{Err: wal.ErrMissing})
		}, exitDamaged},
		"directory locked": {func(srv *scripted, _ *life, _ chan<- os.Signal) { srv.served <- wal.ErrLocked }, exitLocked},
		"log fails": {func(srv *scripted, _ *life, _ chan<- os.Signal) {
			close(srv.ready)
			srv.fatal <- poisoned
		}, exitIO},
		"a failure without a type is still a failing log": {func(srv *scripted, _ *life, _ chan<- os.Signal) {
			close(srv.ready)
			srv.fatal <- errors.New("strange")
		}, exitIO},
		"cause and consequence": {func(srv *scripted, _ *life, _ chan<- os.Signal) {
			close(srv.ready)
			srv.fatal <- poisoned
			srv.served <- errors.New("closed")
		}, exitIO},
		"log fails while stopping": {func(srv *scripted, _ *life, signals chan<- os.Signal) {
			close(srv.ready)
			signals <- syscall.SIGTERM
			synctest.Wait()
			srv.fatal <- poisoned
		}, exitIO},
		"stopping fails": {func(srv *scripted, _ *life, signals chan<- os.Signal) {
			signals <- syscall.SIGTERM
			srv.closes <- errors.New("clean-close mark not written")
		}, exitFailed},
		"ends by itself": {func(srv *scripted, _ *life, _ chan<- os.Signal) { srv.served <- nil }, exitFailed},
	} {
		var last *life
		_, err := lifeTest(t, func(srv *scripted, l *life, signals chan<- os.Signal) {
			last = l
			tt.steps(srv, l, signals)
		})
		if code := codeOf(err); err == nil || code != tt.code {
			t.Errorf("%s: exit %d, want %d: %v", name, code, tt.code, err)
		}
		if st := last.status(); st.State != admin.Failed || st.Err == nil {
			t.Errorf("%s: status %+v", name, st)
		}
	}
}
