package recovery

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/failpoint"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/archive"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// committer takes a fold to the backend. One goroutine owns it; applied,
// logged, worthAdvancing and the counters may be read by others.
type committer struct {
	opt      CheckpointOptions
	log      *wal.Log
	store    backends.Store
	bodies   *Bodies
	manifest *manifestFile
	logger   *slog.Logger
	hashes   chan record.StateHash
	memory   bool             // the log is the only copy: bodies stay there, and it is never shortened
	archive  *archive.Archive // decides what leaves the log; nil = commit does
	mirror   *mirror          // is told of what was committed; nil = there is none

	mu sync.Mutex // held while the backend is written, or a base is made of it

	mark    backends.Mark // of the last commit
	applied atomic.Uint64 // = mark.Applied
	logBase atomic.Int64  // bytes of the log at the last commit

	hashKey [16]byte
	notes   notes // in the backend

	batch   backends.Batch // the transaction that moves the mark
	puts    backends.Batch // bodies that may go ahead of it
	ahead   []uint32       // entries of the bodies in puts
	order   []uint32
	wanted  []uint32
	ids     []uint64
	keys    [][]byte
	olds    []oldValue
	hashAt  time.Time // of the last hash offered
	floorAt time.Time // of the last manifest written

	stats statsCounters
}

// commit brings the changes of f to the backend:
//
//  1. the log is synced, whatever its mode: the backend never knows more than
//     the log would after a crash;
//  2. the old values of the changed entries are read, for the hash;
//  3. one transaction with the changes and the mark;
//  4. the manifest's floor, then the segments that nobody needs go.
//
// A crash between any two of them leaves a state that Open joins. After an
// error f may be committed again, alone or with later changes added.
func (w *committer) commit(ctx context.Context, f *fold) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	begin, logged := time.Now(), w.log.Bytes()
	err := w.transact(ctx, f)
	w.stats.done(begin, err)
	if err != nil {
		return err
	}
	dropped, err := w.shorten()
	w.logBase.Store(max(0, logged-dropped))
	return err
}

func (w *committer) transact(ctx context.Context, f *fold) error {
	if failpoint.Enabled {
		w.plant(f)
	}
	if err := w.log.Sync(); err != nil {
		return fmt.Errorf("recovery: checkpoint: %w", err)
	}
	if durable := w.log.Durable(); f.applied > durable {
		panic(fmt.Sprintf("recovery: checkpoint at record %d, only %d are durable", f.applied, durable))
	}
	w.batch.Reset()
	w.order = f.sorted(w.order)
	rest, err := w.writeBodies(ctx, f, w.order)
	if err != nil {
		return err
	}
	next := backends.Mark{
		StoreID: w.mark.StoreID, Applied: f.applied, Schema: backends.Schema, LogTime: f.logTime,
	}
	hash := core.HashOf(w.mark.Hash)
	for len(rest) > 0 {
		n := min(len(rest), diffChunk)
		if err := w.diff(ctx, f, rest[:n], &hash); err != nil {
			return err
		}
		rest = rest[n:]
	}
	next.Hash = hash.Bytes()
	failpoint.Hit(failpoint.CheckpointBeforeCommit)
	if err := w.put(ctx, &w.batch, next); err != nil {
		return err
	}
	w.mirror.changed(f, w.order, w.notes.count)
	w.mark, w.notes = next, notes{}
	w.applied.Store(next.Applied)
	w.stats.bodies.Add(uint64(len(w.ahead)))
	failpoint.Hit(failpoint.CheckpointAfterCommit)
	if f.live > 0 && time.Since(w.hashAt) >= w.opt.Interval {
		w.hashAt = time.Now()
		w.offer(record.StateHash{Index: next.Applied, Hash: next.Hash})
	}
	return nil
}

// put commits a batch with a mark.
func (w *committer) put(ctx context.Context, b *backends.Batch, m backends.Mark) error {
	if err := w.store.Commit(ctx, b, m); err != nil {
		return fmt.Errorf("recovery: checkpoint at record %d: %w", m.Applied, err)
	}
	w.stats.batch(b)
	return nil
}

func (w *committer) offer(h record.StateHash) {
	select { // what nobody took is out of date
	case <-w.hashes:
	default:
	}
	w.hashes <- h
}

// diffChunk is how many entries are compared with the backend at once.
const diffChunk = 4096

// oldValue says what the backend has under the key of a changed entry.
type oldValue uint8

const (
	oldNone  oldValue = iota
	oldOther          // another value
	oldSame           // the value that is to be put
)

// diff adds the changes in part, which holds no bodies, to the batch and brings
// hash up to date.
func (w *committer) diff(ctx context.Context, f *fold, part []uint32, hash *core.Hash) error {
	w.keys, w.wanted = w.keys[:0], w.wanted[:0]
	for i, at := range part {
		if e := &f.entries[at]; e.flags&foldFresh == 0 {
			w.keys = append(w.keys, f.key(e))
			w.wanted = append(w.wanted, uint32(i))
		}
	}
	w.olds = append(w.olds[:0], make([]oldValue, len(part))...)
	hashKey := &w.hashKey
	err := w.store.Get(ctx, w.keys, func(i int, val []byte) error {
		n := w.wanted[i]
		e := &f.entries[part[n]]
		switch {
		case val == nil:
		case e.flags&foldDelete == 0 && bytes.Equal(val, f.value(e)):
			w.olds[n] = oldSame
		default:
			w.olds[n] = oldOther
			hash.Remove(hashKey, w.keys[i][0], w.keys[i][1:], val)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("recovery: checkpoint: read old values: %w", err)
	}
	for i, at := range part {
		e := &f.entries[at]
		key := f.key(e)
		switch {
		case e.flags&foldDelete != 0 && w.olds[i] != oldNone:
			w.batch.Delete(key)
		case e.flags&foldDelete == 0 && w.olds[i] != oldSame:
			hash.Add(hashKey, key[0], key[1:], f.value(e))
			w.batch.Put(key, f.value(e))
		}
	}
	return nil
}

// shorten drops the log's segments that the backend has made superfluous, and
// returns about how many bytes that were.
//
// The changes are committed: an error is returned only if the process has to
// stop. Everything else is tried again after the next commit.
func (w *committer) shorten() (dropped int64, err error) {
	if w.memory || !w.droppable(0, w.mark.Applied) {
		return 0, nil
	}
	if time.Since(w.floorAt) >= defaultFloorEvery {
		w.floorAt = time.Now()
		if err := w.manifest.update(w.mark.Applied, false); err != nil {
			w.logger.Warn("manifest could not be written, will be tried again", "error", err)
			return 0, nil
		}
	}
	failpoint.Hit(failpoint.CheckpointBeforeDrop)
	if w.archive != nil {
		w.archive.Passed(w.mark.Applied)
		return 0, nil
	}
	before := w.log.Bytes()
	if err := w.log.DropBefore(w.mark.Applied + 1); err != nil {
		if w.log.Err() != nil {
			return 0, fmt.Errorf("recovery: checkpoint: %w", err)
		}
		w.logger.Warn("log segments could not be removed, will be tried again", "error", err)
	}
	dropped = max(0, before-w.log.Bytes())
	w.stats.dropped.Add(uint64(dropped))
	return dropped, nil
}

// droppable says whether a segment that will not change any more ends between
// the two record indexes.
func (w *committer) droppable(above, upto uint64) bool {
	for _, s := range w.log.Segments() {
		if s.Sealed && s.Last > above && s.Last <= upto {
			return true
		}
	}
	return false
}

// worthAdvancing says whether a commit without changes, up to a record index,
// would let a part of the log go.
func (w *committer) worthAdvancing(upto uint64) bool {
	return !w.memory && w.droppable(w.applied.Load(), upto)
}

// logged returns about how many bytes were logged since the last commit.
func (w *committer) logged() int64 { return w.log.Bytes() - w.logBase.Load() }
