package listeners

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// An accepted socket has the probes that the listening one was given.
func TestAcceptedSocketsAreProbed(t *testing.T) {
	l := NewTCP("tcp", "127.0.0.1:0")
	if err := l.Listen(); err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 1)
	served := make(chan error, 1)
	go func() { served <- l.Serve(func(c net.Conn) { accepted <- c }) }()
	client, err := net.Dial("tcp", l.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c := <-accepted
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]struct{ level, name, want int }{
		"SO_KEEPALIVE":  {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE":  {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, int(tcpProbeIdle / time.Second)},
		"TCP_KEEPINTVL": {syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, int(tcpProbeInterval / time.Second)},
		"TCP_KEEPCNT":   {syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, tcpProbeCount},
		"TCP_NODELAY":   {syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
	} {
		var got int
		var failed error
		if err := raw.Control(func(fd uintptr) { got, failed = syscall.GetsockoptInt(int(fd), o.level, o.name) }); err != nil {
			t.Fatal(err)
		}
		if failed != nil || got != o.want {
			t.Errorf("%s is %d, %v; want %d", name, got, failed, o.want)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
