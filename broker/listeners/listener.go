package listeners

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Listener is one place where clients connect.
type Listener interface {
	// ID names the listener in logs, metrics and configuration.
	ID() string
	// Protocol is "tcp", "tls", "unix", "ws" or "wss"; the part before :// in a URL for
	// people, except that tcp is written mqtt
	// and tls mqtts.
	Protocol() string
	// Address is the address asked for and, after Listen, the one bound: with
	// port 0 the kernel's choice.
	Address() string
	// Listen binds the address. Calling it again does nothing. A failure is a
	// *BindError.
	Listen() error
	// Serve accepts connections until Close and calls handle with each, on a
	// goroutine of its own. It binds first if Listen was not called. It returns
	// nil after Close.
	Serve(handle func(net.Conn)) error
	// Close stops accepting, gives the address back and waits until Serve no
	// longer accepts. Connections that were handed over stay open.
	Close() error
}

// BindError says which address could not be bound, and why.
type BindError struct {
	ID      string // of the listener
	Network string // "tcp" or "unix"
	Address string // as configured
	Err     error  // the system's answer
}

func (e *BindError) Error() string {
	return fmt.Sprintf("listeners: bind %s %s %s: %v", e.ID, e.Network, e.Address, e.Err)
}

func (e *BindError) Unwrap() error { return e.Err }

// InUse reports whether another process (or another listener of this one) has
// the address.
func (e *BindError) InUse() bool {
	const wsaeAddrInUse = syscall.Errno(10048) // Windows' own number for it
	return errors.Is(e.Err, syscall.EADDRINUSE) ||
		runtime.GOOS == "windows" && errors.Is(e.Err, wsaeAddrInUse)
}

// ErrServing is returned by a second Serve.
var ErrServing = errors.New("listeners: already serving")

// How long accepting pauses after an error: doubling from the first value to
// the second, back to the first after a success.
const (
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = time.Second
)

// acceptor is what all listeners share: bind once, accept through errors, close
// and wait.
type acceptor struct {
	id      string
	network string
	address string
	bind    func() (net.Listener, error)

	mu      sync.Mutex
	ln      net.Listener
	closed  bool
	closing chan struct{} // closed by close
	done    chan struct{} // closed when the serve loop has returned; nil before
	backoff time.Duration // used by the accept goroutine only
}

func newAcceptor(id, network, address string, bind func() (net.Listener, error)) acceptor {
	return acceptor{id: id, network: network, address: address, bind: bind, closing: make(chan struct{})}
}

func (a *acceptor) addr() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ln == nil {
		return a.address
	}
	return a.ln.Addr().String()
}

func (a *acceptor) listen() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.listenLocked()
}

func (a *acceptor) listenLocked() error {
	if a.closed {
		return fmt.Errorf("listeners: bind %s: %w", a.id, net.ErrClosed)
	}
	if a.ln != nil {
		return nil
	}
	ln, err := a.bind()
	if err != nil {
		return &BindError{ID: a.id, Network: a.network, Address: a.address, Err: err}
	}
	a.ln = ln
	return nil
}

// begin binds if need be and marks the listener as serving. The caller closes
// done when it no longer accepts. A nil done means that Close came first.
func (a *acceptor) begin() (done chan struct{}, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.done != nil {
		return nil, ErrServing
	}
	if a.closed {
		return nil, nil
	}
	if err := a.listenLocked(); err != nil {
		return nil, err
	}
	a.done = make(chan struct{})
	return a.done, nil
}

// accept returns the next connection. It returns an error only after close, or
// when the socket was closed by someone else.
func (a *acceptor) accept(log *slog.Logger) (net.Conn, error) {
	for {
		c, err := a.ln.Accept()
		if err == nil {
			a.backoff = 0
			return c, nil
		}
		select {
		case <-a.closing:
			return nil, net.ErrClosed
		default:
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, fmt.Errorf("listeners: accept on %s: %w", a.id, err)
		}
		a.backoff = min(max(2*a.backoff, acceptBackoffMin), acceptBackoffMax)
		log.Error("accepting a connection failed, trying again",
			"listener", a.id, "address", a.addr(), "pause", a.backoff, "error", err)
		pause := time.NewTimer(a.backoff)
		select {
		case <-pause.C:
		case <-a.closing:
			pause.Stop()
			return nil, net.ErrClosed
		}
	}
}

func (a *acceptor) serve(log *slog.Logger, handle func(net.Conn)) error {
	done, err := a.begin()
	if done == nil {
		return err
	}
	defer close(done)
	for {
		c, err := a.accept(log)
		if err != nil {
			return a.unlessClosed(err)
		}
		go handle(c)
	}
}

// unlessClosed drops the error that our own close caused.
func (a *acceptor) unlessClosed(err error) error {
	select {
	case <-a.closing:
		return nil
	default:
		return err
	}
}

// close gives the address back and waits for the serve loop. Later calls wait
// as well and return nil.
func (a *acceptor) close() error {
	a.mu.Lock()
	var err error
	if !a.closed {
		a.closed = true
		close(a.closing)
		if a.ln != nil {
			err = a.ln.Close()
		}
	}
	done := a.done
	a.mu.Unlock()
	if done != nil {
		<-done
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("listeners: close %s: %w", a.id, err)
	}
	return nil
}

// logger makes a nil logger silent.
func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
