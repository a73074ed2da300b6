package listeners

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const (
	// DefaultWebsocketPath is where clients expect MQTT (MQTT 5, section 6).
	DefaultWebsocketPath = "/mqtt"

	// subprotocol is the name in the handshake [MQTT-6.0.0-3], [MQTT-6.0.0-4].
	subprotocol = "mqtt"

	// A handshake that takes longer is given up.
	handshakeTimeout = 10 * time.Second
	// Request line and headers may be this long; net/http adds 4 KiB of slack.
	handshakeHeaderMax = 8 << 10
)

// Websocket listens for MQTT over WebSocket (RFC 6455, MQTT 5 section 6).
type Websocket struct {
	acceptor

	// Origins limits which web pages may connect, as host patterns like
	// "*.example.com" (path.Match). Empty means any: an MQTT client
	// authenticates itself in CONNECT, not by cookies, so a foreign page gains
	// nothing that a program would not. Set before Listen.
	Origins []string
	// TLS, if not nil, makes it wss. Set before Listen.
	TLS *tls.Config
	// Logger gets accept errors and, at debug level, refused handshakes. Nil
	// discards them. Set before Listen.
	Logger *slog.Logger

	path       string
	handshakes sync.WaitGroup // handlers running; Add under mu, before closed
	server     *http.Server
	handle     func(net.Conn)
}

var _ Listener = (*Websocket)(nil)

// NewWebsocket returns a listener for addr, "host:port", which takes
// connections at path; an empty path means DefaultWebsocketPath.
func NewWebsocket(id, addr, path string) *Websocket {
	if path == "" {
		path = DefaultWebsocketPath
	}
	w := &Websocket{path: path}
	w.acceptor = newAcceptor(id, "tcp", addr, func() (net.Listener, error) { return bindTCP(addr) })
	w.server = &http.Server{
		Handler:           http.HandlerFunc(w.serveHTTP),
		ReadHeaderTimeout: handshakeTimeout,
		ReadTimeout:       handshakeTimeout,
		WriteTimeout:      handshakeTimeout,
		MaxHeaderBytes:    handshakeHeaderMax,
	}
	w.server.SetKeepAlivesEnabled(false)
	return w
}

// ID returns the listener's name.
func (w *Websocket) ID() string { return w.id }

// Protocol returns "ws", or "wss" with TLS.
func (w *Websocket) Protocol() string {
	if w.TLS != nil {
		return "wss"
	}
	return "ws"
}

// Address returns host:port, after Listen with the port that was bound.
func (w *Websocket) Address() string { return w.addr() }

// Path returns the path of the URL clients connect to.
func (w *Websocket) Path() string { return w.path }

// Listen binds the address.
func (w *Websocket) Listen() error { return w.listen() }

// Serve accepts until Close. handle gets a net.Conn whose Read and Write carry
// the payload of binary frames as one stream.
func (w *Websocket) Serve(handle func(net.Conn)) error {
	done, err := w.begin()
	if done == nil {
		return err
	}
	defer close(done)
	w.handle = handle
	w.server.ErrorLog = slog.NewLogLogger(logger(w.Logger).Handler(), slog.LevelDebug)
	if err := w.server.Serve(&httpListener{w: w}); !errors.Is(err, http.ErrServerClosed) {
		return w.unlessClosed(err)
	}
	return nil
}

// Close stops accepting and waits for handshakes under way.
func (w *Websocket) Close() error {
	err := w.close()
	// Ends the handshakes that still wait for their peer; connections that were
	// handed over are no longer the HTTP server's.
	err = errors.Join(err, w.server.Close())
	w.handshakes.Wait()
	return err
}

// httpListener lets net/http accept through our loop, which never gives up.
type httpListener struct{ w *Websocket }

func (l *httpListener) Accept() (net.Conn, error) {
	nc, err := l.w.accept(logger(l.w.Logger))
	if err == nil && l.w.TLS != nil {
		nc = tls.Server(nc, l.w.TLS)
	}
	return nc, err
}
func (l *httpListener) Addr() net.Addr { return l.w.ln.Addr() }

// Close is called by net/http when Serve ends; the socket is the acceptor's.
func (l *httpListener) Close() error { return nil }

// enter counts a handshake, unless the listener is closed.
func (w *Websocket) enter() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.handshakes.Add(1)
	return true
}

func (w *Websocket) serveHTTP(rw http.ResponseWriter, r *http.Request) {
	if !w.enter() {
		http.Error(rw, "shutting down", http.StatusServiceUnavailable)
		return
	}
	defer w.handshakes.Done()
	if r.URL.Path != w.path {
		http.Error(rw, "MQTT over WebSocket is at "+w.path, http.StatusNotFound)
		return
	}
	upgrade := r.Header.Get("Upgrade") != ""
	if upgrade && !offersMQTT(r.Header) {
		w.refused(r, "subprotocol mqtt not offered")
		http.Error(rw, "the client must offer the WebSocket subprotocol mqtt [MQTT-6.0.0-3]", http.StatusBadRequest)
		return
	}
	// Names are compared exactly (RFC 6455, 4.2.2) and exactly this one is
	// answered [MQTT-6.0.0-4], whatever else was offered.
	r.Header.Set("Sec-WebSocket-Protocol", subprotocol)
	hj := &hijacker{ResponseWriter: rw}
	_, err := websocket.Accept(hj, r, &websocket.AcceptOptions{
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: len(w.Origins) == 0,
		OriginPatterns:     w.Origins,
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		w.refused(r, err.Error())
		return
	}
	// A goroutine of its own with a small stack: this one, and what the HTTP
	// server keeps for it, ends here.
	go w.handle(newWSConn(hj.conn, hj.early))
}

func (w *Websocket) refused(r *http.Request, why string) {
	logger(w.Logger).Debug("websocket handshake refused", "listener", w.id, "remote", r.RemoteAddr, "reason", why)
}

// offersMQTT reports whether mqtt is among the subprotocols offered, which may
// come in one header or several.
func offersMQTT(h http.Header) bool {
	for _, line := range h.Values("Sec-WebSocket-Protocol") {
		offered := func(name string) bool { return strings.TrimSpace(name) == subprotocol }
		if slices.ContainsFunc(strings.Split(line, ","), offered) {
			return true
		}
	}
	return false
}

// hijacker takes the connection over after the handshake. The library that did
// the handshake gets a connection to nowhere: its reader could not go on after
// a deadline, keeps 8 KiB of buffers and copies, so the frames are read and
// written by wsConn.
type hijacker struct {
	http.ResponseWriter
	conn  net.Conn
	early []byte // bytes that came with the handshake
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	h.conn = conn
	if len(early) > 0 {
		h.early = bytes.Clone(early)
	}
	var n nowhere
	return n, bufio.NewReadWriter(bufio.NewReaderSize(n, 0), bufio.NewWriterSize(n, 0)), nil
}

// nowhere is a closed connection.
type nowhere struct{}

func (nowhere) Read([]byte) (int, error)         { return 0, net.ErrClosed }
func (nowhere) Write([]byte) (int, error)        { return 0, net.ErrClosed }
func (nowhere) Close() error                     { return nil }
func (nowhere) LocalAddr() net.Addr              { return nil }
func (nowhere) RemoteAddr() net.Addr             { return nil }
func (nowhere) SetDeadline(time.Time) error      { return net.ErrClosed }
func (nowhere) SetReadDeadline(time.Time) error  { return net.ErrClosed }
func (nowhere) SetWriteDeadline(time.Time) error { return net.ErrClosed }
