package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// pollEvery is how often the end of a phase is looked for.
	pollEvery = time.Millisecond
	// progressEvery is how often the caller is told.
	progressEvery = 250 * time.Millisecond
)

// errStalled ends a phase in which nothing happens any more.
var errStalled = errors.New("bench: nothing arrives any more")

// load is one run: connections, what they found, and what went wrong.
type load struct {
	o      *Options
	ctx    context.Context
	dialer *dialer
	gauge  gauge
	run    uint32 // marks client identifiers, topics and payloads

	publishers []*publisher
	receivers  []*receiver
	ackReaders []*receiver
	durable    []string // client identifiers of sessions to end

	stopped atomic.Bool // publishers send no more
	closing atomic.Bool // connections are being closed by us
	readers sync.WaitGroup

	mu     sync.Mutex
	err    error
	failed chan struct{} // closed with the first error
	notes  []string
}

func newLoad(ctx context.Context, o *Options) *load {
	return &load{
		o: o, ctx: ctx, dialer: newDialer(o), gauge: gauge{pid: o.PID},
		run: rand.Uint32(), failed: make(chan struct{}),
	}
}

// fail ends the run with the first error.
func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		l.stopped.Store(true)
		close(l.failed)
	}
}

// note adds a remark to the result, once.
func (l *load) note(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.notes, s) {
		l.notes = append(l.notes, s)
	}
}

// topic returns a topic of this run.
func (l *load) topic(format string, args ...any) string {
	return fmt.Sprintf("bench/%08x/", l.run) + fmt.Sprintf(format, args...)
}

// id returns a client identifier of this run.
func (l *load) id(role string, i int) string { return fmt.Sprintf("bench-%08x-%s%d", l.run, role, i) }

// connectAll makes n connections.
func (l *load) connectAll(n int, role string, durable bool) ([]*conn, error) {
	conns := make([]*conn, n)
	login := login{}
	if durable {
		login.expiry = durableExpiry
		for i := range n {
			l.durable = append(l.durable, l.id(role, i))
		}
	}
	err := parallel(l.ctx, n, dialers, func(i int) (err error) {
		lg := login
		lg.id = l.id(role, i)
		conns[i], err = l.dialer.connect(l.ctx, lg)
		return err
	})
	if err != nil {
		closeAll(conns)
		return nil, err
	}
	return conns, nil
}

func closeAll(conns []*conn) {
	for _, c := range conns {
		if c != nil {
			_ = c.nc.Close() // given up
		}
	}
}

// subscribers makes n connections, each subscribed to the filter of its number.
func (l *load) subscribers(n int, role string, filter func(i int) string) ([]*conn, error) {
	conns, err := l.connectAll(n, role, l.o.Durable)
	if err != nil {
		return nil, err
	}
	err = parallel(l.ctx, n, dialers, func(i int) error { return conns[i].subscribe(l.o.QoS, filter(i)) })
	if err != nil {
		closeAll(conns)
		return nil, err
	}
	return conns, nil
}

// begin starts all goroutines that read, and then the publishers.
func (l *load) begin() {
	for _, r := range slices.Concat(l.receivers, l.ackReaders) {
		r.start()
	}
	for _, p := range l.publishers {
		p.pump()
	}
}

// received counts the messages received so far.
func (l *load) received() (n uint64) {
	for _, r := range l.receivers {
		n += uint64(r.count.Load())
	}
	return n
}

// published counts the messages sent so far.
func (l *load) published() (n uint64) {
	for _, p := range l.publishers {
		n += uint64(p.sent.Load())
	}
	return n
}

// confirmed counts the messages acknowledged so far.
func (l *load) confirmed() (n uint64) {
	for _, p := range l.publishers {
		n += uint64(p.acked.Load())
	}
	return n
}

// wait waits until done reports true, telling the caller about the progress of
// count. total is what count ends at, 0 if the end is not known. It ends with
// errStalled if count stands still for too long.
func (l *load) wait(phase string, total uint64, count func() uint64, done func() bool) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	p := newProgress(l.o.Progress, phase)
	last, since := count(), time.Now()
	for !done() {
		select {
		case <-l.ctx.Done():
			return l.ctx.Err()
		case <-l.failed:
			return l.err
		case <-tick.C:
		}
		now, n := time.Now(), count()
		if n != last {
			last, since = n, now
		} else if now.Sub(since) > l.o.waits.stall {
			return fmt.Errorf("%w: %s, %d so far", errStalled, phase, n)
		}
		share := -1.0
		if total > 0 {
			share = float64(n) / float64(total)
		}
		p.tell(now, share, n)
	}
	return nil
}

// during lets the load run for a time.
func (l *load) during(phase string, d time.Duration, count func() uint64) error {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	end := time.NewTimer(d)
	defer end.Stop()
	p := newProgress(l.o.Progress, phase)
	start := time.Now()
	last, since := count(), start
	for {
		select {
		case <-l.ctx.Done():
			return l.ctx.Err()
		case <-l.failed:
			return l.err
		case <-end.C:
			return nil
		case <-tick.C:
		}
		now, n := time.Now(), count()
		if n != last {
			last, since = n, now
		} else if now.Sub(since) > l.o.waits.stall {
			return fmt.Errorf("%w: %s, %d so far", errStalled, phase, n)
		}
		p.tell(now, float64(now.Sub(start))/float64(d), n)
	}
}

// drain stops the publishers and waits for what is under way. What does not
// come is for the checks to count.
func (l *load) drain(expected func() uint64) error {
	l.stopped.Store(true)
	err := l.wait("draining", 0, func() uint64 { return l.received() + l.confirmed() }, func() bool {
		if l.received() < expected() {
			return false
		}
		return !slices.ContainsFunc(l.publishers, func(p *publisher) bool { return !p.done() })
	})
	return l.stalled(err)
}

// stalled turns a stall into a remark: the checks count what did not come.
func (l *load) stalled(err error) error {
	if errors.Is(err, errStalled) {
		l.note("%v", err)
		return nil
	}
	return err
}

// closeConns closes every connection of the run's goroutines and waits for
// these. Counters of receivers can be read afterwards.
func (l *load) closeConns() {
	l.closing.Store(true)
	for _, r := range slices.Concat(l.receivers, l.ackReaders) {
		goodbye(r.c)
	}
	l.readers.Wait()
}

// end closes all connections and, unless they are to be kept, ends the
// sessions that would outlive them.
func (l *load) end() error {
	l.closeConns()
	if l.o.Keep || l.ctx.Err() != nil {
		return nil
	}
	return parallel(l.ctx, len(l.durable), dialers, func(i int) error {
		c, err := l.dialer.connect(l.ctx, login{id: l.durable[i]})
		if err != nil {
			return fmt.Errorf("bench: end session: %w", err)
		}
		c.disconnect()
		return nil
	})
}

// goodbye disconnects without waiting for the broker.
func goodbye(c *conn) {
	_ = c.nc.SetDeadline(time.Now().Add(closeTimeout))
	_, _ = c.nc.Write([]byte{0xe0, 0}) // DISCONNECT; the run is over either way
	_ = c.nc.Close()
}

// checks sums up what receivers and publishers saw beside the streams.
func (l *load) checks() Tally {
	var t Tally
	for _, r := range l.receivers {
		t.Foreign += r.foreign
		t.Downgraded += r.downgraded
	}
	for _, p := range l.publishers {
		t.Sent += uint64(p.sent.Load())
		t.Refused += uint64(p.refused.Load())
	}
	return t
}

// progress tells the caller of a run how it goes.
type progress struct {
	fn    func(Progress)
	phase string
	at    time.Time
	count uint64
	told  bool
}

func newProgress(fn func(Progress), phase string) *progress {
	return &progress{fn: fn, phase: phase, at: time.Now()}
}

func (p *progress) tell(now time.Time, share float64, count uint64) {
	since := now.Sub(p.at)
	if p.fn == nil || since < progressEvery {
		return
	}
	rate := 0.0
	if p.told {
		rate = float64(count-p.count) / since.Seconds()
	}
	p.at, p.count, p.told = now, count, true
	p.fn(Progress{Phase: p.phase, Done: share, Count: count, Rate: rate})
}
