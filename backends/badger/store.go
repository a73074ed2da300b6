package badger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"

	bdb "github.com/dgraph-io/badger/v4"

	"github.com/wind-c/comqtt/v3/backends"
)

var _ backends.Store = (*Store)(nil)

// Store is one open directory. Make one with Open.
type Store struct {
	path     string
	temp     string // the copy that is looked at instead; "" = none
	readOnly bool
	reserve  int64
	db       *bdb.DB

	// life is held shared by whatever touches db and exclusively by Close. It
	// is not held while a scan calls back.
	life   sync.RWMutex
	closed bool

	commit sync.Mutex // one Commit at a time
	dirty  bool       // a Commit failed half-way; owned by commit
	failed atomic.Pointer[error]

	version atomic.Uint64 // that readers see
	mu      sync.Mutex
	readers map[uint64]int // number of readers by the version they see

	stopCleaning context.CancelFunc
	cleaning     sync.WaitGroup
}

// Path returns the path of the directory.
func (s *Store) Path() string { return s.path }

// Commit writes b and m under the next version: one transaction of badger, or
// several if b is larger than it takes, the mark in the last. Each is synced.
// See [backends.Store] for the contract.
func (s *Store) Commit(ctx context.Context, b *backends.Batch, m backends.Mark) (err error) {
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
		return fmt.Errorf("badger: commit to %s: %w", s.path, backends.ErrReadOnly)
	}
	if err := s.room(int64(b.Bytes())); err != nil {
		return err
	}
	defer rescue(s.path, &err)
	if s.dirty {
		if err := s.takeBack(); err != nil {
			return err
		}
	}
	next := s.version.Load() + 1
	w := writer{s: s, version: next}
	defer w.discard()
	if err := w.batch(ctx, b); err != nil {
		return err
	}
	if err := w.set(&bdb.Entry{Key: markKey, Value: backends.EncodeMark(nil, m)}); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	s.dirty = false
	s.publish(next)
	return nil
}

// writer writes entries of one version, in as many transactions as it takes.
type writer struct {
	s       *Store
	version uint64
	txn     *bdb.Txn
}

// ctxEvery is how many operations pass between two looks at the context.
const ctxEvery = 1024

func (w *writer) batch(ctx context.Context, b *backends.Batch) error {
	n := 0
	for op := range b.Sorted() {
		if n++; n%ctxEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		var err error
		if op.Delete {
			err = w.remove(op.Key)
		} else {
			err = w.set(&bdb.Entry{Key: op.Key, Value: op.Value})
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (w *writer) set(e *bdb.Entry) error {
	return w.do(func(t *bdb.Txn) error { return t.SetEntry(e) })
}

func (w *writer) remove(key []byte) error {
	return w.do(func(t *bdb.Txn) error { return t.Delete(key) })
}

// do adds an operation to the transaction, or to the next if this one is full.
func (w *writer) do(op func(*bdb.Txn) error) error {
	for {
		fresh := w.txn == nil
		if fresh {
			w.txn = w.s.db.NewTransactionAt(w.version, true)
		}
		err := op(w.txn)
		if errors.Is(err, bdb.ErrTxnTooBig) && !fresh {
			if err := w.flush(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("badger: write to %s: %w", w.s.path, err)
		}
		return nil
	}
}

// flush commits what is there.
func (w *writer) flush() error {
	if w.txn == nil {
		return nil
	}
	w.s.dirty = true
	err := w.txn.CommitAt(w.version, nil)
	w.txn = nil
	if err != nil {
		return w.s.fail(fmt.Errorf("badger: commit to %s: %w: %w", w.s.path, backends.ErrSyncFailed, err))
	}
	return nil
}

func (w *writer) discard() {
	if w.txn != nil {
		w.txn.Discard()
	}
}

// takeBack writes over what has a newer version than readers see, the remains
// of a Commit that was not finished, with what they see.
func (s *Store) takeBack() error {
	now := s.version.Load()
	keys, newest := s.remains(now)
	if len(keys) == 0 {
		s.dirty = false
		return nil
	}
	see := s.db.NewTransactionAt(now, false)
	defer see.Discard()
	w := writer{s: s, version: newest + 1}
	defer w.discard()
	for _, key := range keys {
		item, err := see.Get(key)
		switch {
		case errors.Is(err, bdb.ErrKeyNotFound):
			err = w.remove(key)
		case err == nil:
			var val []byte
			if val, err = item.ValueCopy(nil); err == nil {
				err = w.set(&bdb.Entry{Key: key, Value: val})
			}
		}
		if err != nil {
			return fmt.Errorf("badger: take back an unfinished commit in %s: %w", s.path, err)
		}
	}
	// The mark, or in a new store the format, carries the version.
	for _, key := range [][]byte{markKey, formatKey} {
		item, err := see.Get(key)
		if errors.Is(err, bdb.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return s.damage(key, err)
		}
		val, err := item.ValueCopy(nil)
		if err != nil {
			return s.damage(key, err)
		}
		if err := w.set(&bdb.Entry{Key: key, Value: val}); err != nil {
			return err
		}
		break
	}
	if err := w.flush(); err != nil {
		return err
	}
	s.dirty = false
	s.publish(newest + 1)
	return nil
}

// remains returns the keys with a newer version than now, and the newest.
func (s *Store) remains(now uint64) (keys [][]byte, newest uint64) {
	txn := s.db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	it := txn.NewIterator(bdb.IteratorOptions{AllVersions: true, SinceTs: now})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		item := it.Item()
		newest = max(newest, item.Version())
		if n := len(keys); n == 0 || !bytes.Equal(keys[n-1], item.Key()) {
			keys = append(keys, item.KeyCopy(nil))
		}
	}
	return keys, newest
}

// publish makes a version the one that readers see.
func (s *Store) publish(version uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version.Store(version)
	s.discard()
}

// discard tells badger what it may forget. The caller holds mu.
func (s *Store) discard() {
	oldest := s.version.Load()
	for v := range s.readers {
		oldest = min(oldest, v)
	}
	s.db.SetDiscardTs(oldest)
}

// view runs fn in a read transaction.
func (s *Store) view(ctx context.Context, fn func(txn *bdb.Txn) error) error {
	s.life.RLock()
	defer s.life.RUnlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	version := s.version.Load()
	s.readers[version]++
	s.mu.Unlock()
	txn := s.db.NewTransactionAt(version, false)
	defer func() {
		txn.Discard()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.readers[version]--; s.readers[version] == 0 {
			delete(s.readers, version)
			if !s.readOnly {
				s.discard()
			}
		}
	}()
	return fn(txn)
}

// Mark reads the mark, see [backends.Store].
func (s *Store) Mark(ctx context.Context) (m backends.Mark, err error) {
	err = s.view(ctx, func(txn *bdb.Txn) error {
		enc, err := s.read(txn, markKey, nil)
		if err != nil || enc == nil {
			return err
		}
		m, err = backends.DecodeMark(enc)
		return s.complete(err)
	})
	return m, err
}

// read returns the stored value of a stored key in buf, nil if it is not there.
func (s *Store) read(txn *bdb.Txn, key, buf []byte) (val []byte, err error) {
	defer rescue(s.path, &err)
	item, err := txn.Get(key)
	if errors.Is(err, bdb.ErrKeyNotFound) {
		return nil, nil
	}
	if err == nil {
		val, err = item.ValueCopy(buf)
	}
	if err != nil {
		return nil, s.damage(bytes.Clone(key), err)
	}
	return val, nil
}

// Get looks up keys in one transaction, see [backends.Store].
func (s *Store) Get(ctx context.Context, keys [][]byte, fn func(i int, val []byte) error) error {
	return s.view(ctx, func(txn *bdb.Txn) error {
		var buf []byte
		for i, key := range keys {
			var val []byte
			if len(key) > 0 && key[0] != markKey[0] {
				storedKey := backends.StoredKey(key)
				stored, err := s.read(txn, storedKey, buf)
				if err != nil {
					return err
				}
				if stored != nil {
					buf = stored[:0]
					if _, val, err = backends.Unseal(storedKey, stored); err != nil {
						return s.complete(err)
					}
				}
			}
			if err := fn(i, val); err != nil {
				return err
			}
		}
		return nil
	})
}

// Close waits for running calls and closes the directory, see [backends.Store].
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.stopCleaning != nil {
		s.stopCleaning()
		s.cleaning.Wait()
	}
	if err := errors.Join(s.db.Close(), s.removeTemp()); err != nil {
		return fmt.Errorf("badger: close %s: %w", s.path, err)
	}
	return nil
}

func (s *Store) removeTemp() error {
	if s.temp == "" {
		return nil
	}
	return os.RemoveAll(s.temp)
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

func (s *Store) damage(key []byte, err error) error {
	return &backends.CorruptError{Store: s.path, Key: key, Offset: -1, Err: err}
}

// complete fills the path into an error of Unseal or DecodeMark.
func (s *Store) complete(err error) error {
	var c *backends.CorruptError
	if errors.As(err, &c) {
		c.Store = s.path
	}
	return err
}

// rescue makes a *backends.CorruptError of a panic of badger, which trusts what
// it reads.
func rescue(path string, err *error) {
	p := recover()
	if p == nil {
		return
	}
	*err = &backends.CorruptError{
		Store: path, Key: []byte{}, Offset: -1,
		Err: fmt.Errorf("badger gave up: %v\n%s", p, debug.Stack()),
	}
}
