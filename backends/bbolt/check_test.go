package bbolt

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
)

// seedFile returns a small file with several tables.
func seedFile(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "seed")
	s, err := Open(path, Options{Create: true, InitialMmap: -1})
	if err != nil {
		t.Fatal(err)
	}
	var b backends.Batch
	for i := range uint64(60) {
		b.Put(backends.IDKey(nil, backends.TableBody, i), make([]byte, 200))
		b.Put(backends.PairKey(nil, backends.TableQueue, i%3, i), []byte("q"))
	}
	if err := errors.Join(s.Commit(t.Context(), &b, backends.Mark{Applied: 1}), s.Close()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestCheckAccepts: the check takes every file that bbolt makes, under commits
// that grow, split, merge and empty tables of every depth. A false alarm would
// keep a broker from starting.
func TestCheckAccepts(t *testing.T) {
	rounds := 60
	if n, err := strconv.Atoi(os.Getenv("CHECK_ROUNDS")); err == nil {
		rounds = n
	}
	seed := uint64(rounds)
	if rounds > 1000 {
		seed = rand.Uint64()
		t.Logf("seed %d", seed)
	}
	r := rand.New(rand.NewPCG(seed, 1))
	s, err := Open(filepath.Join(t.TempDir(), "state.bbolt"), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	sizes := []int{0, 1, 10, 100, 400, 1500, 5000, 20_000}
	var b backends.Batch
	var next uint64
	for round := range rounds {
		b.Reset()
		for range r.IntN(4) {
			table := "BSQTUW"[r.IntN(6)]
			size := sizes[r.IntN(len(sizes))]
			if r.IntN(3) > 0 { // a range comes, at the end or anywhere
				at := next
				if r.IntN(2) == 0 {
					at = r.Uint64N(next + 1)
				}
				n := 1 + r.Uint64N(max(1, uint64(min(6000, 2_000_000/(size+20)))))
				for i := range n {
					b.Put(backends.IDKey(nil, table, at+i), make([]byte, r.IntN(size+1)))
				}
				next += n
				continue
			}
			prefix := []byte{table}
			share := r.IntN(4) // of four; 0 empties the table
			err := s.Scan(t.Context(), prefix, func(key, _ []byte) error {
				if r.IntN(4) >= share {
					b.Delete(key)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Commit(t.Context(), &b, backends.Mark{Applied: uint64(round)}); err != nil {
			t.Fatal(err)
		}
		if err := s.Check(t.Context()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		st, err := s.file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		c, err := newChecker(t.Context(), s.file, "branches only", st.Size())
		if err == nil {
			err = c.check()
		}
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}

// TestCheckInline: a small table lies in the value of its bucket; there, too, the
// count of its pairs is vouched for.
func TestCheckInline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.bbolt")
	s, err := Open(path, Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	var b backends.Batch
	b.Put([]byte("Wone"), []byte("pair"))
	if err := errors.Join(s.Commit(t.Context(), &b, backends.Mark{Applied: 1}), s.Close()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pair := bytes.LastIndex(content, []byte("Wonepair"))
	count := pair - elementSize - pageHeader + 10
	if pair < 0 || content[count] != 1 {
		t.Fatalf("no inline page before offset %d", pair)
	}
	for _, n := range []byte{0, 2, 255} {
		bad := bytes.Clone(content)
		bad[count] = n
		c, err := newChecker(t.Context(), bytes.NewReader(bad), path, int64(len(bad)))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.check(); !errors.Is(err, backends.ErrDamaged) {
			t.Errorf("count %d: %v, want ErrDamaged", n, err)
		}
	}
}

// TestCheckBesideCommits: the check reads a snapshot, whatever is committed
// meanwhile.
func TestCheckBesideCommits(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "state.bbolt"), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for checks := 0; ; checks++ {
			select {
			case <-done:
				if checks > 0 {
					return
				}
			default:
			}
			if err := s.Check(t.Context()); err != nil {
				t.Error(err)
				return
			}
			if _, err := s.Info(t.Context()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	var b backends.Batch
	for i := range uint64(100) {
		b.Reset()
		for k := range uint64(300) {
			b.Put(backends.IDKey(nil, backends.TableBody, i*100+k), make([]byte, 200))
			b.Delete(backends.IDKey(nil, backends.TableBody, i*100+k-500))
		}
		if err := s.Commit(t.Context(), &b, backends.Mark{Applied: i}); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
}

// FuzzCheck: no file makes the check panic, loop or answer with an untyped error.
func FuzzCheck(f *testing.F) {
	seed := seedFile(f)
	f.Add([]byte{}, uint16(0), byte(0), true)
	f.Add(seed, uint16(0), byte(0), true)
	f.Add(seed, uint16(8), byte(3), false)
	f.Fuzz(func(t *testing.T, content []byte, page uint16, change byte, deep bool) {
		// Besides what the fuzzer does to the bytes: change the header of a page,
		// which it would seldom hit.
		if at := int(page)/16*4096 + int(page)%16; at < len(content) {
			content = bytes.Clone(content)
			content[at] ^= change
		}
		c, err := newChecker(t.Context(), bytes.NewReader(content), "fuzz", int64(len(content)))
		if err == nil {
			c.deep = deep
			err = c.check()
		}
		if err != nil && !errors.Is(err, backends.ErrDamaged) && !errors.Is(err, backends.ErrNotStore) && !errors.Is(err, backends.ErrSchema) {
			t.Fatal(err)
		}
	})
}
