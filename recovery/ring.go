package recovery

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/wind-c/comqtt/v3/wal/record"
)

// ringFrames is how many frames the ring holds at most; a power of two.
const ringFrames = 1 << 15

// frameBody is an applied frame whose body stays in memory. It never changes.
type frameBody struct {
	first uint64
	at    []uint32 // where each record's length begins in body
	body  []byte
}

// record returns a record of the frame.
func (f *frameBody) record(index uint64) []byte {
	b := f.body[f.at[index-f.first]:]
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil
	}
	return b[k : uint64(k)+n : uint64(k)+n]
}

// ring holds the bodies of the last frames, in order. One goroutine adds and
// removes; any number look up at the same time, without a lock: a look-up that
// is overtaken by the removal of what it looks for misses.
type ring struct {
	slots  [ringFrames]atomic.Pointer[frameBody]
	firsts [ringFrames]atomic.Uint64 // first record of each, packed for the search
	head   atomic.Uint64             // number of the next frame
	tail   atomic.Uint64             // number of the oldest frame
	bytes  atomic.Int64
}

func (r *ring) slot(n uint64) *atomic.Pointer[frameBody] { return &r.slots[n%ringFrames] }

// add appends a frame.
func (r *ring) add(f *frameBody) {
	h := r.head.Load()
	if r.len() == ringFrames {
		r.drop()
	}
	r.firsts[h%ringFrames].Store(f.first)
	r.slot(h).Store(f)
	r.head.Store(h + 1)
	r.bytes.Add(f.cost())
}

// frameOverhead is what a frame costs besides its bytes.
const frameOverhead = 96

func (f *frameBody) cost() int64 { return int64(cap(f.body)) + 4*int64(cap(f.at)) + frameOverhead }

func (r *ring) len() int { return int(r.head.Load() - r.tail.Load()) }

// drop removes the oldest frame, which there must be, and returns its cost.
func (r *ring) drop() int64 {
	t := r.tail.Load()
	f := r.slot(t).Load()
	r.tail.Store(t + 1)
	r.slot(t).Store(nil)
	r.bytes.Add(-f.cost())
	return f.cost()
}

// find returns the frame with a record, nil if it is not here.
func (r *ring) find(index uint64) *frameBody {
	h, t := r.head.Load(), r.tail.Load()
	if h == t {
		return nil
	}
	lo, hi := t, h-1                            // the frame is in lo..hi, if it is here
	if index < r.firsts[hi%ringFrames].Load() { // most look-ups are for what came last
		for lo < hi {
			if mid := lo + (hi-lo+1)/2; r.firsts[mid%ringFrames].Load() <= index {
				lo = mid
			} else {
				hi = mid - 1
			}
		}
	} else {
		lo = hi
	}
	f := r.slot(lo).Load()
	if f == nil || index < f.first || index-f.first >= uint64(len(f.at)) {
		return nil
	}
	return f
}

// message returns the stored message of a Publish record, false if rec is
// none.
func message(rec []byte) ([]byte, bool) {
	if record.KindOf(rec) != record.KindPublish {
		return nil, false
	}
	var p record.Publish
	if err := p.Decode(rec); err != nil {
		return nil, false
	}
	return p.Message, true
}
