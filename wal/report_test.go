package wal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tearLog makes a log of n records, the last of which is torn.
func tearLog(t *testing.T, o Options, n int) files {
	t.Helper()
	l := mustOpen(t, o)
	for range n {
		commit(t, l, 1)
	}
	disk := readFiles(t, o.Dir).used(l)
	mustClose(t, l)
	name := disk.names()[0]
	return disk.with(name, disk[name][:len(disk[name])-5])
}

// A log torn twice at one place keeps both tails.
func TestTornTwice(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		o.SegmentSize = 0
		disk := tearLog(t, o, 4)
		disk.write(t, o.Dir)
		var saved []string
		for range 2 {
			for name, b := range disk { // without removing broken
				if err := os.WriteFile(filepath.Join(o.Dir, name), b, filePerm); err != nil {
					t.Fatal(err)
				}
			}
			l, r := mustReport(t, o)
			if r.Last != 3 || len(r.Saved) != 1 || !errors.Is(r.TornErr, ErrTruncated) {
				t.Fatalf("%+v", r)
			}
			if !strings.HasPrefix(r.TornAt, segmentName(1)+":") || !strings.Contains(r.String(), "torn tail at "+r.TornAt) {
				t.Fatalf("%q: %s", r.TornAt, r)
			}
			saved = append(saved, r.Saved[0])
			mustClose(t, l)
		}
		a, err := os.ReadFile(saved[0])
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(saved[1])
		if err != nil || saved[0] == saved[1] || len(a) == 0 || !bytes.Equal(a, b) {
			t.Fatalf("%v: %x, %x, %v", saved, a, b, err)
		}
		if !bytes.HasSuffix(disk[segmentName(1)], a) {
			t.Fatalf("saved %x", a)
		}
	})
}

// A torn tail does not hide that the log begins too late.
func TestTornAndBeginsTooLate(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		disk, segs, _ := threeSegments(t, o, func(*Log) {})
		name := segs[2].Name
		o.Need = segs[0].Last
		e := mustRefuse(t, o, disk.with(segs[0].Name, nil).with(name, disk[name][:segs[2].Size-5]))
		if e.Index != o.Need || !errors.Is(e, ErrMissing) {
			t.Fatalf("%+v", e)
		}
	})
}

func TestMessages(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		disk, segs, _ := threeSegments(t, o, func(l *Log) { mustClose(t, l) })
		l, r := mustReport(t, o)
		mustClose(t, l)
		if s := r.String(); !strings.HasSuffix(s, "bytes, closed in good order") || strings.Contains(s, "torn") {
			t.Error(s)
		}
		b := bytes.Clone(disk[segs[1].Name])
		b[200] ^= 1
		s := mustRefuse(t, o, disk.with(segs[1].Name, b)).Error()
		for _, part := range []string{"wal: corrupt at " + segs[1].Name + ":", "expected there", "were durable", "intact frames with", "follow"} {
			if !strings.Contains(s, part) {
				t.Errorf("%q lacks %q", s, part)
			}
		}
		if s := mustRefuse(t, Options{Dir: o.Dir, StoreID: testStore, Floor: 9}, files{}).Error(); !strings.Contains(s, "the log directory") {
			t.Error(s)
		}
	})
}

// Scan of any store, with a bad first frame: the first intact header says whose
// log it is.
func TestScanAnyStoreBehindDamage(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		var l *Log
		disk, segs, _ := threeSegments(t, o, func(open *Log) { l = open })
		mustClose(t, l) // an engine may still prepare files
		b := bytes.Clone(disk[segs[0].Name])
		b[5] ^= 1
		disk.with(segs[0].Name, b).write(t, o.Dir)
		in, err := Scan(o.Dir, [16]byte{}, nil)
		if err != nil || in.StoreID != testStore || in.Damage == nil || in.Damage.LaterLast != segs[2].Last || in.Durable == 0 {
			t.Fatalf("%+v, %+v, %v", in, in.Damage, err)
		}
		if _, err := in.Verdict(0, 0); err == nil {
			t.Fatal("a log without its first frame was accepted")
		}
	})
}

// A frame whose checksums are right and whose body is not: a fault of the
// writer, not of the disk, but served by nobody.
func TestUndecodableBody(t *testing.T) {
	body := bytes.Repeat([]byte("abcd"), 2000)
	for name, disk := range map[string][]byte{
		"no block":     []byte("this is not s2"),
		"other length": encodeS2(nil, body[:100]),
		"no records":   encodeS2(nil, bytes.Repeat([]byte{0xff}, len(body))),
	} {
		t.Run(name, func(t *testing.T) {
			c := newChain()
			f := Frame{First: 1, Count: 2, Flags: FlagCompressed, Body: body}
			b, _ := appendFrame(nil, &f, &testStore, c.prev, disk)
			o := options(t)
			files{segmentName(1): appendEntry(c.out, b)}.write(t, o.Dir)
			l := mustOpen(t, o)
			_, rerr := l.ReadRecord(1, nil)
			records := func(f *Frame) error { return f.Records(func(uint64, []byte) error { return nil }) }
			_, serr := Scan(o.Dir, testStore, func(_ *SegmentInfo, f *Frame) error { return records(f) })
			for _, err := range []error{rerr, serr, l.Replay(0, records), l.Replay(2, records)} {
				if !errors.Is(err, ErrBody) {
					t.Errorf("%v", err)
				}
			}
		})
	}
}
