package bbolt_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/bbolt"
)

// A table whose last pair went is an empty inline bucket, and no damage.
func TestOpen_EmptiedTable(t *testing.T) {
	for n := range 4 {
		path := filepath.Join(t.TempDir(), "state.bbolt")
		s, err := bbolt.Open(path, bbolt.Options{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		var put, del backends.Batch
		for i := range n + 1 {
			put.Put([]byte{'U', byte(i)}, make([]byte, 1000*i))
			del.Delete([]byte{'U', byte(i)})
		}
		err = errors.Join(
			s.Commit(t.Context(), &put, backends.Mark{Applied: 1}), s.Commit(t.Context(), &del, backends.Mark{Applied: 2}), s.Close())
		if err != nil {
			t.Fatal(err)
		}
		if s, err = bbolt.Open(path, bbolt.Options{}); err != nil {
			t.Fatalf("%d pairs put and deleted: %v", n+1, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
