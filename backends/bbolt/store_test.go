package bbolt_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/backendtest"
	"github.com/wind-c/comqtt/v3/backends/bbolt"
)

func file(dir string) string { return filepath.Join(dir, "state.bbolt") }

func open(t *testing.T, dir string) backends.Store {
	t.Helper()
	s, err := bbolt.Open(file(dir), bbolt.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	backendtest.Run(t, open, backendtest.WithDamage(damageFile(bbolt.Options{})))
}

// TestDamageUnchecked opens a store that is not read as a whole, as a large one
// is not.
func TestDamageUnchecked(t *testing.T) {
	backendtest.RunDamage(t, open, damageFile(bbolt.Options{Preread: -1}))
}

// damageFile flips a bit of the value, which is the longest row of v, in every
// place where the file has it, and opens the file again with o.
func damageFile(o bbolt.Options) backendtest.Damage {
	return func(t *testing.T, dir string, st backends.Store, _ []byte) (backends.Store, error) {
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file(dir))
		if err != nil {
			t.Fatal(err)
		}
		good, bad := []byte(strings.Repeat("v", 90)), []byte("w"+strings.Repeat("v", 89))
		if !bytes.Contains(b, good) {
			t.Fatal("value not found in the file")
		}
		if err := os.WriteFile(file(dir), bytes.ReplaceAll(b, good, bad), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := bbolt.Open(file(dir), o)
		if found := err != nil; found != (o.Preread >= 0) {
			t.Errorf("open with %+v = %v", o, err)
		}
		if err != nil {
			return nil, err
		}
		return s, nil
	}
}
