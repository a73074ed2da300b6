package recovery

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/wind-c/comqtt/v3/backends/memory"
	"github.com/wind-c/comqtt/v3/wal"
)

// message k of the tests that need no store.
func body(id uint64, size int) []byte {
	b := bytes.Repeat([]byte{byte(id)}, size)
	return append(b, fmt.Sprint(id)...)
}

// frameOf returns a frame of n publishes from record first on.
func frameOf(first uint64, n, size int) *wal.Frame {
	f := &wal.Frame{First: first, Count: uint32(n)}
	for i := range n {
		f.Body = wal.AppendRecord(f.Body, publish("t", 1, false, body(first+uint64(i), size)))
	}
	return f
}

func memoryBodies(budget int64) *Bodies { return newBodies(budget, nil, memory.New()) }

func TestBodies_RingKeepsTheLastFramesWithinBudget(t *testing.T) {
	const budget = 64 << 10
	b := memoryBodies(budget)
	next := uint64(1)
	for i := range 2000 {
		n := 1 + i%7
		f := frameOf(next, n, 50+i%100)
		var offsets []uint32
		if i%2 == 0 {
			offsets = recordOffsets(f)
		}
		b.AddFrame(f, offsets)
		next += uint64(n)
		if m := b.Memory(); m > budget {
			t.Fatalf("%d bytes after frame %d", m, i)
		}
	}
	cached := 0
	for id := uint64(0); id < next+10; id++ {
		msg, ok := b.Cached(id)
		if !ok {
			if cached > 0 && id < next {
				t.Fatalf("message %d is gone, %d before it are not", id, cached)
			}
			continue
		}
		cached++
		if !bytes.HasSuffix(msg, fmt.Append(nil, id)) {
			t.Fatalf("message %d is %q", id, msg)
		}
	}
	if cached < 200 {
		t.Fatalf("only %d messages in %d bytes", cached, budget)
	}
}

// However small the budget, the newest frame and the first of what was loaded
// are there: a session that is sent one message after another makes progress.
func TestBodies_TinyBudget(t *testing.T) {
	o := testOptions(t)
	o.CacheBytes = 1
	d := newDriver(t, o)
	queueing(t, d)
	for i := range 20 {
		id := d.log(publish("a", 1, false, body(uint64(i), 1000)))
		if _, ok := d.s.Bodies.Cached(id); !ok {
			t.Fatal("the newest frame is not in memory")
		}
	}
	d.flush()
	ids := d.alive()
	for len(ids) > 0 {
		must(t, d.s.Bodies.Load(t.Context(), ids, func(int, []byte) error { return nil }))
		msg, ok := d.s.Bodies.Cached(ids[0])
		if !ok || !bytes.Equal(msg, d.stored(ids[0])) {
			t.Fatalf("message %d is not in memory after Load", ids[0])
		}
		ids = ids[1:]
	}
	d.close()
}

func TestBodies_RingIsBoundedInFrames(t *testing.T) {
	b := memoryBodies(1 << 40)
	for id := uint64(1); id <= ringFrames+100; id++ {
		b.AddFrame(frameOf(id, 1, 1), nil)
	}
	if _, ok := b.Cached(100); ok {
		t.Error("the oldest frames are still there")
	}
	held := 0
	for i := range b.ring.slots {
		if b.ring.slots[i].Load() != nil {
			held++
		}
	}
	b.ring.drop()
	if _, ok := b.Cached(101); ok || b.ring.slots[100%ringFrames].Load() != nil || held != ringFrames {
		t.Errorf("%d frames held, and the one dropped", held)
	}
	for _, id := range []uint64{102, ringFrames / 2, ringFrames + 100} {
		if msg, ok := b.Cached(id); !ok || !bytes.HasSuffix(msg, fmt.Append(nil, id)) {
			t.Errorf("message %d: %q, %v", id, msg, ok)
		}
	}
}

// Records that are no publishes have no body.
func TestBodies_OtherRecords(t *testing.T) {
	b := memoryBodies(1 << 20)
	f := &wal.Frame{First: 5, Count: 2}
	f.Body = wal.AppendRecord(f.Body, []byte{4, 1})
	f.Body = wal.AppendRecord(f.Body, publish("t", 1, false, nil))
	b.AddFrame(f, nil)
	b.AddFrame(&wal.Frame{First: 7}, nil) // a mark
	if _, ok := b.Cached(5); ok {
		t.Error("a tick has a body")
	}
	if _, ok := b.Cached(6); !ok {
		t.Error("an empty payload has none")
	}
}

// What was read from disk is shared, keeps within the budget, and gives way to
// new frames down to a quarter.
func TestBodies_Shelf(t *testing.T) {
	const budget = 80 << 10
	b := memoryBodies(budget)
	for id := uint64(1); id <= 1000; id++ {
		b.shelf.put(id, body(id, 200), b.shelfLimit())
		b.shelf.put(id, body(id, 200), b.shelfLimit()) // two sessions at once
		b.shelf.get(1)                                 // is in use
	}
	if m := b.Memory(); m > budget || m < budget*3/4 {
		t.Fatalf("%d bytes of %d", m, budget)
	}
	if msg, ok := b.Cached(1); !ok || !bytes.Equal(msg, body(1, 200)) {
		t.Fatal("what is in use was thrown out")
	}
	if _, ok := b.Cached(2); ok {
		t.Fatal("what is not in use was kept")
	}
	if n := b.shelf.clock.Len(); n != len(b.shelf.byID) {
		t.Fatalf("%d on the clock, %d known", n, len(b.shelf.byID))
	}
	b.shelf.put(5000, body(1, 2*budget), b.shelfLimit())
	if _, ok := b.Cached(5000); !ok {
		t.Fatal("what was just loaded is not there")
	}
	for id := uint64(6000); id < 7000; id++ {
		b.shelf.put(id, body(id, 200), b.shelfLimit())
	}
	if _, ok := b.Cached(5000); ok || b.Memory() > budget {
		t.Fatalf("a body of twice the budget was kept, %d bytes", b.Memory())
	}
	for id := uint64(10_000); id < 12_000; id++ {
		b.AddFrame(frameOf(id, 1, 200), nil)
	}
	if s := b.shelf.bytes.Load(); s > budget/4 || s < budget/8 {
		t.Fatalf("%d bytes on the shelf", s)
	}
	if m := b.Memory(); m > budget {
		t.Fatalf("%d bytes in all", m)
	}
}

// A look-up beside AddFrame sees a message whole or not at all.
func TestBodies_Concurrent(t *testing.T) {
	b := memoryBodies(16 << 10)
	const last = 20_000
	var wg sync.WaitGroup
	for g := range 3 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			for range last {
				id := r.Uint64N(last)
				if msg, ok := b.Cached(id); ok && !bytes.HasSuffix(msg, fmt.Append(nil, id)) {
					t.Errorf("message %d is %q", id, msg)
					return
				}
				if id%16 == 0 {
					b.shelf.put(id, body(id, 10), b.shelfLimit())
				}
			}
		})
	}
	for id := uint64(1); id < last; id += 4 {
		b.AddFrame(frameOf(id, 4, 20), nil)
	}
	wg.Wait()
}

// Load finds messages wherever they are, in order, and names the missing ones
// at the end.
func TestBodies_Load(t *testing.T) {
	o := testOptions(t)
	o.CacheBytes = 8 << 10
	d := newDriver(t, o)
	queueing(t, d)
	var ids []uint64
	for i := range 600 {
		ids = append(ids, d.log(publish("a", 1, false, body(uint64(i), 30))))
		if i == 400 {
			d.flush()
		}
	}
	d.checkBodies()
	if s := d.s.Compactor.Stats(); s.LogReads == 0 || s.StoreReads == 0 {
		t.Fatalf("stats %+v: not all places were used", s)
	}
	stop := errors.New("enough")
	calls := 0
	err := d.s.Bodies.Load(t.Context(), ids, func(int, []byte) error {
		calls++
		if calls == 3 {
			return stop
		}
		return nil
	})
	if err != stop || calls != 3 { //nolint:errorlint // must be the very error
		t.Fatalf("%v after %d calls", err, calls)
	}
	mixed := []uint64{1 << 40, ids[599], 2, ids[0], 3, ids[300]}
	var got []int
	err = d.s.Bodies.Load(t.Context(), mixed, func(i int, msg []byte) error {
		got = append(got, i)
		if !bytes.Equal(msg, d.stored(mixed[i])) {
			t.Errorf("message %d is %q", mixed[i], msg)
		}
		return nil
	})
	var missing *NoBodyError
	if !errors.Is(err, ErrNoBody) || !errors.As(err, &missing) || fmt.Sprint(missing.IDs) != fmt.Sprint([]uint64{1 << 40, 2, 3}) {
		t.Fatalf("load: %v", err)
	}
	if fmt.Sprint(got) != "[1 3 5]" {
		t.Fatalf("calls %v", got)
	}
	d.close()
}

// What was loaded may be kept: it does not change when more is loaded.
func TestBodies_LoadedStays(t *testing.T) {
	o := testOptions(t)
	o.CacheBytes = 4 << 10
	d := newDriver(t, o)
	queueing(t, d)
	for i := range 300 {
		d.log(publish("a", 1, false, body(uint64(i), 30)))
	}
	kept := map[uint64][]byte{}
	ids := d.alive()
	for range 2 {
		must(t, d.s.Bodies.Load(t.Context(), ids, func(i int, msg []byte) error {
			if kept[ids[i]] == nil {
				kept[ids[i]] = msg
			}
			return nil
		}))
		d.flush()
	}
	for id, msg := range kept {
		if !bytes.Equal(msg, d.stored(id)) {
			t.Fatalf("message %d has become %q", id, msg)
		}
	}
	d.close()
}

func TestBodies_CachedAllocatesNothing(t *testing.T) {
	b := memoryBodies(1 << 20)
	b.AddFrame(frameOf(100, 50, 100), nil)
	b.AddFrame(frameOf(150, 50, 100), nil)
	b.shelf.put(7, body(7, 10), b.shelfLimit())
	for _, id := range []uint64{7, 8, 120, 199} {
		if n := testing.AllocsPerRun(100, func() { b.Cached(id) }); n != 0 {
			t.Errorf("Cached(%d): %v allocations", id, n)
		}
	}
}

// Bodies are found beside everything that moves them: from the ring to the log
// only, into the backend, out of the log.
func TestBodies_LoadBesideCheckpoints(t *testing.T) {
	o := testOptions(t)
	o.CacheBytes = 32 << 10
	o.Checkpoint.BatchBytes = 8 << 10
	d := newDriver(t, o)
	queueing(t, d)
	var mu sync.Mutex
	var ids []uint64 // never acknowledged
	want := map[uint64][]byte{}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 3 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(2, uint64(g)))
			for {
				select {
				case <-done:
					return
				default:
				}
				mu.Lock()
				some := make([]uint64, 0, 8)
				for range min(len(ids), 8) {
					some = append(some, ids[r.IntN(len(ids))])
				}
				mu.Unlock()
				err := d.s.Bodies.Load(t.Context(), some, func(i int, msg []byte) error {
					mu.Lock()
					defer mu.Unlock()
					if !bytes.Equal(msg, want[some[i]]) {
						return fmt.Errorf("message %d is %.40q", some[i], msg)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 400 {
		id := d.log(publish("a", 1, false, body(uint64(i), 500)))
		mu.Lock()
		ids, want[id] = append(ids, id), d.stored(id)
		mu.Unlock()
		if i%10 == 9 {
			d.s.Compactor.due.Store(true)
			d.checkpoint()
		}
	}
	d.flush()
	close(done)
	wg.Wait()
	if s := d.s.Compactor.Stats(); s.Dropped == 0 || s.LogReads == 0 || s.StoreReads == 0 {
		t.Errorf("stats %+v: not all moves happened", s)
	}
	d.close()
}
