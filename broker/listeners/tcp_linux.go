package listeners

import (
	"context"
	"net"
	"syscall"
	"time"
)

// bindTCP binds addr. Accepted sockets inherit the probes from the one that
// listens: four calls a connection less than to set them on each.
func bindTCP(addr string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			for _, o := range [...]struct{ level, name, value int }{
				{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
				{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, int(tcpProbeIdle / time.Second)},
				{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, int(tcpProbeInterval / time.Second)},
				{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, tcpProbeCount},
			} {
				if failed = syscall.SetsockoptInt(int(fd), o.level, o.name, o.value); failed != nil {
					return
				}
			}
		})
		if err != nil {
			return err
		}
		return failed
	}}
	return lc.Listen(context.Background(), "tcp", addr)
}
