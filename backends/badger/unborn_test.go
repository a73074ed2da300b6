package badger_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/badger"
)

// A kill while badger makes its next files leaves empty ones: it
// is no reason to refuse the store.
func TestEmptyFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.badger")
	s, err := badger.Open(path, badger.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	var b backends.Batch
	b.Put([]byte("Ckey"), []byte("value"))
	want := backends.Mark{Applied: 7, Schema: backends.Schema}
	if err := s.Commit(context.Background(), &b, want); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, unborn := range []string{"000099.vlog", "00099.mem"} {
		if err := os.WriteFile(filepath.Join(path, unborn), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s, err = badger.Open(path, badger.Options{}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Mark(context.Background())
	if err != nil || got != want {
		t.Errorf("%+v %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
