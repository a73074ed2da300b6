package wal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// openEngine opens the engine on a directory with one empty segment.
func openEngine(t *testing.T, dir string, number uint64, segmentSize int64) *tidwallEngine {
	t.Helper()
	if err := createSegment(dir, number); err != nil {
		t.Fatal(err)
	}
	e, err := OpenTidwall(dir, Position{Segment: number, Entry: number}, segmentSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e.(*tidwallEngine)
}

// The engine's contract: entries lie where it says, in the documented format;
// an entry that brings the segment to its size ends it.
func TestEngineFormat(t *testing.T) {
	const start, size = 187, 2000
	dir := fastDir(t)
	e := openEngine(t, dir, start, size)
	want := files{segmentName(start): {}}
	tail := Position{Segment: start, Entry: start}
	ended := 0
	for i := range 300 {
		entry := bytes.Repeat([]byte{byte(i)}, 84+i*7%300)
		if i == 100 {
			if err := e.Roll(); err != nil {
				t.Fatal(err)
			}
			if err := e.Roll(); err != nil { // nothing to end
				t.Fatal(err)
			}
			tail.Segment, tail.Offset = tail.Entry, 0
			want[segmentName(tail.Segment)] = []byte{}
		}
		at, err := e.Append(appendEntry(nil, entry))
		if err != nil || at != tail {
			t.Fatalf("entry %d at %v, want %v: %v", i, at, tail, err)
		}
		name := segmentName(tail.Segment)
		want[name] = appendEntry(want[name], entry)
		tail.Entry++
		tail.Offset += entrySize(len(entry))
		if tail.Offset >= size {
			tail.Segment, tail.Offset = tail.Entry, 0
			want[segmentName(tail.Segment)] = []byte{}
			ended++
		}
		if e.Tail() != tail {
			t.Fatalf("tail %v, want %v", e.Tail(), tail)
		}
	}
	if !readFiles(t, dir).equal(want) || ended < 10 {
		t.Fatalf("files differ, %d segments ended", ended)
	}
}

// A sync is of the file that is written to, also after a rotation.
func TestEngineSyncsTheTail(t *testing.T) {
	dir := fastDir(t)
	e := openEngine(t, dir, 1, 500)
	synced := ""
	e.sync = func(f *os.File) error {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		tail, err := os.Stat(filepath.Join(dir, segmentName(e.tail.Segment)))
		if err == nil && os.SameFile(info, tail) {
			synced = tail.Name()
		}
		return errors.Join(err, syncData(f))
	}
	for range 20 {
		if _, err := e.Append(appendEntry(nil, make([]byte, 99))); err != nil {
			t.Fatal(err)
		}
		synced = ""
		if err := e.Sync(); err != nil || synced != segmentName(e.Tail().Segment) {
			t.Fatalf("synced %q, tail %v, %v", synced, e.Tail(), err)
		}
	}
	e.sync = func(*os.File) error { return errFault }
	if err := e.Sync(); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
}

// What the library leaks with each rotation is freed in time, while it goes on.
func TestEngineReopens(t *testing.T) {
	dir := fastDir(t)
	e := openEngine(t, dir, 1, 200)
	before := e.log
	e.rotations = rotationsMax - 3
	for i := range 10 {
		if _, err := e.Append(appendEntry(nil, make([]byte, 200))); err != nil {
			t.Fatal(err)
		}
		if i == 2 { // the third rotation
			if e.log == before {
				t.Fatal("not reopened")
			}
			before = e.log
		}
		if e.log != before {
			t.Fatalf("reopened by entry %d", i)
		}
	}
	if _, err := e.Append(appendEntry(nil, make([]byte, 1<<20))); err != nil || e.log == before {
		t.Fatalf("not reopened after a large entry: %v", err)
	}
	if len(readFiles(t, dir)) != 12 {
		t.Fatalf("%v", readFiles(t, dir).names())
	}
}
