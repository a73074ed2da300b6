//go:build unix

package broker

import (
	"net"
	"syscall"
)

// waitable returns the socket of a connection that can be waited for without
// a buffer, nil for one that cannot (TLS, WebSocket).
func waitable(nc net.Conn) syscall.RawConn {
	switch c := nc.(type) {
	case *net.TCPConn:
		if raw, err := c.SyscallConn(); err == nil {
			return raw
		}
	case *net.UnixConn:
		if raw, err := c.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// tryRead is called when the socket may be readable; false = wait on.
func (c *conn) tryRead(fd uintptr) bool {
	in := &c.in
	taken := in.work == nil
	if taken {
		in.begin(c.srv)
	}
	for {
		n, err := syscall.Read(int(fd), in.buf[len(in.buf):cap(in.buf)])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			if taken {
				in.release(c.srv)
			}
			return false
		}
		in.readN, in.readErr = max(n, 0), err
		return true
	}
}
