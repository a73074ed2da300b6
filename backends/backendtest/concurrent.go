package backendtest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
)

// testAtomic reads while batches are committed: every Get sees all of a batch or
// nothing of it, and never an older one than before.
func (s *suite) testAtomic(t *testing.T) {
	b := s.new(t)
	const (
		width   = 100
		commits = 60
		readers = 3
	)
	var keys [][]byte
	for i := range width {
		keys = append(keys, backends.IDKey(nil, "BSU"[i%3], uint64(i)))
	}
	write := func(version int) {
		for _, k := range keys {
			b.batch.Put(k, fmt.Appendf(nil, "%d", version))
		}
		// Things that come and go, so that pages are freed and used again.
		for i := range 500 {
			b.batch.Put(backends.PairKey(nil, 'Q', uint64(version), uint64(i)), make([]byte, 100))
			b.batch.Delete(backends.PairKey(nil, 'Q', uint64(version-2), uint64(i)))
		}
		b.commit()
	}
	write(0)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			last := 0
			for {
				select {
				case <-done:
					return
				default:
				}
				var err error
				if last, err = readVersion(t, b.Store, keys, last); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for v := 1; v <= commits; v++ {
		write(v)
	}
	close(done)
	wg.Wait()
	if v, err := readVersion(t, b.Store, keys, commits); err != nil || v != commits {
		t.Fatalf("at the end version %d, %v", v, err)
	}
}

// readVersion reads all keys in one Get and returns the version they have.
func readVersion(t *testing.T, st backends.Store, keys [][]byte, least int) (int, error) {
	version := -1
	err := st.Get(t.Context(), keys, func(i int, val []byte) error {
		var v int
		if _, err := fmt.Sscan(string(val), &v); err != nil {
			return fmt.Errorf("key %d holds %q: %w", i, val, err)
		}
		if version >= 0 && v != version {
			return fmt.Errorf("key %d has version %d, those before have %d", i, v, version)
		}
		version = v
		return nil
	})
	if err == nil && version < least {
		err = fmt.Errorf("version %d after %d", version, least)
	}
	return version, err
}

// testCloseWaits closes a store that is in use: every call ends with success or
// with ErrClosed.
func (s *suite) testCloseWaits(t *testing.T) {
	b := s.new(t)
	for i := range 1000 {
		b.batch.Put(backends.IDKey(nil, 'B', uint64(i)), make([]byte, 300))
	}
	b.commit()
	var started, wg sync.WaitGroup
	for range 4 {
		started.Add(1)
		wg.Go(func() {
			begin := sync.OnceFunc(started.Done)
			defer begin()
			for {
				_, err := scan(t.Context(), b.Store, "B")
				if err == nil {
					err = b.Get(t.Context(), [][]byte{backends.IDKey(nil, 'B', 7)}, func(_ int, val []byte) error {
						if len(val) != 300 {
							return fmt.Errorf("got %d bytes", len(val))
						}
						return nil
					})
				}
				begin()
				if errors.Is(err, backends.ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	started.Wait()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}
