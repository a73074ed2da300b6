package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// SocketName is the admin socket in a data directory.
const SocketName = "admin.sock"

// Control is what the admin socket asks of a running broker. The methods may be
// called from any goroutine, and give up when ctx ends.
type Control interface {
	// Sessions calls fn for the durable sessions, in the order in which they
	// began, until it returns an error, which is returned.
	Sessions(ctx context.Context, fn func(s Session) error) error
	// SessionDetail returns a session with everything in it; nil if there is none.
	SessionDetail(ctx context.Context, client string) (*SessionDetail, error)
	// RemoveSession ends a session by a record that says who asked for it, and
	// returns the record's index; 0 if there was no session.
	RemoveSession(ctx context.Context, client, by string) (uint64, error)
	// Retained calls fn for the retained messages that match a filter, in order
	// of their topics.
	Retained(ctx context.Context, filter string, fn func(r Retained) error) error
	// RetainedMessage returns a retained message with its payload; nil if there
	// is none.
	RetainedMessage(ctx context.Context, topic string) (*RetainedMessage, error)
	// ClearRetained removes a retained message by a record that says who asked
	// for it, and returns the record's index; 0 if there was none.
	ClearRetained(ctx context.Context, topic, by string) (uint64, error)
	// Hold keeps log and archive as they are until release is called, and says
	// what is durable by then. With base it also makes a base of the live state,
	// for a backup of what the archive does not reach, and says where.
	Hold(ctx context.Context, base bool) (h Held, release func(), err error)
}

// Session is a durable session in a list. Times are unix milliseconds of log
// time, 0 = does not apply.
type Session struct {
	Client        string `json:"client"`
	User          string `json:"user,omitempty"`
	ID            uint64 `json:"id"` // index of the record that began it
	Connected     bool   `json:"connected"`
	Version       uint8  `json:"version"` // protocol level: 3, 4 or 5
	Expiry        uint32 `json:"expiry"`  // seconds after the disconnect; 4294967295 = never
	Disconnected  int64  `json:"disconnected,omitempty"`
	Ends          int64  `json:"ends,omitempty"`
	Subscriptions int    `json:"subscriptions"`
	Queued        int    `json:"queued"`
	QueuedBytes   uint64 `json:"queued_bytes"`
	Inflight      int    `json:"inflight"`
	Received      int    `json:"received"` // QoS 2 identifiers not yet released
	Will          bool   `json:"will,omitempty"`
}

// SessionDetail is one session with what is in it.
type SessionDetail struct {
	Session
	Filters  []Subscription `json:"filters"`
	InFlight []Delivery     `json:"in_flight"`
}

// Subscription is one filter of a session.
type Subscription struct {
	Filter            string `json:"filter"`
	QoS               uint8  `json:"qos"`
	ID                uint32 `json:"id,omitempty"`
	NoLocal           bool   `json:"no_local,omitempty"`
	RetainAsPublished bool   `json:"retain_as_published,omitempty"`
	RetainHandling    uint8  `json:"retain_handling,omitempty"`
}

// Delivery is a message in flight to a client.
type Delivery struct {
	PacketID uint16 `json:"packet_id"`
	Message  uint64 `json:"message"` // index of its record
	QoS      uint8  `json:"qos"`
	Released bool   `json:"released,omitempty"` // PUBREC received, PUBCOMP awaited
}

// Retained is a retained message in a list.
type Retained struct {
	Topic   string `json:"topic"`
	QoS     uint8  `json:"qos"`
	Bytes   int    `json:"bytes"`   // of the stored message
	Message uint64 `json:"message"` // index of its record
	Time    int64  `json:"time"`
	Ends    int64  `json:"ends,omitempty"`
}

// RetainedMessage is one retained message.
type RetainedMessage struct {
	Retained
	Payload     []byte            `json:"payload"` // base64 in JSON
	ContentType string            `json:"content_type,omitempty"`
	User        map[string]string `json:"user_properties,omitempty"`
}

// Held says what a hold keeps.
type Held struct {
	Durable uint64 `json:"durable"` // every record up to it is on disk
	Base    string `json:"base,omitempty"`
	Version string `json:"version,omitempty"`
}

// SocketOptions of a Socket.
type SocketOptions struct {
	Dir     string // data directory
	Control Control
	Version string
	Logger  *slog.Logger // nil discards
}

// Socket is the admin socket: HTTP with JSON on a Unix domain socket in the data
// directory, which only its owner may open. Whoever can open it may do
// everything.
//
//	GET    /v1/sessions             a JSON object a line
//	GET    /v1/session?client=C     one with its subscriptions; 404
//	DELETE /v1/session?client=C     {"index":N}; 404
//	GET    /v1/retained?filter=F    a JSON object a line
//	GET    /v1/message?topic=T      one with its payload; 404
//	DELETE /v1/message?topic=T      {"index":N}; 404
//	POST   /v1/hold[?base=1]        {"durable":N}, and the hold lasts until the
//	                                client closes the connection
type Socket struct {
	o    SocketOptions
	log  *slog.Logger
	ln   net.Listener
	http *http.Server
	end  context.CancelFunc
}

// ListenSocket binds the socket. A socket file that a crash left is replaced:
// the data directory's lock says that nobody listens there.
func ListenSocket(o SocketOptions) (*Socket, error) {
	s := &Socket{o: o, log: o.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	path := filepath.Join(o.Dir, SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("admin: socket: %w", err)
	}
	short, done, err := shortPath(path)
	if err != nil {
		return nil, fmt.Errorf("admin: socket: %w", err)
	}
	defer done()
	// The directory is its owner's alone, so nobody is in between the two steps.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("admin: socket %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false) // its name may be a way that is closed by then
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("admin: socket: %w", err), ln.Close())
	}
	s.ln = ln
	ctx, end := context.WithCancel(context.Background())
	s.end = end
	s.http = &http.Server{
		Handler: s.routes(), ReadHeaderTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 1 << 20,
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, peer(c))
		},
	}
	return s, nil
}

type peerKey struct{}

// Serve answers until Close, and then returns nil.
func (s *Socket) Serve() error {
	if err := s.http.Serve(s.ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: serve socket: %w", err)
	}
	return nil
}

// Close ends holds and requests and removes the socket.
func (s *Socket) Close() error {
	s.end()
	err := s.http.Close()
	if rerr := os.Remove(filepath.Join(s.o.Dir, SocketName)); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	if err != nil {
		return fmt.Errorf("admin: close socket: %w", err)
	}
	return nil
}

func (s *Socket) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/sessions", s.sessions)
	mux.HandleFunc("GET /v1/session", s.session)
	mux.HandleFunc("DELETE /v1/session", s.removeSession)
	mux.HandleFunc("GET /v1/retained", s.retained)
	mux.HandleFunc("GET /v1/message", s.message)
	mux.HandleFunc("DELETE /v1/message", s.clearMessage)
	mux.HandleFunc("POST /v1/hold", s.hold)
	return mux
}

// by says who is at the other end.
func by(r *http.Request) string {
	who, _ := r.Context().Value(peerKey{}).(string)
	return "admin socket, " + who
}

// stream answers with an object a line. An error after the first line is told
// by cutting the connection: the client misses the end.
func stream[T any](w http.ResponseWriter, each func(fn func(T) error) error) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	n := 0
	err := each(func(v T) error { n++; return enc.Encode(v) })
	switch {
	case err == nil:
	case n == 0:
		refuse(w, err)
	default:
		panic(http.ErrAbortHandler)
	}
}

func refuse(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusServiceUnavailable)
	_ = json.NewEncoder(w).Encode(problem{err.Error()})
}

type problem struct {
	Error string `json:"error"`
}

// answer gives one value, 404 for a nil one.
func answer(w http.ResponseWriter, v any, found bool, err error) {
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if !found {
		w.WriteHeader(http.StatusNotFound)
		v = problem{"there is none"}
	}
	_ = json.NewEncoder(w).Encode(v) // who went away misses it
}

// Done says by which record something was done.
type Done struct {
	Index uint64 `json:"index"`
}

func (s *Socket) sessions(w http.ResponseWriter, r *http.Request) {
	stream(w, func(fn func(Session) error) error { return s.o.Control.Sessions(r.Context(), fn) })
}

func (s *Socket) session(w http.ResponseWriter, r *http.Request) {
	d, err := s.o.Control.SessionDetail(r.Context(), r.FormValue("client"))
	answer(w, d, d != nil, err)
}

func (s *Socket) removeSession(w http.ResponseWriter, r *http.Request) {
	client := r.FormValue("client")
	index, err := s.o.Control.RemoveSession(r.Context(), client, by(r))
	if err == nil && index > 0 {
		s.log.Warn("session removed", "client", client, "by", by(r), "record", index)
	}
	answer(w, Done{index}, index > 0, err)
}

func (s *Socket) retained(w http.ResponseWriter, r *http.Request) {
	stream(w, func(fn func(Retained) error) error {
		return s.o.Control.Retained(r.Context(), r.FormValue("filter"), fn)
	})
}

func (s *Socket) message(w http.ResponseWriter, r *http.Request) {
	m, err := s.o.Control.RetainedMessage(r.Context(), r.FormValue("topic"))
	answer(w, m, m != nil, err)
}

func (s *Socket) clearMessage(w http.ResponseWriter, r *http.Request) {
	topic := r.FormValue("topic")
	index, err := s.o.Control.ClearRetained(r.Context(), topic, by(r))
	if err == nil && index > 0 {
		s.log.Warn("retained message removed", "topic", topic, "by", by(r), "record", index)
	}
	answer(w, Done{index}, index > 0, err)
}

// holdMax is how long a hold may last.
const holdMax = time.Hour

// hold holds until the client goes away.
func (s *Socket) hold(w http.ResponseWriter, r *http.Request) {
	base, _ := strconv.ParseBool(r.FormValue("base"))
	ctx, cancel := context.WithTimeout(r.Context(), holdMax)
	defer cancel()
	h, release, err := s.o.Control.Hold(ctx, base)
	if err != nil {
		refuse(w, err)
		return
	}
	defer release()
	h.Version = s.o.Version
	answer(w, h, true, nil)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return
	}
	s.log.Info("log and archive are held for a backup", "by", by(r), "durable", h.Durable)
	<-ctx.Done()
	s.log.Info("log and archive are free again")
}
