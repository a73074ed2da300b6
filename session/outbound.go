package session

import "slices"

// Phase is how far the delivery of an in-flight message has come.
type Phase uint8

// The phases of a delivery.
const (
	PhasePublish Phase = 0 // waits for PUBACK or PUBREC
	PhaseRelease Phase = 1 // PUBREC taken, waits for PUBCOMP
)

// Entry is one message on its way to the client. It has no pointers when M
// has none, so that a large backlog costs the garbage collector nothing.
type Entry[M comparable] struct {
	Msg    M
	Seq    uint64 // place in the session's order, from 1
	SubID  uint32 // the one matching subscription identifier, 0 = none; see Outbound.SubIDs for several
	PID    uint16 // packet identifier, 0 while queued
	QoS    uint8  // 1 or 2 (0 only for entries that a connection queues for itself)
	Phase  Phase
	Retain bool // RETAIN flag of the delivered PUBLISH
	Group  bool // came through a shared subscription; see Outbound.GroupOf
	Many   bool // several subscription identifiers, in Outbound.SubIDs
	Resend bool // assigned on an earlier connection: sent with DUP
	stored bool // the backend has an entry under Seq
	dirty  bool // what the backend has under Seq is out of date
}

// queued is an Entry without what only in-flight entries need; its sequence
// number follows from its place.
type queued[M comparable] struct {
	msg   M
	subID uint32
	flags uint8
}

// Bits of queued.flags; the lowest two are the QoS.
const (
	queuedRetain = 1 << 2
	queuedGroup  = 1 << 3
	queuedMany   = 1 << 4
	queuedDead   = 1 << 5 // taken out of the middle; keeps the numbers contiguous
)

const (
	chunkLen = 64
	spanMax  = 1<<16 - 1
)

// Outbound is the queue and the in-flight window towards one client. M is
// the handle of a message. The zero value is empty and ready.
type Outbound[M comparable] struct {
	LastPID uint16 // identifier given last; the next is the next free one above

	// SubIDs and GroupOf hold, by sequence number, what few entries have:
	// several subscription identifiers, and the shared group they came through.
	SubIDs  map[uint64][]uint32
	GroupOf map[uint64]string

	ring []Entry[M] // ring[head:] is in flight, by Seq, which is the order of assignment
	head int
	sent int // how many in flight this connection has sent
	span int // identifiers passed since the oldest in-flight entry got its own, at most spanMax

	chunks [][]queued[M] // the queue: full chunks, the last one growing
	first  int           // place of the head in chunks[0]
	spare  []queued[M]
	length int    // queued, with the dead ones
	dead   int    // of length, those taken out of the middle
	tail   uint64 // sequence number of the newest entry ever pushed
	stored uint64 // queue entries up to this sequence number are in the backend

	gone []uint64 // stored entries that ended since the last Changes
}

// Queued returns how many messages wait for an identifier.
func (o *Outbound[M]) Queued() int { return o.length - o.dead }

// Inflight returns the in-flight entries in the order of their assignment.
// The slice is valid until the next change and may be modified in place only
// through the methods of Outbound.
func (o *Outbound[M]) Inflight() []Entry[M] { return o.ring[o.head:] }

// Tail returns the sequence number of the newest message ever queued.
func (o *Outbound[M]) Tail() uint64 { return o.tail }

// Push queues a message and returns its sequence number. Of e, only Msg, QoS,
// Retain and SubID matter. Several identifiers and the group go into ids and
// group; ids is copied.
func (o *Outbound[M]) Push(e Entry[M], ids []uint32, group string) uint64 {
	o.tail++
	flags := e.QoS
	if e.Retain {
		flags |= queuedRetain
	}
	if len(ids) > 1 {
		flags |= queuedMany
		o.SubIDs = put(o.SubIDs, o.tail, slices.Clone(ids))
	} else if len(ids) == 1 {
		e.SubID = ids[0]
	}
	if group != "" {
		flags |= queuedGroup
		o.GroupOf = put(o.GroupOf, o.tail, group)
	}
	o.append(queued[M]{e.Msg, e.SubID, flags})
	return o.tail
}

func (o *Outbound[M]) append(q queued[M]) {
	n := len(o.chunks)
	if n == 0 || len(o.chunks[n-1]) == chunkLen {
		c := o.spare
		o.spare = nil
		if c == nil {
			size := chunkLen
			if n == 0 {
				size = 4 // most sessions never queue more
			}
			c = make([]queued[M], 0, size)
		}
		o.chunks = append(o.chunks, c[:0])
		n++
	}
	o.chunks[n-1] = append(o.chunks[n-1], q)
	o.length++
}

// pop takes the head of the queue; the caller has checked Queued.
func (o *Outbound[M]) pop() (queued[M], uint64) {
	for {
		seq := o.tail - uint64(o.length) + 1
		q := o.advance()
		if q.flags&queuedDead == 0 {
			return q, seq
		}
		o.dead--
	}
}

func (o *Outbound[M]) advance() queued[M] {
	c := o.chunks[0]
	q := c[o.first]
	o.first++
	o.length--
	if o.first < len(c) {
		return q
	}
	o.first = 0
	clear(c)
	if len(o.chunks) > 1 {
		o.spare = c
		o.chunks[0] = nil
		o.chunks = o.chunks[1:]
	} else {
		o.chunks[0] = c[:0]
	}
	return q
}

func (q *queued[M]) entry(seq uint64) Entry[M] {
	return Entry[M]{
		Msg: q.msg, Seq: seq, SubID: q.subID, QoS: q.flags & 3,
		Retain: q.flags&queuedRetain != 0, Group: q.flags&queuedGroup != 0, Many: q.flags&queuedMany != 0,
	}
}

// Head returns the oldest queued entry without taking it.
func (o *Outbound[M]) Head() (head Entry[M], ok bool) {
	o.eachQueued(0, func(e *Entry[M]) bool {
		head, ok = *e, true
		return false
	})
	return head, ok
}

// DropHead takes the oldest queued entry away without delivering it.
func (o *Outbound[M]) DropHead() Entry[M] {
	q, seq := o.pop()
	e := q.entry(seq)
	o.forget(&e, seq <= o.stored)
	return e
}

// Assign moves the oldest queued entry into the in-flight window and gives it
// the next free identifier. The caller has checked that one is queued and
// that fewer than 65 535 are in flight.
func (o *Outbound[M]) Assign() *Entry[M] {
	q, seq := o.pop()
	e := q.entry(seq)
	e.PID = o.nextPID()
	e.stored, e.dirty = seq <= o.stored, true
	if o.head > 0 && len(o.ring) == cap(o.ring) { // room at the front instead of a new array
		n := copy(o.ring, o.ring[o.head:])
		clear(o.ring[n:])
		o.ring, o.head = o.ring[:n], 0
	}
	o.ring = append(o.ring, e)
	return &o.ring[len(o.ring)-1]
}

// nextPID finds the next identifier above the last one that is free.
func (o *Outbound[M]) nextPID() uint16 {
	if o.head == len(o.ring) {
		o.span = 0
	}
	for {
		o.LastPID++
		if o.LastPID == 0 {
			continue
		}
		o.span = min(o.span+1, spanMax)
		if o.span < spanMax || o.find(o.LastPID) < 0 {
			return o.LastPID
		}
	}
}

// find returns the place of an identifier in the window, -1 if it is free.
// While fewer than 65 535 identifiers were given since the oldest entry got
// its own, identifiers grow from entry to entry, counted from the oldest.
func (o *Outbound[M]) find(pid uint16) int {
	window := o.ring[o.head:]
	if len(window) == 0 {
		return -1
	}
	oldest := window[0].PID
	if o.span >= spanMax {
		return slices.IndexFunc(window, func(e Entry[M]) bool { return e.PID == pid })
	}
	if guess := int(pid - oldest); guess < len(window) && window[guess].PID == pid {
		return guess // nothing was removed in between
	}
	i, ok := slices.BinarySearchFunc(window, pid-oldest, func(e Entry[M], want uint16) int {
		return int(e.PID-oldest) - int(want)
	})
	if !ok {
		return -1
	}
	return i
}

// Find returns the in-flight entry with this identifier, nil if there is none.
func (o *Outbound[M]) Find(pid uint16) *Entry[M] {
	if i := o.find(pid); i >= 0 {
		return &o.ring[o.head+i]
	}
	return nil
}

// Released notes that the client took the message (PUBREC).
func (o *Outbound[M]) Released(e *Entry[M]) {
	e.Phase, e.dirty = PhaseRelease, true
}

// Remove ends the delivery with this identifier.
func (o *Outbound[M]) Remove(pid uint16) (Entry[M], bool) {
	i := o.find(pid)
	if i < 0 {
		return Entry[M]{}, false
	}
	window := o.ring[o.head:]
	e := window[i]
	switch {
	case i == 0:
		window[0] = Entry[M]{}
		o.head++
		if o.head == len(o.ring) {
			o.ring, o.head = o.ring[:0], 0
		} else if o.span < spanMax {
			o.span = int(o.LastPID - o.ring[o.head].PID)
		}
	default:
		o.ring = slices.Delete(o.ring, o.head+i, o.head+i+1)
	}
	if i < o.sent {
		o.sent--
	}
	o.forget(&e, e.stored)
	return e, true
}

// forget drops what is kept beside an ended entry and notes its deletion.
func (o *Outbound[M]) forget(e *Entry[M], stored bool) {
	if e.Many {
		delete(o.SubIDs, e.Seq)
	}
	if e.Group {
		delete(o.GroupOf, e.Seq)
	}
	if stored {
		o.gone = append(o.gone, e.Seq)
	}
}

// Reconnected starts a new connection: everything in flight is sent again, as
// a duplicate, in the original order with the original identifiers
// [MQTT-4.4.0-1].
func (o *Outbound[M]) Reconnected() {
	o.sent = 0
	for i := range o.Inflight() {
		o.ring[o.head+i].Resend = true
	}
}

// Next returns the first in-flight entry that this connection has not sent,
// nil when all are. The cursor is not state: it begins anew with each
// connection.
func (o *Outbound[M]) Next() *Entry[M] {
	if i := o.head + o.sent; i < len(o.ring) {
		return &o.ring[i]
	}
	return nil
}

// Sent moves the cursor past the entry that Next returned.
func (o *Outbound[M]) Sent() { o.sent++ }

// Unsent returns how many in-flight entries the cursor has still before it.
func (o *Outbound[M]) Unsent() int { return len(o.ring) - o.head - o.sent }

// All calls fn for every entry in sequence order, in flight first.
func (o *Outbound[M]) All(fn func(e *Entry[M]) bool) {
	for i := range o.Inflight() {
		if !fn(&o.ring[o.head+i]) {
			return
		}
	}
	o.eachQueued(o.tail-uint64(o.length)+1, fn)
}

// eachQueued calls fn for the queued entries from a sequence number on.
func (o *Outbound[M]) eachQueued(from uint64, fn func(e *Entry[M]) bool) {
	seq := o.tail - uint64(o.length) + 1
	first := o.first
	for _, c := range o.chunks {
		if skip := uint64(len(c) - first); seq+skip <= from {
			seq, first = seq+skip, 0
			continue
		}
		for i := first; i < len(c); i++ {
			if seq >= from {
				if c[i].flags&queuedDead == 0 {
					if e := c[i].entry(seq); !fn(&e) {
						return
					}
				}
			}
			seq++
		}
		first = 0
	}
}

// Changes calls put for each entry that is new or changed since the last
// call (isNew: the backend has none under its number) and gone for each
// stored one that ended, and takes all of it as stored.
func (o *Outbound[M]) Changes(put func(e *Entry[M], isNew bool), gone func(seq uint64)) {
	for _, seq := range o.gone {
		gone(seq)
	}
	o.gone = o.gone[:0]
	for i := range o.Inflight() {
		e := &o.ring[o.head+i]
		if e.dirty || !e.stored {
			put(e, !e.stored)
			e.dirty, e.stored = false, true
		}
	}
	o.eachQueued(o.stored+1, func(e *Entry[M]) bool {
		put(e, true)
		return true
	})
	o.stored = o.tail
}

// Extract takes every entry that match picks out of the window and the queue,
// in order: what a member of a shared group leaves behind.
func (o *Outbound[M]) Extract(match func(e *Entry[M]) bool, fn func(e Entry[M])) {
	for i := 0; i < len(o.Inflight()); {
		if e := o.Inflight()[i]; match(&e) {
			fn(e)
			o.Remove(e.PID)
			continue
		}
		i++
	}
	seq := o.tail - uint64(o.length) + 1
	first := o.first
	for _, c := range o.chunks {
		for i := first; i < len(c); i++ {
			if e := c[i].entry(seq); c[i].flags&queuedDead == 0 && match(&e) {
				fn(e)
				c[i] = queued[M]{flags: queuedDead}
				o.dead++
				o.forget(&e, seq <= o.stored)
			}
			seq++
		}
		first = 0
	}
}

// Restore puts back an entry that the backend held. Entries come in sequence
// order, in-flight ones (PID above 0) before queued ones; Restored ends it.
func (o *Outbound[M]) Restore(e Entry[M], ids []uint32, group string) {
	if e.PID == 0 {
		if o.length == 0 {
			o.tail = e.Seq - 1
		}
		o.fillTo(e.Seq - 1)
		o.Push(e, ids, group)
		return
	}
	e.stored = true
	if e.Many = len(ids) > 1; e.Many {
		o.SubIDs = put(o.SubIDs, e.Seq, slices.Clone(ids))
	} else if len(ids) == 1 {
		e.SubID = ids[0]
	}
	if e.Group = group != ""; e.Group {
		o.GroupOf = put(o.GroupOf, e.Seq, group)
	}
	o.ring = append(o.ring, e)
	o.tail = max(o.tail, e.Seq)
}

// fillTo queues dead entries up to a sequence number.
func (o *Outbound[M]) fillTo(seq uint64) {
	for o.tail < seq {
		o.tail++
		o.dead++
		o.append(queued[M]{flags: queuedDead})
	}
}

// Restored ends a restore: tail is the newest sequence number ever given,
// lastPID the identifier given last. Everything restored counts as stored.
func (o *Outbound[M]) Restored(tail uint64, lastPID uint16) {
	if o.length > 0 {
		o.fillTo(tail)
	}
	o.tail, o.stored, o.LastPID = tail, tail, lastPID
	o.span = spanMax // until shown otherwise
	window := o.Inflight()
	if len(window) == 0 {
		return
	}
	oldest := window[0].PID
	before := -1
	for i := range window {
		at := int(window[i].PID - oldest)
		if at <= before {
			return
		}
		before = at
	}
	if newest := int(lastPID - oldest); newest >= before {
		o.span = newest
	}
}

// put is m[seq] = v for a map that few sessions need.
func put[V any](m map[uint64]V, seq uint64, v V) map[uint64]V {
	if m == nil {
		m = make(map[uint64]V)
	}
	m[seq] = v
	return m
}
