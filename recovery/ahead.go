package recovery

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/wind-c/comqtt/v3/backends"
)

// Bodies are the bulk of a checkpoint, and no part of the state hash. So all
// but the last BatchBytes of the new ones go ahead of the checkpoint, in
// transactions of their own that leave the mark as it is. Deletes never go
// ahead: the state of the old mark still needs what they delete.
//
// A crash in between leaves bodies that no message of the old state claims. Each
// of these transactions therefore leaves a note of the ids in it, a pair of the
// body table that cannot be a body, and the commit of the checkpoint removes
// the notes:
//
//	key    'B' | 00 00 00 00 00 00 00 00 | number of the note, 4 bytes
//	value  differences of the ids, ascending, as uvarints
//
// Open reads the notes: what the replay makes again need not be written twice,
// and what it does not is deleted with the next checkpoint.
type notes struct {
	count uint32
	ids   []uint64 // found by Open; nil later
}

func noteKey(n uint32) []byte {
	return binary.BigEndian.AppendUint32(backends.IDKey(nil, backends.TableBody, 0), n)
}

// readNotes reads the notes in a backend.
func readNotes(ctx context.Context, s backends.Store) (n notes, err error) {
	prefix := backends.IDKey(nil, backends.TableBody, 0)
	err = s.Scan(ctx, prefix, func(key, val []byte) error {
		if len(key) != len(prefix)+4 {
			return &backends.CorruptError{Key: bytes.Clone(key), Offset: -1, Err: errors.New("body of message 0")}
		}
		n.count = binary.BigEndian.Uint32(key[len(prefix):]) + 1
		for id := uint64(0); len(val) > 0; {
			d, k := binary.Uvarint(val)
			if k <= 0 {
				return &backends.CorruptError{Key: bytes.Clone(key), Offset: -1, Err: errors.New("not a list of messages")}
			}
			id += d
			n.ids = append(n.ids, id)
			val = val[k:]
		}
		return nil
	})
	return n, err
}

// leftBehind returns the fold that the first changes go to. It knows of the
// bodies that are in the backend already.
func (p *opening) leftBehind() *fold {
	f := newFold()
	for _, id := range p.notes.ids {
		key := backends.IDKey(nil, backends.TableBody, id)
		if _, _, alive := p.machine.Message(id); !alive {
			f.apply(opDelete, key, nil)
			continue
		}
		f.apply(opPutNew, key, nil)
		e, _ := f.find(key)
		e.flags |= foldStored
	}
	return f
}

// writeBodies puts the changes of bodies into the batch, and returns the rest
// of order, which is sorted by key: the bodies come first.
func (w *committer) writeBodies(ctx context.Context, f *fold, order []uint32) ([]uint32, error) {
	n := 0
	for ; n < len(order) && f.key(&f.entries[order[n]])[0] == backends.TableBody; n++ {
	}
	bodies, rest := order[:n], order[n:]
	if w.memory {
		return rest, nil
	}
	w.ids, w.wanted, w.ahead = w.ids[:0], w.wanted[:0], w.ahead[:0]
	var gone []uint32
	for _, at := range bodies {
		e := &f.entries[at]
		switch {
		case e.flags&foldDelete != 0:
			gone = append(gone, at)
		case e.flags&foldStored == 0:
			w.wanted = append(w.wanted, at)
			w.ids = append(w.ids, bodyID(f.key(e)))
		}
	}
	w.puts.Reset()
	load := loading{b: w.bodies, ctx: ctx, ids: w.ids, fn: func(i int, msg []byte) error {
		if w.puts.Bytes() >= w.opt.BatchBytes {
			if err := w.goAhead(ctx, f); err != nil {
				return err
			}
		}
		w.puts.Put(f.key(&f.entries[w.wanted[i]]), msg)
		w.ahead = append(w.ahead, w.wanted[i])
		return nil
	}}
	err := load.run()
	if missing := (*NoBodyError)(nil); errors.As(err, &missing) {
		return nil, &DamageError{
			File: "the log", What: "the body of a message that is still wanted cannot be found", Err: err,
			Do: Advice(w.manifest.dir),
		}
	}
	if err != nil {
		return nil, err
	}
	return rest, w.fillBatch(f, gone)
}

// goAhead commits the bodies in puts under the old mark, with a note.
func (w *committer) goAhead(ctx context.Context, f *fold) error {
	var note []byte
	last := uint64(0)
	for _, at := range w.ahead {
		id := bodyID(f.key(&f.entries[at]))
		note = binary.AppendUvarint(note, id-last)
		last = id
	}
	w.puts.Put(noteKey(w.notes.count), note)
	if err := w.put(ctx, &w.puts, w.mark); err != nil {
		return err
	}
	w.mirror.changedAhead(f, w.ahead, w.notes.count)
	w.notes.count++
	w.stats.bodies.Add(uint64(len(w.ahead)))
	for _, at := range w.ahead {
		f.entries[at].flags |= foldStored
	}
	w.ahead = w.ahead[:0]
	w.puts.Reset()
	return nil
}

// fillBatch puts into the batch, in the order of keys: the deletion of the
// notes, that of the bodies that are gone, and the bodies that did not go
// ahead. (They are newer than those that go, but for those that went ahead and
// then away; the batch sorts itself if need be.)
func (w *committer) fillBatch(f *fold, gone []uint32) error {
	for n := range w.notes.count {
		w.batch.Delete(noteKey(n))
	}
	for _, at := range gone {
		w.batch.Delete(f.key(&f.entries[at]))
	}
	for op := range w.puts.Sorted() {
		key, val, err := backends.Unseal(op.Key, op.Value)
		if err != nil {
			return fmt.Errorf("recovery: checkpoint: %w", err)
		}
		w.batch.Put(key, val)
	}
	return nil
}
