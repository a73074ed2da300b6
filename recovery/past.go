package recovery

import (
	"context"
	"errors"
	"fmt"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/archive"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Past is the state as it was at a record, built from a base snapshot of the
// archive, or from nothing, and the records that followed. It is how an archive
// gets its next base, how a lost backend is rebuilt, and what restore writes.
//
// It holds the machine in memory; bodies are read when they are asked for, so
// the files of the history have to stay. One goroutine uses it; Close it.
type Past struct {
	Machine *core.Machine
	HashKey [16]byte
	Hashes  int    // recorded state hashes that were compared
	From    uint64 // record of the base that it began with, 0 = with nothing
	Records uint64 // replayed

	history *archive.History
	base    *archive.BaseReader // nil: began with nothing
	salvage func(ctx context.Context, give func(id uint64, body []byte) error) error
}

// PastOptions says which state to build and how.
type PastOptions struct {
	History *archive.History
	Index   uint64
	HashKey [16]byte // of the store; the zero key takes that of the base
	// Progress is called about once a mebibyte with the bytes read and to be
	// read. May be nil.
	Progress func(done, total int64)
}

// OpenPast builds the state after the record Index. The base's state hash and
// the last one recorded in the log at or before Index are compared.
//
// Errors: archive.ErrReach, *DamageError, archive.ErrBase, archive.ErrVersion,
// ErrVersion.
func OpenPast(ctx context.Context, o PastOptions) (*Past, error) {
	p := &Past{HashKey: o.HashKey, history: o.History, Machine: core.New()}
	start, err := p.begin(o.Index)
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if err := p.replay(ctx, &o, start.From); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// begin loads the nearest base that is sound, if one is needed. One that is not
// gives way to those before it; what was wrong is said if none is left.
func (p *Past) begin(index uint64) (archive.Start, error) {
	var damaged error
	for {
		start, err := p.history.StartFor(index)
		if err != nil {
			return start, errors.Join(err, damaged)
		}
		if start.Base == nil {
			return start, nil
		}
		err = p.openBase(start.Base)
		if err == nil {
			return start, nil
		}
		if !errors.Is(err, archive.ErrBase) && !errors.Is(err, ErrDamaged) && !errors.Is(err, core.ErrEntry) {
			return start, err
		}
		damaged = errors.Join(damaged, err)
		path := start.Base.Path
		*p = Past{HashKey: p.HashKey, history: p.history, Machine: core.New()}
		p.history.RemoveBase(path)
	}
}

// openBase loads the machine from a base.
func (p *Past) openBase(b *archive.Base) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.base, err = archive.OpenBase(b.Path); err != nil {
		return err
	}
	h := &p.base.Header
	zero := [16]byte{}
	switch mark := (backends.Mark{Schema: h.Schema}); {
	case h.StoreID != p.history.Store:
		return &DamageError{
			File: b.Path, What: fmt.Sprintf("belongs to store %x, this directory to %x", h.StoreID, p.history.Store),
			Lost: "nothing: two directories were mixed up", Do: "put each file back into its own directory",
		}
	case mark.CheckSchema() != nil:
		return fmt.Errorf("%w: %s: %w", ErrVersion, b.Path, mark.CheckSchema())
	case p.HashKey == zero:
		p.HashKey = h.HashKey
	}
	if p.Machine, err = core.Load(p.base.Scan, h.Applied, h.LogTime); err != nil {
		return fmt.Errorf("recovery: load base %s: %w", b.Path, err)
	}
	p.From = h.Applied
	if got := p.Machine.Hash(&h.HashKey).Bytes(); got != h.Hash {
		return &DamageError{
			File: b.Path, What: fmt.Sprintf("its state has hash %x, its header says %x", got, h.Hash),
			Lost: "this base; older ones may be left", Do: "move the file away and try again",
		}
	}
	p.Hashes++
	return nil
}

// replay applies the records from from to the wanted one.
func (p *Past) replay(ctx context.Context, o *PastOptions, from uint64) error {
	if from > o.Index {
		return nil
	}
	want, err := p.lastHash(ctx, from, o.Index)
	if err != nil {
		return p.explain(err)
	}
	var fx core.Effects
	var done, told int64
	total := o.History.Bytes(from, o.Index)
	err = p.history.Replay(ctx, from, o.Index, func(f *wal.Frame) error {
		done += int64(len(f.Body))
		if o.Progress != nil && done-told >= progressStep {
			told = done
			o.Progress(done, max(total, done))
		}
		p.Records += uint64(f.Count)
		return f.Records(func(index uint64, rec []byte) error {
			if err := p.Machine.Apply(index, f.Time, rec, &fx); err != nil {
				return err
			}
			if index != want.Index {
				return nil
			}
			p.Hashes++
			if got := p.Machine.Hash(&p.HashKey).Bytes(); got != want.Hash {
				return &DamageError{
					File: "the log", What: fmt.Sprintf("the state after record %d has hash %x, the log says %x", index, got, want.Hash),
					Lost: "unknown: archive and log are not of one history, or one of them was altered",
					Do:   "keep the directory as it is",
				}
			}
			return nil
		})
	})
	if err == nil && o.Progress != nil {
		o.Progress(total, total)
	}
	return p.explain(err)
}

// lastHash returns the last state hash that the records say about a state
// between from and upto; Index 0 = none.
func (p *Past) lastHash(ctx context.Context, from, upto uint64) (last record.StateHash, err error) {
	end := p.history.Until(upto)
	err = p.history.Replay(ctx, from, max(upto, end), func(f *wal.Frame) error {
		return f.Records(func(_ uint64, rec []byte) error {
			if record.KindOf(rec) != record.KindStateHash {
				return nil
			}
			var h record.StateHash
			if err := h.Decode(rec); err != nil {
				return err
			}
			if h.Index >= from && h.Index <= upto {
				last = h
			}
			return nil
		})
	})
	return last, err
}

func (p *Past) explain(err error) error {
	var unknown *record.UnknownError
	if errors.As(err, &unknown) {
		return fmt.Errorf("%w: %w", ErrVersion, err)
	}
	if err != nil {
		return fmt.Errorf("recovery: replay the past: %w", err)
	}
	return nil
}

// Header describes the state as a base of a store.
func (p *Past) Header(store [16]byte) *archive.Header {
	return &archive.Header{
		StoreID: store, HashKey: p.HashKey, Applied: p.Machine.Applied(), LogTime: p.Machine.Now(),
		Hash: p.Machine.Hash(&p.HashKey).Bytes(), Schema: backends.Schema,
	}
}

// Entries calls fn for every entry of the state as a backend stores it.
func (p *Past) Entries(fn func(table byte, key, value []byte) error) error {
	var err error
	p.Machine.Export(func(table byte, key, value []byte) {
		if err == nil {
			err = fn(table, key, value)
		}
	})
	return err
}

// Bodies calls fn for the body of every message of the state, in the order of
// their ids. A body that is nowhere is a *NoBodyError at the end.
func (p *Past) Bodies(ctx context.Context, fn func(id uint64, body []byte) error) error {
	found := 0
	give := func(id uint64, body []byte) error {
		if _, _, alive := p.Machine.Message(id); !alive {
			return nil
		}
		found++
		return fn(id, body)
	}
	if p.salvage != nil {
		if err := p.salvage(ctx, give); err != nil {
			return err
		}
	}
	if p.base != nil {
		if err := p.base.ScanBodies(func(id uint64, body []byte) error {
			return errors.Join(ctx.Err(), give(id, body))
		}); err != nil {
			return err
		}
	}
	if p.Records > 0 {
		err := p.history.Replay(ctx, p.From+1, p.Machine.Applied(), func(f *wal.Frame) error {
			return f.Records(func(index uint64, rec []byte) error {
				if body, ok := message(rec); ok {
					return give(index, body)
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	if want := p.Machine.Counts().Messages; found != want {
		return &DamageError{
			File: "archive and log", What: fmt.Sprintf("they hold the bodies of %d of %d messages", found, want),
			Lost: "the others", Do: "keep the directory as it is",
		}
	}
	return nil
}

// WriteBase gives the state to a base.
func (p *Past) WriteBase(ctx context.Context, w *archive.BaseWriter) error {
	if err := p.Entries(w.Put); err != nil {
		return err
	}
	return p.Bodies(ctx, w.Body)
}

// fillBatch is how many bytes go into a backend in one transaction.
const fillBatch = 4 << 20

// WriteStore gives the state to an empty backend. Only the last transaction
// writes the mark: before that the backend is nothing that Open would take.
func (p *Past) WriteStore(ctx context.Context, s backends.Store, store [16]byte, sealed bool) error {
	h := p.Header(store)
	w := filler{ctx: ctx, s: s, mark: backends.Mark{StoreID: store, Schema: backends.Schema}}
	err := p.Entries(func(table byte, key, value []byte) error {
		w.key = backends.Key(w.key[:0], table, key)
		return w.put(value)
	})
	if err != nil {
		return err
	}
	err = p.Bodies(ctx, func(id uint64, body []byte) error {
		w.key = backends.IDKey(w.key[:0], backends.TableBody, id)
		return w.put(body)
	})
	if err != nil {
		return err
	}
	w.mark.Applied, w.mark.LogTime, w.mark.Hash, w.mark.Sealed = h.Applied, h.LogTime, h.Hash, sealed
	return w.flush()
}

// filler fills a backend.
type filler struct {
	ctx   context.Context
	s     backends.Store
	mark  backends.Mark
	batch backends.Batch
	key   []byte
}

func (w *filler) put(value []byte) error {
	w.batch.Put(w.key, value)
	if w.batch.Bytes() < fillBatch {
		return nil
	}
	return w.flush()
}

func (w *filler) flush() error {
	if err := w.s.Commit(w.ctx, &w.batch, w.mark); err != nil {
		return fmt.Errorf("recovery: fill the backend: %w", err)
	}
	w.batch.Reset()
	return nil
}

// Close closes the base.
func (p *Past) Close() error {
	if p.base == nil {
		return nil
	}
	err := p.base.Close()
	p.base = nil
	return err
}

// stateTables are the tables of the state but for the bodies.
const stateTables = "CMSURQTGW"

// storeBase gives the state in a backend, which nobody writes meanwhile, to a
// base.
func storeBase(ctx context.Context, s backends.Store, mark backends.Mark, hashKey [16]byte, w *archive.BaseWriter) error {
	var hash core.Hash
	for _, table := range []byte(stateTables) {
		err := scanTable(ctx, s, table, &hashKey, &hash, func(key, val []byte) error { return w.Put(table, key, val) })
		if err != nil {
			return err
		}
	}
	if hash.Bytes() != mark.Hash {
		return &DamageError{File: boltName, What: fmt.Sprintf("its entries have hash %x, its mark says %x", hash.Bytes(), mark.Hash)}
	}
	return s.Scan(ctx, []byte{backends.TableBody}, func(key, val []byte) error {
		id, rest, ok := backends.SplitID(key)
		// Notes of bodies that went ahead of a checkpoint, and those, are not its.
		if !ok || len(rest) > 0 || id == 0 || id > mark.Applied {
			return nil
		}
		return w.Body(id, val)
	})
}

// WriteDir makes a data directory in dir, which exists and is empty: a manifest
// with a new store id, a sealed backend and a base of the state. Everything in
// it is durable when it returns.
func (p *Past) WriteDir(ctx context.Context, dir string) (Manifest, error) {
	m := NewManifest(BackendBbolt)
	m.HashKey, m.Floor, m.Sealed = p.HashKey, p.Machine.Applied(), true
	if err := writeBackend(ctx, p, BackendBbolt, BackendFile(dir), m.StoreID, true); err != nil {
		return m, err
	}
	for _, d := range []string{LogDir(dir), ArchiveDir(dir)} {
		if err := makeDir(d); err != nil {
			return m, fmt.Errorf("%w: %w", ErrCreate, err)
		}
	}
	h := p.Header(m.StoreID)
	_, err := archive.WriteBase(archive.BaseFile(ArchiveDir(dir), h), h, func(w *archive.BaseWriter) error { return p.WriteBase(ctx, w) })
	if err != nil {
		return m, err
	}
	return m, WriteManifest(dir, &m) // last: without it nothing takes the directory for one
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error { return syncDir(dir) }
