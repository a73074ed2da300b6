package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"
)

// chain builds a segment frame by frame.
type chain struct {
	out  []byte
	prev uint32
	next uint64
}

func newChain() *chain {
	c := &chain{next: 1}
	c.add(Frame{First: 1, Flags: FlagMark}, testStore)
	return c
}

func (c *chain) add(f Frame, store [16]byte) {
	var b []byte
	b, c.prev = appendFrame(nil, &f, &store, c.prev, f.Body)
	c.out = appendEntry(c.out, b)
	c.next = f.First + uint64(f.Count)
}

// records adds the next n records.
func (c *chain) records(n int, durable uint64) *chain {
	f := *frame(c.next-1, n)
	f.First, f.Durable = c.next, durable
	c.add(f, testStore)
	return c
}

// Each part of a frame's place is checked by itself: an intact frame with one of
// them wrong is not taken.
func TestPlaceOfAFrame(t *testing.T) {
	for name, k := range map[string]struct {
		spoil func(c *chain)
		want  error
	}{
		"index too high":        {func(c *chain) { c.next++; c.records(1, 3) }, ErrOrder},
		"index too low":         {func(c *chain) { c.next--; c.records(1, 2) }, ErrOrder},
		"other frame before it": {func(c *chain) { c.prev ^= 1; c.records(1, 3) }, ErrOrder},
		"other store": {func(c *chain) {
			f := *frame(3, 1)
			f.First = 4
			c.add(f, [16]byte{9})
		}, ErrForeign},
		"length not minimal": {func(c *chain) {
			at := len(c.out)
			c.records(1, 3)
			entry := c.out[at:]
			size, n := binary.Uvarint(entry)
			long := binary.AppendUvarint(nil, size)
			long[n-1] |= 0x80
			c.out = append(append(c.out[:at:at], append(long, 0)...), entry[n:]...)
		}, ErrFrame},
		"durable beyond itself": {func(c *chain) { c.records(1, 4) }, ErrFrame},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChain().records(3, 0)
			good := len(c.out)
			k.spoil(c)
			o := options(t)
			files{segmentName(1): c.out}.write(t, o.Dir)
			in, _, _ := inspect(t, o.Dir, 0, 0)
			if in.Last != 3 || in.Damage == nil || in.Damage.Offset != int64(good) || !errors.Is(in.Damage.Err, k.want) {
				t.Fatalf("%+v, %+v", in, in.Damage)
			}
		})
	}
}

// Frames of another store behind the damage say nothing about this one, and
// intact frames behind it do, even if only their header is left.
func TestWhatFollowsDamage(t *testing.T) {
	base := newChain().records(3, 0).out
	foreign := &chain{next: 50}
	f := *frame(49, 1)
	f.First, f.Durable = 50, 49
	foreign.add(f, [16]byte{9})
	own := (&chain{next: 50}).records(2, 49).records(1, 51)
	for name, k := range map[string]struct {
		tail    []byte
		torn    bool
		durable uint64
		records uint64
	}{
		"nothing":       {nil, true, 0, 0},
		"other store":   {foreign.out, true, 0, 0},
		"own frames":    {own.out, false, 51, 3},
		"a header":      {own.out[:1+headerSize+3], false, 49, 0},
		"half a header": {own.out[:40], true, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			files{segmentName(1): append(append(bytes.Clone(base), "garbage"...), k.tail...)}.write(t, o.Dir)
			in, torn, err := inspect(t, o.Dir, 0, 0)
			if torn != k.torn || (err == nil) != k.torn || in.Durable != k.durable || in.Damage.LaterRecords != k.records {
				t.Fatalf("torn %v, %v; %+v, %+v", torn, err, in, in.Damage)
			}
			if k.records > 0 && (in.Damage.LaterFirst != 50 || in.Damage.LaterLast != 52 || in.Damage.LaterFrames != 2) {
				t.Fatalf("%+v", in.Damage)
			}
		})
	}
}

// Segments that change places under an open log: intact frames in the wrong
// place are not served.
func TestReadersCheckThePlace(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		l := mustOpen(t, o)
		rec := bytes.Repeat([]byte("x"), 100) // frames of one size: offsets agree
		for len(l.Segments()) < 4 {
			if err := l.Commit(&Frame{Count: 1, Body: AppendRecord(nil, rec)}); err != nil {
				t.Fatal(err)
			}
		}
		a, b := l.Segments()[1], l.Segments()[2]
		for _, rename := range [][2]string{{a.Path, a.Path + "x"}, {b.Path, a.Path}, {a.Path + "x", b.Path}} {
			if err := os.Rename(rename[0], rename[1]); err != nil {
				t.Fatal(err)
			}
		}
		var corrupt *CorruptError
		if _, err := l.ReadRecord(a.First+1, nil); !errors.As(err, &corrupt) || !errors.Is(err, ErrOrder) {
			t.Fatal(err)
		}
		if err := l.Replay(a.First, func(*Frame) error { return nil }); !errors.As(err, &corrupt) || !errors.Is(err, ErrOrder) {
			t.Fatal(err)
		}
	})
}

// The copy of the last segment is compared with what was scanned: bytes that
// came back different are not put in its place.
func TestRewriteChecksTheCopy(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		l := mustOpen(t, o)
		commit(t, l, 3)
		before := readFiles(t, o.Dir)
		content := before.used(l)[segmentName(1)]
		for off := range content {
			bad := bytes.Clone(content)
			bad[off] ^= 1
			if err := l.rewrite(segmentName(1), bytes.NewReader(bad), int64(len(bad)), nil); err == nil {
				t.Fatalf("byte %d differs, not noticed", off)
			}
		}
		other := newChain() // intact, of the same length, but not what was scanned
		f := frame(0, 3)
		f.First, f.Time = 1, f.Time+1
		other.add(*f, testStore)
		if len(other.out) != len(content) {
			t.Fatalf("%d bytes, want %d", len(other.out), len(content))
		}
		if err := l.rewrite(segmentName(1), bytes.NewReader(other.out), int64(len(content)), nil); err == nil {
			t.Fatal("another frame was taken")
		}
		for size := range content {
			if err := l.rewrite(segmentName(1), bytes.NewReader(content[:size]), int64(len(content)), nil); err == nil {
				t.Fatalf("copy of %d of %d bytes was taken", size, len(content))
			}
		}
		if !readFiles(t, o.Dir).equal(before) {
			t.Fatal("the segment was replaced")
		}
		if err := l.rewrite(segmentName(1), bytes.NewReader(content), int64(len(content)), nil); err != nil {
			t.Fatal(err)
		}
	})
}

// A segment is kept as long as no later one has a durable frame, and what is
// dropped is synced.
func TestDropKeepsADurableFrame(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		o.Sync = SyncNever
		l := mustOpen(t, o)
		spy := &countingDir{directory: l.drop}
		l.drop = spy
		for len(l.Segments()) < 4 {
			commit(t, l, 2)
		}
		segs := l.Segments()
		for range 2 { // with an empty last segment, and with one that is not durable
			if err := l.DropBefore(l.Last() + 1); err != nil {
				t.Fatal(err)
			}
			if l.First() != segs[2].First || spy.syncs != 1 {
				t.Fatalf("first is %d, want %d; %d syncs", l.First(), segs[2].First, spy.syncs)
			}
			commit(t, l, 1)
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := l.DropBefore(l.Last()); err != nil || l.First() != segs[3].First || spy.syncs != 2 {
			t.Fatalf("first is %d, want %d; %d syncs; %v", l.First(), segs[3].First, spy.syncs, err)
		}
		verify(t, l, segs[3].First, l.Last())
	})
}

type countingDir struct {
	directory
	syncs int
}

func (d *countingDir) Sync() error { d.syncs++; return d.directory.Sync() }

// What is committed while a sync runs is not taken for synced.
func TestSyncCoversOnlyWhatWasThere(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		o.Sync = SyncNever
		var l *Log
		armed := false
		o.Hooks = &Hooks{AfterSync: func(uint64) error {
			if armed {
				armed = false
				commit(t, l, 2)
			}
			return nil
		}}
		l = mustOpen(t, o)
		commit(t, l, 3)
		armed = true
		if err := l.Sync(); err != nil || l.Durable() != 3 || l.Last() != 5 {
			t.Fatalf("durable %d of %d, %v", l.Durable(), l.Last(), err)
		}
		if err := l.Sync(); err != nil || l.Durable() != 5 {
			t.Fatalf("durable %d, %v", l.Durable(), err)
		}
	})
}
