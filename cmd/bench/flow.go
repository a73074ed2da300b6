package bench

import (
	"sync"
	"sync/atomic"
)

// A group bounds the messages that are under way end to end: published and
// not yet received. A pair is a group of its own; all publishers of a fan-in
// share one.
type group struct {
	only *publisher // the one publisher, or nil if there are several

	free    atomic.Int64 // messages that may still be sent
	waiting atomic.Int32 // publishers in parked
	mu      sync.Mutex
	parked  []*publisher // found nothing free
}

func newGroup(limit int) *group {
	g := &group{}
	g.free.Store(int64(limit))
	return g
}

// take takes up to n of what is free.
func (g *group) take(n int64) int64 {
	for {
		free := g.free.Load()
		k := min(free, n)
		if k <= 0 {
			return 0
		}
		if g.free.CompareAndSwap(free, free-k) {
			return k
		}
	}
}

// give returns n and lets those send who waited for it.
func (g *group) give(n int) {
	if n == 0 {
		return
	}
	g.free.Add(int64(n))
	if g.only != nil {
		g.only.pump()
		return
	}
	g.wake()
}

func (g *group) wake() {
	if g.waiting.Load() == 0 {
		return
	}
	g.mu.Lock()
	parked := g.parked
	g.parked = nil
	g.waiting.Store(0)
	g.mu.Unlock()
	for _, p := range parked {
		p.pump()
	}
}

// park makes p wait for give. What was given since p looked is not missed.
func (g *group) park(p *publisher) {
	if g.only != nil {
		return // give asks it in any case
	}
	g.mu.Lock()
	g.parked = append(g.parked, p)
	g.waiting.Add(1)
	g.mu.Unlock()
	if g.free.Load() > 0 {
		g.wake()
	}
}

// A barrier is the flow control of a fan-out: the publisher may be two batches
// ahead of its slowest receiver. Batch k+2 begins when every receiver has all
// of batch k.
type barrier struct {
	batch     uint64
	receivers int64
	group     *group
	left      [2]paddedInt // receivers that have not finished an even, an odd batch
}

func newBarrier(window, receivers int) *barrier {
	b := &barrier{batch: uint64(max(1, window/2)), receivers: int64(receivers)}
	b.group = newGroup(2 * int(b.batch))
	for i := range b.left {
		b.left[i].Store(b.receivers)
	}
	return b
}

// passed is called by a receiver whose count went from before to after.
func (b *barrier) passed(before, after uint64) {
	for k := before / b.batch; k < after/b.batch; k++ {
		left := &b.left[k%2]
		if left.Add(-1) == 0 {
			left.Store(b.receivers)
			b.group.give(int(b.batch))
		}
	}
}

// paddedInt is a counter that shares its cache line with no other.
type paddedInt struct {
	atomic.Int64
	_ [56]byte
}
