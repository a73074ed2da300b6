package bbolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/wind-c/comqtt/v3/backends"
)

var _ backends.Store = (*Store)(nil)

// Store is one open file. Make one with Open.
type Store struct {
	path     string
	readOnly bool
	db       *bolt.DB
	file     *os.File // the one bbolt works on

	// life is held shared by whatever touches db and exclusively by Close. It
	// is not held while a scan calls back.
	life   sync.RWMutex
	closed bool

	commit sync.Mutex // one Commit or Check at a time

	// failed is the error that ended the use of the store, nil while it works.
	failed atomic.Pointer[error]
	// stuck says that a panic left bbolt with a lock held: its Close would hang.
	stuck atomic.Bool
}

// Path returns the path of the file.
func (s *Store) Path() string { return s.path }

// Commit writes b and m in one transaction: one write of the changed pages, a
// sync, the meta page, a sync. See [backends.Store] for the contract.
func (s *Store) Commit(ctx context.Context, b *backends.Batch, m backends.Mark) error {
	if err := b.Err(); err != nil {
		return err
	}
	s.life.RLock()
	defer s.life.RUnlock()
	s.commit.Lock()
	defer s.commit.Unlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	if s.readOnly {
		return fmt.Errorf("bbolt: commit to %s: %w", s.path, backends.ErrReadOnly)
	}
	return s.update(func(tx *bolt.Tx) error {
		if err := s.apply(ctx, tx, b); err != nil {
			return err
		}
		return tx.Bucket(metaBucket).Put(markKey, backends.EncodeMark(nil, m))
	})
}

// ctxEvery is how many operations pass between two looks at the context.
const ctxEvery = 1024

// apply puts the operations of b into tx. A batch holds only what bbolt takes, so
// an error of bbolt tells of damage.
func (s *Store) apply(ctx context.Context, tx *bolt.Tx, b *backends.Batch) error {
	tables := tables{tx: tx, fill: fillPercent}
	n := 0
	for op := range b.Sorted() {
		if n++; n%ctxEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		bucket, err := tables.of(op.Key)
		switch {
		case err != nil:
		case op.Delete:
			err = bucket.Delete(op.Key)
		default:
			err = bucket.Put(op.Key, op.Value)
		}
		if err != nil {
			return s.damage(bytes.Clone(op.Key), err)
		}
	}
	return ctx.Err()
}

// tables finds the buckets for keys that come in order.
type tables struct {
	tx     *bolt.Tx
	fill   func(table byte) float64
	table  byte
	bucket *bolt.Bucket // of table; nil at first
}

// of returns the bucket of the table of key, and makes it if need be.
func (t *tables) of(key []byte) (*bolt.Bucket, error) {
	if t.bucket != nil && t.table == key[0] {
		return t.bucket, nil
	}
	b, err := t.tx.CreateBucketIfNotExists(key[:1])
	if err != nil {
		return nil, err
	}
	b.FillPercent = t.fill(key[0])
	t.table, t.bucket = key[0], b
	return b, nil
}

// fillPercent is how full bbolt leaves the pages it splits. Where keys grow, no
// later key needs the room: 300 000 bodies of 300 bytes take 107 MB at 0.95 and
// 197 MB at 0.5. Where they come at random places, full pages split again and
// again: as many queue entries over 20 000 sessions take 82 MB and write 485 MB
// at 0.95, 42 MB and 338 MB at 0.5. A session head may grow a little.
func fillPercent(table byte) float64 {
	switch table {
	case backends.TableBody, backends.TableMessage:
		return 0.95
	case backends.TableSession:
		return 0.8
	}
	return bolt.DefaultFillPercent
}

// update runs fn in a write transaction and commits it. Only commit calls it.
func (s *Store) update(fn func(tx *bolt.Tx) error) (err error) {
	var tx *bolt.Tx
	defer s.guard(&err, nil, func() { s.abandon(tx) })()
	if tx, err = s.db.Begin(true); err != nil {
		return s.fail(fmt.Errorf("bbolt: begin in %s: %w: %w", s.path, backends.ErrSyncFailed, err))
	}
	id := tx.ID()
	if err = fn(tx); err != nil {
		if rerr := tx.Rollback(); rerr != nil {
			return s.fail(fmt.Errorf("bbolt: roll back in %s: %w: %w", s.path, backends.ErrSyncFailed, rerr))
		}
		return err
	}
	if err = tx.Commit(); err == nil {
		return nil
	}
	if noRoom(err) && s.lastTx() == id-1 {
		return fmt.Errorf("bbolt: commit to %s: %w: %w", s.path, backends.ErrFull, err)
	}
	return s.fail(fmt.Errorf("bbolt: commit to %s: %w: %w", s.path, backends.ErrSyncFailed, err))
}

// noRoom says whether a commit failed because there was no room for its pages:
// at the limit of the file's size or in a write, not in a sync.
func noRoom(err error) bool {
	if errors.Is(err, berrors.ErrMaxSizeReached) {
		return true
	}
	var pe *fs.PathError
	return errors.As(err, &pe) && (errors.Is(pe, syscall.ENOSPC) ||
		errors.Is(pe, syscall.EDQUOT) || errors.Is(pe, syscall.EFBIG))
}

// lastTx returns the id of the last transaction that readers can see.
func (s *Store) lastTx() int {
	tx, err := s.db.Begin(false)
	if err != nil {
		return -1
	}
	id := tx.ID()
	if tx.Rollback() != nil {
		return -1
	}
	return id
}

// Mark reads the mark, see [backends.Store].
func (s *Store) Mark(ctx context.Context) (m backends.Mark, err error) {
	err = s.view(ctx, nil, func(tx *bolt.Tx) error {
		b := tx.Bucket(metaBucket)
		if b == nil {
			return s.damage(markKey, errors.New("no meta bucket"))
		}
		enc := b.Get(markKey)
		if enc == nil {
			return nil
		}
		var derr error
		m, derr = backends.DecodeMark(enc)
		return s.complete(derr)
	})
	return m, err
}

// Close waits for running calls and closes the file, see [backends.Store].
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var err error
	if s.stuck.Load() {
		err = errors.Join(unlock(s.file), s.file.Close())
	} else {
		err = s.db.Close()
	}
	if err != nil {
		return fmt.Errorf("bbolt: close %s: %w", s.path, err)
	}
	return nil
}

// usable says whether a call may go on. The caller holds life.
func (s *Store) usable(ctx context.Context) error {
	if s.closed {
		return backends.ErrClosed
	}
	if f := s.failed.Load(); f != nil {
		return *f
	}
	return ctx.Err()
}

// fail makes err the answer to every later call.
func (s *Store) fail(err error) error {
	s.failed.CompareAndSwap(nil, &err)
	return *s.failed.Load()
}
