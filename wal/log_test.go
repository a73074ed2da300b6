package wal

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testStore is the store of the tests' logs.
var testStore = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// errFault is what planted faults return.
var errFault = errors.New("planted fault")

// options returns options for small segments in a fresh directory, without
// marks that would come at a time of their own.
func options(t testing.TB) Options {
	t.Helper()
	return Options{Dir: fastDir(t), StoreID: testStore, SegmentSize: segmentSizeMin, IdleMark: -1}
}

// fastDir returns a fresh directory, in memory if the system has that: the
// tests that open thousands of images do not ask the disk anything.
func fastDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "comqtt-wal-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// files are the segments of a log directory by name.
type files map[string][]byte

// readFiles leaves out the spare segment: it belongs to a goroutine, and Open
// removes it whatever is in it.
func readFiles(t testing.TB, dir string) files {
	t.Helper()
	out := files{}
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range names {
		if d.IsDir() || d.Name() == spareName {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, d.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[d.Name()] = b
	}
	return out
}

// write makes dir hold exactly the files.
func (fs files) write(t testing.TB, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, dirPerm); err != nil {
		t.Fatal(err)
	}
	for name, b := range fs {
		if err := os.WriteFile(filepath.Join(dir, name), b, filePerm); err != nil {
			t.Fatal(err)
		}
	}
}

// names returns the names in order.
func (fs files) names() []string { return slices.Sorted(maps.Keys(fs)) }

// with returns a copy in which the file has the content; nil removes it.
func (fs files) with(name string, content []byte) files {
	out := maps.Clone(fs)
	out[name] = content
	if content == nil {
		delete(out, name)
	}
	return out
}

// used returns a copy in which the log's last segment ends with its last entry,
// without the zeros that may follow.
func (fs files) used(l *Log) files {
	segs := l.Segments()
	tail := segs[len(segs)-1]
	return fs.with(tail.Name, fs[tail.Name][:tail.Size])
}

// equal says whether both hold the same.
func (fs files) equal(other files) bool { return maps.EqualFunc(fs, other, bytes.Equal) }

func mustOpen(t testing.TB, o Options) *Log {
	t.Helper()
	l, _ := mustReport(t, o)
	return l
}

func mustReport(t testing.TB, o Options) (*Log, *Report) {
	t.Helper()
	l, r, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrPoisoned) {
			t.Error(err)
		}
	})
	return l, r
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// record is the record with the index: any two differ, also in length.
func record(index uint64) []byte {
	b := fmt.Appendf(nil, "record %d ", index)
	for i := range int(index*7) % 90 {
		b = append(b, byte(index)+byte(i))
	}
	return b
}

// frame makes the next frame of n records for a log whose last record is last.
func frame(last uint64, n int) *Frame {
	f := &Frame{Count: uint32(n), Time: int64(1000 + last), Term: 1}
	for i := range uint64(n) {
		f.Body = AppendRecord(f.Body, record(last+1+i))
	}
	return f
}

func commit(t testing.TB, l *Log, n int) {
	t.Helper()
	if err := l.Commit(frame(l.Last(), n)); err != nil {
		t.Fatal(err)
	}
}

// verify checks that the log holds exactly the records from first to last, by
// both readers.
func verify(t testing.TB, l *Log, first, last uint64) {
	t.Helper()
	if l.First() != first || l.Last() != last {
		t.Fatalf("log holds %d to %d, want %d to %d", l.First(), l.Last(), first, last)
	}
	next := first
	err := l.Replay(first, func(f *Frame) error {
		return f.Records(func(index uint64, rec []byte) error {
			if index != next || string(rec) != string(record(index)) {
				return fmt.Errorf("record %d is %q, want record %d", index, rec, next)
			}
			next++
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if next != last+1 {
		t.Fatalf("replay ended before %d, want %d", next, last+1)
	}
	var buf []byte
	for i := first; i <= last; i++ {
		if buf, err = l.ReadRecord(i, buf[:0]); err != nil {
			t.Fatal(err)
		}
		if string(buf) != string(record(i)) {
			t.Fatalf("record %d is %q", i, buf)
		}
	}
	for _, i := range []uint64{first - 1, last + 1} {
		if _, err := l.ReadRecord(i, nil); !errors.Is(err, ErrNotFound) {
			t.Fatalf("record %d: %v", i, err)
		}
	}
}

func TestCommitReadReopen(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		l, r := mustReport(t, o)
		if !r.Created || l.First() != 1 || l.Last() != 0 {
			t.Fatalf("new log: %+v, %d to %d", r, l.First(), l.Last())
		}
		for i := range 200 {
			commit(t, l, i%5+1)
			if l.Durable() != l.Last() {
				t.Fatalf("durable %d of %d", l.Durable(), l.Last())
			}
		}
		verify(t, l, 1, 600)
		if n := len(l.Segments()); n < 5 {
			t.Fatalf("%d segments: the test wants rotations", n)
		}
		mustClose(t, l)

		l, r = mustReport(t, o)
		if r.Created || !r.Clean || r.TornBytes != 0 || r.Records != 600 || r.Frames != 200 || r.First != 1 || r.Last != 600 {
			t.Fatalf("report: %+v", r)
		}
		verify(t, l, 1, 600)
		commit(t, l, 3)
		verify(t, l, 1, 603)
	})
}
