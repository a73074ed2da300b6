package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/wind-c/comqtt/v3/broker/listeners"
)

// Limits of the HTTP server. Answers are a few hundred bytes.
const (
	readTimeout  = 5 * time.Second
	writeTimeout = 10 * time.Second
	idleTimeout  = time.Minute
	headerMax    = 8 << 10
)

// State is where the broker is in its life.
type State int

// The states, in order.
const (
	Recovering State = iota // reading the backend and replaying the log
	Ready                   // serving clients
	Stopping                // closing, on request
	Failed                  // log or backend failed; the process is about to end
)

// String returns the state as /readyz shows it.
func (s State) String() string {
	switch s {
	case Recovering:
		return "recovering"
	case Ready:
		return "ready"
	case Stopping:
		return "stopping"
	case Failed:
		return "failed"
	}
	return fmt.Sprintf("state %d", int(s))
}

// Status is what the health endpoints answer from.
type Status struct {
	State State
	// Percent of the log that is replayed, 0 to 100; negative when unknown.
	// Shown while Recovering.
	Percent int
	// Err says why the state is Failed.
	Err error
	// Checks are shown by ?verbose, in this order.
	Checks []Check
}

// Check is one line of /readyz?verbose.
type Check struct {
	Name   string // one word, such as "log"
	OK     bool
	Detail string // one line
}

// Options of a Server.
type Options struct {
	// Addr is where to listen, "host:port".
	Addr string
	// Version of the program, as /version shows it.
	Version string
	// Status is asked for each request, from any goroutine. Required.
	Status func() Status
	// Logger gets the HTTP server's complaints. Nil discards them.
	Logger *slog.Logger
}

// Server answers the health endpoints. Make one with New.
type Server struct {
	o    Options
	ln   net.Listener
	http *http.Server
}

// New returns a server that does not listen yet.
func New(o Options) *Server {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o}
	s.http = &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerMax,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return s
}

// Listen binds the address. A failure is a *listeners.BindError. Call it once,
// before Serve.
func (s *Server) Listen() error {
	ln, err := net.Listen("tcp", s.o.Addr)
	if err != nil {
		return &listeners.BindError{ID: "http", Network: "tcp", Address: s.o.Addr, Err: err}
	}
	s.ln = ln
	return nil
}

// Address returns host:port, after Listen with the port that was bound.
func (s *Server) Address() string {
	if s.ln == nil {
		return s.o.Addr
	}
	return s.ln.Addr().String()
}

// Serve answers requests until Close, and then returns nil.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: serve %s: %w", s.Address(), err)
	}
	return nil
}

// Close stops listening and waits for requests under way until ctx ends, then
// cuts them off.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	if s.ln != nil { // unknown to http.Server when Serve was never called
		if cerr := s.ln.Close(); !errors.Is(cerr, net.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}
	if err != nil {
		return fmt.Errorf("admin: close: %w", err)
	}
	return nil
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux() // GET patterns serve HEAD too and answer 405 to the rest
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /version", s.version)
	return mux
}

func (s *Server) livez(w http.ResponseWriter, r *http.Request) {
	st := s.o.Status()
	writeHealth(w, r, st, st.State != Failed)
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	st := s.o.Status()
	writeHealth(w, r, st, st.State == Ready)
}

func writeHealth(w http.ResponseWriter, r *http.Request, st Status, ok bool) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// A client that went away before reading is its own business: no error of
	// these writes is the broker's.
	fmt.Fprintln(w, summary(st, ok))
	if !r.URL.Query().Has("verbose") {
		return
	}
	for _, c := range st.Checks {
		mark := "[+]"
		if !c.OK {
			mark = "[-]"
		}
		fmt.Fprintf(w, "%s %-10s %s\n", mark, c.Name, c.Detail)
	}
}

// summary is the first line: "ok", or the state and what there is to know.
func summary(st Status, ok bool) string {
	switch {
	case ok:
		return "ok"
	case st.State == Recovering && st.Percent >= 0:
		return fmt.Sprintf("%s %d%%", st.State, min(st.Percent, 100))
	case st.Err != nil:
		return fmt.Sprintf("%s: %v", st.State, st.Err)
	}
	return st.State.String()
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(struct {
		Version string `json:"version"`
		Go      string `json:"go"`
		OS      string `json:"os"`
		Arch    string `json:"arch"`
	}{s.o.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH})
}
