package wal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// moment is the directory at one moment, and what had been acknowledged then.
type moment struct {
	name    string
	disk    files
	synced  map[string]int // bytes of each file that are synced; without an entry the name is not durable
	acked   uint64         // last record whose Commit returned, or that Durable covered
	written uint64         // last record that was written
	tail    Position       // where the next entry would go
}

// history runs commits of the given sizes and records the directory at each
// step of each.
func history(t *testing.T, o Options, commits []*Frame, sync func(i int) bool) []moment {
	t.Helper()
	var l *Log
	var out []moment
	synced := map[string]int{}
	snap := func(step string) func(uint64) error {
		return func(written uint64) error {
			m := moment{
				name: fmt.Sprintf("%s %d", step, written), disk: readFiles(t, o.Dir), synced: map[string]int{},
				acked: l.Durable(), written: written, tail: l.eng.Tail(),
			}
			for name, n := range synced {
				m.synced[name] = n
			}
			out = append(out, m)
			return nil
		}
	}
	settled := func() {
		for name, b := range readFiles(t, o.Dir) {
			synced[name] = endOf(name, b, l.eng.Tail())
		}
	}
	rotated := snap("rotated")
	o.Hooks = &Hooks{
		AfterWrite: snap("written"),
		// The engine has synced the segment that it ended, so only the name of
		// the new one is in doubt.
		AfterRotate: func(written uint64) error {
			for name, b := range readFiles(t, o.Dir) {
				if name != segmentName(l.eng.Tail().Segment) {
					synced[name] = len(b)
				}
			}
			return rotated(written)
		},
		AfterSync: func(uint64) error { settled(); return nil },
	}
	l = mustOpen(t, o)
	settled()
	for i, f := range commits {
		if err := l.Commit(f); err != nil {
			t.Fatal(err)
		}
		if sync(i) {
			if err := l.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.fail(errFault) // its files are not its any more
	if err := l.Close(); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	return out
}

// endOf returns where the entries of a file end, given where the log ends: the
// last segment may go on with zeros.
func endOf(name string, content []byte, tail Position) int {
	if name == segmentName(tail.Segment) {
		return int(tail.Offset)
	}
	return len(content)
}

// images calls fn with what a crash may leave of the moment: the unsynced part
// of the last file cut off at every byte, as if the file had grown, or zero from
// there on, as if it had been preallocated; each sector of it zeroed or all from
// it on, or grown by zeros; and a name that is not durable lost.
func (m *moment) images(fn func(what string, disk files)) {
	names := m.disk.names()
	last := names[len(names)-1]
	if _, durable := m.synced[last]; !durable {
		fn("lost "+last, m.disk.with(last, nil))
		last = names[len(names)-2]
	}
	full, from := m.disk[last], m.synced[last]
	end := endOf(last, full, m.tail)
	for n := from; n <= end; n++ {
		if thin && n%5 != 0 {
			continue
		}
		fn(fmt.Sprintf("cut at %d", n), m.disk.with(last, full[:n:n]))
		zeroed := bytes.Clone(full)
		clear(zeroed[n:])
		fn(fmt.Sprintf("cut to zeros at %d", n), m.disk.with(last, zeroed))
	}
	for n := from; n < end; n = n/512*512 + 512 {
		zeroed := bytes.Clone(full)
		clear(zeroed[n:min(len(full), n/512*512+512)])
		fn(fmt.Sprintf("zero sector at %d", n), m.disk.with(last, zeroed))
		clear(zeroed[n:])
		fn(fmt.Sprintf("zeros from %d", n), m.disk.with(last, zeroed))
		fn(fmt.Sprintf("zeros from %d and behind", n), m.disk.with(last, append(zeroed, make([]byte, 4096)...)))
	}
}

// checkImage opens an image and expects exactly a prefix that ends between
// acked and written, and, if it is to be thorough, a log that works on.
func checkImage(t *testing.T, o Options, m *moment, what string, disk files, thorough bool) {
	t.Helper()
	disk.write(t, o.Dir)
	o.Hooks = nil
	l, r, err := Open(o)
	if err != nil {
		t.Fatalf("%s, %s: %v", m.name, what, err)
	}
	if l.Last() < m.acked || l.Last() > m.written {
		t.Fatalf("%s, %s: log ends at %d, %d was acknowledged, %d written", m.name, what, l.Last(), m.acked, m.written)
	}
	if r.TornBytes > 0 {
		checkSaved(t, r)
	}
	verify(t, l, 1, l.Last())
	if !thorough {
		mustClose(t, l)
		return
	}
	commit(t, l, 2)
	verify(t, l, 1, l.Last())
	last := l.Last()
	mustClose(t, l)
	in, err := Scan(o.Dir, testStore, nil)
	if err != nil || in.Damage != nil || in.Last != last || !in.Clean {
		t.Fatalf("%s, %s: afterwards %+v, %v", m.name, what, in, err)
	}
}

// checkSaved checks that the torn bytes were kept.
func checkSaved(t *testing.T, r *Report) {
	t.Helper()
	var n int64
	for _, path := range r.Saved {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	if n != r.TornBytes {
		t.Fatalf("%d bytes saved of %d: %+v", n, r.TornBytes, r)
	}
}

// frames makes frames of the given record counts.
func frames(counts ...int) []*Frame {
	var out []*Frame
	last := uint64(0)
	for _, n := range counts {
		out = append(out, frame(last, n))
		last += uint64(n)
	}
	return out
}

func TestCrashImagesAlways(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		t.Parallel()
		o := options(t)
		moments := history(t, o, frames(1, 3, 1, 20, 2, 2, 1), func(int) bool { return false })
		images := 0
		for i := range moments {
			m := &moments[i]
			m.images(func(what string, disk files) {
				images++
				checkImage(t, o, m, what, disk, images%5 == 0 || !strings.HasPrefix(what, "cut"))
			})
		}
		if images < 2000 && !thin {
			t.Fatalf("only %d images", images)
		}
		t.Logf("%d images of %d moments", images, len(moments))
	})
}

// An image in which the unsynced frame is not whole opens to exactly what was
// acknowledged, not to some prefix above it.
func TestCrashImageIsExact(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		moments := history(t, o, frames(2, 4), func(int) bool { return false })
		m := &moments[1]
		last := m.disk.names()[0]
		for n := m.synced[last]; n < int(m.tail.Offset); n++ {
			m.disk.with(last, m.disk[last][:n]).write(t, o.Dir)
			l, r, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			if l.Last() != 2 || r.Last != 2 {
				t.Fatalf("cut at %d: log ends at %d", n, l.Last())
			}
			torn := int64(len(bytes.TrimRight(m.disk[last][m.synced[last]:n], "\x00")))
			if r.TornBytes != torn || (torn > 0) != (r.TornErr != nil) {
				t.Fatalf("cut at %d: %+v", n, r)
			}
			mustClose(t, l)
		}
	})
}

func TestCrashImagesNever(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		t.Parallel()
		o := options(t)
		o.Sync = SyncNever
		moments := history(t, o, frames(1, 2, 3, 1, 2, 25, 1, 2, 1), func(i int) bool { return i == 1 || i == 6 })
		images := 0
		for i := range moments {
			m := &moments[i]
			m.images(func(what string, disk files) {
				images++
				if cut := strings.HasPrefix(what, "cut"); !cut || images%3 == 0 {
					checkImage(t, o, m, what, disk, !cut)
				}
			})
		}
		t.Logf("%d images of %d moments", images, len(moments))
	})
}

// A crash in the middle of a repair leaves a log that is repaired by the next
// Open.
func TestCrashDuringRepair(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		o.Sync = SyncNever
		l := mustOpen(t, o)
		commit(t, l, 3)
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		first := readFiles(t, o.Dir).names()[0]
		synced := l.Segments()[0].Size
		for len(l.Segments()) < 3 {
			commit(t, l, 2)
		}
		commit(t, l, 2)
		whole := readFiles(t, o.Dir)
		mustClose(t, l)

		// Only possible in mode never if the rotation's sync lied, and the last
		// segments survive: the worst case for the order of the steps.
		torn := bytes.Clone(whole[first])
		clear(torn[synced : synced+20])
		for i, name := range whole.names() {
			for _, b := range []bool{false, true} {
				disk := whole.with(first, torn)
				for _, gone := range whole.names()[i:] {
					if gone != first {
						disk = disk.with(gone, nil) // already moved to broken
					}
				}
				if b {
					disk = disk.with(tempName, []byte("half a segment"))
				}
				disk.write(t, o.Dir)
				in, err := Scan(o.Dir, testStore, nil)
				if err != nil {
					t.Fatal(err)
				}
				torn, err := in.Verdict(0, 0)
				durable := in.Durable // later segments prove that the first was synced
				if (durable > 3) != (err != nil) || torn != (err == nil) {
					t.Fatalf("without %s and later: durable %d, torn %v, %v", name, durable, torn, err)
				}
				if err == nil {
					l, r := mustReport(t, o)
					if l.Last() != 3 || r.TornBytes == 0 {
						t.Fatalf("log ends at %d: %+v", l.Last(), r)
					}
					verify(t, l, 1, 3)
					mustClose(t, l)
					if _, err := os.Stat(filepath.Join(o.Dir, tempName)); !errors.Is(err, os.ErrNotExist) {
						t.Fatalf("temporary file: %v", err)
					}
				}
			}
		}
	})
}

// What a crash inside DropBefore may leave: the first of the unlinks done.
func TestCrashDuringDrop(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		l := mustOpen(t, o)
		for len(l.Segments()) < 6 {
			commit(t, l, 3)
		}
		segs, last := l.Segments(), l.Last()
		disk := readFiles(t, o.Dir)
		if err := l.DropBefore(segs[4].First); err != nil {
			t.Fatal(err)
		}
		if l.First() != segs[4].First {
			t.Fatalf("first is %d, want %d", l.First(), segs[4].First)
		}
		mustClose(t, l)
		for i := range 5 {
			disk.write(t, o.Dir)
			l := mustOpen(t, o)
			verify(t, l, segs[i].First, last)
			mustClose(t, l)
			disk = disk.with(segs[i].Name, nil)
		}
	})
}
