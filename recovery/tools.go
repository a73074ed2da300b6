package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
)

// This file is for tools that change data directories.

// Lock takes the lock of a data directory, as a broker would; release gives it
// back. The error is a *LockedError if somebody has it.
func Lock(dir string) (release func() error, err error) {
	l, err := acquire(dir)
	if err != nil {
		return nil, err
	}
	return l.release, nil
}

// Backend is the state in a backend file, read and compared with its hash.
type Backend struct {
	Machine *core.Machine
	Mark    backends.Mark
	store   backends.Store
}

// OpenBackend reads the backend of a data directory, without changing it. The
// error is fs.ErrNotExist if there is none, or one of those of Open.
func OpenBackend(ctx context.Context, dir string, m *Manifest) (*Backend, error) {
	kind, path := StoreFile(dir, m)
	s, err := openStore(kind, path, storeOptions{readOnly: true})
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return nil, damagedBackend(path, err)
	}
	b := &Backend{store: s}
	if err := b.load(ctx, path, m); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return b, nil
}

func (b *Backend) load(ctx context.Context, path string, m *Manifest) (err error) {
	if b.Mark, err = b.store.Mark(ctx); err != nil {
		return damagedBackend(path, err)
	}
	if b.Mark == (backends.Mark{}) {
		b.Machine = core.New()
		return nil
	}
	if err := b.Mark.CheckSchema(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrVersion, path, err)
	}
	if b.Mark.StoreID != m.StoreID {
		return &DamageError{File: path, What: fmt.Sprintf("belongs to store %x, this directory to %x", b.Mark.StoreID, m.StoreID)}
	}
	var hash core.Hash
	b.Machine, err = core.Load(func(table byte, fn func(key, value []byte) error) error {
		return scanTable(ctx, b.store, table, &m.HashKey, &hash, fn)
	}, b.Mark.Applied, b.Mark.LogTime)
	if err != nil {
		return damagedBackend(path, err)
	}
	if hash.Bytes() != b.Mark.Hash {
		return &DamageError{File: path, What: fmt.Sprintf("its entries have hash %x, its mark says %x", hash.Bytes(), b.Mark.Hash)}
	}
	return nil
}

func damagedBackend(path string, err error) error {
	if errors.Is(err, backends.ErrDamaged) || errors.Is(err, backends.ErrNotStore) || errors.Is(err, core.ErrEntry) {
		return &DamageError{File: path, What: "damaged", Err: err}
	}
	return fmt.Errorf("recovery: open backend: %w", err)
}

// Bodies calls fn for the bodies in the backend, in the order of their ids.
func (b *Backend) Bodies(ctx context.Context, fn func(id uint64, body []byte) error) error {
	return b.store.Scan(ctx, []byte{backends.TableBody}, func(key, val []byte) error {
		id, rest, ok := backends.SplitID(key)
		if !ok || len(rest) > 0 || id == 0 || id > b.Mark.Applied { // ahead of a checkpoint that never was
			return nil
		}
		return fn(id, val)
	})
}

// Close closes the backend.
func (b *Backend) Close() error { return b.store.Close() }

// SealBackend says in the backend of a data directory that no log beyond its
// state exists: the next start begins one there.
func SealBackend(ctx context.Context, dir string) error {
	kind, path := BackendBbolt, BackendFile(dir)
	if m, _, merr := ReadManifest(dir); merr == nil {
		kind, path = StoreFile(dir, &m)
	}
	s, err := openStore(kind, path, storeOptions{})
	if err != nil {
		return fmt.Errorf("recovery: seal the backend: %w", err)
	}
	mark, err := s.Mark(ctx)
	if err == nil {
		mark.Sealed = true
		err = s.Commit(ctx, new(backends.Batch), mark)
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return fmt.Errorf("recovery: seal the backend: %w", err)
	}
	return nil
}

// Salvaged returns a Past of a machine that was not built from a history but of
// what could be read of one. bodies calls give with every body it finds, in the
// order of ids; those of other messages than the machine's are ignored.
func Salvaged(m *core.Machine, hashKey [16]byte, bodies func(ctx context.Context, give func(id uint64, body []byte) error) error) *Past {
	return &Past{Machine: m, HashKey: hashKey, salvage: bodies}
}

// MessageOf returns the stored message in a Publish record.
func MessageOf(rec []byte) (msg []byte, ok bool) { return message(rec) }
