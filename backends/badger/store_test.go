package badger_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/backendtest"
	"github.com/wind-c/comqtt/v3/backends/badger"
)

func dirOf(dir string) string { return filepath.Join(dir, "state.badger") }

func open(t *testing.T, dir string) backends.Store {
	t.Helper()
	s, err := badger.Open(dirOf(dir), badger.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	backendtest.Run(t, open, backendtest.WithDamage(damageFiles))
}

// damageFiles flips a bit of the value, which is the longest row of v, in every
// file that has it. Tables are compressed: there the middle of the data is hit.
func damageFiles(t *testing.T, dir string, st backends.Store, _ []byte) (backends.Store, error) {
	if err := st.Close(); err != nil { // writes a table
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dirOf(dir), "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("tables: %v, %v", tables, err)
	}
	for _, name := range tables {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(b, []byte(strings.Repeat("v", 40))); at >= 0 {
			b[at] ^= 1
		} else {
			b[len(b)/8] ^= 1
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := badger.Open(dirOf(dir), badger.Options{})
	if err == nil {
		return s, nil
	}
	return nil, err
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := badger.Open(dirOf(dir), badger.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	s := open(t, dir)
	if _, err := badger.Open(dirOf(dir), badger.Options{}); !errors.Is(err, backends.ErrLocked) {
		t.Errorf("open twice: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := badger.Open(other, badger.Options{Create: true}); !errors.Is(err, backends.ErrNotStore) {
		t.Errorf("a directory of something else: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var b backends.Batch
	b.Put([]byte("Sa"), []byte("1"))
	if err := s.Commit(t.Context(), &b, backends.Mark{Applied: 1}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := badger.Open(dirOf(dir), badger.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Commit(t.Context(), &b, backends.Mark{}); !errors.Is(err, backends.ErrReadOnly) {
		t.Errorf("commit: %v", err)
	}
	if m, err := r.Mark(t.Context()); err != nil || m.Applied != 1 {
		t.Errorf("mark = %+v, %v", m, err)
	}
}

// TestFull: below the reserve nothing is written.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	s, err := badger.Open(dirOf(dir), badger.Options{Create: true, Reserve: 1 << 60})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var b backends.Batch
	b.Put([]byte("Sa"), []byte("1"))
	if err := s.Commit(t.Context(), &b, backends.Mark{Applied: 1}); !errors.Is(err, backends.ErrFull) {
		t.Errorf("commit: %v", err)
	}
	if m, err := s.Mark(t.Context()); err != nil || m.Applied != 0 {
		t.Errorf("mark = %+v, %v", m, err)
	}
}
