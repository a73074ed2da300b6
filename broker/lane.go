package broker

import (
	"sync"
	"time"

	"github.com/wind-c/comqtt/v3/wal"
)

// ackDelay is how long the acknowledgement of a subscriber may wait for a
// frame to ride on: no client waits for it.
const ackDelay = 20 * time.Millisecond

// item is one entry of a round: a record of the frame (command nil) or a
// command, which touches only memory. conn is who caused it, nil for the
// broker itself.
type item struct {
	conn    *conn
	command func()
	light   bool   // the command leaves the subscription index alone
	refused bool   // of a Rec: the client's PUBREC has a failure, which no PUBREL answers
	qos     uint8  // of a Publish
	codes   []byte // reason codes of the SUBACK that a Subscribe record waits with
	done    func() // called by the apply loop after the record's effects
}

// batch is what a reader gathers in one round before it goes to the lane.
type batch struct {
	body    []byte // records as a frame body holds them
	items   []item
	records int
	lazy    bool // nothing in it is waited for
}

func (b *batch) reset() {
	clear(b.items)
	b.body, b.items, b.records, b.lazy = b.body[:0], b.items[:0], 0, false
}

// addRecord appends a record.
func (b *batch) addRecord(it item, rec []byte) {
	b.body = wal.AppendRecord(b.body, rec)
	b.items = append(b.items, it)
	b.records++
}

// addCommand appends a command that may change the subscription index.
func (b *batch) addCommand(c *conn, fn func()) {
	b.items = append(b.items, item{conn: c, command: fn})
}

// A lane collects what waits for the committer. Readers are held back while
// it is full, which stops them reading their sockets.
type lane struct {
	maxRecords, maxBytes int

	mu      sync.Mutex
	space   sync.Cond
	pending batch
	urgent  bool // something waits that cannot wait for ackDelay
	armed   bool // the timer runs
	rounds  int  // taken and not yet applied
	closed  bool
	timer   *time.Timer
	wake    chan struct{} // capacity 1

	applying sync.Mutex // held by the apply loop, or whoever is in its place, at work
}

func newLane(maxRecords, maxBytes int) *lane {
	l := &lane{maxRecords: maxRecords, maxBytes: maxBytes, wake: make(chan struct{}, 1)}
	l.space.L = &l.mu
	l.timer = time.AfterFunc(time.Hour, l.expire)
	l.timer.Stop()
	return l
}

// put appends a batch and empties it. It waits while the lane is full, unless
// force is set: the apply loop must never wait for the committer, which waits
// for it. put reports false when the lane is closed; the batch is lost then.
func (l *lane) put(b *batch, force bool) bool {
	l.mu.Lock()
	for !force && !l.closed && l.full() {
		l.space.Wait()
	}
	if l.closed {
		l.mu.Unlock()
		b.reset()
		return false
	}
	l.pending.body = append(l.pending.body, b.body...)
	l.pending.items = append(l.pending.items, b.items...)
	l.pending.records += b.records
	signal := false
	switch {
	case !b.lazy:
		signal = !l.urgent
		l.urgent = true
	case !l.urgent && !l.armed:
		l.armed = true
		l.timer.Reset(ackDelay)
	}
	l.mu.Unlock()
	if signal {
		l.signal()
	}
	b.reset()
	return true
}

func (l *lane) full() bool {
	return l.pending.records >= l.maxRecords || len(l.pending.body) >= l.maxBytes || len(l.pending.items) >= 2*l.maxRecords
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lane) expire() {
	l.mu.Lock()
	l.armed = false
	l.urgent = l.urgent || len(l.pending.items) > 0
	l.mu.Unlock()
	l.signal()
}

// take moves everything that waits into b, whose buffers the lane goes on
// with, and reports false when the lane is closed and empty.
func (l *lane) take(b *batch) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.body, l.pending.body = l.pending.body, b.body[:0]
	b.items, l.pending.items = l.pending.items, b.items[:0]
	b.records, l.pending.records = l.pending.records, 0
	l.urgent = false
	if l.armed {
		l.armed = false
		l.timer.Stop()
	}
	if len(b.items) > 0 {
		l.rounds++
	}
	l.space.Broadcast()
	return !l.closed || len(b.items) > 0
}

// applied is called for each batch taken, once its last item is applied.
func (l *lane) applied() {
	l.mu.Lock()
	l.rounds--
	l.mu.Unlock()
}

// idle reports whether everything that was put is applied. It stays so only as
// long as nobody puts anything.
func (l *lane) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rounds == 0 && len(l.pending.items) == 0 && !l.closed
}

// close lets put fail from now on; what waits is still taken.
func (l *lane) close() {
	l.mu.Lock()
	l.closed = true
	l.timer.Stop()
	l.space.Broadcast()
	l.mu.Unlock()
	l.signal()
}
