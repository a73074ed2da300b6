package recovery

import (
	"container/list"
	"sync"
	"sync/atomic"
)

// shelf holds bodies that were read from disk, so that several sessions that
// wait for the same messages read them once. It is a clock: the hand goes round
// and removes what was not used since it came by last. What is new stands
// behind the hand, where it comes last.
type shelf struct {
	mu    sync.RWMutex
	byID  map[uint64]*list.Element // of *shelved
	clock list.List
	hand  *list.Element
	bytes atomic.Int64
}

type shelved struct {
	id   uint64
	msg  []byte
	used atomic.Bool
}

// shelvedOverhead is what a body costs besides its bytes.
const shelvedOverhead = 160

func (s *shelved) cost() int64 { return int64(len(s.msg)) + shelvedOverhead }

func (s *shelf) get(id uint64) ([]byte, bool) {
	if s.bytes.Load() == 0 {
		return nil, false
	}
	s.mu.RLock()
	at := s.byID[id]
	s.mu.RUnlock()
	if at == nil {
		return nil, false
	}
	e := at.Value.(*shelved)
	if !e.used.Load() {
		e.used.Store(true)
	}
	return e.msg, true
}

// put keeps msg, which must not change any more, within limit bytes in all. It
// is always kept, however large: whoever loads a body looks it up next.
func (s *shelf) put(id uint64, msg []byte, limit int64) {
	e := &shelved{id: id, msg: msg}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[id] != nil { // another loader was faster
		return
	}
	if s.byID == nil {
		s.byID = make(map[uint64]*list.Element)
	}
	s.shrink(limit - e.cost())
	if s.hand == nil {
		s.byID[id] = s.clock.PushBack(e)
	} else {
		s.byID[id] = s.clock.InsertBefore(e, s.hand)
	}
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
	for s.bytes.Load() > limit && s.clock.Len() > 0 {
		at := s.hand
		if at == nil {
			at = s.clock.Front()
		}
		s.hand = at.Next()
		e := at.Value.(*shelved)
		if e.used.Swap(false) {
			continue
		}
		s.clock.Remove(at)
		delete(s.byID, e.id)
		s.bytes.Add(-e.cost())
	}
}
