package inspect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/bbolt"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/recovery"
)

// backend is the state in the backend, opened for reading.
type backend struct {
	path  string
	size  int64
	store backends.Store // nil: there is no file
	mark  backends.Mark  // zero: made, but never used
	// foreign: it is another store's. Then, or if it is damaged, store is nil.
	foreign bool
}

// used says that the backend holds a state.
func (b *backend) used() bool { return b.store != nil && b.mark != (backends.Mark{}) }

func (b *backend) close() error {
	if b.store == nil {
		return nil
	}
	return b.store.Close()
}

// drop closes a store that is not to be used.
func (b *backend) drop() error {
	err := b.close()
	b.store = nil
	return err
}

// openBackend opens the backend, if there is one. check says whether every page
// and every seal of the file is verified, whatever its size.
func (d *Dir) openBackend(ctx context.Context, check bool) (*backend, error) {
	kind, path := recovery.StoreFile(d.path, &d.manifest)
	b := &backend{path: path}
	if d.memoryBackend() {
		return b, nil
	}
	info, err := os.Stat(b.path)
	if errors.Is(err, os.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("inspect: open backend: %w", err)
	}
	b.size = info.Size()
	d.progress("read backend", 0, b.size)
	s, err := recovery.OpenStoreFile(kind, b.path)
	if err != nil {
		return b, d.refuse(b, err)
	}
	b.store = s
	if bolt, ok := s.(*bbolt.Store); ok && check && b.size > bbolt.DefaultPreread {
		if err := bolt.Check(ctx); err != nil {
			return b, errors.Join(d.refuse(b, err), b.drop())
		}
	}
	d.progress("read backend", b.size, b.size)
	b.mark, err = b.store.Mark(ctx)
	if err == nil && b.used() {
		err = b.mark.CheckSchema()
	}
	if err == nil && b.used() && d.manifestErr == nil && b.mark.StoreID != d.manifest.StoreID {
		b.foreign = true
		err = &recovery.DamageError{
			File: b.path, What: fmt.Sprintf("belongs to store %x, this directory to %x", b.mark.StoreID, d.manifest.StoreID),
			Lost: "nothing: two directories were mixed up", Do: "put each file back into its own directory",
		}
	}
	if err != nil {
		return b, errors.Join(d.refuse(b, err), b.drop())
	}
	return b, nil
}

// refuse turns damage that the backend reports into a DamageError.
func (d *Dir) refuse(b *backend, err error) error {
	if !errors.Is(err, backends.ErrDamaged) && !errors.Is(err, backends.ErrNotStore) && !errors.Is(err, core.ErrEntry) {
		return err
	}
	return &recovery.DamageError{
		File: b.path, What: "damaged", Err: err, Lost: "what the log no longer holds: everything before its first record",
	}
}

// loaded is the backend's state in memory.
type loaded struct {
	machine *core.Machine
	hash    [16]byte // of exactly the entries that were read
	entries uint64
	elapsed time.Duration
}

// load builds a machine from the backend's entries. It does not compare the
// hash: without a manifest there is no key.
func (d *Dir) load(ctx context.Context, b *backend) (*loaded, error) {
	begin := time.Now()
	l := &loaded{}
	var hash core.Hash
	var bytes int64
	scan := func(table byte, fn func(key, value []byte) error) error {
		return b.store.Scan(ctx, []byte{table}, func(key, value []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			hash.Add(&d.manifest.HashKey, table, key[1:], value)
			l.entries++
			bytes += int64(len(key) + len(value))
			d.progress("load backend", min(bytes, b.size), b.size)
			return fn(key[1:], value)
		})
	}
	var err error
	if l.machine, err = core.Load(scan, b.mark.Applied, b.mark.LogTime); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, d.refuse(b, err)
	}
	l.hash, l.elapsed = hash.Bytes(), time.Since(begin)
	return l, nil
}

// wrongHash is the damage of a backend whose entries are not those of its mark.
func (d *Dir) wrongHash(b *backend, got [16]byte) error {
	return d.refuse(b, fmt.Errorf("%w: entries are missing or were added: the state hash is %x, at record %d it was %x",
		core.ErrEntry, got, b.mark.Applied, b.mark.Hash))
}
