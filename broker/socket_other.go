//go:build !unix

package broker

import (
	"net"
	"syscall"
)

// waitable says that no socket can be waited for without a buffer here.
func waitable(net.Conn) syscall.RawConn { return nil }

func (c *conn) tryRead(uintptr) bool { panic("broker: no waitable sockets on this system") }

func (c *conn) tryWrite(uintptr) bool { panic("broker: no waitable sockets on this system") }
