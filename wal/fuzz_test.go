package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
)

// fuzzLog makes a segment whose records are those of record.
func fuzzLog() []byte {
	var out []byte
	prev := uint32(0)
	add := func(f Frame, disk []byte) {
		var b []byte
		b, prev = appendFrame(nil, &f, &testStore, prev, disk)
		out = appendEntry(out, b)
	}
	add(Frame{First: 1, Flags: FlagMark}, nil)
	for last := uint64(0); last < 9; last += 3 {
		f := frame(last, 3)
		f.First, f.Durable = last+1, last
		add(*f, f.Body)
	}
	f := frame(9, 60)
	f.First, f.Durable, f.Flags = 10, 9, FlagCompressed
	add(*f, encodeS2(nil, f.Body))
	add(Frame{First: 70, Durable: 69, Flags: FlagMark | FlagClose}, nil)
	return out
}

// FuzzScan takes arbitrary bytes for the segments of a log. Scan and Open never
// panic, Open modifies nothing if it fails, and what they give out are records
// that were written. Run it with -fuzzminimizetime=1x: each try opens files, and
// minimizing takes thousands.
func FuzzScan(f *testing.F) {
	whole := fuzzLog()
	f.Add(whole, []byte{})
	f.Add(whole[:len(whole)-1], []byte{0})
	f.Add(whole[:300], whole[300:])
	f.Add(whole, whole)
	f.Add([]byte{}, whole)
	f.Add(append(bytes.Clone(whole), make([]byte, 600)...), []byte{})
	f.Add(bytes.Repeat(magicBytes, 100), []byte{})
	f.Add(append([]byte{0xff, 0xff, 0xff, 0xff, 0x7f}, whole...), []byte{})
	dir := filepath.Join(fastDir(f), "log")
	f.Fuzz(func(t *testing.T, a, b []byte) {
		disk := files{segmentName(1): a, segmentName(5): b}
		disk.write(t, dir)
		in, torn, err := inspect(t, dir, 0, 0)
		if in.Damage == nil && err != nil && !errors.Is(err, ErrForeign) && !errors.Is(err, ErrVersion) {
			t.Fatalf("%+v, %v", in, err)
		}
		l, r, oerr := Open(Options{Dir: dir, StoreID: testStore, IdleMark: -1})
		if (oerr == nil) != (err == nil) {
			t.Fatalf("scan says %v, open %v", err, oerr)
		}
		if oerr != nil {
			if !readFiles(t, dir).equal(disk) {
				t.Fatal("files were modified")
			}
			return
		}
		if torn != (r.TornErr != nil) || l.Last() != in.Last {
			t.Fatalf("%+v, %+v", in, r)
		}
		verify(t, l, l.First(), l.Last())
		commit(t, l, 1)
		mustClose(t, l)
	})
}

// FuzzForged repairs the checksums of arbitrary frames, so that the code behind
// them is reached: it may refuse, but not panic.
func FuzzForged(f *testing.F) {
	for off := 0; off < len(fuzzLog()); {
		size, n := binary.Uvarint(fuzzLog()[off:])
		f.Add(fuzzLog()[off+n : off+n+int(size)])
		off += n + int(size)
	}
	dir := filepath.Join(fastDir(f), "log")
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < frameMin {
			return
		}
		b = bytes.Clone(b)
		le := binary.LittleEndian
		le.PutUint32(b[68:], uint32(len(b)-frameMin))
		if le.Uint32(b[72:]) > 1<<20 {
			return
		}
		le.PutUint32(b[76:], crc32.Checksum(b[:76], castagnoli))
		b, _ = sealFrame(b[:len(b)-trailerSize], 0)
		files{segmentName(1): appendEntry(nil, b)}.write(t, dir)
		_, err := Scan(dir, testStore, func(_ *SegmentInfo, f *Frame) error {
			return f.Records(func(uint64, []byte) error { return nil })
		})
		l, _, oerr := Open(Options{Dir: dir, StoreID: testStore, IdleMark: -1})
		if oerr != nil {
			return
		}
		rerr := l.Replay(0, func(f *Frame) error { return f.Records(func(uint64, []byte) error { return nil }) })
		if (rerr == nil) != (err == nil) {
			t.Fatalf("scan says %v, replay %v", err, rerr)
		}
		_, rerr = l.ReadRecord(l.First(), nil)
		if l.Last() >= l.First() && (rerr == nil) != (err == nil) {
			t.Fatalf("scan says %v, read %v", err, rerr)
		}
		mustClose(t, l)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	})
}
