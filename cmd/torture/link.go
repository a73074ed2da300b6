package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// writeTimeout bounds one write. The broker may push back by not reading, but
// for so long only when it hangs.
const writeTimeout = 20 * time.Second

// A link is one network connection. A goroutine of its own reads and hands the
// bytes over; everything else belongs to the client's goroutine.
type link struct {
	conn net.Conn
	in   chan []byte // what was read, in order; closed at the end
	done chan struct{}
	buf  []byte // received, not yet a whole packet
	out  []byte // to be sent by flush
	err  error  // first failed write
}

func dial(ctx context.Context, addr string) (*link, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("torture: dial broker: %w", err)
	}
	l := &link{conn: conn, in: make(chan []byte, 4), done: make(chan struct{})}
	go l.read()
	return l, nil
}

func (l *link) read() {
	defer close(l.in)
	for {
		chunk := make([]byte, 16<<10)
		n, err := l.conn.Read(chunk)
		if n > 0 {
			select {
			case l.in <- chunk[:n]:
			case <-l.done:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// next returns the next whole packet among the bytes received, false if there
// is none yet. The frame is valid until the next call of take.
func (l *link) next() (packets.Frame, bool, error) {
	f, n, _, err := packets.Next(l.buf, 0)
	if err != nil || n == 0 {
		return packets.Frame{}, false, err
	}
	l.buf = l.buf[n:]
	return f, true, nil
}

// take adds received bytes.
func (l *link) take(chunk []byte) {
	if len(l.buf) == 0 {
		l.buf = chunk
		return
	}
	l.buf = append(l.buf[:len(l.buf):len(l.buf)], chunk...)
}

// flush sends what was appended to out in one write.
func (l *link) flush() {
	if len(l.out) == 0 {
		return
	}
	if l.err == nil {
		_ = l.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, l.err = l.conn.Write(l.out)
	}
	l.out = l.out[:0]
	if cap(l.out) > 1<<20 {
		l.out = nil
	}
}

// hung reports whether a write ended because the broker did not read for too
// long, rather than because the connection ended.
func (l *link) hung() bool {
	var ne net.Error
	return errors.As(l.err, &ne) && ne.Timeout()
}

// close ends the connection and its goroutine.
func (l *link) close() {
	close(l.done)
	_ = l.conn.Close()
}
