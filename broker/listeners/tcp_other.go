//go:build !linux

package listeners

import (
	"context"
	"net"
)

// bindTCP binds addr; each accepted socket gets the probes.
func bindTCP(addr string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: tcpProbeIdle, Interval: tcpProbeInterval, Count: tcpProbeCount,
	}}
	return lc.Listen(context.Background(), "tcp", addr)
}
