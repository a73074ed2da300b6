package session

import (
	"cmp"
	"math"
	"slices"
)

// Phase is how far the delivery of an in-flight message has come.
type Phase uint8

// The phases of a delivery.
const (
	PhasePublish Phase = 0 // waits for PUBACK or PUBREC
	PhaseRelease Phase = 1 // PUBREC taken, waits for PUBCOMP
)

// Entry is one message on its way to the client.
type Entry[M comparable] struct {
	Msg    M
	Seq    uint64 // place in the session's order, from 1
	SubID  uint32 // the one matching subscription identifier, 0 = none; see Outbound.SubIDs for several
	PID    uint16 // packet identifier, 0 while queued
	QoS    uint8  // 1 or 2
	Phase  Phase
	Retain bool // RETAIN flag of the delivered PUBLISH
	Group  bool // came through a shared subscription; see Outbound.GroupOf
	Many   bool // several subscription identifiers, in Outbound.SubIDs
	Resend bool // assigned on an earlier connection: sent with DUP. Not state.
}

// ChunkLen is how many sequence numbers belong to one chunk of the entries as
// a backend keeps them: chunk n holds those from n*ChunkLen on.
const ChunkLen = 64

// Outbound is the queue and the in-flight window towards one client. M is
// the handle of a message. The zero value is empty and ready.
//
// In steady state nothing here allocates but the notes of SubIDs.
type Outbound[M comparable] struct {
	LastPID uint16 // identifier given last; the next is the next free one above

	// SubIDs and GroupOf hold, by sequence number, what few entries have:
	// several subscription identifiers, and the shared group they came through.
	SubIDs  map[uint64][]uint32
	GroupOf map[uint64]string

	window window[M]
	queue  queue[M]
	sent   int    // how many in flight this connection has sent; not state
	tail   uint64 // sequence number of the newest entry ever pushed

	stored  uint64   // entries up to this sequence number are in the backend
	held    bool     // it holds some of the chunk of that number
	touched []uint64 // chunks of which stored entries ended or changed since the last Changes
}

// Queued returns how many messages wait for an identifier.
func (o *Outbound[M]) Queued() int { return o.queue.length }

// Inflight returns the in-flight entries in the order of their assignment.
// The slice is valid until the next change and may be modified in place only
// through the methods of Outbound.
func (o *Outbound[M]) Inflight() []Entry[M] { return o.window.entries() }

// Tail returns the sequence number of the newest message ever queued.
func (o *Outbound[M]) Tail() uint64 { return o.tail }

// Push queues a message and returns its sequence number. Of e, only Msg, QoS,
// Retain and SubID matter. Several identifiers and the group go into ids and
// group; ids is copied.
func (o *Outbound[M]) Push(e Entry[M], ids []uint32, group string) uint64 {
	o.begin(&e, ids, group)
	o.queue.push(&e)
	return e.Seq
}

// Deliver is Push and Assign in one step, for a message that need not wait:
// nothing is queued and fewer than 65 535 are in flight.
func (o *Outbound[M]) Deliver(e Entry[M], ids []uint32, group string) *Entry[M] {
	o.begin(&e, ids, group)
	return o.assign(&e)
}

// begin makes a new entry of what Push was given.
func (o *Outbound[M]) begin(e *Entry[M], ids []uint32, group string) {
	o.tail++
	e.Seq, e.PID, e.Phase, e.Resend = o.tail, 0, PhasePublish, false
	o.note(e, ids, group)
}

// note keeps what an entry has no room for.
func (o *Outbound[M]) note(e *Entry[M], ids []uint32, group string) {
	if e.Many = len(ids) > 1; e.Many {
		o.SubIDs = put(o.SubIDs, e.Seq, slices.Clone(ids))
		e.SubID = 0
	} else if len(ids) == 1 {
		e.SubID = ids[0]
	}
	if e.Group = group != ""; e.Group {
		o.GroupOf = put(o.GroupOf, e.Seq, group)
	}
}

// Head returns the oldest queued entry without taking it.
func (o *Outbound[M]) Head() (head Entry[M], ok bool) {
	if o.queue.length == 0 {
		return head, false
	}
	return o.queue.head(), true
}

// DropHead takes the oldest queued entry away without delivering it. The
// caller has checked that one is queued.
func (o *Outbound[M]) DropHead() Entry[M] {
	e := o.queue.pop()
	o.forget(&e)
	return e
}

// Assign moves the oldest queued entry into the in-flight window and gives it
// the next free identifier. The caller has checked that one is queued and
// that fewer than 65 535 are in flight.
func (o *Outbound[M]) Assign() *Entry[M] {
	e := o.queue.pop()
	return o.assign(&e)
}

func (o *Outbound[M]) assign(e *Entry[M]) *Entry[M] {
	e.PID = o.window.next(o.LastPID)
	o.LastPID = e.PID
	o.touch(e.Seq)
	return o.window.push(e)
}

// Find returns the in-flight entry with this identifier, nil if there is none.
// It is valid until the next change.
func (o *Outbound[M]) Find(pid uint16) *Entry[M] {
	if i := o.window.find(pid); i >= 0 {
		return &o.window.entries()[i]
	}
	return nil
}

// Released notes that the client took the message (PUBREC).
func (o *Outbound[M]) Released(e *Entry[M]) {
	e.Phase = PhaseRelease
	o.touch(e.Seq)
}

// Remove ends the delivery with this identifier.
func (o *Outbound[M]) Remove(pid uint16) (Entry[M], bool) {
	i := o.window.find(pid)
	if i < 0 {
		return Entry[M]{}, false
	}
	return o.removeAt(i), true
}

func (o *Outbound[M]) removeAt(i int) Entry[M] {
	e := o.window.remove(i)
	if i < o.sent {
		o.sent--
	}
	o.forget(&e)
	return e
}

// forget drops what is kept beside an ended entry and notes its deletion.
func (o *Outbound[M]) forget(e *Entry[M]) {
	if e.Many {
		delete(o.SubIDs, e.Seq)
	}
	if e.Group {
		delete(o.GroupOf, e.Seq)
	}
	o.touch(e.Seq)
}

// touch notes that the backend's chunk with this entry is out of date. A long
// queue that is delivered touches two in turn: that of what is assigned and
// that of what is acknowledged.
func (o *Outbound[M]) touch(seq uint64) {
	c, n := seq/ChunkLen, len(o.touched)
	if seq > o.stored || n > 0 && o.touched[n-1] == c || n > 1 && o.touched[n-2] == c {
		return
	}
	if n >= touchedKeep && n == cap(o.touched) {
		o.touched = sortedSet(o.touched)
	}
	o.touched = append(o.touched, c)
}

// sortedSet sorts a list and leaves each number in it once.
func sortedSet(list []uint64) []uint64 {
	slices.Sort(list)
	return slices.Compact(list)
}

// Reconnected starts a new connection: everything in flight is sent again in
// the original order with the original identifiers [MQTT-4.4.0-1], as a
// duplicate if an earlier connection sent it.
func (o *Outbound[M]) Reconnected() {
	in := o.Inflight()
	for i := range in[:o.sent] {
		in[i].Resend = true
	}
	o.sent = 0
}

// Restarted takes everything in flight as sent: how far the connections of an
// earlier run of the broker had come is not known.
func (o *Outbound[M]) Restarted() {
	in := o.Inflight()
	for i := range in {
		in[i].Resend = true
	}
	o.sent = 0
}

// Next returns the first in-flight entry that this connection has not sent,
// nil when all are. The cursor is not state: it begins anew with each
// connection.
func (o *Outbound[M]) Next() *Entry[M] {
	if in := o.Inflight(); o.sent < len(in) {
		return &in[o.sent]
	}
	return nil
}

// Sent moves the cursor past the entry that Next returned.
func (o *Outbound[M]) Sent() { o.sent++ }

// Unsent returns how many in-flight entries the cursor has still before it.
func (o *Outbound[M]) Unsent() int { return len(o.Inflight()) - o.sent }

// Upcoming appends the messages of queued entries, oldest first, to ids until
// it holds n: what will be sent soon.
func (o *Outbound[M]) Upcoming(ids []M, n int) []M {
	if len(ids) >= n {
		return ids
	}
	o.queue.each(0, func(e *Entry[M]) bool {
		ids = append(ids, e.Msg)
		return len(ids) < n
	})
	return ids
}

// All calls fn for every entry in sequence order, in flight first, until it
// returns false.
func (o *Outbound[M]) All(fn func(e *Entry[M]) bool) {
	in := o.Inflight()
	for i := range in {
		if !fn(&in[i]) {
			return
		}
	}
	o.queue.each(0, fn)
}

// Extract takes every entry that match picks out of the window and the queue,
// in order: what a member of a shared group leaves behind.
func (o *Outbound[M]) Extract(match func(e *Entry[M]) bool, fn func(e Entry[M])) {
	for i := 0; i < len(o.Inflight()); {
		if e := o.Inflight()[i]; match(&e) {
			fn(e)
			o.removeAt(i)
			continue
		}
		i++
	}
	o.ExtractQueued(math.MaxInt, match, fn)
}

// ExtractQueued is Extract for the queue alone and at most n entries.
func (o *Outbound[M]) ExtractQueued(n int, match func(e *Entry[M]) bool, fn func(e Entry[M])) {
	o.queue.extract(n, match, func(e Entry[M]) {
		fn(e)
		o.forget(&e)
	})
}

// Changes calls put for each chunk whose entries are not those of the last call
// (isNew: the backend has no such chunk) and gone for each that has lost all it
// had, in the order of their numbers, and takes all of it as stored. put may
// ask for the entries by Chunk.
func (o *Outbound[M]) Changes(put func(chunk uint64, isNew bool), gone func(chunk uint64)) {
	last := o.stored / ChunkLen // of the chunks that the backend may have
	o.touched = sortedSet(o.touched)
	for _, c := range o.touched {
		switch {
		case c == last:
		case o.has(c):
			put(c, false)
		default:
			gone(c)
		}
	}
	if n := len(o.touched); o.stored < o.tail || n > 0 && o.touched[n-1] == last {
		switch {
		case o.has(last):
			put(last, !o.held)
		case o.held:
			gone(last)
		}
	}
	if o.touched = o.touched[:0]; cap(o.touched) > touchedKeep {
		o.touched = nil
	}
	if o.stored < o.tail {
		next := last + 1
		o.from(next*ChunkLen, func(e *Entry[M]) bool {
			if c := e.Seq / ChunkLen; c >= next {
				put(c, true)
				next = c + 1
			}
			return true
		})
	}
	o.stored = o.tail
	o.held = o.has(o.stored / ChunkLen)
}

// touchedKeep is the number of touched chunks whose memory is kept for the
// next, and from which on they are sorted to find those that come twice.
const touchedKeep = 1 << 10

// Chunk calls fn for each entry of a chunk, in order.
func (o *Outbound[M]) Chunk(c uint64, fn func(e *Entry[M])) {
	o.from(c*ChunkLen, func(e *Entry[M]) bool {
		if e.Seq/ChunkLen != c {
			return false
		}
		fn(e)
		return true
	})
}

// has reports whether there is an entry of the chunk.
func (o *Outbound[M]) has(c uint64) (found bool) {
	o.from(c*ChunkLen, func(e *Entry[M]) bool {
		found = e.Seq/ChunkLen == c
		return false
	})
	return found
}

// from calls fn for the entries from a sequence number on, in order, until it
// returns false.
func (o *Outbound[M]) from(seq uint64, fn func(e *Entry[M]) bool) {
	in := o.Inflight()
	i, _ := slices.BinarySearchFunc(in, seq, func(e Entry[M], seq uint64) int { return cmp.Compare(e.Seq, seq) })
	for ; i < len(in); i++ {
		if !fn(&in[i]) {
			return
		}
	}
	o.queue.each(seq, fn)
}

// Stored reports whether the entry with this number is one that Changes has
// put.
func (o *Outbound[M]) Stored(seq uint64) bool { return seq <= o.stored }

// Restore puts back an entry that the backend held. Entries come in sequence
// order, in-flight ones (PID above 0) before queued ones; Restored ends it.
func (o *Outbound[M]) Restore(e Entry[M], ids []uint32, group string) {
	o.note(&e, ids, group)
	o.tail = e.Seq
	if e.PID == 0 {
		o.queue.push(&e)
		return
	}
	o.window.push(&e)
}

// Restored ends a restore: tail is the newest sequence number ever given,
// lastPID the identifier given last. Everything restored counts as stored.
func (o *Outbound[M]) Restored(tail uint64, lastPID uint16) {
	o.tail = max(o.tail, tail)
	o.stored, o.LastPID = o.tail, lastPID
	o.held = o.has(o.stored / ChunkLen)
	o.window.restored(lastPID)
}

// put is m[seq] = v for a map that few sessions need.
func put[V any](m map[uint64]V, seq uint64, v V) map[uint64]V {
	if m == nil {
		m = make(map[uint64]V)
	}
	m[seq] = v
	return m
}
