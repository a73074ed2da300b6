package recovery

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/bbolt"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// queueing opens a store with one absent subscriber, "away", and brings it to
// the backend.
func queueing(t *testing.T, d *driver) {
	t.Helper()
	d.open()
	d.connect("away", nil)
	d.subscribe("away", "a")
	d.flush()
}

// A backend without room is tried again, with everything that came meanwhile
// merged in; bodies that went ahead of the failed commit and away since do not
// stay behind.
func TestCompactor_FullBackendIsTriedAgain(t *testing.T) {
	dir := fastDir(t)
	synctest.Test(t, func(t *testing.T) {
		o := Options{Dir: dir + "/data", SegmentSize: 4096}
		o.Checkpoint.BatchBytes = 2000
		d := newDriver(t, o)
		queueing(t, d)
		applied := d.s.Compactor.Applied()
		full := true
		attempts := make(chan int, 100)
		d.gate.set(func(b *backends.Batch, m backends.Mark) error {
			if m.Applied == applied {
				return nil // bodies
			}
			attempts <- b.Len()
			if full {
				return fmt.Errorf("test: %w", backends.ErrFull)
			}
			return nil
		}, nil)
		for range 10 {
			d.log(publish("a", 1, false, make([]byte, 800)))
		}
		d.s.Compactor.due.Store(true)
		d.checkpoint()
		<-attempts
		synctest.Wait()
		lag := d.s.Compactor.Lag()
		if !errors.Is(lag.Err, backends.ErrFull) || lag.Applied != applied || lag.Collected != d.ref.Applied() || lag.Changes < 13 {
			t.Fatalf("lag %+v", lag)
		}
		d.ack("away", 4)
		d.log(publish("a", 2, true, make([]byte, 800)))
		d.checkpoint()
		before := time.Now()
		<-attempts // by itself, after a pause
		<-attempts
		if pause := time.Since(before); pause < 2*DefaultRetry || pause > 10*DefaultRetry {
			t.Fatalf("two more attempts in %v", pause)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := d.s.Compactor.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, backends.ErrFull) {
			t.Fatalf("flush into a full backend: %v", err)
		}
		d.gate.mu.Lock()
		full = false
		d.gate.mu.Unlock()
		d.flush()
		d.checkBackend()
		d.checkBodies()
		if lag := d.s.Compactor.Lag(); lag.Err != nil || lag.Changes != 0 || lag.Applied != d.ref.Applied() {
			t.Fatalf("lag %+v after the backend has room again", lag)
		}
		s := d.s.Compactor.Stats()
		if s.Failures < 3 || s.Bodies > 13 {
			t.Fatalf("stats %+v: bodies that went ahead were written again", s)
		}
		d.log(publish("a", 1, false, []byte("one more")))
		d.flush()
		if n := d.s.Compactor.Stats().Operations - s.Operations; n != 4 { // body, meta, entry, head
			t.Fatalf("%d operations for one message", n)
		}
		d.close()
	})
}

// What is collected while a commit is on its way to fail is not lost.
func TestCompactor_CollectedDuringAFailure(t *testing.T) {
	o := testOptions(t)
	o.Checkpoint.Retry = time.Microsecond
	d := newDriver(t, o)
	queueing(t, d)
	entered, release := make(chan struct{}), make(chan struct{})
	first := true
	d.gate.set(func(*backends.Batch, backends.Mark) error {
		if !first {
			return nil
		}
		first = false
		close(entered)
		<-release
		return backends.ErrFull
	}, nil)
	d.log(publish("a", 1, false, []byte("first")), publish("a", 1, false, []byte("goes")))
	d.s.Compactor.due.Store(true)
	d.checkpoint()
	<-entered
	d.ack("away", 1)
	d.log(publish("a", 1, true, []byte("second")))
	d.checkpoint()
	close(release)
	d.flush()
	d.checkBackend()
	d.close()
}

// A change that leads back to what the backend has is not written.
func TestCompactor_NoChange(t *testing.T) {
	d := newDriver(t, testOptions(t))
	queueing(t, d)
	before := d.s.Compactor.Stats().Operations
	d.connect("away", nil) // as before, but for the epoch
	d.subscribe("away", "a")
	d.flush()
	if n := d.s.Compactor.Stats().Operations - before; n != 1 { // the session's head
		t.Fatalf("%d operations", n)
	}
	d.checkBackend()
	d.close()
}

// The interval brings changes to the backend, whether the apply loop collects
// at its tick or has collected before and is idle since.
func TestCompactor_Interval(t *testing.T) {
	dir := fastDir(t)
	synctest.Test(t, func(t *testing.T) {
		d := newDriver(t, Options{Dir: dir + "/data"})
		queueing(t, d)
		for _, atTick := range []bool{true, false} {
			d.log(publish("a", 1, false, []byte("stays")))
			if atTick {
				<-d.s.Compactor.Ticks()
			}
			d.checkpoint()
			synctest.Wait()
			if !atTick {
				if d.s.Compactor.Applied() == d.ref.Applied() {
					t.Fatal("committed before the interval")
				}
				time.Sleep(2 * DefaultInterval) // of the bubble
				synctest.Wait()
			}
			if got := d.s.Compactor.Applied(); got != d.ref.Applied() {
				t.Fatalf("backend at %d of %d, collected at a tick: %v", got, d.ref.Applied(), atTick)
			}
		}
		d.checkBackend()
		d.close()
	})
}

// Records without an effect on the state cause a commit only to let segments
// go.
func TestCompactor_RecordsWithoutChange(t *testing.T) {
	dir := fastDir(t)
	synctest.Test(t, func(t *testing.T) {
		d := newDriver(t, Options{Dir: dir + "/data", SegmentSize: 64 << 10})
		queueing(t, d)
		commits := d.s.Compactor.Stats().Commits
		for range 50 {
			<-d.s.Compactor.Ticks()
			d.log(record.Tick{}.AppendTo(nil))
			d.checkpoint()
		}
		synctest.Wait()
		if got := d.s.Compactor.Stats().Commits; got != commits {
			t.Fatalf("%d commits without a change", got-commits)
		}
		for range 1000 {
			d.log(record.Tick{}.AppendTo(nil))
		}
		<-d.s.Compactor.Ticks()
		d.checkpoint()
		synctest.Wait()
		if got := d.s.Compactor.Stats(); got.Commits != commits+1 || got.Dropped < 60<<10 {
			t.Fatalf("stats %+v", got)
		}
		d.close()
	})
}

// A final error of the backend stops everything: no commit any more, Fatal
// tells, and the log has it all.
func TestCompactor_FinalErrorIsFatal(t *testing.T) {
	d := newDriver(t, testOptions(t))
	queueing(t, d)
	d.gate.set(func(*backends.Batch, backends.Mark) error { return fmt.Errorf("test: %w", backends.ErrSyncFailed) }, nil)
	d.log(publish("a", 1, true, []byte("x")))
	d.checkpoint()
	if err := d.s.Compactor.Flush(t.Context()); !errors.Is(err, backends.ErrSyncFailed) {
		t.Fatalf("flush: %v", err)
	}
	if err := <-d.s.Compactor.Fatal(); !errors.Is(err, backends.ErrSyncFailed) || ExitCode(err) != ExitIO {
		t.Fatalf("fatal: %v", err)
	}
	d.gate.set(func(*backends.Batch, backends.Mark) error { t.Error("commit after a final error"); return nil }, nil)
	d.log(publish("a", 1, true, []byte("y")))
	d.checkpoint()
	if err := d.s.Close(t.Context()); !errors.Is(err, backends.ErrSyncFailed) {
		t.Fatalf("close: %v", err)
	}
	d.open()
	d.checkBodies()
	d.flush()
	d.checkBackend()
	d.close()
}

// While the backend does not answer, what comes and goes leaves nothing behind:
// what waits is bounded by the state, not by the traffic.
func TestCompactor_SlowBackendBoundedFold(t *testing.T) {
	o := testOptions(t)
	o.SegmentSize = 1 << 20
	o.Sync = -1 // never
	d := newDriver(t, o)
	queueing(t, d)
	entered, release := make(chan struct{}), make(chan struct{})
	d.gate.set(func(*backends.Batch, backends.Mark) error {
		select {
		case entered <- struct{}{}:
		case <-release:
		}
		<-release
		return nil
	}, nil)
	d.log(publish("a", 1, false, []byte("first")))
	d.s.Compactor.due.Store(true)
	d.checkpoint()
	<-entered
	var most int64
	for i := range 300 {
		var recs [][]byte
		for range 99 {
			recs = append(recs, publish("a", 1, false, []byte("passing")))
		}
		d.log(recs...)
		d.checkpoint() // while they are in flight: each reaches a delta
		d.ack("away", 100)
		d.checkpoint()
		if i%10 == 9 {
			// The merging goroutine takes up what was collected before it
			// answers.
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = d.s.Compactor.Flush(ctx)
		}
		most = max(most, d.s.Compactor.Lag().Bytes)
	}
	if most > 3*tidyMin {
		t.Fatalf("%d bytes waited for the backend", most)
	}
	close(release)
	d.gate.set(nil, nil)
	d.flush()
	d.checkBackend()
	if s := d.s.Compactor.Stats(); s.Bodies > 1 {
		t.Fatalf("%d bodies of messages that were gone reached the backend", s.Bodies)
	}
	d.close()
}

// A message that is acknowledged before the next checkpoint never reaches the
// backend.
func TestCompactor_ComeAndGoBetweenCheckpoints(t *testing.T) {
	d := newDriver(t, testOptions(t))
	queueing(t, d)
	before := d.s.Compactor.Stats()
	for range 20 {
		d.log(publish("a", 2, false, []byte("passing")))
		d.ack("away", 10)
		d.ack("away", 10)
	}
	d.flush()
	d.checkBackend()
	after := d.s.Compactor.Stats()
	if after.Bodies != before.Bodies || after.Operations > before.Operations+1 { // the session's head
		t.Fatalf("%+v before, %+v after", before, after)
	}
	d.close()
}

// The log loses the segments that the backend has made superfluous, and the
// manifest knows how far it reached.
func TestCompactor_ShortensTheLog(t *testing.T) {
	d := newDriver(t, testOptions(t))
	queueing(t, d)
	for range 30 {
		d.log(publish("a", 1, false, make([]byte, 1000)))
	}
	if n := len(d.s.Log.Segments()); n < 8 {
		t.Fatalf("only %d segments", n)
	}
	applied := d.ref.Applied()
	d.flush()
	if n, first := len(d.s.Log.Segments()), d.s.Log.First(); n > 2 || first < applied-4 {
		t.Fatalf("%d segments, first record %d of %d", n, first, applied)
	}
	if s := d.s.Compactor.Stats(); s.Dropped < 25_000 {
		t.Fatalf("stats %+v", s)
	}
	d.checkBodies() // from the backend now
	m, _, err := ReadManifest(d.opt.Dir)
	if err != nil || m.Floor == 0 || m.Floor > d.s.Log.Durable() {
		t.Fatalf("manifest %+v, %v", m, err)
	}
	d.close()
}

// An idle broker writes nothing, though it logs the state hash of the last
// checkpoint.
func TestCompactor_IdleWritesNothing(t *testing.T) {
	dir := fastDir(t)
	synctest.Test(t, func(t *testing.T) {
		d := newDriver(t, Options{Dir: dir + "/data"})
		queueing(t, d)
		d.log(publish("a", 1, false, []byte("stays")))
		loop := func(rounds int) {
			seen := d.ref.Applied()
			for range rounds {
				select {
				case h := <-d.s.Compactor.Hashes():
					d.log(h.AppendTo(nil))
				case <-d.s.Compactor.Ticks():
				}
				if d.s.Compactor.Due(d.ref.Applied()-seen, 0, d.s.Machine.Changed()) {
					d.checkpoint()
					seen = d.ref.Applied()
				}
				synctest.Wait()
			}
		}
		loop(10)
		d.compare()
		before, applied := d.s.Compactor.Stats(), d.ref.Applied()
		if d.s.Compactor.Lag().Changes != 0 {
			t.Fatalf("lag %+v after ten intervals", d.s.Compactor.Lag())
		}
		loop(50)
		if after := d.s.Compactor.Stats(); after.Transactions != before.Transactions || d.ref.Applied() != applied {
			t.Fatalf("idle: %+v, then %+v; records %d to %d", before, after, applied, d.ref.Applied())
		}
		d.close()
	})
}

func TestCompactor_Due(t *testing.T) {
	d := newDriver(t, testOptions(t))
	queueing(t, d)
	c := d.s.Compactor
	c.due.Store(false)
	for _, tt := range []struct {
		records, bytes uint64
		changed        int
		timed, want    bool
	}{
		{1, 1, 1, false, false},
		{1, 1, DefaultCollect, false, true},
		{DefaultRecords, 1, 1, false, true},
		{1, DefaultBytes, 1, false, true},
		{1, 1, 0, true, true},
		{0, 0, 0, true, false},
		{1, 1, 1, false, false}, // the interval begins anew after an idle one
	} {
		if tt.timed {
			c.due.Store(true)
		}
		if got := c.Due(tt.records, tt.bytes, tt.changed); got != tt.want {
			t.Errorf("%+v: due %v", tt, got)
		}
	}
	d.close()
}

// A state hash in the log that the state does not have is noticed by the next
// replay that passes it, and one that it has is counted.
func TestCompactor_HashesAreVerified(t *testing.T) {
	d := newDriver(t, testOptions(t))
	queueing(t, d)
	d.log(publish("a", 1, false, []byte("stays")))
	d.gate.set(func(*backends.Batch, backends.Mark) error { return backends.ErrFull }, nil)
	key := d.s.Manifest.HashKey
	good := record.StateHash{Index: d.ref.Applied(), Hash: d.ref.Hash(&key).Bytes()}
	d.log(good.AppendTo(nil))
	d.log(publish("a", 1, false, []byte("stays")))
	right := d.crash(t.TempDir(), true)
	bad := record.StateHash{Index: d.ref.Applied(), Hash: good.Hash}
	d.log(bad.AppendTo(nil))
	wrong := d.crash(t.TempDir(), true)
	d.abandon()

	right.openCrashed()
	if n := right.s.Report.Hashes; n != 2 { // of the backend, and the one in the log
		t.Fatalf("%d hashes compared", n)
	}
	right.close()
	wantDamage(t, wrong.opt, ExitDamaged)
}

// Bodies that went ahead of a checkpoint that never came, and whose messages
// went before the crash, do not stay in the backend.
func TestCompactor_BodiesAheadOfACrash(t *testing.T) {
	o := testOptions(t)
	o.Checkpoint.BatchBytes = 2000
	d := newDriver(t, o)
	queueing(t, d)
	applied := d.s.Compactor.Applied()
	entered, release := make(chan struct{}), make(chan struct{})
	d.gate.set(func(_ *backends.Batch, m backends.Mark) error {
		if m.Applied > applied {
			close(entered)
			<-release
		}
		return nil
	}, nil)
	for range 10 {
		d.log(publish("a", 1, false, make([]byte, 800)))
	}
	d.s.Compactor.due.Store(true)
	d.checkpoint()
	<-entered
	d.ack("away", 5)
	c := d.crash(t.TempDir(), false)
	close(release)
	d.abandon()

	store, err := bbolt.Open(filepath.Join(c.opt.Dir, boltName), bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	notes, err := readNotes(t.Context(), store)
	if err = errors.Join(err, store.Close()); err != nil || len(notes.ids) < 6 {
		t.Fatalf("notes %+v, %v", notes, err)
	}
	c.openCrashed()
	c.flush()
	c.checkBackend()
	c.checkBodies()
	if s := c.s.Compactor.Stats(); s.Bodies > 3 {
		t.Fatalf("%d bodies were written again", s.Bodies)
	}
	c.close()
}
