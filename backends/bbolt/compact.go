package bbolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/wind-c/comqtt/v3/backends"
)

// Info says how large a file is.
type Info struct {
	FileBytes int64 // size of the file
	UsedBytes int64 // in pages that hold something
	FreeBytes int64 // in pages that the next commits fill first
}

// Info returns the sizes. The file never shrinks by itself; if most of it is
// free for long, Compact it.
func (s *Store) Info(ctx context.Context) (Info, error) {
	s.life.RLock()
	defer s.life.RUnlock()
	tx, c, err := s.snapshot(ctx)
	if err != nil {
		return Info{}, err
	}
	info, err := c.info()
	return info, errors.Join(err, tx.Rollback())
}

// Check reads the whole file and verifies every page and every seal, see Open.
// Findings come joined, each a *backends.CorruptError with its offset. It reads
// a snapshot, beside Gets and Commits; a Commit that must map the file anew
// waits for it.
func (s *Store) Check(ctx context.Context) error {
	s.life.RLock()
	defer s.life.RUnlock()
	tx, c, err := s.snapshot(ctx)
	if err != nil {
		return err
	}
	return errors.Join(c.check(), tx.Rollback())
}

// snapshot begins a read transaction, which keeps its pages from being used
// again, and returns a checker for just that state. The caller holds life.
func (s *Store) snapshot(ctx context.Context) (tx *bolt.Tx, c *checker, err error) {
	s.commit.Lock()
	defer s.commit.Unlock()
	if err := s.usable(ctx); err != nil {
		return nil, nil, err
	}
	st, err := s.file.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("bbolt: stat %s: %w", s.path, err)
	}
	if c, err = newChecker(ctx, s.file, s.path, st.Size()); err != nil {
		return nil, nil, err
	}
	c.deep = true
	defer s.guard(&err, nil, func() { s.release(nil) })()
	if tx, err = s.db.Begin(false); err != nil {
		return nil, nil, fmt.Errorf("bbolt: begin in %s: %w", s.path, err)
	}
	return tx, c, nil
}

// compactTx is how many bytes of pairs Compact writes in one transaction.
const compactTx = 4 << 20

// Compact writes the pairs and the mark of the file at path, which nobody may
// have open, into a new file and puts that in its place, durably. It needs room
// for both; a crash leaves the old file or the new one. It returns what was and
// what is.
func Compact(ctx context.Context, path string, o Options) (before, after Info, err error) {
	o.Create, o.ReadOnly = false, false
	src, err := Open(path, o)
	if err != nil {
		return before, after, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if before, err = src.Info(ctx); err != nil {
		return before, after, err
	}
	dst, err := newBuilder(path)
	if err != nil {
		return before, after, err
	}
	if err := src.copyTo(ctx, dst); err != nil {
		return before, after, dst.abort(err)
	}
	if err := dst.finish(); err != nil {
		return before, after, err
	}
	after, err = inspect(ctx, path)
	return before, after, err
}

// inspect returns the sizes of a file that was just written.
func inspect(ctx context.Context, path string) (info Info, err error) {
	s, err := Open(path, Options{ReadOnly: true})
	if err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return s.Info(ctx)
}

// copyTo copies all pairs, verified, and the mark.
func (s *Store) copyTo(ctx context.Context, dst *builder) error {
	c := chunk{limit: compactTx}
	for !c.done {
		if err := s.view(ctx, nil, func(tx *bolt.Tx) error { return c.fill(tx, nil) }); err != nil {
			return s.complete(err)
		}
		err := dst.db.Update(func(tx *bolt.Tx) error { return s.copyChunk(tx, &c) })
		if err != nil {
			return err
		}
	}
	var mark []byte
	err := s.view(ctx, nil, func(tx *bolt.Tx) error {
		mark = bytes.Clone(tx.Bucket(metaBucket).Get(markKey))
		return nil
	})
	if err != nil || mark == nil {
		return err
	}
	if _, err := backends.DecodeMark(mark); err != nil {
		return s.complete(err)
	}
	return dst.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Put(markKey, mark) })
}

func (s *Store) copyChunk(tx *bolt.Tx, c *chunk) error {
	// Denser than commits leave it, but with room for the next ones.
	dense := func(table byte) float64 { return max(fillPercent(table), 0.8) }
	tables := tables{tx: tx, fill: dense}
	for k, v := range c.pairs() {
		if _, _, err := backends.Unseal(k, v); err != nil {
			return s.complete(err)
		}
		b, err := tables.of(k)
		if err == nil {
			err = b.Put(k, v)
		}
		if err != nil {
			return fmt.Errorf("bbolt: write key %.64q: %w", k, err)
		}
	}
	return nil
}
