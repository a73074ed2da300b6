package listeners

import (
	"crypto/tls"
	"log/slog"
	"net"
)

// TLS listens for MQTT over TLS.
type TLS struct {
	acceptor

	// Logger gets accept errors. Nil discards them. Set before Listen.
	Logger *slog.Logger

	config *tls.Config
}

var _ Listener = (*TLS)(nil)

// NewTLS returns a listener for addr, "host:port", as with NewTCP. config has
// the certificate, see Certificate.Config; it is not changed.
func NewTLS(id, addr string, config *tls.Config) *TLS {
	return &TLS{
		acceptor: newAcceptor(id, "tcp", addr, func() (net.Listener, error) { return bindTCP(addr) }),
		config:   config,
	}
}

// ID returns the listener's name.
func (t *TLS) ID() string { return t.id }

// Protocol returns "tls".
func (t *TLS) Protocol() string { return "tls" }

// Address returns host:port, after Listen with the port that was bound.
func (t *TLS) Address() string { return t.addr() }

// Listen binds the address.
func (t *TLS) Listen() error { return t.listen() }

// Serve accepts until Close; handle gets a *tls.Conn. The TLS handshake is the
// first Read's: a slow peer holds up nobody but itself, and the reader's
// deadline ends it.
func (t *TLS) Serve(handle func(net.Conn)) error {
	return t.serve(logger(t.Logger), func(nc net.Conn) { handle(tls.Server(nc, t.config)) })
}

// Close stops accepting.
func (t *TLS) Close() error { return t.close() }
