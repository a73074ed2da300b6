package recovery

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/wal"
)

// Bodies finds the stored form of a message by its id: in memory (the frames
// applied last, and bodies read from disk before), in the log, or in the
// backend.
//
// All methods may be called concurrently, AddFrame by one goroutine at a time.
// Slices that it returns are never changed and may be kept.
type Bodies struct {
	budget int64
	ring   ring
	shelf  shelf
	log    *wal.Log
	store  backends.Store

	logReads, storeReads atomic.Uint64
}

func newBodies(budget int64, log *wal.Log, store backends.Store) *Bodies {
	return &Bodies{budget: budget, log: log, store: store}
}

// AddFrame keeps the body of an applied frame. offsets say where each record
// begins in f.Body, that is where its length stands; nil lets AddFrame find
// out. Body and offsets belong to b from now on. The apply loop calls it before
// it applies the frame, so that the effects find their messages.
func (b *Bodies) AddFrame(f *wal.Frame, offsets []uint32) {
	if f.Count == 0 {
		return
	}
	if offsets == nil {
		offsets = recordOffsets(f)
	}
	b.ring.add(&frameBody{first: f.First, at: offsets, body: f.Body})
	// Bodies read from disk give way down to a quarter, then the oldest frames.
	over := b.ring.bytes.Load() + b.shelf.bytes.Load() - b.budget
	if over <= 0 {
		return
	}
	if shelved := b.shelf.bytes.Load(); shelved > b.budget/4 {
		keep := max(b.budget/4, shelved-over)
		b.shelf.trim(keep)
		over -= shelved - keep
	}
	for over > 0 && b.ring.len() > 1 { // what was just applied is delivered next
		over -= b.ring.drop()
	}
}

func recordOffsets(f *wal.Frame) []uint32 {
	at := make([]uint32, 0, f.Count)
	for off := 0; off < len(f.Body) && len(at) < int(f.Count); {
		n, k := binary.Uvarint(f.Body[off:])
		if k <= 0 || n > uint64(len(f.Body)-off-k) {
			break
		}
		at = append(at, uint32(off))
		off += k + int(n)
	}
	return at
}

// Cached returns the message if it is in memory. It never blocks on a disk and
// allocates nothing.
func (b *Bodies) Cached(id uint64) ([]byte, bool) {
	if f := b.ring.find(id); f != nil {
		return message(f.record(id))
	}
	return b.shelf.get(id)
}

// Load calls fn for each message it finds, in the order of ids, wherever the
// message is; i is its place in ids. It may read the disk.
//
// What it reads is kept in memory, from the first one on as far as the budget
// reaches: the first one is always kept, and later ones do not push out earlier
// ones of the same call. So a caller that looks them up by Cached next makes
// progress however small the budget is, as long as nobody else loads much more
// in between; one that takes them from fn always does.
//
// If some messages are nowhere, the others are still given to fn, and the
// error is a *NoBodyError at the end. An error from fn ends it at once and is
// returned, and so does damage (*wal.CorruptError, *backends.CorruptError).
func (b *Bodies) Load(ctx context.Context, ids []uint64, fn func(i int, msg []byte) error) error {
	l := loading{b: b, ctx: ctx, ids: ids, fn: fn, keep: true}
	return l.run()
}

// Memory returns the bytes that frames and bodies take.
func (b *Bodies) Memory() int64 { return b.ring.bytes.Load() + b.shelf.bytes.Load() }

// loading is one Load.
type loading struct {
	b    *Bodies
	ctx  context.Context
	ids  []uint64
	fn   func(i int, msg []byte) error
	keep bool // put what was read on the shelf; else a message is valid during fn only

	shelved int64 // bytes put there
	buf     []byte
	from    int // ids[from:upto] are to be looked up in the backend
	upto    int
	keys    [][]byte
	missing []uint64
}

// loadBatch is how many bodies are looked up in the backend at once.
const loadBatch = 256

func (l *loading) run() error {
	for i, id := range l.ids {
		if l.upto-l.from == loadBatch {
			if err := l.backend(); err != nil {
				return err
			}
		}
		msg, ok := l.b.Cached(id)
		if ok || id >= l.b.log.First() {
			if err := l.backend(); err != nil { // what comes before it
				return err
			}
		}
		if !ok {
			var err error
			if msg, ok, err = l.fromLog(id); err != nil {
				return err
			}
		}
		if !ok {
			if l.upto == l.from {
				l.from = i
			}
			l.upto = i + 1
			continue
		}
		if err := l.fn(i, msg); err != nil {
			return err
		}
	}
	if err := l.backend(); err != nil {
		return err
	}
	if len(l.missing) > 0 {
		return &NoBodyError{IDs: l.missing}
	}
	return nil
}

// fromLog reads a message from the log, if its record is still there.
func (l *loading) fromLog(id uint64) ([]byte, bool, error) {
	if id < l.b.log.First() {
		return nil, false, nil
	}
	if err := l.ctx.Err(); err != nil {
		return nil, false, err
	}
	rec, err := l.b.log.ReadRecord(id, l.buf[:0])
	if errors.Is(err, wal.ErrNotFound) { // dropped since: then the backend has it
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("recovery: load message %d: %w", id, err)
	}
	l.buf = rec
	msg, ok := message(rec)
	if !ok {
		return nil, false, nil
	}
	l.b.logReads.Add(1)
	if l.keep {
		msg = append(make([]byte, 0, len(msg)), msg...)
		l.shelve(id, msg)
	}
	return msg, true, nil
}

// shelve puts a message on the shelf, unless that is full of earlier ones.
func (l *loading) shelve(id uint64, msg []byte) {
	limit := l.b.shelfLimit()
	if l.shelved > 0 && l.shelved+int64(len(msg))+shelvedOverhead > limit {
		return
	}
	l.shelved += int64(len(msg)) + shelvedOverhead
	l.b.shelf.put(id, msg, limit)
}

// shelfLimit is what the frames leave over, at least a quarter.
func (b *Bodies) shelfLimit() int64 { return max(b.budget/4, b.budget-b.ring.bytes.Load()) }

// backend looks up the ids that wait for it.
func (l *loading) backend() error {
	n := l.upto - l.from
	if n == 0 {
		return nil
	}
	from := l.from
	l.from, l.upto = 0, 0
	for len(l.keys) < n {
		l.keys = append(l.keys, make([]byte, 0, 9))
	}
	keys := l.keys[:n]
	for i := range keys {
		keys[i] = backends.IDKey(keys[i][:0], backends.TableBody, l.ids[from+i])
	}
	// fn may take its time and use the store; Get's callback may not. So all
	// that is to be kept is copied out first.
	found := make([][]byte, n)
	err := l.b.store.Get(l.ctx, keys, func(i int, val []byte) error {
		if val != nil {
			found[i] = append(make([]byte, 0, len(val)), val...)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("recovery: load messages: %w", err)
	}
	for i, msg := range found {
		id := l.ids[from+i]
		if msg == nil {
			l.missing = append(l.missing, id)
			continue
		}
		l.b.storeReads.Add(1)
		if l.keep {
			l.shelve(id, msg)
		}
		if err := l.fn(from+i, msg); err != nil {
			return err
		}
	}
	return nil
}
