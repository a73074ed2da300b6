package backendtest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
)

func (s *suite) testScanOrder(t *testing.T) {
	b := s.new(t)
	for _, k := range []string{"T", "Tb", "S\xff", "T\x00", "S\x00\x00", "Ta/b", "Ta", "S", "\xff", "\x00", "S\x00", "U", "\"", " "} {
		b.put(k, k)
	}
	b.commit()
	b.wantScan("", "\x00=\x00", " = ", "\"=\"", "S=S", "S\x00=S\x00", "S\x00\x00=S\x00\x00", "S\xff=S\xff",
		"T=T", "T\x00=T\x00", "Ta=Ta", "Ta/b=Ta/b", "Tb=Tb", "U=U", "\xff=\xff")
}

func (s *suite) testScanPrefix(t *testing.T) {
	b := s.new(t)
	b.wantScan("")
	b.wantScan("S")
	for _, k := range []string{"S", "Sa", "Sab", "Sb", "S\xff", "S\xff\xff", "T"} {
		b.put(k, "")
	}
	b.commit()
	b.wantScan("S", "S=", "Sa=", "Sab=", "Sb=", "S\xff=", "S\xff\xff=")
	b.wantScan("Sa", "Sa=", "Sab=")
	b.wantScan("Sab", "Sab=")
	b.wantScan("Sabc")
	b.wantScan("S\xff", "S\xff=", "S\xff\xff=")
	b.wantScan("T", "T=")
	b.wantScan("U")
	b.wantScan("\xff\xff")
	b.wantScan("!") // the mark and its like are no pairs
	b.wantScan(backends.MarkKey)
}

// testScanMany has more pairs than a driver reads at once, in several tables.
func (s *suite) testScanMany(t *testing.T) {
	b := s.new(t)
	model := map[string]string{}
	for i := range 20_000 {
		k := string(backends.IDKey(nil, "BMQ"[i%3], uint64(i)))
		model[k] = fmt.Sprint(i)
		b.put(k, model[k])
	}
	b.commit()
	b.wantScan("", wantPairs(model, "")...)
	b.wantScan("M", wantPairs(model, "M")...)
	b.wantScan("Q\x00\x00\x00\x00\x00\x00\x01", wantPairs(model, "Q\x00\x00\x00\x00\x00\x00\x01")...)
	for i := range 20_000 {
		if i%10 != 0 {
			k := string(backends.IDKey(nil, "BMQ"[i%3], uint64(i)))
			b.del(k)
			delete(model, k)
		}
	}
	b.commit()
	b.wantScan("", wantPairs(model, "")...)
}

func (s *suite) testScanCallbacks(t *testing.T) {
	b := s.new(t)
	for i := range 10 {
		b.put(fmt.Sprintf("S%d", i), "v")
	}
	b.commit()
	stop := errors.New("stop")
	calls := 0
	err := b.Scan(t.Context(), []byte("S"), func(key, _ []byte) error {
		calls++
		if string(key) == "S4" {
			return stop
		}
		return nil
	})
	if err != stop || calls != 5 { //nolint:errorlint // as it is
		t.Fatalf("scan = %v after %d calls, want the callback's error after 5", err, calls)
	}
	// A callback may use the store, and even change it.
	err = b.Scan(t.Context(), []byte("S"), func(key, _ []byte) error {
		b.wantGet([]string{string(key)}, "v")
		b.put("T"+string(key), "seen")
		b.commit()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.scan("T"); len(got) != 10 {
		t.Fatalf("scan = %q", got)
	}
}

// testScanWhileCommitting: pairs that no commit touches are seen exactly once.
func (s *suite) testScanWhileCommitting(t *testing.T) {
	b := s.new(t)
	const pairs = 12_000
	pad := strings.Repeat("x", 50)
	for i := range pairs {
		b.batch.Put(backends.IDKey(nil, 'Q', uint64(2*i)), []byte(pad))
	}
	b.commit()
	next := 0
	err := b.Scan(t.Context(), []byte("Q"), func(key, _ []byte) error {
		id, _, _ := backends.SplitID(key)
		if id%2 == 1 {
			return nil
		}
		if id != uint64(2*next) {
			return fmt.Errorf("saw %d, want %d", id, 2*next)
		}
		if next%500 == 0 { // change around the place where the scan is, and everywhere
			for d := range 40 {
				at := uint64(next + d*997)
				b.batch.Put(backends.IDKey(nil, 'Q', at|1), []byte(pad))
				b.batch.Delete(backends.IDKey(nil, 'Q', (at+20)|1))
			}
			b.commit()
		}
		next++
		return nil
	})
	if err != nil || next != pairs {
		t.Fatalf("scan = %v after %d pairs, want %d", err, next, pairs)
	}
}

// testLongKeys uses keys as long as MQTT topics may be, far beyond what bbolt
// takes.
func (s *suite) testLongKeys(t *testing.T) {
	b := s.new(t)
	model := map[string]string{}
	base := "T" + strings.Repeat("level/", 11_000)
	for _, n := range []int{backends.MaxPlainKey - 1, backends.MaxPlainKey, backends.MaxPlainKey + 1, 32_768, 40_000, 65_536} {
		for _, end := range []string{"", "a", "b", "\x00", "\xff"} {
			k := base[:n] + end
			model[k] = fmt.Sprintf("%d%s", n, end)
			b.put(k, model[k])
		}
	}
	model[strings.Repeat("U", backends.MaxKey)] = "longest"
	b.put(strings.Repeat("U", backends.MaxKey), "longest")
	b.commit()
	for k, v := range model {
		b.wantGet([]string{k, k + "x"}, v, missing)
	}
	for _, p := range []string{"", "T", base[:backends.MaxPlainKey], base[:backends.MaxPlainKey+1], base[:40_000], base[:65_536], base[:66_000]} {
		b.wantScan(p, wantPairs(model, p)...)
	}
	del := base[:40_000] + "b"
	b.del(del)
	delete(model, del)
	b.commit()
	b.wantScan("", wantPairs(model, "")...)
}

func (s *suite) testLargeValues(t *testing.T) {
	b := s.new(t)
	large := func(seed byte, n int) []byte {
		v := make([]byte, n)
		for i := range v {
			v[i] = byte(i)*7 + byte(i>>8)*13 + byte(i>>16) + seed
		}
		return v
	}
	const size = 33 << 20
	want := map[string][]byte{"B1": large(1, size), "B3": large(3, size+1)}
	b.put("B0", "small")
	b.put("B2", "small")
	b.put("B4", "small")
	for k, v := range want {
		b.batch.Put([]byte(k), v)
	}
	b.commit()
	seen := 0
	check := func(key, val []byte) error {
		seen++
		if w, ok := want[string(key)]; ok && !bytes.Equal(val, w) || !ok && string(val) != "small" {
			return fmt.Errorf("%s: %d bytes are wrong", key, len(val))
		}
		return nil
	}
	if err := b.Scan(t.Context(), nil, check); err != nil || seen != 5 {
		t.Fatalf("scan = %v after %d pairs", err, seen)
	}
	keys := [][]byte{[]byte("B3"), []byte("B0"), []byte("B1")}
	if err := b.Get(t.Context(), keys, func(i int, val []byte) error { return check(keys[i], val) }); err != nil {
		t.Fatal(err)
	}
	b.del("B1")
	b.put("B3", "small")
	b.commit()
	delete(want, "B3")
	b.wantScan("", "B0=small", "B2=small", "B3=small", "B4=small")
}
