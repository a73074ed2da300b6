package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
)

func TestReplayFrom(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		o.Next = 100
		l := mustOpen(t, o)
		if err := l.Replay(0, func(*Frame) error { return errFault }); err != nil {
			t.Fatalf("empty log: %v", err)
		}
		for l.Last() < 199 {
			commit(t, l, 5)
			mustMark(t, l)
		}
		for from := uint64(100); from <= 200; from++ {
			next := from
			err := l.Replay(from, func(f *Frame) error {
				if f.First != next || f.Count == 0 || f.Flags&FlagMark != 0 {
					t.Fatalf("frame at %d of %d records, want %d", f.First, f.Count, next)
				}
				f.Flags = 0xff // what fn does to the frame does not matter
				return f.Records(func(index uint64, rec []byte) error {
					if index != next || !bytes.Equal(rec, record(index)) {
						t.Fatalf("record %d: %q", index, rec)
					}
					next++
					return nil
				})
			})
			if err != nil || next != 200 {
				t.Fatalf("from %d: ended before %d, %v", from, next, err)
			}
		}
		for _, from := range []uint64{1, 99, 201, 1 << 60} {
			if err := l.Replay(from, func(*Frame) error { return nil }); !errors.Is(err, ErrNotFound) {
				t.Fatalf("from %d: %v", from, err)
			}
		}
		calls := 0
		if err := l.Replay(0, func(*Frame) error { calls++; return errFault }); !errors.Is(err, errFault) || calls != 1 {
			t.Fatalf("%d calls, %v", calls, err)
		}
	})
}

// A bit that rots while the log is open is found by both readers.
func TestReadersFindDamage(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		l := mustOpen(t, o)
		for len(l.Segments()) < 3 {
			commit(t, l, 2)
		}
		seg := l.Segments()[1]
		at := l.idx.segs[1].frames[1]
		f, err := os.OpenFile(seg.Path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() //nolint:errcheck // a test file
		for _, off := range []int64{0, 4, 10, 24, headerSize - 1, headerSize, int64(at.size) - 1} {
			flip(t, f, int64(at.off)+off)
			for _, err := range []error{
				readOne(l, at.first+1),
				l.Replay(0, func(*Frame) error { return nil }),
			} {
				var corrupt *CorruptError
				if !errors.As(err, &corrupt) || corrupt.Segment != seg.Name || corrupt.Durable != l.Durable() ||
					corrupt.Index < at.first || corrupt.Index > at.first+1 {
					t.Fatalf("byte %d: %v", off, err)
				}
			}
			if err := readOne(l, at.first-1); err != nil {
				t.Fatal(err)
			}
			flip(t, f, int64(at.off)+off)
		}
		verify(t, l, 1, l.Last())
	})
}

func flip(t *testing.T, f *os.File, off int64) {
	t.Helper()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

func readOne(l *Log, index uint64) error {
	rec, err := l.ReadRecord(index, nil)
	if err == nil && !bytes.Equal(rec, record(index)) {
		return fmt.Errorf("record %d is %q", index, rec)
	}
	return err
}

// More segments than files may be open: reads go on, from many goroutines,
// while files are closed under them.
func TestReadersShareFiles(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		o.Sync = SyncNever
		l := mustOpen(t, o)
		for len(l.Segments()) < 2*openFilesMax {
			commit(t, l, 8)
		}
		var wg sync.WaitGroup
		for seed := range uint64(4) {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, 1))
				for range 3000 {
					if err := readOne(l, 1+rnd.Uint64N(l.Last())); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		l.idx.mu.Lock()
		defer l.idx.mu.Unlock()
		open := 0
		for _, s := range l.idx.segs {
			if s.file != nil {
				open++
			}
		}
		if open != l.idx.open || open > openFilesMax || open < openFilesMax/2 {
			t.Fatalf("%d files open, %d counted", open, l.idx.open)
		}
	})
}

// A record larger than a segment, compressed or not, gets a segment of its own
// and is read back, now and after a restart.
func TestLargeRecords(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		noisy := noiseBytes(3 << 20)
		for name, rec := range map[string][]byte{
			"compressible": bytes.Repeat([]byte("a large message "), 4<<20/16),
			"noise":        noisy,
		} {
			t.Run(name, func(t *testing.T) {
				o := options(t)
				o.SegmentSize, o.Compress = 64<<10, CompressAuto
				l := mustOpen(t, o)
				commit(t, l, 3)
				f := &Frame{Count: 1, Body: AppendRecord(nil, rec)}
				if err := l.Commit(f); err != nil {
					t.Fatal(err)
				}
				if compressed := f.Flags&FlagCompressed != 0; compressed != (name == "compressible") {
					t.Fatalf("flags %d", f.Flags)
				}
				if err := l.Commit(frame(4, 3)); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					for _, s := range l.Segments() {
						if s.First <= 4 && s.Last >= 4 && (s.Records > 1) == (name == "noise") {
							t.Fatalf("%+v", s)
						}
					}
					got, err := l.ReadRecord(4, nil)
					if err != nil || !bytes.Equal(got, rec) {
						t.Fatalf("%d bytes, %v", len(got), err)
					}
					seen := 0
					err = l.Replay(3, func(f *Frame) error {
						return f.Records(func(index uint64, got []byte) error {
							want := record(index)
							if index == 4 {
								want = rec
							}
							if !bytes.Equal(got, want) {
								t.Fatalf("record %d", index)
							}
							seen++
							return nil
						})
					})
					if err != nil || seen != 5 {
						t.Fatalf("%d records, %v", seen, err)
					}
					mustClose(t, l)
					l = mustOpen(t, o)
				}
			})
		}
	})
}

func noiseBytes(n int) []byte {
	rnd := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// What does not compress is tried less and less often.
func TestCompressorBacksOff(t *testing.T) {
	c := compressor{mode: CompressAuto}
	noisy, text := noiseBytes(200<<10), bytes.Repeat([]byte("compressible "), 1000)
	tried := 0
	for range 2000 {
		wait := c.wait
		if _, ok := c.compress(nil, noisy); ok {
			t.Fatal("noise was compressed")
		}
		if wait == 0 {
			tried++
		}
	}
	if tried < 10 || tried > 60 {
		t.Fatalf("noise was tried %d times of 2000", tried)
	}
	for i := 0; ; i++ { // it comes back when there is something to gain
		out, ok := c.compress([]byte("head"), text)
		if ok {
			if !bytes.HasPrefix(out, []byte("head")) {
				t.Fatalf("%q", out[:10])
			}
			if got, err := decompress(nil, out[4:], len(text)); err != nil || !bytes.Equal(got, text) {
				t.Fatal(err)
			}
			break
		}
		if i > compressPause {
			t.Fatal("compression never came back")
		}
	}
	if _, ok := c.compress(nil, text); !ok {
		t.Fatal("not compressed after a success")
	}
	if _, ok := c.compress(nil, text[:compressMin-1]); ok {
		t.Fatal("a small body was compressed")
	}
	c.mode = CompressOff
	if _, ok := c.compress(nil, text); ok {
		t.Fatal("compressed although it is off")
	}
}

// Mixed bodies, with an incompressible head that the sample would look at.
func TestCompressedFramesReadBack(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		o.SegmentSize, o.Compress = 1<<20, CompressAuto
		l := mustOpen(t, o)
		recs := map[uint64][]byte{}
		add := func(parts ...[]byte) {
			f := &Frame{}
			for _, p := range parts {
				f.Body = AppendRecord(f.Body, p)
				f.Count++
				recs[l.Last()+uint64(f.Count)] = p
			}
			if err := l.Commit(f); err != nil {
				t.Fatal(err)
			}
		}
		text := bytes.Repeat([]byte("all work and no play "), 500)
		compressed := 0
		for i := range 30 {
			add(noiseBytes(i*100), text[:i*300], []byte("small"), text)
		}
		if _, err := Scan(o.Dir, testStore, func(_ *SegmentInfo, f *Frame) error {
			if f.Flags&FlagCompressed != 0 {
				compressed++
			}
			return nil
		}); err != nil || compressed < 20 {
			t.Fatalf("%d frames are compressed, %v", compressed, err)
		}
		for range 2 {
			for index, want := range recs {
				got, err := l.ReadRecord(index, nil)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("record %d: %d bytes, want %d, %v", index, len(got), len(want), err)
				}
			}
			mustClose(t, l)
			l = mustOpen(t, o)
		}
	})
}
