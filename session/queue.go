package session

import "sort"

// queued is an Entry without what only in-flight entries need.
type queued[M comparable] struct {
	msg   M
	subID uint32
	bits  uint32 // flags, and how far the sequence number is above its chunk's base
}

// Bits of queued.bits; the lowest two are the QoS, those from seqShift up the
// distance to the base.
const (
	queuedRetain = 1 << 2
	queuedGroup  = 1 << 3
	queuedMany   = 1 << 4
	seqShift     = 8
	seqRange     = 1 << (32 - seqShift)
)

const (
	chunkLen   = 64
	chunkSmall = 4 // most sessions never queue more
)

// chunk is a run of queue entries with growing sequence numbers.
type chunk[M comparable] struct {
	base uint64 // sequence number of distance 0
	q    []queued[M]
}

func (c *chunk[M]) seq(i int) uint64 { return c.base + uint64(c.q[i].bits>>seqShift) }

func (c *chunk[M]) entry(i int) Entry[M] {
	q := &c.q[i]
	return Entry[M]{
		Msg: q.msg, Seq: c.seq(i), SubID: q.subID, QoS: uint8(q.bits & 3),
		Retain: q.bits&queuedRetain != 0, Group: q.bits&queuedGroup != 0, Many: q.bits&queuedMany != 0,
	}
}

// queue is the FIFO of the messages that wait for an identifier. Sequence
// numbers grow and may have gaps. It has no pointers when M has none, so that
// a large backlog costs the garbage collector nothing.
type queue[M comparable] struct {
	chunks []chunk[M] // chunks[front:] are in use, the last one grows
	front  int
	first  int         // place of the oldest entry in chunks[front]
	length int         // entries
	spare  []queued[M] // the chunk emptied last
}

func flagsOf[M comparable](e *Entry[M]) uint32 {
	flags := uint32(e.QoS & 3)
	if e.Retain {
		flags |= queuedRetain
	}
	if e.Group {
		flags |= queuedGroup
	}
	if e.Many {
		flags |= queuedMany
	}
	return flags
}

// push appends an entry whose sequence number is above all that are queued.
func (o *queue[M]) push(e *Entry[M]) {
	c := o.grow(e.Seq)
	c.q = append(c.q, queued[M]{e.Msg, e.SubID, flagsOf(e) | uint32(e.Seq-c.base)<<seqShift})
	o.length++
}

// grow returns the last chunk, a new one when that has no room.
func (o *queue[M]) grow(seq uint64) *chunk[M] {
	if n := len(o.chunks); n > o.front {
		c := &o.chunks[n-1]
		if len(c.q) == 0 {
			c.base = seq
			return c
		}
		if len(c.q) < chunkLen && seq-c.base < seqRange {
			return c
		}
	}
	q := o.spare
	o.spare = nil
	if q == nil {
		size := chunkLen
		if len(o.chunks) == o.front {
			size = chunkSmall
		}
		q = make([]queued[M], 0, size)
	}
	o.chunks, o.front = room(o.chunks, o.front)
	o.chunks = append(o.chunks, chunk[M]{base: seq, q: q})
	return &o.chunks[len(o.chunks)-1]
}

// head returns the oldest entry; there is one.
func (o *queue[M]) head() Entry[M] { return o.chunks[o.front].entry(o.first) }

// pop takes the oldest entry; there is one.
func (o *queue[M]) pop() Entry[M] {
	c := &o.chunks[o.front]
	e := c.entry(o.first)
	c.q[o.first] = queued[M]{}
	o.first++
	o.length--
	if o.first == len(c.q) {
		o.drop()
	}
	return e
}

// drop gives up the first chunk, whose entries are gone. The last one stays.
func (o *queue[M]) drop() {
	o.first = 0
	c := &o.chunks[o.front]
	if o.front == len(o.chunks)-1 {
		c.q = c.q[:0]
		return
	}
	o.spare = c.q[:0]
	*c = chunk[M]{}
	o.front++
}

// each calls fn for the entries from a sequence number on, oldest first, until
// it returns false. The entry is valid during the call.
func (o *queue[M]) each(from uint64, fn func(e *Entry[M]) bool) {
	var e Entry[M] // one for all: its address makes it a heap variable
	in := o.chunks[o.front:]
	at, first := o.front, o.first
	if i := sort.Search(len(in), func(i int) bool { return in[i].base > from }); i > 1 {
		at, first = o.front+i-1, 0
	}
	for ; at < len(o.chunks); at++ {
		c := &o.chunks[at]
		if n := len(c.q); n > 0 && c.seq(n-1) >= from {
			for i := first; i < n; i++ {
				if c.seq(i) < from {
					continue
				}
				if e = c.entry(i); !fn(&e) {
					return
				}
			}
		}
		first = 0
	}
}

// extract takes up to n entries that match picks, oldest first, and gives
// them to fn.
func (o *queue[M]) extract(n int, match func(e *Entry[M]) bool, fn func(e Entry[M])) {
	first, kept := o.first, o.front
	for at := o.front; at < len(o.chunks); at++ {
		c := &o.chunks[at]
		w := first
		for i := first; i < len(c.q); i++ {
			if e := c.entry(i); n > 0 && match(&e) {
				n--
				o.length--
				fn(e)
				continue
			}
			c.q[w] = c.q[i]
			w++
		}
		clear(c.q[w:])
		c.q = c.q[:w]
		if w == first { // nothing left in it
			first = 0
			continue
		}
		if kept != at {
			o.chunks[kept] = *c
			*c = chunk[M]{}
		}
		if kept == o.front {
			o.first = first
		}
		kept++
		first = 0
	}
	if kept == o.front && kept < len(o.chunks) { // all gone: one chunk stays
		o.chunks[kept] = chunk[M]{q: o.chunks[kept].q[:0]}
		o.first = 0
		kept++
	}
	clear(o.chunks[kept:])
	o.chunks = o.chunks[:kept]
}

// room makes sure that one more can be appended to s, of which s[head:] is in
// use, at a cost that is constant in the long run: what is in use moves to
// the front when at least as much is free there, else to a new array.
func room[T any](s []T, head int) ([]T, int) {
	if len(s) < cap(s) || head == 0 {
		return s, head
	}
	n := len(s) - head
	if head >= n {
		copy(s, s[head:])
		clear(s[n:])
		return s[:n], 0
	}
	bigger := make([]T, n, 2*n)
	copy(bigger, s[head:])
	return bigger, 0
}
