package recovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Compactor takes the net changes of the state to the backend and shortens the
// log behind them.
//
// The apply loop calls Due, Checkpoint and Ticks; everything else may be called
// by anybody. One goroutine merges what Checkpoint collected, a second one
// talks to log and backend, so that a slow backend never keeps the first from
// merging: however long it takes, what waits is the net difference only.
type Compactor struct {
	opt    CheckpointOptions
	commit *committer
	logger *slog.Logger

	mu      sync.Mutex
	pending []*delta
	spare   []*delta

	due    atomic.Bool // the interval has passed since the last Checkpoint
	failed atomic.Bool
	seen   atomic.Uint64 // record index of the last Checkpoint

	wake    chan struct{}
	ticks   chan struct{}
	hashes  chan record.StateHash
	fatal   chan error
	flushes chan *flush
	jobs    chan *fold
	results chan error
	quit    chan struct{}
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	stopped sync.Once

	lag atomic.Pointer[lag]
}

// lag is what the merging goroutine tells about itself.
type lag struct {
	changes int
	bytes   int64
	since   time.Time
	err     error
}

// Lag says how far the backend is behind the state.
type Lag struct {
	Applied   uint64        // record index up to which the backend is
	Collected uint64        // record index of the last Checkpoint
	Changes   int           // entries that wait for the backend
	Bytes     int64         // memory that they take
	Age       time.Duration // since the last commit, or since the start
	Over      bool          // Bytes is over budget: publishers should be held back
	Err       error         // why the last attempt failed, nil if it did not
}

// flush is a request to bring everything collected so far to the backend.
type flush struct {
	upto uint64
	done chan error
}

func newCompactor(opt CheckpointOptions, c *committer, logger *slog.Logger) *Compactor {
	return &Compactor{
		opt: opt, commit: c, logger: logger,
		wake: make(chan struct{}, 1), ticks: make(chan struct{}, 1),
		hashes: make(chan record.StateHash, 1), fatal: make(chan error, 1),
		flushes: make(chan *flush), jobs: make(chan *fold), results: make(chan error, 1),
		quit: make(chan struct{}),
	}
}

// start starts the goroutines. first is where the first changes go.
func (c *Compactor) start(first *fold) {
	c.seen.Store(c.commit.applied.Load())
	c.lag.Store(&lag{since: time.Now()})
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.wg.Go(func() {
		for f := range c.jobs {
			c.results <- c.commit.commit(ctx, f)
		}
	})
	c.wg.Go(func() {
		defer close(c.jobs)
		m := merger{c: c, next: first, spare: newFold()}
		m.run()
	})
}

// Due reports whether the apply loop should call Checkpoint now. records and
// bytes are what was logged since the last one, changed is Machine.Changed. It
// is cheap enough to be asked after every frame.
func (c *Compactor) Due(records, bytes uint64, changed int) bool {
	if records == 0 {
		// Nothing happened: the next record shall have its interval too, so that
		// a message that is acknowledged soon never reaches the backend.
		c.due.Store(false)
		return false
	}
	return changed >= c.opt.Collect || records >= c.opt.Records || bytes >= c.opt.Bytes || c.due.Load()
}

// Ticks becomes ready when the checkpoint interval has passed, so that an idle
// apply loop asks Due again.
func (c *Compactor) Ticks() <-chan struct{} { return c.ticks }

// Checkpoint takes the changes of the state since the last call; applied and
// logTime are the index and log time of the last applied record. The owner of
// the machine calls it between two records. It does no I/O: a change costs
// about the time of copying it.
func (c *Compactor) Checkpoint(m *core.Machine, applied uint64, logTime int64) {
	if applied != m.Applied() {
		panic(fmt.Sprintf("recovery: checkpoint at record %d of a state at %d", applied, m.Applied()))
	}
	timed := c.due.Swap(false)
	if c.failed.Load() || applied == c.seen.Load() {
		return
	}
	d := c.take()
	d.applied, d.logTime, d.timed = applied, logTime, timed
	m.Collect(d)
	c.mu.Lock()
	c.pending = append(c.pending, d)
	c.mu.Unlock()
	c.seen.Store(applied)
	poke(c.wake)
}

func (c *Compactor) take() *delta {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.spare)
	if n == 0 {
		return &delta{}
	}
	d := c.spare[n-1]
	c.spare = c.spare[:n-1]
	return d
}

// spareDeltas is how many deltas are kept for reuse.
const spareDeltas = 4

func (c *Compactor) giveBack(d *delta) {
	d.reset()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spare) < spareDeltas {
		c.spare = append(c.spare, d)
	}
}

func (c *Compactor) takePending(into []*delta) []*delta {
	c.mu.Lock()
	defer c.mu.Unlock()
	into = append(into, c.pending...)
	clear(c.pending)
	c.pending = c.pending[:0]
	return into
}

// poke wakes whoever waits on c, if it is not awake.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Hashes yields the state hash of a finished checkpoint, at most one an
// interval, for the broker to log as a record. One that nobody takes is
// replaced by the next.
func (c *Compactor) Hashes() <-chan record.StateHash { return c.hashes }

// Fatal yields the error that ended the compactor's work, once. The log has
// everything; the process must stop (see ExitCode), and the next start brings
// the backend up to date.
func (c *Compactor) Fatal() <-chan error { return c.fatal }

// Applied returns the record index up to which the backend is.
func (c *Compactor) Applied() uint64 { return c.commit.applied.Load() }

// Lag says how far the backend is behind.
func (c *Compactor) Lag() Lag {
	l := c.lag.Load()
	return Lag{
		Applied: c.commit.applied.Load(), Collected: c.seen.Load(), Changes: l.changes, Bytes: l.bytes,
		Age: time.Since(l.since), Over: l.bytes > c.opt.FoldBytes, Err: l.err,
	}
}

// Flush brings everything that was collected before the call to the backend
// and waits for it. A backend that is full is tried again until ctx ends.
func (c *Compactor) Flush(ctx context.Context) error {
	f := &flush{upto: c.seen.Load(), done: make(chan error, 1)}
	select {
	case c.flushes <- f:
	case <-c.quit:
		return ErrClosed
	case <-ctx.Done():
		return c.gaveUp(ctx)
	}
	select {
	case err := <-f.done:
		return err
	case <-ctx.Done():
		return c.gaveUp(ctx)
	}
}

func (c *Compactor) gaveUp(ctx context.Context) error {
	return fmt.Errorf("recovery: flush: %w", errors.Join(ctx.Err(), c.lag.Load().err))
}

// Close brings everything collected to the backend, unless ctx ends before,
// and stops the goroutines in any case.
func (c *Compactor) Close(ctx context.Context) error {
	err := c.Flush(ctx)
	c.stop()
	return err
}

// stop ends the goroutines. A commit in progress is given up where the backend
// still can.
func (c *Compactor) stop() {
	c.stopped.Do(func() {
		close(c.quit)
		if c.cancel != nil {
			c.cancel()
		}
	})
	c.wg.Wait()
}

// isFinal says whether trying again cannot help.
func isFinal(err error) bool {
	for _, final := range []error{
		backends.ErrSyncFailed, backends.ErrDamaged, backends.ErrKey, backends.ErrTooLarge, backends.ErrReadOnly,
		backends.ErrClosed, backends.ErrSchema, ErrDamaged, wal.ErrPoisoned, wal.ErrClosed,
	} {
		if errors.Is(err, final) {
			return true
		}
	}
	var corrupt *wal.CorruptError
	return errors.As(err, &corrupt)
}
