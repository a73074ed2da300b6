package archive

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wind-c/comqtt/v3/wal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testStore = [16]byte{7}

// rig is a log with an archive that works when it is told to.
type rig struct {
	t   *testing.T
	dir string
	log *wal.Log
	a   *Archive
	now int64
}

func newRig(t *testing.T, change func(o *Options)) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), now: 1_000_000}
	r.open(change)
	t.Cleanup(r.close)
	return r
}

func (r *rig) open(change func(o *Options)) {
	r.t.Helper()
	l, _, err := wal.Open(wal.Options{Dir: filepath.Join(r.dir, "wal"), StoreID: testStore, SegmentSize: 4096, Sync: wal.SyncNever, IdleMark: -1})
	if err != nil {
		r.t.Fatal(err)
	}
	o := Options{
		Dir: filepath.Join(r.dir, Dir), StoreID: testStore, Log: l, Tick: time.Hour, Rest: time.Nanosecond,
		Clock: func() int64 { return r.now },
	}
	if change != nil {
		change(&o)
	}
	a, err := Open(o)
	if err != nil {
		r.t.Fatal(err)
	}
	r.log, r.a = l, a
}

func (r *rig) close() {
	if r.log == nil {
		return
	}
	if err := errors.Join(r.a.Close(), r.log.Close()); err != nil {
		r.t.Error(err)
	}
	r.log = nil
}

// write appends n records of 200 bytes, a frame each; record i consists of
// byte(i).
func (r *rig) write(n int) {
	r.t.Helper()
	for range n {
		r.now++
		rec := bytes.Repeat([]byte{byte(r.log.Last() + 1)}, 200)
		f := wal.Frame{Count: 1, Time: r.now, Term: 1, Body: wal.AppendRecord(nil, rec)}
		if err := r.log.Commit(&f); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := r.log.Sync(); err != nil {
		r.t.Fatal(err)
	}
}

// pass is what the targets' progress brings about. Passed would wake the
// archive's goroutine a second time, whenever it comes to it.
func (r *rig) pass() {
	r.a.target.Store(r.log.Last())
	r.a.Step()
}

func TestArchive_PassedWakes(t *testing.T) {
	r := newRig(t, nil)
	r.write(100)
	r.a.Passed(r.log.Last())
	for r.a.Stats().Segments == 0 {
		runtime.Gosched()
	}
}

// checkHistory replays everything from a record on.
func (r *rig) checkHistory(from uint64) {
	r.t.Helper()
	h, err := OpenHistory(filepath.Join(r.dir, Dir), filepath.Join(r.dir, "wal"), testStore)
	if err != nil {
		r.t.Fatal(err)
	}
	next := from
	err = h.Replay(context.Background(), from, r.log.Last(), func(f *wal.Frame) error {
		return f.Records(func(index uint64, rec []byte) error {
			if index != next || rec[0] != byte(index) || len(rec) != 200 {
				r.t.Fatalf("record %d is %d of %d bytes, %d was due", index, rec[0], len(rec), next)
			}
			next++
			return nil
		})
	})
	if err != nil || next != r.log.Last()+1 {
		r.t.Fatalf("replay up to %d of %d: %v", next-1, r.log.Last(), err)
	}
}

func TestArchive_KeepsWhatLeavesTheLog(t *testing.T) {
	for name, busy := range map[string]int64{"compressed": 0, "moved": 1} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(o *Options) { o.Busy = busy })
			r.write(300)
			if r.a.Step(); r.log.First() != 1 {
				t.Fatal("a segment left the log that a target still needs")
			}
			r.pass()
			if r.log.First() == 1 {
				t.Fatal("nothing left the log")
			}
			s := r.a.Stats()
			if (s.Taken > 1) != (busy == 1) || s.Failed > 0 || s.Segments == 0 {
				t.Errorf("stats %+v", s)
			}
			r.checkHistory(1)
			if index, _, ok := r.a.History().Reach(); index != 1 || !ok {
				t.Errorf("reaches back to %d, %v", index, ok)
			}
		})
	}
}

// What was moved at a busy time is compressed when it is quiet.
func TestArchive_RawSegmentsAreCompressedLater(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Busy = 1 })
	r.write(300)
	r.pass()
	raw := r.a.Stats().Segments
	r.close()
	// As a power cut may leave it: the end that was cut off is there again.
	c := r.a.Catalog()
	last := c.Segments[len(c.Segments)-1]
	if !last.Raw {
		t.Fatal("not busy enough")
	}
	info, err := os.Stat(last.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(last.Path, info.Size()+1000); err != nil {
		t.Fatal(err)
	}
	r.open(nil) // not busy any more
	r.checkHistory(1)
	for range 20 * raw {
		r.a.restAt = time.Time{} // safe: Step has returned, and the tick is an hour
		r.a.Step()
	}
	c = r.a.Catalog()
	for i := range c.Segments {
		if c.Segments[i].Raw {
			t.Errorf("%s is still raw", c.Segments[i].Path)
		}
	}
	names, err := os.ReadDir(filepath.Join(r.dir, Dir))
	if err != nil || len(names) != len(c.Segments) {
		t.Errorf("%d files for %d segments: %v", len(names), len(c.Segments), err)
	}
	r.checkHistory(1)
}

// A crash may leave a raw segment beside the compressed one, and temporary
// files.
func TestArchive_LeftoversOfACrash(t *testing.T) {
	r := newRig(t, nil)
	r.write(100)
	b, err := os.ReadFile(r.log.Segments()[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	r.pass()
	c := r.a.Catalog()
	r.close()
	twin := c.Segments[0]
	twin.Raw = true
	left := []string{filepath.Join(r.dir, Dir, segmentName(&twin)), c.Segments[0].Path + tempExt}
	for _, path := range left {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.open(nil)
	for _, path := range left {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if got := r.a.Catalog(); len(got.Segments) != len(c.Segments) {
		t.Errorf("%d segments, %d before", len(got.Segments), len(c.Segments))
	}
	r.checkHistory(1)
}

func TestArchive_BytesAreALimit(t *testing.T) {
	const limit = 20_000
	bases := 0
	var r *rig
	r = newRig(t, func(o *Options) {
		o.Busy, o.Bytes = 1, limit // raw: sizes that can be foreseen
		o.Fresh = func(context.Context) error {
			bases++
			h := testHeader()
			h.StoreID, h.Applied, h.LogTime = testStore, r.log.Last(), r.now
			return r.a.NewBase(h, func(*BaseWriter) error { return nil })
		}
	})
	for range 20 {
		r.write(30)
		r.a.took = 0 // as if the bases took no time; safe: the archive works in pass only
		r.pass()
		if s := r.a.Stats(); s.SegmentBytes > limit {
			t.Fatalf("%d bytes", s.SegmentBytes)
		}
	}
	from, _, ok := r.a.History().Reach()
	if bases == 0 || !ok || from == 1 {
		t.Fatalf("%d bases, reaches back to %d, %v", bases, from, ok)
	}
	r.checkHistory(from + 1)
	if s := r.a.Stats(); s.Removed == 0 || s.Failed > 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestArchive_AnEighthOfTheFreeDisk(t *testing.T) {
	free := int64(1 << 30)
	r := newRig(t, func(o *Options) {
		o.Busy = 1
		o.Free = func(string) (int64, error) { return free, nil }
	})
	r.write(400)
	r.pass()
	all := r.a.Stats().SegmentBytes
	free = 4 * all // and what the archive has: 5/8 of it
	r.a.Step()
	if s := r.a.Stats(); s.SegmentBytes == 0 || s.SegmentBytes > all*5/8 {
		t.Errorf("%d of %d bytes", s.SegmentBytes, all)
	}
	free = 8 * 50_000
	for size, want := range map[int]error{1000: nil, 100_000: ErrRoom} {
		err := r.a.NewBase(testHeader(), func(w *BaseWriter) error {
			noise := make([]byte, size)
			for i := range noise {
				noise[i] = byte(rand.Uint32())
			}
			return w.Put('S', nil, noise)
		})
		if !errors.Is(err, want) {
			t.Errorf("a base of %d bytes: %v", size, err)
		}
	}
}

func TestArchive_AgeGoesByLogTime(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Age = time.Hour })
	base := func() {
		h := testHeader()
		h.StoreID, h.Applied, h.LogTime = testStore, r.log.Last(), r.now
		if err := r.a.NewBase(h, func(*BaseWriter) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	r.write(100)
	r.pass()
	base()
	cut := r.log.Last()
	r.now += time.Hour.Milliseconds() / 2
	r.write(100)
	r.pass()
	if index, _, _ := r.a.History().Reach(); index != 1 {
		t.Fatalf("reaches back to %d after half an hour", index)
	}
	base()
	r.now += time.Hour.Milliseconds()*3/4 + 10
	r.write(100)
	r.pass()
	if index, _, ok := r.a.History().Reach(); index != cut || !ok {
		t.Errorf("reaches back to %d, %v; want %d, where it was an hour and a quarter ago", index, ok, cut)
	}
}

func TestArchive_HoldEndsAtItsLimitOnly(t *testing.T) {
	r := newRig(t, nil)
	r.write(100)
	release := r.a.Hold()
	again := r.a.Hold()
	r.pass()
	release()
	release() // twice is once
	r.pass()
	if r.log.First() != 1 || r.a.Stats().Held != 1 {
		t.Fatalf("log from %d, %d holds", r.log.First(), r.a.Stats().Held)
	}
	again()
	r.pass()
	if r.log.First() == 1 {
		t.Error("still held")
	}
}

// A foreign segment, a damaged one and a missing one are told apart from what
// can be read.
func TestHistory_Damage(t *testing.T) {
	r := newRig(t, nil)
	r.write(300)
	r.pass()
	c := r.a.Catalog()
	mid := c.Segments[len(c.Segments)/2]
	good, err := os.ReadFile(mid.Path)
	if err != nil {
		t.Fatal(err)
	}
	replay := func() error {
		h, err := OpenHistory(filepath.Join(r.dir, Dir), filepath.Join(r.dir, "wal"), testStore)
		if err != nil {
			t.Fatal(err)
		}
		return h.Replay(t.Context(), 1, r.log.Last(), func(*wal.Frame) error { return nil })
	}
	for i := 0; i < len(good); i += 17 {
		bad := bytes.Clone(good)
		bad[i] ^= 4
		if err := os.WriteFile(mid.Path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		var corrupt *wal.CorruptError
		if err := replay(); err != nil && !errors.As(err, &corrupt) {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
	if err := os.Remove(mid.Path); err != nil {
		t.Fatal(err)
	}
	if err := replay(); !errors.Is(err, ErrReach) {
		t.Errorf("missing segment: %v", err)
	}
}
