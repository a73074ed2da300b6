package backendtest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
)

// Open opens the store that lives in dir, and makes it if dir is empty. It ends
// the test if it cannot.
type Open = func(t *testing.T, dir string) backends.Store

// Damage damages the stored value of key in the store, as bit rot would, and
// returns the store to look at: st itself, or st closed and opened again. err is
// the error of opening it again.
type Damage = func(t *testing.T, dir string, st backends.Store, key []byte) (after backends.Store, err error)

// Option adjusts the suite to a driver.
type Option func(*suite)

// Volatile says that the store forgets everything at Close.
func Volatile(s *suite) { s.volatile = true }

// WithDamage lets the suite check that damage is found. Without it that part is
// left out: the driver has to prove it in another way.
func WithDamage(d Damage) Option { return func(s *suite) { s.damage = d } }

// suite is the contract for one driver.
type suite struct {
	open     Open
	volatile bool
	damage   Damage
}

// Run runs the whole suite.
func Run(t *testing.T, open Open, opts ...Option) {
	s := &suite{open: open}
	for _, o := range opts {
		o(s)
	}
	tests := []struct {
		name string
		fn   func(*testing.T)
	}{
		{"Mark", s.testMark},
		{"PutGetDelete", s.testPutGetDelete},
		{"GetCallbacks", s.testGetCallbacks},
		{"LaterWins", s.testLaterWins},
		{"EmptyBatch", s.testEmptyBatch},
		{"BadBatch", s.testBadBatch},
		{"ScanOrder", s.testScanOrder},
		{"ScanPrefix", s.testScanPrefix},
		{"ScanMany", s.testScanMany},
		{"ScanCallbacks", s.testScanCallbacks},
		{"ScanWhileCommitting", s.testScanWhileCommitting},
		{"LongKeys", s.testLongKeys},
		{"LargeValues", s.testLargeValues},
		{"Atomic", s.testAtomic},
		{"Context", s.testContext},
		{"Closed", s.testClosed},
		{"CloseWaits", s.testCloseWaits},
		{"Model", s.testModel},
	}
	for _, tt := range tests {
		t.Run(tt.name, tt.fn)
	}
	if !s.volatile {
		t.Run("Reopen", s.testReopen)
	}
	if s.damage != nil {
		t.Run("Damage", s.testDamage)
	}
}

// RunDamage runs only the part about damage, for a driver that has more than one
// way to notice it.
func RunDamage(t *testing.T, open Open, d Damage) {
	(&suite{open: open, damage: d}).testDamage(t)
}

// box is a store under test with the helpers that keep the tests short.
type box struct {
	backends.Store
	t     *testing.T
	dir   string
	batch backends.Batch
	mark  backends.Mark
}

// new opens a fresh store and closes it at the end of the test.
func (s *suite) new(t *testing.T) *box {
	t.Helper()
	b := &box{t: t, dir: t.TempDir()}
	b.Store = s.open(t, b.dir)
	b.mark = backends.Mark{StoreID: [16]byte{1, 15: 2}, Schema: backends.Schema}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

func (b *box) put(key, val string) { b.batch.Put([]byte(key), []byte(val)) }

func (b *box) del(key string) { b.batch.Delete([]byte(key)) }

// commit commits what was put and deleted under the next mark.
func (b *box) commit() {
	b.t.Helper()
	b.mark.Applied++
	b.mark.LogTime += 10
	b.mark.Hash[0] = byte(b.mark.Applied)
	if err := b.Commit(b.t.Context(), &b.batch, b.mark); err != nil {
		b.t.Fatalf("commit %d: %v", b.mark.Applied, err)
	}
	b.batch.Reset()
}

// missing is what get returns for a key that is not there.
const missing = "<missing>"

// get looks up keys in one call.
func (b *box) get(keys ...string) []string {
	b.t.Helper()
	var in [][]byte
	for _, k := range keys {
		in = append(in, []byte(k))
	}
	var out []string
	err := b.Get(b.t.Context(), in, func(i int, val []byte) error {
		if i != len(out) {
			return fmt.Errorf("callback for key %d, want %d", i, len(out))
		}
		if val == nil {
			out = append(out, missing)
		} else {
			out = append(out, string(val))
		}
		return nil
	})
	if err != nil {
		b.t.Fatalf("get: %v", err)
	}
	return out
}

func (b *box) wantGet(keys []string, want ...string) {
	b.t.Helper()
	if got := b.get(keys...); !slices.Equal(got, want) {
		b.t.Fatalf("get %.200q = %.200q, want %.200q", keys, got, want)
	}
}

// scan returns all pairs with prefix as "key=value".
func (b *box) scan(prefix string) []string {
	b.t.Helper()
	out, err := scan(b.t.Context(), b.Store, prefix)
	if err != nil {
		b.t.Fatalf("scan %q: %v", prefix, err)
	}
	return out
}

func (b *box) wantScan(prefix string, want ...string) {
	b.t.Helper()
	if got := b.scan(prefix); !slices.Equal(got, want) {
		b.t.Fatalf("scan %.100q = %.300q, want %.300q", prefix, got, want)
	}
}

func (b *box) wantMark() {
	b.t.Helper()
	if m, err := b.Mark(b.t.Context()); err != nil || m != b.mark {
		b.t.Fatalf("mark = %+v, %v; want %+v", m, err, b.mark)
	}
}

func scan(ctx context.Context, st backends.Store, prefix string) ([]string, error) {
	var out []string
	err := st.Scan(ctx, []byte(prefix), func(key, val []byte) error {
		out = append(out, string(key)+"="+string(val))
		return nil
	})
	return out, err
}

// wantPairs lists the pairs of model with prefix as scan does, in the order of
// their stored keys.
func wantPairs(model map[string]string, prefix string) []string {
	keys := slices.SortedFunc(maps.Keys(model), func(x, y string) int {
		return bytes.Compare(backends.StoredKey([]byte(x)), backends.StoredKey([]byte(y)))
	})
	var out []string
	for _, k := range keys {
		if strings.HasPrefix(k, prefix) {
			out = append(out, k+"="+model[k])
		}
	}
	return out
}
