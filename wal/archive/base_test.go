package archive

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files")

func testHeader() *Header {
	return &Header{StoreID: [16]byte{1, 2}, HashKey: [16]byte{3}, Applied: 77, LogTime: 1_767_225_600_000, Hash: [16]byte{9}, Schema: 2}
}

// writeTestBase writes a base of n entries in two tables and m bodies.
func writeTestBase(t *testing.T, path string, n, m int) {
	t.Helper()
	_, err := WriteBase(path, testHeader(), func(w *BaseWriter) error {
		for i := range n {
			table := byte('S')
			if i%3 == 0 {
				table = 'Q'
			}
			if err := w.Put(table, fmt.Appendf(nil, "key %d", i), bytes.Repeat([]byte{byte(i)}, i%700)); err != nil {
				return err
			}
		}
		for i := range m {
			if err := w.Body(uint64(2*i+1), bytes.Repeat([]byte{byte(i)}, 1000)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestBase_ReadsBackWhatWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.cqb")
	writeTestBase(t, path, 5000, 900)
	r, err := OpenBase(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // only read
	if r.Header != *testHeader() || r.Entries != 5000 || r.Bodies != 900 {
		t.Errorf("header %+v, %d entries, %d bodies", r.Header, r.Entries, r.Bodies)
	}
	if err := r.Verify(); err != nil {
		t.Error(err)
	}
	for _, table := range []byte("SQ") {
		i := 0
		err := r.Scan(table, func(key, value []byte) error {
			for (i%3 == 0) != (table == 'Q') {
				i++
			}
			if string(key) != fmt.Sprintf("key %d", i) || !bytes.Equal(value, bytes.Repeat([]byte{byte(i)}, i%700)) {
				return fmt.Errorf("entry %d is %q", i, key)
			}
			i++
			return nil
		})
		if err != nil || i < 4998 {
			t.Errorf("table %c: %v after %d", table, err, i)
		}
	}
	n := 0
	err = r.ScanBodies(func(id uint64, body []byte) error {
		if id != uint64(2*n+1) || len(body) != 1000 || body[0] != byte(n) {
			return fmt.Errorf("body %d", id)
		}
		n++
		return nil
	})
	if err != nil || n != 900 {
		t.Errorf("%d bodies: %v", n, err)
	}
}

// Every flipped bit and every truncation is noticed, and never a panic.
func TestBase_DamageIsNoticed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "b.cqb")
	writeTestBase(t, path, 20, 3)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := OpenBase(path)
		if err == nil {
			err = r.Verify()
			_ = r.Close()
		}
		if !errors.Is(err, ErrBase) && !errors.Is(err, ErrVersion) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for i := range good {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			check(fmt.Sprintf("bit %d of byte %d", bit, i), b)
		}
		check(fmt.Sprintf("%d bytes", i), good[:i])
	}
	check("a byte more", append(bytes.Clone(good), 0))
}

func TestBase_OfALaterVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.cqb")
	writeTestBase(t, path, 1, 0)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[4] = baseVersion + 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBase(path); !errors.Is(err, ErrVersion) {
		t.Errorf("got %v", err)
	}
}

// The file of version 1 is read for ever. What it was written from is in the
// test; how zstd packs it may change, so the golden file is read, not compared.
func TestBase_GoldenV1(t *testing.T) {
	golden := filepath.Join("testdata", "base-v1.hex")
	if *update {
		if _, err := os.Stat(golden); err == nil {
			t.Fatal("a golden file is never rewritten: a new version gets a new one")
		}
		path := filepath.Join(t.TempDir(), "b.cqb")
		writeTestBase(t, path, 5, 2)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(hex.Dump(b)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "b.cqb")
	if err := os.WriteFile(path, unhex(t, golden), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := OpenBase(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // only read
	if err := r.Verify(); err != nil || r.Header != *testHeader() || r.Entries != 5 || r.Bodies != 2 {
		t.Errorf("%v, header %+v, %d entries, %d bodies", err, r.Header, r.Entries, r.Bodies)
	}
}

// unhex reads a hex dump.
func unhex(t *testing.T, path string) (b []byte) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if len(line) < 58 {
			continue
		}
		part, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(line[9:58]), " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, part...)
	}
	return b
}

func TestBaseWriter_RefusesDisorder(t *testing.T) {
	var out bytes.Buffer
	w, err := NewBaseWriter(&out, testHeader())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Body(5, nil); err != nil {
		t.Fatal(err)
	}
	if w.Body(5, nil) == nil || w.Body(4, nil) == nil || w.Put('S', nil, nil) == nil {
		t.Error("accepted")
	}
}

func TestNames(t *testing.T) {
	for _, s := range []Segment{{First: 1, Last: 1, LastTime: 1}, {First: 7, Last: 900, LastTime: 1_767_225_600_000, Raw: true}} {
		got, ok := parseSegment(segmentName(&s))
		if !ok || got != s {
			t.Errorf("%s: %+v", segmentName(&s), got)
		}
	}
	b := Base{Applied: 12, LogTime: 34}
	if got, ok := parseBase(baseName(&b)); !ok || got != b {
		t.Errorf("%+v", got)
	}
	for _, name := range []string{"", "seg-1-2.zst", "seg-2-0-1.zst", "seg-0-0-1.zst", "seg-a-b-c.raw", "seg-1-2-3.gz", "base-1.cqb", "base-1-2.zst", "seg--1-2-3.zst"} {
		if _, ok := parseSegment(name); ok {
			t.Errorf("%q is a segment", name)
		}
		if _, ok := parseBase(name); ok {
			t.Errorf("%q is a base", name)
		}
	}
}
