//go:build unix

package broker

import (
	"net"
	"syscall"
	"unsafe"
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
		n, err := rawRead(fd, in.buf[len(in.buf):cap(in.buf)])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			if in.unflushed > 0 {
				in.flush(c.srv)
			}
			if taken || len(in.buf) == 0 {
				in.release(c.srv)
			}
			if in.atOnce {
				in.readErr = err
			}
			return in.atOnce
		}
		in.readN, in.readErr = max(n, 0), err
		return true
	}
}

// tryWrite writes what the socket takes.
func (c *conn) tryWrite(fd uintptr) bool {
	o := &c.out
	for o.sent < len(o.taken) {
		n, err := rawWrite(fd, o.taken[o.sent:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return true
		case err != nil:
			o.writeErr = err
			return true
		}
		o.sent += n
	}
	return true
}

// rawRead and rawWrite do without the bookkeeping of the runtime for calls that
// may block: the sockets do not, and with it sysmon wakes every 20 µs.
func rawRead(fd uintptr, b []byte) (int, error) {
	n, _, e := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func rawWrite(fd uintptr, b []byte) (int, error) {
	n, _, e := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
