package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/wind-c/comqtt/v3/backends"
)

var _ backends.Store = (*Store)(nil)

// chunkPairs is how many pairs a scan collects before it calls back.
const chunkPairs = 256

// Store is a store in memory. Make one with New.
type Store struct {
	mu     sync.RWMutex
	pairs  map[string][]byte // stored key → sealed value; a value is never changed in place
	keys   []string          // keys of pairs in order, replaced as a whole; valid if sorted
	sorted bool
	mark   backends.Mark
	closed bool
}

// New returns an empty store.
func New() *Store {
	return &Store{pairs: map[string][]byte{}, sorted: true}
}

// Commit applies b and m, see [backends.Store].
func (s *Store) Commit(ctx context.Context, b *backends.Batch, m backends.Mark) error {
	if err := b.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	for op := range b.Sorted() {
		_, had := s.pairs[string(op.Key)]
		if op.Delete == had { // a new key comes or a key that was there goes
			s.sorted = false
		}
		if op.Delete {
			delete(s.pairs, string(op.Key))
		} else {
			s.pairs[string(op.Key)] = bytes.Clone(op.Value)
		}
	}
	s.mark = m
	return nil
}

// Mark returns the mark of the last Commit, see [backends.Store].
func (s *Store) Mark(ctx context.Context) (backends.Mark, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(ctx); err != nil {
		return backends.Mark{}, err
	}
	return s.mark, nil
}

// Get looks up keys, see [backends.Store].
func (s *Store) Get(ctx context.Context, keys [][]byte, fn func(i int, val []byte) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	for i, key := range keys {
		storedKey := backends.StoredKey(key)
		stored, ok := s.pairs[string(storedKey)]
		var val []byte
		if ok {
			var err error
			if _, val, err = backends.Unseal(storedKey, stored); err != nil {
				return damage(err)
			}
		}
		if err := fn(i, val); err != nil {
			return err
		}
	}
	return nil
}

// Scan calls fn for the pairs with prefix, see [backends.Store].
func (s *Store) Scan(ctx context.Context, prefix []byte, fn func(key, val []byte) error) error {
	keys, err := s.order(ctx)
	if err != nil {
		return err
	}
	from := string(backends.StoredPrefix(prefix))
	keys = keys[sort.SearchStrings(keys, from):]
	chunk := make([][]byte, 0, chunkPairs)
	for len(keys) > 0 && strings.HasPrefix(keys[0], from) {
		n := min(len(keys), chunkPairs)
		if chunk, err = s.read(ctx, keys[:n], chunk[:0]); err != nil {
			return err
		}
		for i, stored := range chunk {
			if !strings.HasPrefix(keys[i], from) {
				return nil
			}
			if stored == nil {
				continue // deleted since the scan began
			}
			key, val, err := backends.Unseal([]byte(keys[i]), stored)
			if err != nil {
				return damage(err)
			}
			if !bytes.HasPrefix(key, prefix) {
				continue
			}
			if err := fn(key, val); err != nil {
				return err
			}
		}
		keys = keys[n:]
	}
	return nil
}

// order returns all keys in order. The slice is never changed afterwards.
func (s *Store) order(ctx context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if !s.sorted {
		s.keys = slices.Sorted(maps.Keys(s.pairs))
		s.sorted = true
	}
	return s.keys, nil
}

// read appends the sealed value of each key to dst, nil for one that is gone.
func (s *Store) read(ctx context.Context, keys []string, dst [][]byte) ([][]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	for _, key := range keys {
		dst = append(dst, s.pairs[key])
	}
	return dst, nil
}

// Close drops the content, see [backends.Store].
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.pairs, s.keys = nil, nil
	return nil
}

// Len returns the number of pairs.
func (s *Store) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.pairs)
}

// Damage lets fn change the sealed value of key, as bit rot would, and reports
// whether the key is there. It exists for the tests of everything that reads
// from a store.
func (s *Store) Damage(key []byte, fn func(stored []byte)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	storedKey := string(backends.StoredKey(key))
	stored, ok := s.pairs[storedKey]
	if ok {
		stored = bytes.Clone(stored) // a scan may be reading the old one
		fn(stored)
		s.pairs[storedKey] = stored
	}
	return ok
}

func (s *Store) usable(ctx context.Context) error {
	if s.closed {
		return backends.ErrClosed
	}
	return ctx.Err()
}

// damage completes the error of backends.Unseal.
func damage(err error) error {
	var c *backends.CorruptError
	if errors.As(err, &c) {
		c.Store = "memory"
		return c
	}
	return fmt.Errorf("memory: unseal: %w", err)
}
