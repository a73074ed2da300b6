package wal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
)

func openNative(t *testing.T, dir string, size int64) *nativeEngine {
	t.Helper()
	return openEngine(t, OpenNative, dir, 1, size).(*nativeEngine)
}

// exists says whether there is a file.
func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// With a spare at hand every segment is zeros beforehand, and an entry changes
// neither its size nor its inode; nothing is allocated for it.
func TestNativeWritesIntoZeros(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const size = 100_000
		dir := fastDir(t)
		e := openNative(t, dir, size)
		entry := appendEntry(nil, make([]byte, 400))
		for range 5 {
			synctest.Wait() // until the spare is ready
			path := filepath.Join(dir, segmentName(e.Tail().Segment))
			info, err := os.Stat(path)
			if err != nil || info.Size() != size || !exists(t, filepath.Join(dir, spareName)) {
				t.Fatalf("%v bytes, %v", info.Size(), err)
			}
			if b, err := os.ReadFile(path); err != nil || len(bytes.Trim(b, "\x00")) > 0 {
				t.Fatalf("the segment is not zero: %v", err)
			}
			if n := testing.AllocsPerRun(100, func() {
				if _, err := e.Append(entry); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Fatalf("%v allocations", n)
			}
			after, err := os.Stat(path)
			if err != nil || after.Size() != size || !os.SameFile(info, after) {
				t.Fatalf("%v bytes, %v", after.Size(), err)
			}
			for old := e.Tail().Segment; e.Tail().Segment == old; {
				mustAppend(t, e, make([]byte, 400))
			}
		}
	})
}

// A segment that ends before the spare is ready is followed by one that grows,
// and the spare serves the one after that.
func TestNativeWithoutSpare(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := fastDir(t)
		e := openNative(t, dir, 1000)
		synctest.Wait()
		hold := make(chan struct{})
		e.spare.sync = func(f *os.File) error { <-hold; return syncData(f) }
		roll := func(want int64) {
			t.Helper()
			mustAppend(t, e, make([]byte, 1000))
			synctest.Wait()
			info, err := os.Stat(filepath.Join(dir, segmentName(e.Tail().Segment)))
			if err != nil || info.Size() != want {
				t.Fatalf("%v bytes, want %d: %v", info.Size(), want, err)
			}
		}
		roll(1000) // the one from the start; the next one is held up
		roll(0)
		roll(0)
		close(hold)
		synctest.Wait()
		roll(1000)
		roll(1000)
	})
}

// A spare that could not be written or synced is never used and does not stay;
// the next one is tried.
func TestNativeSpareFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := fastDir(t)
		e := openNative(t, dir, 1000)
		synctest.Wait()
		syncs := 0
		e.spare.sync = func(*os.File) error { syncs++; return errFault }
		mustAppend(t, e, make([]byte, 1000)) // takes the one from the start
		for i := range 3 {
			synctest.Wait()
			if exists(t, filepath.Join(dir, spareName)) || syncs != i+1 {
				t.Fatalf("it is still there, or was not tried: %d syncs", syncs)
			}
			mustAppend(t, e, make([]byte, 1000))
			if info, err := os.Stat(filepath.Join(dir, segmentName(e.Tail().Segment))); err != nil || info.Size() != 0 {
				t.Fatalf("%v, %v", info, err)
			}
		}
	})
}

// Close ends the work on a spare, and none is left behind.
func TestNativeCloseRemovesSpare(t *testing.T) {
	for _, ready := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			dir := fastDir(t)
			if err := createSegment(dir, 1); err != nil {
				t.Fatal(err)
			}
			e, err := OpenNative(dir, Position{Segment: 1, Entry: 1}, 64<<20)
			if err != nil {
				t.Fatal(err)
			}
			if ready {
				synctest.Wait()
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			if exists(t, filepath.Join(dir, spareName)) {
				t.Fatal("the spare is still there")
			}
		})
	}
}

// The end of a segment syncs it, and a failure of that is an error.
func TestNativeRotationSyncs(t *testing.T) {
	dir := fastDir(t)
	e := openNative(t, dir, 1000)
	var synced []string
	e.sync = func(f *os.File) error { synced = append(synced, filepath.Base(f.Name())); return nil }
	mustAppend(t, e, make([]byte, 1000))
	mustAppend(t, e, make([]byte, 10))
	if err := e.Roll(); err != nil || len(synced) != 2 {
		t.Fatalf("synced %v, %v", synced, err)
	}
	e.sync = func(*os.File) error { return errFault }
	if _, err := e.Append(appendEntry(nil, make([]byte, 1000))); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
}

// Zeros behind the last entry are unused space in every segment: the truncation
// of one that Roll ended may be lost. Zeros in the place of frames are damage
// where they begin.
func TestZerosBehindSegments(t *testing.T) {
	o := options(t)
	disk, segs, _ := threeSegments(t, o, func(l *Log) { mustClose(t, l) })
	padded := files{}
	for name, b := range disk {
		padded[name] = append(bytes.Clone(b), make([]byte, 5000)...)
	}
	padded.write(t, o.Dir)
	in, err := Scan(o.Dir, testStore, nil)
	if err != nil || in.Damage != nil || !in.Clean || in.Last != segs[2].Last || in.Segments[1].Size != in.Segments[1].Valid+5000 {
		t.Fatalf("%+v, %v", in, err)
	}
	l, r := mustReport(t, o)
	if r.TornErr != nil || r.TornBytes != 0 || r.Bytes != l.Bytes() {
		t.Fatalf("%+v", r)
	}
	verify(t, l, 1, segs[2].Last)
	for _, seg := range segs[:2] {
		if info, err := os.Stat(seg.Path); err != nil || info.Size() != seg.Size {
			t.Fatalf("%s has %d bytes, want %d: %v", seg.Name, info.Size(), seg.Size, err)
		}
	}
	commit(t, l, 2)
	mustClose(t, l)

	size := segs[1].Size
	for n := int64(1); n < size; n++ {
		b := bytes.Clone(disk[segs[1].Name])
		clear(b[n:])
		e := mustRefuse(t, o, disk.with(segs[1].Name, b))
		if e.Segment != segs[1].Name || e.Offset > n || e.Index < segs[1].First || e.LaterFirst != segs[2].First {
			t.Fatalf("zeros from %d: %+v", n, e)
		}
	}
	// Anything else in the unused space is judged as ever: above what was durable
	// it is torn, also if it looks like the frames of another life of the file.
	for _, behind := range [][]byte{[]byte("x"), append(make([]byte, 700), 1), disk[segs[0].Name]} {
		name := segs[2].Name
		disk.with(name, append(append(bytes.Clone(disk[name]), behind...), make([]byte, 900)...)).write(t, o.Dir)
		l, r := mustReport(t, o)
		if l.Last() != segs[2].Last || r.TornBytes != int64(len(behind)) {
			t.Fatalf("%+v", r)
		}
		checkSaved(t, r)
		mustClose(t, l)
	}
}
