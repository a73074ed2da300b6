package bench

import (
	"sync"
	"sync/atomic"
	"testing"
)

// A group lets no more under way than its limit, and loses none of it.
func TestGroupBound(t *testing.T) {
	const limit, workers, rounds = 10, 8, 10_000
	g := newGroup(limit)
	var under, most atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range rounds {
				n := g.take(3)
				if now := under.Add(n); now > limit {
					most.Store(now)
				}
				under.Add(-n)
				g.give(int(n))
			}
		})
	}
	wg.Wait()
	if most.Load() > 0 || g.free.Load() != limit {
		t.Errorf("%d under way at a time, %d free at the end", most.Load(), g.free.Load())
	}
}

func TestGroupTake(t *testing.T) {
	g := newGroup(5)
	for _, e := range []struct{ ask, want int64 }{{3, 3}, {3, 2}, {3, 0}, {0, 0}} {
		if got := g.take(e.ask); got != e.want {
			t.Errorf("take(%d) = %d, want %d", e.ask, got, e.want)
		}
	}
}

// The publisher of a fan-out is let on when the slowest receiver has a batch,
// and by one batch only.
func TestBarrier(t *testing.T) {
	b := newBarrier(8, 3) // batches of 4
	if got := b.group.take(100); got != 8 {
		t.Fatalf("%d at the start, want two batches", got)
	}
	steps := []struct {
		before, after uint64
		free          int64
	}{
		{0, 3, 0},  // receiver 1, not yet a batch
		{3, 8, 0},  // receiver 1, two batches
		{0, 5, 0},  // receiver 2, one batch
		{0, 4, 4},  // receiver 3: the first batch is everywhere
		{5, 8, 4},  // receiver 2
		{4, 8, 8},  // receiver 3: the second
		{8, 12, 8}, // the third begins anew
		{8, 12, 8},
		{8, 12, 12},
	}
	for i, s := range steps {
		b.passed(s.before, s.after)
		if got := b.group.free.Load(); got != s.free {
			t.Errorf("step %d: %d free, want %d", i, got, s.free)
		}
	}
}
