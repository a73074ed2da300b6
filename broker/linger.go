package broker

import (
	"errors"
	"io"
	"syscall"
	"time"
)

// A socket that is closed with unread bytes in it is reset, and a reset may
// overtake what was written last: the packet that tells the client why. So
// after such a packet only the sending half is closed, and for a short while
// what the client still sends is thrown away.
const (
	lingerTime  = time.Second // for the client to close its half
	lingerBytes = 4 << 20     // that it may send meanwhile
)

// hangUp closes the connection after its last byte; with half, only the sending
// half where the socket can do that, and wakes the reader, which does the rest.
func (c *conn) hangUp(half bool) {
	if half {
		w, ok := c.nc.(interface{ CloseWrite() error })
		if ok && w.CloseWrite() == nil && c.nc.SetReadDeadline(time.Now()) == nil {
			return
		}
	}
	c.nc.Close()
}

// readUntil sets the deadline for reads, unless the connection is at its end
// and the reader is to notice.
func (c *conn) readUntil(t time.Time) error {
	if err := c.nc.SetReadDeadline(t); err != nil {
		return err
	}
	if c.isClosed() { // else hangUp comes later, and its deadline stays
		return errClosed
	}
	return nil
}

// linger reads to the end what the client sends after the broker's last word;
// err is what ended the reader.
func (c *conn) linger(err error) {
	c.mu.Lock()
	half := c.out.hung && c.out.why
	c.mu.Unlock()
	if !half || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if c.nc.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	c.in.begin(c.srv)
	defer c.in.release(c.srv)
	b := c.in.buf[:cap(c.in.buf)]
	for sum := 0; sum < lingerBytes; {
		n, err := c.nc.Read(b)
		if err != nil {
			return
		}
		sum += n
	}
}
