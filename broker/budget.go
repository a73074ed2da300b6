package broker

import "sync"

// budget is a bound on bytes that many connections share. Whoever asks for
// more than is left waits for others to give back; a single request above the
// whole budget is granted alone.
type budget struct {
	mu   sync.Mutex
	free sync.Cond
	max  int64
	used int64
}

func newBudget(max int64) *budget {
	b := &budget{max: max}
	b.free.L = &b.mu
	return b
}

// acquire takes n bytes; it reports false when gone says, after a wake, that
// the asker has no more use for them.
func (b *budget) acquire(n int64, gone func() bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.used > 0 && b.used+n > b.max {
		if gone() {
			return false
		}
		b.free.Wait()
	}
	b.used += n
	return true
}

func (b *budget) release(n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	b.used -= n
	b.free.Broadcast()
	b.mu.Unlock()
}
