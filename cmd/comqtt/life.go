package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wind-c/comqtt/v3/broker/admin"
)

// signalEcho is how soon after the first signal another one is taken for the
// same: timeout(1) and some supervisors send one to the process and one to its
// group.
const signalEcho = 100 * time.Millisecond

// server is what a broker's life needs of the broker.
type server interface {
	// Serve recovers, then serves until Close or a failure.
	Serve(ctx context.Context) error
	// Ready is closed when recovery is done and clients are served.
	Ready() <-chan struct{}
	// Fatal delivers the failure of the log or the backend.
	Fatal() <-chan error
	// Close stops gracefully, as far as ctx allows.
	Close(ctx context.Context) error
}

// life runs a server from start to end: announces it, stops it on a signal,
// and keeps the state that the health endpoints show.
type life struct {
	p        *program
	s        *settings
	log      *slog.Logger
	srv      server
	announce func() // called once, when the server is ready

	state   atomic.Int32 // admin.State
	failure atomic.Pointer[error]
}

// run returns nil after a stop that a signal asked for.
func (l *life) run() error {
	served := make(chan error, 1)
	go func() { served <- l.srv.Serve(context.Background()) }()
	ready := l.srv.Ready()
	for {
		select {
		case <-ready:
			ready = nil
			l.state.Store(int32(admin.Ready))
			l.announce()
			l.notify("READY=1\nSTATUS=serving")
		case sig := <-l.p.signals:
			return l.stop(sig, served)
		case err := <-l.srv.Fatal():
			return l.failed(err)
		case err := <-served:
			select {
			case fatal := <-l.srv.Fatal(): // the cause, where Serve may give the consequence
				return l.failed(fatal)
			default:
			}
			if err == nil {
				err = errors.New("the broker ended without being asked to")
			}
			l.fail(err)
			return err
		}
	}
}

// stop closes the server, unless it takes too long or a second signal comes.
func (l *life) stop(sig os.Signal, served <-chan error) error {
	l.state.Store(int32(admin.Stopping))
	l.notify("STOPPING=1\nSTATUS=stopping")
	l.log.Info("stopping; a second signal stops at once", "signal", sig.String(), "timeout", l.s.shutdownTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), l.s.shutdownTimeout)
	defer cancel()
	first := time.Now()
	closed := make(chan error, 1)
	go func() { closed <- l.srv.Close(ctx) }()
	for closed != nil || served != nil {
		select {
		case err := <-closed:
			if err != nil {
				return l.unclean(err)
			}
			closed = nil
		case err := <-served:
			if err != nil {
				return l.unclean(err)
			}
			served = nil
		case err := <-l.srv.Fatal():
			return l.failed(err)
		case <-ctx.Done():
			return l.unclean(ctx.Err())
		case again := <-l.p.signals:
			if time.Since(first) >= signalEcho {
				return atOnce(again)
			}
		}
	}
	l.log.Info("stopped")
	return nil
}

// atOnce is the end by a second signal.
func atOnce(sig os.Signal) error {
	code := exitFailed
	if n, ok := sig.(syscall.Signal); ok {
		code = exitSignal + int(n)
	}
	return &exitError{code: code, err: fmt.Errorf("stopped at once by a second signal (%v)", sig), hints: []string{
		"what was acknowledged is in the log and is recovered at the next start",
	}}
}

// unclean is the end of a stop that did not come to its end.
func (l *life) unclean(err error) error {
	l.fail(err)
	if errors.Is(err, context.DeadlineExceeded) {
		return &exitError{code: exitFailed, err: fmt.Errorf("stopping took longer than %v", l.s.shutdownTimeout), hints: []string{
			"what was acknowledged is in the log and is recovered at the next start",
			"allow more time with --shutdown-timeout TIME (COMQTT_SHUTDOWN_TIMEOUT)",
		}}
	}
	return fmt.Errorf("stopping: %w", err)
}

// failed is the end of a server whose log or backend failed while it ran.
func (l *life) failed(err error) error {
	l.fail(err)
	if e := classify(err); e.code != exitFailed {
		return e
	}
	return &exitError{code: exitIO, err: err}
}

func (l *life) fail(err error) {
	l.failure.Store(&err)
	l.state.Store(int32(admin.Failed))
}

// status is what the health endpoints show, but for the checks.
func (l *life) status() admin.Status {
	st := admin.Status{State: admin.State(l.state.Load()), Percent: -1}
	if err := l.failure.Load(); err != nil {
		st.Err = *err
	}
	return st
}

func (l *life) notify(state string) {
	if err := l.p.notifyManager(state); err != nil {
		l.log.Warn("the service manager does not know our state", "error", err)
	}
}
