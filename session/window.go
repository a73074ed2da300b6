package session

import "slices"

// window is the in-flight entries, in the order in which they got their
// identifiers, which is that of their sequence numbers.
//
// Identifiers are given in turn, 1 to 65 535 and around, skipping those in
// use. An entry that was passed over that way is older than a whole turn; all
// such entries are in front. Among the others identifiers grow from entry to
// entry, counted from the oldest of them, so that they can be searched.
type window[M comparable] struct {
	ring []Entry[M] // ring[head:] is in flight
	head int
	old  int // entries in front that the identifiers have passed
}

func (w *window[M]) entries() []Entry[M] { return w.ring[w.head:] }

func (w *window[M]) push(e *Entry[M]) *Entry[M] {
	w.ring, w.head = room(w.ring, w.head)
	w.ring = append(w.ring, *e)
	return &w.ring[len(w.ring)-1]
}

// next returns the next free identifier after last. Fewer than 65 535 are in
// use.
func (w *window[M]) next(last uint16) uint16 {
	if w.old > oldSearch {
		return w.nextOfMany(last)
	}
	in, old := w.entries(), w.old
	for {
		last++
		switch {
		case last == 0: // no identifier
		case w.old < len(in) && in[w.old].PID == last:
			w.old++ // passed over
		case !uses(in[:old], last):
			return last
		}
	}
}

// oldSearch is the number of old entries up to which each is looked at.
const oldSearch = 64

func uses[M comparable](list []Entry[M], pid uint16) bool {
	for i := range list {
		if list[i].PID == pid {
			return true
		}
	}
	return false
}

// nextOfMany is next for a client that leaves many deliveries open: one pass
// over the old entries instead of one for each identifier tried.
func (w *window[M]) nextOfMany(last uint16) uint16 {
	var used [1 << 16 / 64]uint64
	in := w.entries()
	for i := range in[:w.old] {
		used[in[i].PID/64] |= 1 << (in[i].PID % 64)
	}
	for {
		last++
		switch {
		case last == 0:
		case w.old < len(in) && in[w.old].PID == last:
			w.old++
		case used[last/64]>>(last%64)&1 == 0:
			return last
		}
	}
}

// find returns the place of an identifier among the entries, -1 if it is free.
func (w *window[M]) find(pid uint16) int {
	in := w.entries()
	for i := range in[:w.old] {
		if in[i].PID == pid {
			return i
		}
	}
	turn := in[w.old:]
	if len(turn) == 0 {
		return -1
	}
	oldest := turn[0].PID
	if guess := int(pid - oldest); guess < len(turn) && turn[guess].PID == pid {
		return w.old + guess // nothing was removed in between
	}
	i, ok := slices.BinarySearchFunc(turn, pid-oldest, func(e Entry[M], want uint16) int {
		return int(e.PID-oldest) - int(want)
	})
	if !ok {
		return -1
	}
	return w.old + i
}

// remove takes the entry at a place out, moving the fewer of those before and
// behind it.
func (w *window[M]) remove(i int) Entry[M] {
	in := w.entries()
	e := in[i]
	if i < w.old {
		w.old--
	}
	if i >= len(in)/2 && i > 0 {
		w.ring = slices.Delete(w.ring, w.head+i, w.head+i+1)
		return e
	}
	copy(in[1:], in[:i])
	in[0] = Entry[M]{}
	w.head++
	if w.head == len(w.ring) {
		w.ring, w.head = w.ring[:0], 0
		if cap(w.ring) > windowKeep {
			w.ring = nil
		}
	}
	return e
}

// windowKeep is the number of entries whose memory an empty window keeps.
const windowKeep = 1 << 10

// restored finds the old entries of a window that was put back, last being
// the identifier given last: those before the longest run at the end in which
// identifiers grow, counted from last.
func (w *window[M]) restored(last uint16) {
	in := w.entries()
	w.old = 0
	for i := len(in) - 1; i > 0; i-- {
		if in[i-1].PID-last-1 >= in[i].PID-last-1 {
			w.old = i
			return
		}
	}
}
