package recovery

import (
	"sync"
	"sync/atomic"
)

// shelf holds bodies that were read from disk, so that several sessions that
// wait for the same messages read them once. What was not used since the hand
// of the clock passed goes first.
type shelf struct {
	mu    sync.RWMutex
	byID  map[uint64]*shelved
	clock []*shelved
	hand  int
	bytes atomic.Int64
}

type shelved struct {
	id   uint64
	msg  []byte
	used atomic.Bool
}

const shelvedOverhead = 120

func (s *shelved) cost() int64 { return int64(len(s.msg)) + shelvedOverhead }

func (s *shelf) get(id uint64) ([]byte, bool) {
	if s.bytes.Load() == 0 {
		return nil, false
	}
	s.mu.RLock()
	e := s.byID[id]
	s.mu.RUnlock()
	if e == nil {
		return nil, false
	}
	if !e.used.Load() {
		e.used.Store(true)
	}
	return e.msg, true
}

// put keeps msg, which must not change any more, within limit bytes in all.
func (s *shelf) put(id uint64, msg []byte, limit int64) {
	e := &shelved{id: id, msg: msg}
	if e.cost() > limit/8 {
		return // one body must not empty the shelf
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[id] != nil {
		return
	}
	if s.byID == nil {
		s.byID = make(map[uint64]*shelved)
	}
	s.shrink(limit - e.cost())
	s.byID[id] = e
	s.clock = append(s.clock, e)
	s.bytes.Add(e.cost())
}

// trim removes bodies until limit bytes are left.
func (s *shelf) trim(limit int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shrink(limit)
}

// shrink removes bodies until limit bytes are left. Caller holds mu.
func (s *shelf) shrink(limit int64) {
	for s.bytes.Load() > limit && len(s.clock) > 0 {
		if s.hand >= len(s.clock) {
			s.hand = 0
		}
		e := s.clock[s.hand]
		if e.used.Swap(false) {
			s.hand++
			continue
		}
		last := len(s.clock) - 1
		s.clock[s.hand], s.clock[last] = s.clock[last], nil
		s.clock = s.clock[:last]
		delete(s.byID, e.id)
		s.bytes.Add(-e.cost())
	}
}
