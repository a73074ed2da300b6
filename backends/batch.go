package backends

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"iter"
	"slices"
)

// Batch is a list of puts and deletes that a Commit applies as one. Keys and
// values are copied into it. A later operation on the same key wins. The zero
// Batch is empty and ready for use.
//
// A Batch is not safe for concurrent use, with one exception: after Sort, and
// until the next change, any number of stores may commit it at once.
type Batch struct {
	ops   []Op
	order []int32 // indices of ops in key order, without those that lost; built by Sort
	ready bool    // order, or ops themselves if they came in order, is valid
	loose bool    // ops did not come in strictly ascending key order
	bytes int
	err   error
	arena arena
}

// Op is one operation as a driver stores it.
type Op struct {
	// Key is the stored form of the key, see StoredKey.
	Key []byte
	// Value is the sealed value, see Unseal; nil for a delete.
	Value []byte
	// Delete says that the key goes. Deleting what is not there is no error.
	Delete bool
}

// Put sets key to val. Bad keys and sizes are reported by Err and by Commit.
func (b *Batch) Put(key, val []byte) {
	if !b.admit(key, len(val)) {
		return
	}
	if len(key) > MaxPlainKey {
		b.putFolded(key, val)
		return
	}
	buf := b.arena.take(len(key) + len(val) + sealLen)
	buf = append(append(buf, key...), val...)
	buf = binary.BigEndian.AppendUint32(buf, crc32.Update(sealSeed(len(key)), castagnoli, buf))
	b.add(Op{Key: buf[:len(key):len(key)], Value: buf[len(key):]})
}

func (b *Batch) putFolded(key, val []byte) {
	buf := b.arena.take(foldedKey + len(key) + len(val) + 4 + sealLen)
	buf = append(append(appendFolded(buf, key), key...), val...)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(key)))
	sum := crc32.Update(sealSeed(len(key)), castagnoli, buf[foldedKey:])
	buf = binary.BigEndian.AppendUint32(buf, sum)
	b.add(Op{Key: buf[:foldedKey:foldedKey], Value: buf[foldedKey:]})
}

// Delete removes key.
func (b *Batch) Delete(key []byte) {
	if !b.admit(key, 0) {
		return
	}
	if len(key) > MaxPlainKey {
		b.add(Op{Key: appendFolded(b.arena.take(foldedKey), key), Delete: true})
		return
	}
	b.add(Op{Key: append(b.arena.take(len(key)), key...), Delete: true})
}

func (b *Batch) admit(key []byte, val int) bool {
	var err error
	switch {
	case len(key) == 0:
		err = fmt.Errorf("backends: batch: empty key: %w", ErrKey)
	case key[0] == reserved:
		err = fmt.Errorf("backends: batch: reserved key %q: %w", key[:min(len(key), 64)], ErrKey)
	case len(key) > MaxKey:
		err = fmt.Errorf("backends: batch: key of %d bytes, at most %d: %w", len(key), MaxKey, ErrKey)
	case val > MaxValue:
		err = fmt.Errorf("backends: batch: value of %d bytes, at most %d: %w", val, MaxValue, ErrTooLarge)
	default:
		return true
	}
	if b.err == nil {
		b.err = err
	}
	return false
}

func (b *Batch) add(op Op) {
	if n := len(b.ops); n > 0 && !b.loose {
		b.loose = bytes.Compare(b.ops[n-1].Key, op.Key) >= 0
	}
	b.ops = append(b.ops, op)
	b.bytes += len(op.Key) + len(op.Value)
	b.ready = false
}

// Len returns the number of operations, those that lost included.
func (b *Batch) Len() int { return len(b.ops) }

// Bytes returns the size of the keys and sealed values, which is close to what
// a Commit adds to the store.
func (b *Batch) Bytes() int { return b.bytes }

// Err returns the first error of Put or Delete since Reset: an error that is
// ErrKey or ErrTooLarge. A batch with an error cannot be committed.
func (b *Batch) Err() error { return b.err }

// Reset empties b and keeps its memory, up to 8 MiB of it.
func (b *Batch) Reset() {
	clear(b.ops)
	b.ops, b.order = b.ops[:0], b.order[:0]
	if cap(b.ops) > maxKeptOps {
		b.ops, b.order = nil, nil
	}
	b.ready, b.loose, b.bytes, b.err = false, false, 0, nil
	b.arena.reset()
}

// Sort prepares Sorted. It does nothing if b has not changed since the last
// call, and next to nothing if the operations came in key order.
func (b *Batch) Sort() {
	if b.ready {
		return
	}
	b.ready = true
	if !b.loose {
		return
	}
	order := b.order[:0]
	for i := range b.ops {
		order = append(order, int32(i))
	}
	slices.SortFunc(order, func(x, y int32) int {
		if c := bytes.Compare(b.ops[x].Key, b.ops[y].Key); c != 0 {
			return c
		}
		return cmp.Compare(x, y)
	})
	keep := order[:0]
	for i, at := range order {
		if i+1 < len(order) && bytes.Equal(b.ops[at].Key, b.ops[order[i+1]].Key) {
			continue // a later operation on this key wins
		}
		keep = append(keep, at)
	}
	b.order = keep
}

// Sorted yields the operations that count in ascending order of their stored
// keys, each key once. Slices are valid until Reset.
func (b *Batch) Sorted() iter.Seq[Op] {
	b.Sort()
	return func(yield func(Op) bool) {
		if !b.loose {
			for _, op := range b.ops {
				if !yield(op) {
					return
				}
			}
			return
		}
		for _, at := range b.order {
			if !yield(b.ops[at]) {
				return
			}
		}
	}
}

const (
	arenaBlock  = 256 << 10
	maxKept     = 8 << 20 // bytes of blocks that Reset keeps
	maxKeptOps  = 64 << 10
	arenaShared = arenaBlock / 4 // what is larger gets a block of its own
)

// arena hands out byte slices from blocks that never move.
type arena struct {
	blocks [][]byte // of arenaBlock bytes each; those before cur are full
	cur    int
	used   int // bytes taken from blocks[cur]
}

// take returns an empty slice with room for n bytes.
func (a *arena) take(n int) []byte {
	if n > arenaShared {
		return make([]byte, 0, n)
	}
	if len(a.blocks) == 0 || a.used+n > arenaBlock {
		if len(a.blocks) > 0 {
			a.cur++
		}
		if a.cur == len(a.blocks) {
			a.blocks = append(a.blocks, make([]byte, arenaBlock))
		}
		a.used = 0
	}
	s := a.blocks[a.cur][a.used : a.used : a.used+n]
	a.used += n
	return s
}

func (a *arena) reset() {
	if len(a.blocks) > maxKept/arenaBlock {
		clear(a.blocks[maxKept/arenaBlock:])
		a.blocks = a.blocks[:maxKept/arenaBlock]
	}
	a.cur, a.used = 0, 0
}
