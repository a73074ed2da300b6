package recovery

import (
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func sum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func TestManifest_RoundTripAndGenerations(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := ReadManifest(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("empty directory: %v", err)
	}
	m := NewManifest(BackendBbolt)
	for i := range 3 {
		m.Floor, m.Sealed = uint64(i*10), i%2 == 1
		must(t, WriteManifest(dir, &m))
		got, warning, err := ReadManifest(dir)
		if err != nil || warning != "" || got != m || got.Generation != uint64(i+1) {
			t.Fatalf("wrote %+v, read %+v, %q, %v", m, got, warning, err)
		}
	}
	must(t, os.Remove(filepath.Join(dir, manifestName)))
	got, warning, err := ReadManifest(dir)
	if err != nil || warning == "" || got.Generation != 2 || got.Floor != 10 || got.StoreID != m.StoreID {
		t.Fatalf("old generation: %+v, %q, %v", got, warning, err)
	}
}

// Every flipped bit and every cut is noticed.
func TestManifest_EveryBit(t *testing.T) {
	m := NewManifest(BackendMemory)
	m.Floor = 1<<63 + 7
	b := m.encode()
	if got, err := decodeManifest(b); err != nil || got != m {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if _, err := decodeManifest(b); err == nil {
				t.Errorf("bit %d of byte %d flipped, not noticed", bit, i)
			}
			b[i] ^= 1 << bit
		}
		if _, err := decodeManifest(b[:i]); err == nil {
			t.Errorf("cut at %d, not noticed", i)
		}
	}
}

// A damaged manifest does not replace the good old one.
func TestManifest_DamagedOneIsNotKept(t *testing.T) {
	dir := t.TempDir()
	m := NewManifest(BackendBbolt)
	must(t, WriteManifest(dir, &m))
	must(t, WriteManifest(dir, &m))
	must(t, os.WriteFile(filepath.Join(dir, manifestName), []byte("rot"), 0o600))
	must(t, WriteManifest(dir, &m))
	must(t, os.Remove(filepath.Join(dir, manifestName)))
	if got, _, err := ReadManifest(dir); err != nil || got.Generation != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
}

func FuzzManifest(f *testing.F) {
	m := NewManifest(BackendBbolt)
	f.Add(m.encode())
	m.Sealed, m.Floor = true, 1<<40
	f.Add(m.encode())
	f.Add([]byte("comqtt manifest 2\ncrc32c 00000000\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeManifest(b)
		if err != nil {
			return
		}
		again, err := decodeManifest(got.encode())
		if err != nil || again != got {
			t.Fatalf("%+v becomes %+v: %v", got, again, err)
		}
	})
}
