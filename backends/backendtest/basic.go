package backendtest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
)

func (s *suite) testMark(t *testing.T) {
	b := s.new(t)
	if m, err := b.Mark(t.Context()); err != nil || m != (backends.Mark{}) {
		t.Fatalf("mark of a new store = %+v, %v; want zero", m, err)
	}
	b.put("Sx", "v")
	b.mark.Sealed = true
	b.mark.LogTime = -1 << 40
	b.mark.Hash = [16]byte{3, 15: 4}
	b.commit()
	b.wantMark()

	b.mark = backends.Mark{StoreID: [16]byte{9}, Applied: 1<<64 - 2, LogTime: 1<<63 - 11, Schema: backends.Schema}
	b.commit() // nothing but the mark
	b.wantMark()
	b.wantGet([]string{"Sx"}, "v")
	b.wantScan("", "Sx=v")
	b.wantGet([]string{backends.MarkKey}, missing) // the mark is no pair
}

func (s *suite) testPutGetDelete(t *testing.T) {
	b := s.new(t)
	b.wantGet([]string{"Sa", "", "\x00", "\xff"}, missing, missing, missing, missing)
	b.put("Sa", "1")
	b.put("Sb", "")
	b.put("S\x00", "\x00")
	b.put("S", "bare table byte")
	b.put("\x00", "zero table")
	b.put("\xff\xff", "last table")
	b.commit()
	b.wantGet([]string{"Sb", "Sa", "Sa", "S", "S\x00", "\x00", "\xff\xff", "Sc", "\xff", "Ta", "S\x00\x00"},
		"", "1", "1", "bare table byte", "\x00", "zero table", "last table", missing, missing, missing, missing)

	b.put("Sa", "longer than before")
	b.del("Sb")
	b.del("Snever")
	b.del("Znever")
	b.commit()
	b.wantGet([]string{"Sa", "Sb", "Snever"}, "longer than before", missing, missing)

	b.put("Sa", "")
	b.put("Sb", "back")
	b.commit()
	b.wantGet([]string{"Sa", "Sb"}, "", "back")
}

func (s *suite) testGetCallbacks(t *testing.T) {
	b := s.new(t)
	b.put("Sa", "1")
	b.commit()
	stop := errors.New("stop")
	calls := 0
	err := b.Get(t.Context(), [][]byte{[]byte("Sa"), []byte("Sb"), []byte("Sa")}, func(i int, _ []byte) error {
		calls++
		if i == 1 {
			return stop
		}
		return nil
	})
	if err != stop || calls != 2 { //nolint:errorlint // as it is
		t.Fatalf("get = %v after %d calls, want the callback's error after 2", err, calls)
	}
	if err := b.Get(t.Context(), nil, func(int, []byte) error { return stop }); err != nil {
		t.Fatalf("get of no keys = %v", err)
	}
	func() {
		defer func() {
			if p := recover(); p != "mine" {
				t.Errorf("panic in a callback became %v", p)
			}
		}()
		b.Get(t.Context(), [][]byte{[]byte("Sa")}, func(int, []byte) error { panic("mine") })
	}()
	b.wantGet([]string{"Sa"}, "1")
	b.put("Sa", "2")
	b.commit() // the panic left nothing locked
}

func (s *suite) testLaterWins(t *testing.T) {
	b := s.new(t)
	b.put("Sa", "old")
	b.put("Sb", "old")
	b.commit()
	b.put("Sz", "z")
	b.put("Sa", "1")
	b.put("Sa", "2")
	b.del("Sb")
	b.put("Sb", "3")
	b.put("Sc", "4")
	b.del("Sc")
	b.put("Sa", "5")
	b.del("Sd")
	b.del("Sd")
	b.commit()
	b.wantScan("", "Sa=5", "Sb=3", "Sz=z")
}

func (s *suite) testEmptyBatch(t *testing.T) {
	b := s.new(t)
	b.commit()
	b.wantMark()
	b.wantScan("")
	b.put("Sa", "1")
	b.commit()
	b.commit()
	b.wantMark()
	b.wantScan("", "Sa=1")
}

func (s *suite) testBadBatch(t *testing.T) {
	b := s.new(t)
	b.put("Sa", "1")
	b.commit()
	for _, key := range []string{"", backends.MarkKey, "!", "!x", "S" + strings.Repeat("k", backends.MaxKey)} {
		b.put("Sb", "2")
		b.put(key, "bad")
		b.del("Sa")
		if err := b.Commit(t.Context(), &b.batch, backends.Mark{Applied: 99}); !errors.Is(err, backends.ErrKey) {
			t.Fatalf("commit with key %.20q = %v, want ErrKey", key, err)
		}
		b.batch.Reset()
		b.wantMark()
		b.wantScan("", "Sa=1")
	}
}

func (s *suite) testContext(t *testing.T) {
	b := s.new(t)
	b.put("Sa", "1")
	b.commit()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.put("Sb", "2")
	if err := b.Commit(ctx, &b.batch, backends.Mark{Applied: 9}); !errors.Is(err, context.Canceled) {
		t.Errorf("commit = %v", err)
	}
	if _, err := b.Mark(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("mark = %v", err)
	}
	never := errors.New("called back")
	if err := b.Get(ctx, [][]byte{[]byte("Sa")}, func(int, []byte) error { return never }); !errors.Is(err, context.Canceled) {
		t.Errorf("get = %v", err)
	}
	if err := b.Scan(ctx, nil, func(_, _ []byte) error { return never }); !errors.Is(err, context.Canceled) {
		t.Errorf("scan = %v", err)
	}
	b.wantMark()
	b.wantScan("", "Sa=1")
	b.commit() // the same batch, this time with a context that lives
	b.wantScan("", "Sa=1", "Sb=2")
}

func (s *suite) testClosed(t *testing.T) {
	b := s.new(t)
	b.put("Sa", "1")
	b.commit()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second close = %v", err)
	}
	if err := b.Commit(t.Context(), &b.batch, b.mark); !errors.Is(err, backends.ErrClosed) {
		t.Errorf("commit = %v", err)
	}
	if _, err := b.Mark(t.Context()); !errors.Is(err, backends.ErrClosed) {
		t.Errorf("mark = %v", err)
	}
	if err := b.Get(t.Context(), nil, nil); !errors.Is(err, backends.ErrClosed) {
		t.Errorf("get = %v", err)
	}
	if err := b.Scan(t.Context(), nil, nil); !errors.Is(err, backends.ErrClosed) {
		t.Errorf("scan = %v", err)
	}
}

func (s *suite) testReopen(t *testing.T) {
	b := s.new(t)
	model := map[string]string{}
	for round := range 5 {
		for i := range 200 {
			k := string(backends.PairKey(nil, backends.TableQueue, uint64(i%7), uint64(round*1000+i)))
			v := strings.Repeat(string(rune('a'+round)), i)
			b.put(k, v)
			model[k] = v
		}
		for k := range model {
			if len(model)%3 == 0 {
				b.del(k)
				delete(model, k)
			}
			break
		}
		b.commit()
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b.Store = s.open(t, b.dir)
		b.wantMark()
		b.wantScan("", wantPairs(model, "")...)
	}
}
