package backendtest

import (
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/wind-c/comqtt/v3/backends"
)

// testModel compares the store with a map under random commits, lookups, scans
// and, for durable stores, reopenings.
func (s *suite) testModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "model")
		if err != nil {
			rt.Fatal(err)
		}
		m := &machine{suite: s, t: t, dir: dir, pairs: map[string]string{}}
		m.st = s.open(t, dir)
		defer func() {
			if err := m.st.Close(); err != nil {
				rt.Error(err)
			}
		}()
		actions := map[string]func(*rapid.T){
			"commit": m.commit,
			"get":    m.get,
			"scan":   m.scan,
			"":       m.check,
		}
		if !s.volatile {
			actions["reopen"] = m.reopen
		}
		rt.Repeat(actions)
	})
}

// machine is a store and what it should hold.
type machine struct {
	suite *suite
	t     *testing.T
	dir   string
	st    backends.Store
	pairs map[string]string
	mark  backends.Mark
	batch backends.Batch
}

// drawKey draws from few keys, so that operations meet; some are folded.
func drawKey(t *rapid.T) string {
	k := rapid.SampledFrom([]string{"B", "S", "Q", "\x01", "\xff"}).Draw(t, "table")
	if rapid.IntRange(0, 19).Draw(t, "long") == 0 {
		k += strings.Repeat("k", backends.MaxPlainKey-3)
	}
	return k + rapid.StringOfN(rapid.RuneFrom([]rune{0, 'a', 'b', 'ÿ'}), 0, 5, -1).Draw(t, "key")
}

func (m *machine) commit(t *rapid.T) {
	m.batch.Reset()
	next := map[string]string{}
	gone := map[string]bool{}
	for range rapid.IntRange(0, 40).Draw(t, "ops") {
		k := drawKey(t)
		if rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
			m.batch.Delete([]byte(k))
			gone[k] = true
			delete(next, k)
			continue
		}
		v := strings.Repeat(rapid.StringN(0, 3, -1).Draw(t, "val"), rapid.SampledFrom([]int{1, 1, 50, 2000}).Draw(t, "times"))
		m.batch.Put([]byte(k), []byte(v))
		next[k] = v
		delete(gone, k)
	}
	mark := backends.Mark{
		Applied: m.mark.Applied + 1,
		LogTime: rapid.Int64().Draw(t, "time"),
		Sealed:  rapid.Bool().Draw(t, "sealed"),
		Schema:  backends.Schema,
	}
	copy(mark.Hash[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "hash"))
	if err := m.st.Commit(m.t.Context(), &m.batch, mark); err != nil {
		t.Fatalf("commit: %v", err)
	}
	m.mark = mark
	for k, v := range next {
		m.pairs[k] = v
	}
	for k := range gone {
		delete(m.pairs, k)
	}
}

func (m *machine) get(t *rapid.T) {
	var keys [][]byte
	for range rapid.IntRange(0, 20).Draw(t, "keys") {
		keys = append(keys, []byte(drawKey(t)))
	}
	next := 0
	err := m.st.Get(m.t.Context(), keys, func(i int, val []byte) error {
		want, ok := m.pairs[string(keys[i])]
		if i != next || ok != (val != nil) || want != string(val) {
			t.Fatalf("get: callback %d for key %d %q: %q (nil: %t), want %q (there: %t)", next, i, keys[i], val, val == nil, want, ok)
		}
		next++
		return nil
	})
	if err != nil || next != len(keys) {
		t.Fatalf("get: %v after %d of %d", err, next, len(keys))
	}
}

func (m *machine) scan(t *rapid.T) {
	m.wantScan(t, drawKey(t))
}

func (m *machine) check(t *rapid.T) {
	m.wantScan(t, "")
	if mark, err := m.st.Mark(m.t.Context()); err != nil || mark != m.mark {
		t.Fatalf("mark = %+v, %v; want %+v", mark, err, m.mark)
	}
}

func (m *machine) wantScan(t *rapid.T, prefix string) {
	got, err := scan(m.t.Context(), m.st, prefix)
	if want := wantPairs(m.pairs, prefix); err != nil || !slices.Equal(got, want) {
		t.Fatalf("scan %q = %q, %v; want %q", prefix, got, err, want)
	}
}

func (m *machine) reopen(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "reopen") > 0 {
		return // it is slow and need not be every fourth step
	}
	if err := m.st.Close(); err != nil {
		t.Fatal(err)
	}
	m.st = m.suite.open(m.t, m.dir)
}
