package listeners

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// ErrTextFrame is what Read returns after a peer sent a WebSocket data frame
// that is not binary [MQTT-6.0.0-1].
var ErrTextFrame = errors.New("listeners: websocket text frame, MQTT needs binary frames [MQTT-6.0.0-1]")

const (
	// closeFrameTimeout bounds Close when the send buffer is full.
	closeFrameTimeout = 100 * time.Millisecond
	// pongTimeout bounds the answer to a ping, which the reader sends: a peer
	// that only pings and never reads must not hold the reader for ever.
	pongTimeout = 5 * time.Second
)

// wsConn is a WebSocket connection as a stream of bytes. One goroutine may
// read while another writes; Close may come from any.
//
// Reading needs no buffer of its own: what the socket gives goes into the
// caller's, and the frames are taken apart there (decoder). So a read that a
// deadline interrupts, even inside a frame's header, is continued by the next.
type wsConn struct {
	conn  net.Conn
	early []byte // came with the handshake; read first
	dec   decoder
	err   error // what ended reading; sticks, but for deadlines

	closed atomic.Bool

	mu            sync.Mutex // the socket's writing side: whole frames only
	closeSent     bool
	writeDeadline time.Time // as the caller set it
	head          [frameHeaderMax]byte
	vec           [2][]byte
	bufs          net.Buffers
}

var _ net.Conn = (*wsConn)(nil)

func newWSConn(conn net.Conn, early []byte) *wsConn {
	c := &wsConn{conn: conn, early: early}
	c.dec.control = c.onControl
	return c
}

// Read returns payload of binary frames; frame borders don't show
// [MQTT-6.0.0-2]. Control frames are answered meanwhile. After a peer's close
// frame it returns io.EOF. After a deadline reading may go on.
func (c *wsConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, c.err
	}
	for c.err == nil {
		n, err := c.readSocket(p)
		payload, broken := c.dec.decode(p[:n])
		switch {
		case broken != nil:
			c.fail(broken)
		case err != nil && errors.Is(err, os.ErrDeadlineExceeded):
			if payload == 0 {
				return 0, err
			}
		case err != nil:
			c.fail(err)
		}
		if payload > 0 {
			return payload, nil
		}
	}
	return 0, c.err
}

func (c *wsConn) readSocket(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		if c.early = c.early[n:]; len(c.early) == 0 {
			c.early = nil
		}
		return n, nil
	}
	return c.conn.Read(p)
}

// fail remembers why reading ended. If that was the peer's fault, it is told
// and the connection closed at once.
func (c *wsConn) fail(err error) {
	var frame *frameError
	switch {
	case errors.As(err, &frame):
		if cerr := c.shut(frame.status); cerr != nil {
			err = errors.Join(err, cerr)
		}
	case errors.Is(err, io.EOF) && c.dec.inside():
		err = io.ErrUnexpectedEOF
	}
	c.err = err
}

// onControl handles a whole control frame, on the reader's goroutine.
func (c *wsConn) onControl(opcode byte, payload []byte) error {
	switch opcode {
	case opPing:
		return c.pong(payload)
	case opClose:
		status, err := closeStatus(payload)
		if err != nil {
			return err
		}
		c.sendClose(status)
		return io.EOF
	}
	return nil // a pong that nobody asked for (RFC 6455, 5.5.3)
}

func (c *wsConn) pong(payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closeSent {
		return nil
	}
	until := time.Now().Add(pongTimeout)
	if !c.writeDeadline.IsZero() && c.writeDeadline.Before(until) {
		until = c.writeDeadline
	}
	err := c.conn.SetWriteDeadline(until)
	if err == nil {
		_, err = c.conn.Write(append(appendFrameHeader(nil, opPong, len(payload)), payload...))
	}
	if err == nil {
		err = c.conn.SetWriteDeadline(c.writeDeadline)
	}
	return err
}

// Write sends p as one binary frame and returns how much of p went out.
func (c *wsConn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closeSent {
		return 0, net.ErrClosed
	}
	head := appendFrameHeader(c.head[:0], opBinary, len(p))
	c.vec[0], c.vec[1] = head, p
	c.bufs = c.vec[:] // a field, so that no slice header escapes to the heap
	n, err := c.bufs.WriteTo(c.conn)
	c.vec[1], c.bufs = nil, nil
	return max(int(n)-len(head), 0), err
}

// Close sends a close frame if that is possible without waiting for the peer,
// and closes the socket.
func (c *wsConn) Close() error { return c.shut(statusNormal) }

// CloseWrite ends what is written with a close frame. Reading goes on, up to
// the peer's close frame.
func (c *wsConn) CloseWrite() error {
	c.sendClose(statusNormal)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closeSent {
		return net.ErrClosed
	}
	return nil
}

func (c *wsConn) shut(status uint16) error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	c.sendClose(status)
	return c.conn.Close()
}

// sendClose sends a close frame unless one was sent or a write is under way: a
// peer that does not read would not see it anyway.
func (c *wsConn) sendClose(status uint16) {
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	if c.closeSent {
		return
	}
	c.closeSent = true
	if c.conn.SetWriteDeadline(time.Now().Add(closeFrameTimeout)) == nil {
		// Best effort: the socket is closed next, whatever becomes of it.
		_, _ = c.conn.Write(appendCloseFrame(nil, status))
	}
}

// LocalAddr implements net.Conn.
func (c *wsConn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *wsConn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// SetReadDeadline implements net.Conn.
func (c *wsConn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetDeadline implements net.Conn.
func (c *wsConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetWriteDeadline implements net.Conn.
func (c *wsConn) SetWriteDeadline(t time.Time) error {
	if !c.mu.TryLock() {
		// A write is under way, and this may be meant to end it.
		return c.conn.SetWriteDeadline(t)
	}
	defer c.mu.Unlock()
	c.writeDeadline = t
	return c.conn.SetWriteDeadline(t)
}
