package admin

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// peer says which user and process is at the other end of a Unix socket.
func peer(c net.Conn) string {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return "unknown"
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return "unknown"
	}
	var cred *syscall.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) {
		cred, cerr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil || cerr != nil {
		return "unknown"
	}
	return fmt.Sprintf("uid %d, pid %d", cred.Uid, cred.Pid)
}

// socketPathMax is what fits into a socket address.
const socketPathMax = 100

// shortPath returns a path to the same file that fits into a socket address,
// usable until done is called.
func shortPath(path string) (short string, done func(), err error) {
	if len(path) <= socketPathMax {
		return path, func() {}, nil
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), filepath.Base(path)), func() { _ = d.Close() }, nil
}
