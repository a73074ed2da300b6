package bbolt

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
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
