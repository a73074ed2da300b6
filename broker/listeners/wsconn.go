package listeners

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// Waiter is a connection that can wait for input without being given a buffer,
// so that an idle connection needs none. WebSocket connections are Waiters; on a
// *net.TCPConn or *net.UnixConn use SyscallConn for the same.
type Waiter interface {
	// WaitReadable blocks until Read has something to return: payload or an
	// error, which WaitReadable returns too. Not concurrently with Read.
	WaitReadable() error
}

// ErrTextFrame is what Read returns after a peer sent a WebSocket data frame
// that is not binary [MQTT-6.0.0-1]. The connection is closed by then.
var ErrTextFrame = errors.New("listeners: websocket text frame, MQTT needs binary frames [MQTT-6.0.0-1]")

// closeFrameTimeout bounds Close when the send buffer is full.
const closeFrameTimeout = 100 * time.Millisecond

// wsConn is a WebSocket connection as a stream of bytes. One goroutine may
// read while another writes; Close may come from any.
type wsConn struct {
	ws     *websocket.Conn
	gate   *gate
	msg    io.Reader // rest of the message being read; nil between messages
	err    error     // first read error; sticks
	closed atomic.Bool
}

var (
	_ net.Conn = (*wsConn)(nil)
	_ Waiter   = (*wsConn)(nil)
)

// WaitReadable implements Waiter. Control frames are answered meanwhile.
func (c *wsConn) WaitReadable() error {
	if c.err != nil || c.msg != nil {
		return c.err
	}
	typ, r, err := c.ws.Reader(context.Background())
	if err != nil {
		return c.fail(err)
	}
	if typ != websocket.MessageBinary {
		c.shut(websocket.StatusUnsupportedData)
		return c.fail(ErrTextFrame)
	}
	c.msg = r
	return nil
}

// Read returns payload of binary frames; frame borders don't show
// [MQTT-6.0.0-2]. After a peer's close frame it returns io.EOF. A deadline that
// passes is final, as every other error is.
func (c *wsConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, c.err
	}
	for {
		if err := c.WaitReadable(); err != nil {
			return 0, err
		}
		n, err := c.msg.Read(p)
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			c.msg, err = nil, nil
		}
		if err != nil {
			return n, c.fail(err)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// fail remembers the first read error in the form a TCP connection would have
// given: io.EOF, net.ErrClosed, or a net.Error.
func (c *wsConn) fail(err error) error {
	c.msg = nil
	var ne net.Error
	switch websocket.CloseStatus(err) {
	case websocket.StatusNormalClosure, websocket.StatusGoingAway, websocket.StatusNoStatusRcvd:
		c.err = io.EOF
	default:
		switch {
		case c.closed.Load() && !errors.Is(err, ErrTextFrame):
			c.err = net.ErrClosed
		case errors.Is(err, io.ErrUnexpectedEOF):
			c.err = io.ErrUnexpectedEOF
		case errors.Is(err, io.EOF):
			c.err = io.EOF
		case errors.As(err, &ne):
			c.err = ne
		default:
			c.err = err
		}
	}
	return c.err
}

// Write sends p as one binary frame.
func (c *wsConn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return c.gate.writeFrame(p)
}

// Close sends a close frame if that is possible without waiting for the peer,
// and closes the socket.
func (c *wsConn) Close() error { return c.shut(websocket.StatusNormalClosure) }

func (c *wsConn) shut(code websocket.StatusCode) error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	c.gate.sendClose(code)
	// The library may have closed already, in answer to the peer's close frame.
	if err := c.ws.CloseNow(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (c *wsConn) LocalAddr() net.Addr                { return c.gate.LocalAddr() }
func (c *wsConn) RemoteAddr() net.Addr               { return c.gate.RemoteAddr() }
func (c *wsConn) SetDeadline(t time.Time) error      { return c.gate.SetDeadline(t) }
func (c *wsConn) SetReadDeadline(t time.Time) error  { return c.gate.SetReadDeadline(t) }
func (c *wsConn) SetWriteDeadline(t time.Time) error { return c.gate.SetWriteDeadline(t) }

// Bits of a frame header (RFC 6455, 5.2).
const (
	frameFin    = 0x80
	frameBinary = 0x2
	frameClose  = 0x8
	frameOpcode = 0x0f
	frameLen16  = 126
	frameLen64  = 127
)

// gate is the one door to the socket: data frames from wsConn and control
// frames from the library pass it whole, one at a time.
type gate struct {
	net.Conn
	early []byte // came with the handshake; read first

	mu        sync.Mutex
	closeSent bool
	head      [10]byte
	vec       [2][]byte
	bufs      net.Buffers
}

// Read serves what the HTTP server had read too far, then the socket.
func (g *gate) Read(p []byte) (int, error) {
	if len(g.early) > 0 {
		n := copy(p, g.early)
		if g.early = g.early[n:]; len(g.early) == 0 {
			g.early = nil
		}
		return n, nil
	}
	return g.Conn.Read(p)
}

// Write takes whole control frames from the library.
func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(p) > 0 && p[0]&frameOpcode == frameClose {
		g.closeSent = true
	}
	return g.Conn.Write(p)
}

// writeFrame sends p as one unmasked binary frame and returns how much of p
// went out.
func (g *gate) writeFrame(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closeSent {
		return 0, net.ErrClosed
	}
	head := appendFrameHeader(g.head[:0], len(p))
	g.vec[0], g.vec[1] = head, p
	g.bufs = g.vec[:]
	n, err := g.bufs.WriteTo(g.Conn)
	g.vec[1], g.bufs = nil, nil
	return max(int(n)-len(head), 0), err
}

// appendFrameHeader appends the header of an unmasked, final binary frame.
func appendFrameHeader(dst []byte, n int) []byte {
	dst = append(dst, frameFin|frameBinary)
	switch {
	case n < frameLen16:
		return append(dst, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, frameLen16), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, frameLen64), uint64(n))
	}
}

// sendClose sends a close frame unless one was sent or a write is under way: a
// peer that does not read would not see it anyway.
func (g *gate) sendClose(code websocket.StatusCode) {
	if !g.mu.TryLock() {
		return
	}
	defer g.mu.Unlock()
	if g.closeSent {
		return
	}
	g.closeSent = true
	frame := binary.BigEndian.AppendUint16([]byte{frameFin | frameClose, 2}, uint16(code))
	if g.SetWriteDeadline(time.Now().Add(closeFrameTimeout)) == nil {
		// Best effort: the socket is closed next, whatever becomes of it.
		_, _ = g.Conn.Write(frame)
	}
}
