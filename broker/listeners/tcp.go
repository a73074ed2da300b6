package listeners

import (
	"log/slog"
	"net"
	"time"
)

// Keep-alive probes find peers that vanished without a word and asked for no
// MQTT keep-alive: the first after a minute of silence, dead after three more
// minutes. A tenth of Go's default traffic, which matters with many idle
// connections.
const (
	tcpProbeIdle     = time.Minute
	tcpProbeInterval = 30 * time.Second
	tcpProbeCount    = 6
)

// TCP listens for MQTT over plain TCP.
type TCP struct {
	acceptor

	// Logger gets accept errors. Nil discards them. Set before Listen.
	Logger *slog.Logger
}

var _ Listener = (*TCP)(nil)

// NewTCP returns a listener for addr, "host:port". An empty host is every
// interface, port 0 is one of the kernel's choosing.
func NewTCP(id, addr string) *TCP {
	return &TCP{acceptor: newAcceptor(id, "tcp", addr, func() (net.Listener, error) { return bindTCP(addr) })}
}

// ID returns the listener's name.
func (t *TCP) ID() string { return t.id }

// Protocol returns "tcp".
func (t *TCP) Protocol() string { return "tcp" }

// Address returns host:port, after Listen with the port that was bound.
func (t *TCP) Address() string { return t.addr() }

// Listen binds the address.
func (t *TCP) Listen() error { return t.listen() }

// Serve accepts until Close; handle gets a *net.TCPConn.
func (t *TCP) Serve(handle func(net.Conn)) error { return t.serve(logger(t.Logger), handle) }

// Close stops accepting.
func (t *TCP) Close() error { return t.close() }

// Net serves a net.Listener that the caller made: a TLS listener, a socket
// passed by systemd, a pipe in a test.
type Net struct {
	acceptor

	// Logger gets accept errors. Nil discards them. Set before Serve.
	Logger *slog.Logger
}

var _ Listener = (*Net)(nil)

// NewNet returns a listener over ln, which it owns from now on.
func NewNet(id string, ln net.Listener) *Net {
	a := ln.Addr()
	return &Net{acceptor: newAcceptor(id, a.Network(), a.String(), func() (net.Listener, error) { return ln, nil })}
}

// ID returns the listener's name.
func (n *Net) ID() string { return n.id }

// Protocol returns the network of the wrapped listener's address.
func (n *Net) Protocol() string { return n.network }

// Address returns the wrapped listener's address.
func (n *Net) Address() string { return n.addr() }

// Listen does nothing: the wrapped listener is bound.
func (n *Net) Listen() error { return n.listen() }

// Serve accepts until Close.
func (n *Net) Serve(handle func(net.Conn)) error { return n.serve(logger(n.Logger), handle) }

// Close closes the wrapped listener, also when Listen and Serve were never
// called.
func (n *Net) Close() error {
	_ = n.listen() // takes the listener over if nobody did; fails only after Close
	return n.close()
}
