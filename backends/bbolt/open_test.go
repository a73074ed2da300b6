package bbolt_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/bbolt"
)

// small makes a closed store with one pair and returns the path of its file.
func small(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s := open(t, dir)
	var b backends.Batch
	b.Put([]byte("Sa"), []byte("1"))
	if err := s.Commit(t.Context(), &b, backends.Mark{Applied: 5, Schema: 1}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return file(dir)
}

func TestOpenMissing(t *testing.T) {
	path := file(t.TempDir())
	for _, o := range []bbolt.Options{{}, {ReadOnly: true}, {ReadOnly: true, Create: true}} {
		if _, err := bbolt.Open(path, o); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open with %+v = %v, want fs.ErrNotExist", o, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("open with %+v made a file", o)
		}
	}
}

// TestOpenForeign: what is not a store stays as it is.
func TestOpenForeign(t *testing.T) {
	otherBolt := func(t *testing.T, bucket string) []byte {
		path := file(t.TempDir())
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bolt.Tx) error {
			if bucket == "" {
				return nil
			}
			b, err := tx.CreateBucket([]byte(bucket))
			if err != nil {
				return err
			}
			return b.Put([]byte("k"), []byte("v"))
		})
		if err = errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	tests := []struct {
		name    string
		content []byte
		want    error
	}{
		{"empty", nil, backends.ErrDamaged},
		{"text", []byte(strings.Repeat("not a store\n", 1000)), backends.ErrNotStore},
		{"short text", []byte("x"), backends.ErrNotStore},
		{"zeros", make([]byte, 1<<16), backends.ErrNotStore},
		{"bbolt of another program", otherBolt(t, "mochi-clients"), backends.ErrNotStore},
		{"bbolt without buckets", otherBolt(t, ""), backends.ErrDamaged},
	}
	for _, tt := range tests {
		for _, o := range []bbolt.Options{{Create: true}, {ReadOnly: true}, {Preread: -1}} {
			path := file(t.TempDir())
			if err := os.WriteFile(path, tt.content, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := bbolt.Open(path, o); !errors.Is(err, tt.want) {
				t.Errorf("%s: open with %+v = %v, want %v", tt.name, o, err, tt.want)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, tt.content) {
				t.Errorf("%s: open with %+v changed the file (%v)", tt.name, o, err)
			}
		}
	}
}

func TestOpenNewer(t *testing.T) {
	path := small(t)
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("!")).Put([]byte("!format"), backends.Seal(nil, []byte("!format"), []byte{2}))
	})
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for _, o := range []bbolt.Options{{}, {ReadOnly: true}, {Preread: -1}} {
		if _, err := bbolt.Open(path, o); !errors.Is(err, backends.ErrSchema) || errors.Is(err, backends.ErrDamaged) {
			t.Errorf("open with %+v = %v, want ErrSchema", o, err)
		}
	}
}

func TestOpenLocked(t *testing.T) {
	path := small(t)
	try := func(o bbolt.Options, want error) *bbolt.Store {
		t.Helper()
		o.Timeout = time.Millisecond
		s, err := bbolt.Open(path, o)
		if !errors.Is(err, want) {
			t.Fatalf("open with %+v = %v, want %v", o, err, want)
		}
		return s
	}
	rw := try(bbolt.Options{}, nil)
	try(bbolt.Options{}, backends.ErrLocked)
	try(bbolt.Options{ReadOnly: true}, backends.ErrLocked)
	if err := rw.Close(); err != nil {
		t.Fatal(err)
	}
	r1 := try(bbolt.Options{ReadOnly: true}, nil)
	r2 := try(bbolt.Options{ReadOnly: true}, nil)
	try(bbolt.Options{}, backends.ErrLocked)
	if err := errors.Join(r1.Close(), r2.Close()); err != nil {
		t.Fatal(err)
	}
	rw = try(bbolt.Options{}, nil)
	if err := rw.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReadOnly(t *testing.T) {
	path := small(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := bbolt.Open(path, bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var b backends.Batch
	if err := s.Commit(t.Context(), &b, backends.Mark{}); !errors.Is(err, backends.ErrReadOnly) {
		t.Errorf("commit = %v, want ErrReadOnly", err)
	}
	if m, err := s.Mark(t.Context()); err != nil || m.Applied != 5 {
		t.Errorf("mark = %+v, %v", m, err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("check = %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("reading changed the file (%v)", err)
	}
}

// TestOpenSettles: opening for writing commits and syncs once, so that what the
// page cache shows of the last meta page is durable before anyone acts on it.
func TestOpenSettles(t *testing.T) {
	path := small(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := bbolt.Open(path, bbolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := s.Mark(t.Context()); err != nil || m.Applied != 5 {
		t.Errorf("mark = %+v, %v", m, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := newer(before)
	if newer(after) == at || txid(after, newer(after)) != txid(before, at)+1 {
		t.Errorf("transaction %d after %d", txid(after, newer(after)), txid(before, at))
	}
	if !bytes.Equal(before[at:at+pageSize], after[at:at+pageSize]) {
		t.Error("the meta page before was not left alone")
	}
}

// TestCreateUnfinished: a crash while a file is made leaves another name.
func TestCreateUnfinished(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(file(dir)+".new", []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("directory holds %v, %v", names, err)
	}
}

func TestCreateFails(t *testing.T) {
	path := file(t.TempDir() + "/missing")
	if _, err := bbolt.Open(path, bbolt.Options{Create: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open = %v", err)
	}
}

func TestMaxSize(t *testing.T) {
	path := small(t)
	s, err := bbolt.Open(path, bbolt.Options{MaxSize: 40 << 20, InitialMmap: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var b backends.Batch
	b.Put([]byte("Blarge"), make([]byte, 60<<20))
	if err := s.Commit(t.Context(), &b, backends.Mark{Applied: 6}); !errors.Is(err, backends.ErrFull) {
		t.Fatalf("commit = %v, want ErrFull", err)
	}
	if m, err := s.Mark(t.Context()); err != nil || m.Applied != 5 {
		t.Errorf("mark = %+v, %v", m, err)
	}
	b.Reset()
	b.Put([]byte("Bsmall"), make([]byte, 1<<20))
	if err := s.Commit(t.Context(), &b, backends.Mark{Applied: 7}); err != nil {
		t.Fatalf("a smaller commit = %v", err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCompact(t *testing.T) {
	img := build(t)
	path := file(t.TempDir())
	if err := os.WriteFile(path, img.file, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := bbolt.Open(path, bbolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := bbolt.Compact(t.Context(), path, bbolt.Options{Timeout: time.Millisecond}); !errors.Is(err, backends.ErrLocked) {
		t.Errorf("compact of an open store = %v, want ErrLocked", err)
	}
	// Grow it, so that there is something to gain.
	var b backends.Batch
	mark := img.state.mark
	for i := range uint64(5000) {
		b.Put(backends.IDKey(nil, backends.TableWill, i), make([]byte, 300))
	}
	if err := s.Commit(t.Context(), &b, mark); err != nil {
		t.Fatal(err)
	}
	b.Reset()
	for i := range uint64(5000) {
		b.Delete(backends.IDKey(nil, backends.TableWill, i))
	}
	if err := s.Commit(t.Context(), &b, mark); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, after, err := bbolt.Compact(t.Context(), path, bbolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if before.FreeBytes < 1<<20 || after.FileBytes*4 > before.FileBytes || after.FreeBytes > after.UsedBytes {
		t.Errorf("%+v became %+v", before, after)
	}
	got, err := openAndLoad(t, path, bbolt.Options{})
	if err != nil || !got.equal(&img.state) {
		t.Errorf("content changed: %v", err)
	}
}

func TestGetAllocates(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	var b backends.Batch
	var keys [][]byte
	for i := range uint64(1000) {
		keys = append(keys, backends.IDKey(nil, backends.TableBody, i))
		b.Put(keys[i], make([]byte, 300))
	}
	if err := s.Commit(t.Context(), &b, backends.Mark{}); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	get := func(keys [][]byte) float64 {
		return testing.AllocsPerRun(50, func() {
			if err := s.Get(ctx, keys, func(int, []byte) error { return nil }); err != nil {
				t.Fatal(err)
			}
		})
	}
	if one, all := get(keys[:1]), get(keys); all > one+1 {
		t.Errorf("%v allocations for one key, %v for %d: not constant", one, all, len(keys))
	}
}
