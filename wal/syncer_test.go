package wal

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestSyncer(t *testing.T) {
	s := newSyncer()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * 64 { // through both ways
		if _, err := f.WriteString("entry"); err != nil {
			t.Fatal(err)
		}
		if err := s.sync(f); err != nil {
			t.Fatal(err)
		}
	}
	if s.available() != (runtime.GOOS == "linux") {
		t.Errorf("the kernel's queue in use: %v", s.available())
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := s.sync(w); err == nil {
		t.Error("a pipe was made durable")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.sync(f); err == nil {
		t.Error("a closed file was made durable")
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}

// What is hardly used does not get the queue.
func TestSyncerPlain(t *testing.T) {
	s := newSyncer()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.sync(f); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}
