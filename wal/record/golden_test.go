package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// newGolden writes the golden files of new samples. It never touches a file
// that exists: those are what released versions wrote.
var newGolden = flag.Bool("new-golden", false, "write golden files that are missing")

// The bytes of every kind and version are a promise to the logs that exist:
// what is encoded today equals the golden file, and the golden file decodes
// to the record it was made from.
func TestGolden(t *testing.T) {
	for _, s := range samples() {
		t.Run(s.name, func(t *testing.T) {
			path := filepath.Join("testdata", s.name+".hex")
			rec := s.rec.AppendTo(nil)
			if _, err := os.Stat(path); *newGolden && errors.Is(err, os.ErrNotExist) {
				if err := os.WriteFile(path, []byte(hex.Dump(rec)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want := golden(t, path)
			if !bytes.Equal(rec, want) {
				t.Errorf("on-disk format changed:\n%swas:\n%s", hex.Dump(rec), hex.Dump(want))
			}
			got := zero(KindOf(want))
			if err := got.Decode(want); err != nil {
				t.Fatalf("golden record no longer decodes: %v", err)
			}
			if d := cmp.Diff(s.rec, got, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("golden record decodes to something else (-made from +decoded):\n%s", d)
			}
		})
	}
}

// Every kind has a golden file, and every golden file has a sample.
func TestGoldenComplete(t *testing.T) {
	seen := make(map[Kind]bool)
	names := []string{"future-version.hex", "future-kind.hex"}
	for _, s := range samples() {
		seen[KindOf(s.rec.AppendTo(nil))] = true
		names = append(names, s.name+".hex")
	}
	for k := KindGenesis; Known(k); k++ {
		if !seen[k] {
			t.Errorf("kind %s has no sample", k)
		}
		if zero(k) == nil || strings.HasPrefix(k.String(), "kind-") {
			t.Errorf("kind %d has no name or no decoder", k)
		}
	}
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !slices.Contains(names, filepath.Base(f)) {
			t.Errorf("%s belongs to no sample: a released layout must stay readable", f)
		}
	}
}

// A record that a later release wrote says so; it is not "damaged".
func TestGoldenFuture(t *testing.T) {
	for name, want := range map[string]UnknownError{
		"future-version": {Kind: KindPublish, Version: 2},
		"future-kind":    {Kind: 200, Version: 1},
	} {
		rec := golden(t, filepath.Join("testdata", name+".hex"))
		k := KindOf(rec)
		if !Known(k) {
			k = KindPublish
		}
		err := zero(k).Decode(rec)
		var unknown *UnknownError
		if !errors.As(err, &unknown) || *unknown != want {
			t.Errorf("%s: %v, want unknown %v", name, err, want)
		}
	}
	for k := KindGenesis; Known(k); k++ {
		var unknown *UnknownError
		if err := zero(k).Decode([]byte{byte(k), 2, 1, 2, 3}); !errors.As(err, &unknown) || unknown.Kind != k || unknown.Version != 2 {
			t.Errorf("%s version 2: %v, want an UnknownError", k, err)
		}
	}
}

var hexLine = regexp.MustCompile(`^[0-9a-f]{8}  ([0-9a-f ]+?) *\|`)

// golden reads the bytes that hex.Dump wrote.
func golden(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	for line := range strings.Lines(string(text)) {
		m := hexLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("%s: %q is no line of a dump", path, line)
		}
		part, err := hex.DecodeString(strings.ReplaceAll(m[1], " ", ""))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		b = append(b, part...)
	}
	return b
}
