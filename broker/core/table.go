package core

import (
	"maps"
	"math/bits"
	"slices"
)

// messageTable holds messages by id. Ids grow, and messages that are used
// together have ids that are near each other: those of 64 consecutive ids
// share a page, in which only those that exist take room.
//
//	pages[id/64] ──▶ page{exist: bit set, class, at} ──▶ slab: 1<<class messages
//	                                                      the n-th set bit is the n-th
//
// So the table costs a message its own 24 bytes and little more when they are
// dense, the newest page is reached without a search, and nothing of it has a
// pointer that the garbage collector would follow.
type messageTable struct {
	pages map[uint64]page // but for the newest
	key   uint64          // of the newest page, once anything was put
	last  page
	slab  slab
	n     int
}

type page struct {
	exist uint64
	at    uint32
	class uint8 // room for 1<<class messages
}

func newMessageTable() messageTable { return messageTable{pages: make(map[uint64]page)} }

func (t *messageTable) len() int { return t.n }

// place returns which of a page's messages an id is, and whether it exists.
func (p *page) place(id uint64) (int, bool) {
	bit := uint64(1) << (id % PageLen)
	return bits.OnesCount64(p.exist & (bit - 1)), p.exist&bit != 0
}

// get returns a message, nil if there is none. It is valid until the next put
// or delete, and may be changed in place.
func (t *messageTable) get(id uint64) *message {
	p := t.last
	if id/PageLen != t.key {
		p = t.pages[id/PageLen]
	}
	i, ok := p.place(id)
	if !ok {
		return nil
	}
	return &t.slab.block(p.at, p.class)[i]
}

// put adds a message that is not in the table.
func (t *messageTable) put(id uint64, msg message) {
	key := id / 64
	if key > t.key {
		t.turn(key)
	}
	p := t.last
	if key != t.key {
		p = t.pages[key]
	}
	i, _ := p.place(id)
	n := bits.OnesCount64(p.exist)
	if n == 0 {
		p.at, p.class = t.slab.take(0), 0
	} else if n == 1<<p.class {
		t.resize(&p, n, p.class+1)
	}
	b := t.slab.block(p.at, p.class)
	copy(b[i+1:n+1], b[i:n])
	b[i] = msg
	p.exist |= 1 << (id % PageLen)
	t.set(key, p)
	t.n++
}

// page returns which messages of a page there are, and them; it is valid like
// what get returns.
func (t *messageTable) page(key uint64) (exist uint64, list []message) {
	p := t.last
	if key != t.key {
		p = t.pages[key]
	}
	if p.exist == 0 {
		return 0, nil
	}
	return p.exist, t.slab.block(p.at, p.class)[:bits.OnesCount64(p.exist)]
}

// putPage adds a page above all others.
func (t *messageTable) putPage(key, exist uint64, list []message) {
	t.turn(key)
	t.last.exist = exist
	t.last.class = uint8(bits.Len(uint(len(list) - 1)))
	t.last.at = t.slab.take(t.last.class)
	copy(t.slab.block(t.last.at, t.last.class), list)
	t.n += len(list)
}

// turn begins a new newest page.
func (t *messageTable) turn(key uint64) {
	if t.last.exist != 0 {
		t.pages[t.key] = t.last
	}
	t.key, t.last = key, page{}
}

func (t *messageTable) set(key uint64, p page) {
	switch {
	case key == t.key:
		t.last = p
	case p.exist == 0:
		delete(t.pages, key)
	default:
		t.pages[key] = p
	}
}

// delete takes a message that is in the table out.
func (t *messageTable) delete(id uint64) {
	key := id / 64
	p := t.last
	if key != t.key {
		p = t.pages[key]
	}
	i, _ := p.place(id)
	n := bits.OnesCount64(p.exist)
	b := t.slab.block(p.at, p.class)
	copy(b[i:n], b[i+1:n])
	p.exist &^= 1 << (id % PageLen)
	switch n--; {
	case n == 0:
		t.slab.give(p.at, p.class)
	case n <= 1<<p.class/4: // much of it is unused
		t.resize(&p, n, p.class-1)
	}
	t.set(key, p)
	t.n--
}

// resize moves the n messages of a page to a block of another class.
func (t *messageTable) resize(p *page, n int, class uint8) {
	at := t.slab.take(class)
	copy(t.slab.block(at, class), t.slab.block(p.at, p.class)[:n])
	t.slab.give(p.at, p.class)
	p.at, p.class = at, class
}

// each calls fn for the messages in the order of their ids.
func (t *messageTable) each(fn func(id uint64, msg *message)) {
	t.eachPage(func(key, exist uint64, list []message) {
		for i, rest := 0, exist; rest != 0; i, rest = i+1, rest&(rest-1) {
			fn(key*PageLen+uint64(bits.TrailingZeros64(rest)), &list[i])
		}
	})
}

// eachPage calls fn for the pages in the order of their ids.
func (t *messageTable) eachPage(fn func(key, exist uint64, list []message)) {
	keys := slices.AppendSeq(make([]uint64, 0, len(t.pages)+1), maps.Keys(t.pages))
	if t.last.exist != 0 {
		keys = append(keys, t.key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		exist, list := t.page(key)
		fn(key, exist, list)
	}
}

// slab hands out blocks of 1, 2, 4 … 64 messages by number.
type slab struct {
	chunks []*[slabChunk]message
	top    uint32 // messages from here on have never been used
	free   [7][]uint32
}

const slabChunk = 1 << 10

func (s *slab) block(at uint32, class uint8) []message {
	return s.chunks[at/slabChunk][at%slabChunk:][: 1<<class : 1<<class]
}

// take returns a block with any content.
func (s *slab) take(class uint8) uint32 {
	if n := len(s.free[class]); n > 0 {
		at := s.free[class][n-1]
		s.free[class] = s.free[class][:n-1]
		return at
	}
	size := uint32(1) << class
	if s.top%slabChunk+size > slabChunk || s.top%slabChunk == 0 { // no block crosses the end of a chunk
		s.spill()
		s.chunks = append(s.chunks, new([slabChunk]message))
		s.top = uint32(len(s.chunks)-1) * slabChunk
	}
	at := s.top
	s.top += size
	return at
}

// spill makes blocks of what is left of the last chunk.
func (s *slab) spill() {
	for class := 0; s.top%slabChunk != 0; class++ {
		if s.top>>class&1 != 0 {
			s.free[class] = append(s.free[class], s.top)
			s.top += 1 << class
		}
	}
}

func (s *slab) give(at uint32, class uint8) {
	s.free[class] = append(s.free[class], at)
}
