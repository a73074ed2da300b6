//go:build linux

package bbolt

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/backends"
)

// faulty is a store whose file descriptor can be exchanged under it.
type faulty struct {
	*Store
	t     *testing.T
	mark  backends.Mark
	saved int
}

// newFaulty makes a store with room for small commits in free pages, so that
// they need not grow the file.
func newFaulty(t *testing.T) *faulty {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "state.bbolt"), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	f := &faulty{Store: s, t: t, saved: -1}
	t.Cleanup(func() {
		f.restore()
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	for _, val := range []string{"", "x", "1"} {
		if err := f.commit("B", bytes.Repeat([]byte("room"), 50_000)); err != nil {
			t.Fatal(err)
		}
		if err := f.commit("B", nil); err != nil {
			t.Fatal(err)
		}
		if err := f.commit("Sa", []byte(val)); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f *faulty) commit(key string, val []byte) error {
	var b backends.Batch
	b.Put([]byte(key), val)
	m := f.mark
	m.Applied++
	err := f.Commit(f.t.Context(), &b, m)
	if err == nil {
		f.mark = m
	}
	return err
}

// swap puts dev in the place of the file: /dev/full fails writes with ENOSPC,
// /dev/null takes writes and fails syncs.
func (f *faulty) swap(dev string) {
	f.t.Helper()
	var err error
	if f.saved, err = syscall.Dup(int(f.file.Fd())); err != nil {
		f.t.Fatal(err)
	}
	d, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	defer d.Close()
	if err := syscall.Dup3(int(d.Fd()), int(f.file.Fd()), syscall.O_CLOEXEC); err != nil {
		f.t.Fatal(err)
	}
}

// restore puts the file back.
func (f *faulty) restore() {
	if f.saved < 0 {
		return
	}
	if err := syscall.Dup3(f.saved, int(f.file.Fd()), syscall.O_CLOEXEC); err != nil {
		f.t.Fatal(err)
	}
	syscall.Close(f.saved)
	f.saved = -1
}

func (f *faulty) value(key string) string {
	f.t.Helper()
	var out string
	err := f.Get(f.t.Context(), [][]byte{[]byte(key)}, func(_ int, val []byte) error {
		out = string(val)
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// TestFull: a full disk is no end. Nothing changes, and the same commit succeeds
// when there is room.
func TestFull(t *testing.T) {
	f := newFaulty(t)
	f.swap("/dev/full")
	for range 3 {
		if err := f.commit("Sa", []byte("2")); !errors.Is(err, backends.ErrFull) || errors.Is(err, backends.ErrSyncFailed) {
			t.Fatalf("commit to a full disk = %v, want ErrFull", err)
		}
		if m, err := f.Mark(t.Context()); err != nil || m != f.mark {
			t.Fatalf("mark = %+v, %v, want %+v", m, err, f.mark)
		}
		if v := f.value("Sa"); v != "1" {
			t.Fatalf("value = %q", v)
		}
	}
	f.restore()
	if err := f.commit("Sa", []byte("2")); err != nil {
		t.Fatal(err)
	}
	if v := f.value("Sa"); v != "2" {
		t.Fatalf("value = %q", v)
	}
	if err := f.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestSyncFailed: a failed sync is final, whatever the disk does afterwards, and
// the next open finds the state before.
func TestSyncFailed(t *testing.T) {
	f := newFaulty(t)
	f.swap("/dev/null")
	if err := f.commit("Sa", []byte("2")); !errors.Is(err, backends.ErrSyncFailed) {
		t.Fatalf("commit = %v, want ErrSyncFailed", err)
	}
	f.restore()
	if err := f.commit("Sa", []byte("2")); !errors.Is(err, backends.ErrSyncFailed) {
		t.Errorf("second commit = %v, want ErrSyncFailed", err)
	}
	if _, err := f.Mark(t.Context()); !errors.Is(err, backends.ErrSyncFailed) {
		t.Errorf("mark = %v, want ErrSyncFailed", err)
	}
	nothing := func(int, []byte) error { return errors.New("served") }
	if err := f.Get(t.Context(), [][]byte{[]byte("Sa")}, nothing); !errors.Is(err, backends.ErrSyncFailed) {
		t.Errorf("get = %v, want ErrSyncFailed", err)
	}
	if err := f.Scan(t.Context(), nil, func(_, _ []byte) error { return nothing(0, nil) }); !errors.Is(err, backends.ErrSyncFailed) {
		t.Errorf("scan = %v, want ErrSyncFailed", err)
	}
	if err := f.Check(t.Context()); !errors.Is(err, backends.ErrSyncFailed) {
		t.Errorf("check = %v, want ErrSyncFailed", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(f.path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	f.Store = s
	defer s.Close()
	if m, err := s.Mark(t.Context()); err != nil || m != f.mark {
		t.Errorf("mark = %+v, %v, want %+v", m, err, f.mark)
	}
	if v := f.value("Sa"); v != "1" {
		t.Errorf("value = %q", v)
	}
}

// TestCutWhileOpen: pages that vanish under the map are a fault of the
// processor, which must not end the process.
func TestCutWhileOpen(t *testing.T) {
	for _, tt := range []struct {
		name  string
		keep  int64
		stuck bool
	}{
		{"data pages", 2 * 4096, false},
		{"all pages", 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFaulty(t)
			if err := os.Truncate(f.path, tt.keep); err != nil {
				t.Fatal(err)
			}
			served := func(int, []byte) error { return errors.New("served") }
			for range 2 {
				if err := f.Get(t.Context(), [][]byte{[]byte("Sa")}, served); !errors.Is(err, backends.ErrDamaged) {
					t.Fatalf("get = %v, want ErrDamaged", err)
				}
			}
			if err := f.Scan(t.Context(), nil, func(_, _ []byte) error { return served(0, nil) }); !errors.Is(err, backends.ErrDamaged) {
				t.Errorf("scan = %v, want ErrDamaged", err)
			}
			if err := f.Check(t.Context()); !errors.Is(err, backends.ErrDamaged) {
				t.Errorf("check = %v, want ErrDamaged", err)
			}
			if err := f.commit("Sa", []byte("2")); !errors.Is(err, backends.ErrDamaged) {
				t.Errorf("commit = %v, want ErrDamaged", err)
			}
			if got := f.stuck.Load(); got != tt.stuck {
				t.Errorf("stuck = %t, want %t", got, tt.stuck)
			}
			if err := f.Close(); err != nil {
				t.Errorf("close = %v", err)
			}
			// Closing gave the lock back.
			if _, err := Open(f.path, Options{Timeout: time.Millisecond}); errors.Is(err, backends.ErrLocked) || err == nil {
				t.Errorf("open = %v, want damage", err)
			}
		})
	}
}

// TestCheckFinds: Check on an open store reports where the damage is.
func TestCheckFinds(t *testing.T) {
	f := newFaulty(t)
	if err := f.commit("Mvictim", bytes.Repeat([]byte("v"), 3000)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(b, bytes.Repeat([]byte("v"), 3000))
	w, err := os.OpenFile(f.path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.WriteAt([]byte("w"), int64(at)+100)
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	var c *backends.CorruptError
	if err := f.Check(t.Context()); !errors.As(err, &c) {
		t.Fatalf("check = %v, want a *CorruptError", err)
	}
	if c.Store != f.path || string(c.Key) != "Mvictim" || c.Offset != int64(at)/4096*4096 {
		t.Errorf("check found %+v, want the page at %d", c, at/4096*4096)
	}
}
