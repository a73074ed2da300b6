package recovery

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"slices"
)

// fold is the net effect of deltas: for each key the last change. A key that
// was new and went again in between is not in it, so that it never reaches the
// backend.
//
// It is a hash table without pointers, which reuses its memory.
type fold struct {
	applied uint64 // record index up to which the changes lead
	logTime int64

	entries []foldEntry
	index   []uint32 // open addressing; number of the entry + 1, 0 = free
	seed    maphash.Seed
	mem     arena
	live    int   // entries that are not dead
	size    int64 // bytes of keys and values of the live ones
	waste   int64 // bytes of mem that nothing refers to any more
}

type foldEntry struct {
	place      uint64 // key, with its table in front, and value behind it
	klen, vlen uint32
	room       uint32 // bytes there are for the value
	flags      foldFlags
}

type foldFlags uint8

const (
	foldDelete foldFlags = 1 << iota
	foldFresh            // the backend has nothing under this key
	foldDead             // came and went: nothing to do
	foldStored           // of a new body: it went ahead, the backend has it
)

// foldOverhead is what an entry costs besides its bytes.
const foldOverhead = 24 + 2*4

func newFold() *fold { return &fold{seed: maphash.MakeSeed()} }

// bytes returns about how much memory the changes take.
func (f *fold) bytes() int64 { return f.size + f.waste + int64(len(f.entries))*foldOverhead }

func (f *fold) key(e *foldEntry) []byte { return f.mem.at(e.place, e.klen) }

func (f *fold) value(e *foldEntry) []byte { return f.mem.at(e.place+uint64(e.klen), e.vlen) }

// find returns the entry of a key, or nil and the place in the index for it.
func (f *fold) find(key []byte) (*foldEntry, int) {
	mask := len(f.index) - 1
	i := int(maphash.Bytes(f.seed, key)) & mask
	for ; f.index[i] != 0; i = (i + 1) & mask {
		if e := &f.entries[f.index[i]-1]; int(e.klen) == len(key) && bytes.Equal(f.key(e), key) {
			return e, i
		}
	}
	return nil, i
}

// merge adds the changes of a delta, which came after all that is in f.
func (f *fold) merge(d *delta) {
	f.applied, f.logTime = d.applied, d.logTime
	for i := range d.ops {
		op := &d.ops[i]
		key := d.mem.at(op.place, op.klen)
		f.apply(op.kind, key, d.mem.at(op.place+uint64(op.klen), op.vlen))
	}
	f.tidy()
}

// mergeFold adds the changes of another fold, which came after all that is in
// f.
func (f *fold) mergeFold(o *fold) {
	f.applied, f.logTime = max(f.applied, o.applied), max(f.logTime, o.logTime)
	for i := range o.entries {
		e := &o.entries[i]
		switch {
		case e.flags&foldDead != 0:
		case e.flags&foldDelete != 0:
			f.apply(opDelete, o.key(e), nil)
		case e.flags&foldFresh != 0:
			f.apply(opPutNew, o.key(e), o.value(e))
		default:
			f.apply(opPut, o.key(e), o.value(e))
		}
	}
	f.tidy()
}

func (f *fold) apply(kind opKind, key, value []byte) {
	if 4*(len(f.entries)+1) > 3*len(f.index) {
		f.grow()
	}
	e, at := f.find(key)
	switch {
	case e == nil:
		f.insert(at, kind, key, value)
	case kind == opDelete:
		f.remove(e)
	default:
		f.replace(e, value)
	}
}

func (f *fold) insert(at int, kind opKind, key, value []byte) {
	place, p := f.mem.take(len(key) + len(value))
	copy(p, key)
	copy(p[len(key):], value)
	e := foldEntry{place: place, klen: uint32(len(key)), vlen: uint32(len(value)), room: uint32(len(value))}
	switch kind {
	case opPutNew:
		e.flags = foldFresh
	case opDelete:
		e.flags = foldDelete
	}
	f.entries = append(f.entries, e)
	f.index[at] = uint32(len(f.entries))
	f.live++
	f.size += int64(len(p))
}

// remove deletes what an entry puts.
func (f *fold) remove(e *foldEntry) {
	switch {
	case e.flags&(foldDead|foldDelete) != 0: // there is nothing, or nothing will be left
	case e.flags&foldFresh != 0 && e.flags&foldStored == 0:
		f.live--
		f.size -= int64(e.klen + e.vlen)
		f.waste += int64(e.klen + e.room)
		e.flags = foldDead
		e.vlen = 0
	default:
		f.size -= int64(e.vlen)
		f.waste += int64(e.room)
		e.vlen = 0
		e.flags = foldDelete
	}
}

func bodyID(key []byte) uint64 { return binary.BigEndian.Uint64(key[1:]) }

// replace gives an entry a value. What the backend has under its key stays what
// it is.
func (f *fold) replace(e *foldEntry, value []byte) {
	switch {
	case e.flags&foldDead != 0:
		f.live++
		f.size += int64(e.klen)
		f.waste -= int64(e.klen + e.room)
		e.flags = foldFresh
	case e.flags&foldDelete != 0:
		f.waste -= int64(e.room)
		e.flags = 0
	}
	f.size += int64(len(value)) - int64(e.vlen)
	if uint32(len(value)) > e.room {
		key := f.key(e)
		room := len(value) + len(value)/8 // values that grow, grow slowly
		place, p := f.mem.take(len(key) + room)
		copy(p, key)
		f.waste += int64(e.klen + e.room)
		e.place, e.room = place, uint32(room)
	}
	e.vlen = uint32(len(value))
	copy(f.value(e), value)
}

// grow doubles the index.
func (f *fold) grow() {
	f.index = make([]uint32, max(1024, 2*len(f.index)))
	f.reindex()
}

func (f *fold) reindex() {
	mask := len(f.index) - 1
	for n := range f.entries {
		i := int(maphash.Bytes(f.seed, f.key(&f.entries[n]))) & mask
		for f.index[i] != 0 {
			i = (i + 1) & mask
		}
		f.index[i] = uint32(n + 1)
	}
}

// tidyMin is the waste in bytes below which tidying is not worth it.
const tidyMin = 4 << 20

// tidy copies what is live when most of the memory is not: while the backend
// does not answer, a fold lives on, and messages come and go in it.
func (f *fold) tidy() {
	dead := int64(len(f.entries)-f.live) * foldOverhead
	if f.waste+dead < tidyMin || f.waste+dead < f.size+int64(f.live)*foldOverhead {
		return
	}
	old, mem := f.entries, f.mem
	f.entries, f.mem = make([]foldEntry, 0, f.live+f.live/4), arena{}
	for i := range old {
		e := old[i]
		if e.flags&foldDead != 0 {
			continue
		}
		n := e.klen + e.vlen
		place, p := f.mem.take(int(n))
		copy(p, mem.at(e.place, n))
		e.place, e.room = place, e.vlen
		f.entries = append(f.entries, e)
	}
	f.waste = 0
	size := 1024
	for 3*size < 4*(f.live+1) {
		size *= 2
	}
	f.index = make([]uint32, size)
	f.reindex()
}

// sorted returns the numbers of the live entries in the order of their keys.
// It reuses order.
func (f *fold) sorted(order []uint32) []uint32 {
	order = order[:0]
	for i := range f.entries {
		if f.entries[i].flags&foldDead == 0 {
			order = append(order, uint32(i))
		}
	}
	slices.SortFunc(order, func(a, b uint32) int {
		return bytes.Compare(f.key(&f.entries[a]), f.key(&f.entries[b]))
	})
	return order
}

// reset empties the fold and keeps some of its memory.
func (f *fold) reset() {
	const keep = 1 << 18
	if cap(f.entries) > keep {
		f.entries = nil
	}
	if len(f.index) > 2*keep {
		f.index = nil
	}
	f.entries = f.entries[:0]
	clear(f.index)
	f.mem.reset()
	f.live, f.size, f.waste = 0, 0, 0
	f.applied, f.logTime = 0, 0
}
