package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/wal"
)

// traffic runs a little of everything.
func traffic(d *driver) {
	d.connect("away", nil)
	d.subscribe("away", "a/#")
	d.disconnect("away")
	d.connect("here", nil)
	d.subscribe("here", "a/+", "b")
	for i := range 40 {
		payload := fmt.Appendf(nil, "message %d", i)
		d.log(publish("a/x", 1, i%10 == 0, payload), publish("b", 2, false, payload))
		d.ack("here", 3)
	}
	d.log(publish("big", 1, true, make([]byte, 20_000)))
}

func TestOpen_NewStoreThenReopen(t *testing.T) {
	for _, backend := range []string{BackendBbolt, BackendMemory} {
		t.Run(backend, func(t *testing.T) {
			o := testOptions(t)
			o.Dir, o.Backend = filepath.Join(t.TempDir(), "new", "data"), backend // on the disk
			d := newDriver(t, o)
			d.open()
			if r := d.s.Report; !r.Created || r.Boot != 1 || r.Last != 2 || d.s.Log.Durable() != 2 {
				t.Fatalf("report of a new store: %+v", r)
			}
			traffic(d)
			d.checkBodies()
			d.flush()
			d.checkBackend()
			d.checkBodies()
			d.close()

			d.open()
			r := d.s.Report
			if r.Created || !r.Clean || r.Boot != 2 || r.Sessions != 2 || r.Retained != 2 || r.Queued == 0 {
				t.Fatalf("report of a clean start: %+v", r)
			}
			if replayed := r.Records > 0; replayed != (backend == BackendMemory) {
				t.Fatalf("%d records replayed after a clean stop", r.Records)
			}
			d.checkBodies()
			traffic(d)
			d.checkBodies()
			d.close()
			if err := d.s.Close(context.Background()); err != nil {
				t.Fatalf("second close: %v", err)
			}
		})
	}
}

// A clean stop seals the backend: with it alone, a new log begins at the next
// index.
func TestOpen_SealedBackendWithoutLog(t *testing.T) {
	d := newDriver(t, testOptions(t))
	d.open()
	traffic(d)
	d.close()
	last := d.s.Log.Last()
	if err := os.RemoveAll(filepath.Join(d.opt.Dir, "wal")); err != nil {
		t.Fatal(err)
	}
	d.open()
	if first := d.s.Log.First(); first != last+1 || d.s.Report.Records != 0 {
		t.Fatalf("new log begins at %d with %d records replayed, want %d", first, d.s.Report.Records, last+1)
	}
	d.checkBodies()
	traffic(d)
	d.flush()
	d.checkBackend()
	d.close()
}

// Going live unseals the backend before anything is logged, so that a log that
// vanishes later is missed.
func TestOpen_UnsealsBeforeLogging(t *testing.T) {
	d := newDriver(t, testOptions(t))
	d.open()
	traffic(d)
	d.close()
	d.opt.WAL.Hooks = &wal.Hooks{BeforeWrite: func(uint64) error { return errors.New("power gone") }}
	if _, err := Open(context.Background(), d.opt); err == nil {
		t.Fatal("open succeeded without a log")
	}
	d.opt.WAL.Hooks = nil
	if err := os.RemoveAll(filepath.Join(d.opt.Dir, "wal")); err != nil {
		t.Fatal(err)
	}
	wantDamage(t, d.opt, ExitDamaged)
}

func TestOpen_ChangedLimitsAreLogged(t *testing.T) {
	d := newDriver(t, testOptions(t))
	d.open()
	if got := d.s.Machine.Limits(); got != DefaultLimits() {
		t.Fatalf("limits %+v of a new store", got)
	}
	traffic(d)
	d.close()
	d.opt.Limits = DefaultLimits()
	d.opt.Limits.MaxInflight = 7
	d.open()
	if got := d.s.Machine.Limits(); got != d.opt.Limits {
		t.Fatalf("limits %+v, want %+v", got, d.opt.Limits)
	}
	last := d.s.Report.Last
	d.close()
	d.opt.Limits.MaxInflight = 0
	if _, err := Open(context.Background(), d.opt); err == nil {
		t.Fatal("limits without a window accepted")
	}
	d.opt.Limits.MaxInflight = 7
	d.open()
	if got := d.s.Report.Last; got != last+1 {
		t.Fatalf("record %d at the next start, want %d: unchanged limits were logged", got, last+1)
	}
	d.close()
}

// Log time never goes back, and a large step of the wall clock is reported.
func TestOpen_Time(t *testing.T) {
	d := newDriver(t, testOptions(t))
	d.open()
	traffic(d)
	d.close()
	logTime := d.now.Load()

	d.now.Store(logTime - 3*24*time.Hour.Milliseconds())
	d.open()
	if r := d.s.Report; r.LogTime != logTime || r.TimeJump != -72*time.Hour {
		t.Fatalf("log time %d after %d, jump %v", r.LogTime, logTime, r.TimeJump)
	}
	d.close()

	d.now.Store(logTime + 23*time.Hour.Milliseconds())
	d.open()
	if r := d.s.Report; r.LogTime != d.now.Load() || r.TimeJump != 0 {
		t.Fatalf("log time %d at %d, jump %v", r.LogTime, d.now.Load(), r.TimeJump)
	}
	d.close()

	d.now.Add(25 * time.Hour.Milliseconds())
	d.open()
	if r := d.s.Report; r.TimeJump != 25*time.Hour {
		t.Fatalf("jump %v, want 25h", r.TimeJump)
	}
	d.close()
}

// In every sync mode, what Open and Close say is durable is.
func TestOpen_SyncNever(t *testing.T) {
	d := newDriver(t, testOptions(t))
	d.opt.Sync, d.opt.SegmentSize = wal.SyncNever, 1<<20
	d.open()
	if l := d.s.Log; l.Durable() != l.Last() {
		t.Fatalf("record %d durable of %d: boot numbers may repeat", l.Durable(), l.Last())
	}
	d.flush()
	traffic(d)
	durable := d.s.Log.Durable()
	if durable >= d.ref.Applied() {
		t.Fatal("the log syncs by itself")
	}
	d.close()

	fails := false
	d.opt.WAL.Hooks = &wal.Hooks{BeforeSync: func(uint64) error {
		if fails {
			return errors.New("no more")
		}
		return nil
	}}
	d.open()
	d.flush()
	durable = d.s.Log.Durable()
	d.log(publish("a/x", 1, false, []byte("not synced")))
	fails = true
	if err := d.s.Close(t.Context()); err == nil {
		t.Fatal("closed without a sync")
	}
	if m, _, err := ReadManifest(d.opt.Dir); err != nil || m.Floor > durable {
		t.Fatalf("floor %d, %d durable: %v", m.Floor, durable, err)
	}
	d.opt.WAL.Hooks = nil
	d.openCrashedSelf()
	d.close()
}

func TestOpen_Locked(t *testing.T) {
	d := newDriver(t, testOptions(t))
	d.open()
	_, err := Open(context.Background(), d.opt)
	var locked *LockedError
	if !errors.Is(err, ErrLocked) || !errors.As(err, &locked) || locked.PID != os.Getpid() || ExitCode(err) != ExitLocked {
		t.Fatalf("second open: %v", err)
	}
	traffic(d) // the first one is not disturbed
	d.close()
	d.open()
	d.close()
}

func TestOpen_Progress(t *testing.T) {
	d := newDriver(t, testOptions(t))
	d.open()
	d.connect("away", nil)
	d.subscribe("away", "a")
	for range 40 {
		d.log(publish("a", 1, false, make([]byte, 100_000)))
	}
	to := filepath.Join(t.TempDir(), "crash")
	d.s.Compactor.stop() // the backend stays behind
	copyDir(t, d.opt.Dir, to)
	d.abandon()

	var calls int
	var done, total int64
	d.opt.Dir = to
	d.opt.Progress = func(d, n int64) {
		if d < done || calls > 0 && n != total {
			t.Errorf("progress from %d of %d to %d of %d", done, total, d, n)
		}
		calls, done, total = calls+1, d, n
	}
	d.open()
	if done != total || total < 4_000_000 || calls < 4 || d.s.Report.Bytes != total {
		t.Fatalf("progress ended at %d of %d after %d calls, report says %d", done, total, calls, d.s.Report.Bytes)
	}
	d.checkBodies()
	d.close()
}

// A canceled Open changes nothing and leaves no lock behind.
func TestOpen_Canceled(t *testing.T) {
	d := newDriver(t, testOptions(t))
	d.open()
	traffic(d)
	d.close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, d.opt); !errors.Is(err, context.Canceled) {
		t.Fatalf("open: %v", err)
	}
	d.open()
	d.close()
}

// Neither does one that is canceled in the middle of the replay.
func TestOpen_CanceledReplay(t *testing.T) {
	d := newDriver(t, testOptions(t))
	d.open()
	traffic(d)
	must(t, d.s.Close(t.Context())) // without a checkpoint: there is something to replay
	ctx, cancel := context.WithCancel(t.Context())
	o := d.opt
	o.Progress = func(int64, int64) { cancel() }
	if _, err := Open(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("open: %v", err)
	}
	d.open()
	d.checkBodies()
	d.close()
}

// A state that was never fully brought to the backend is not sealed.
func TestClose_WithoutLastCheckpoint(t *testing.T) {
	d := newDriver(t, testOptions(t))
	d.open()
	traffic(d)
	if err := d.s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	m, _, err := ReadManifest(d.opt.Dir)
	if err != nil || m.Sealed || m.Floor != d.s.Log.Last() {
		t.Fatalf("manifest %+v, %v", m, err)
	}
	d.open()
	if r := d.s.Report; r.Records == 0 || !r.Clean {
		t.Fatalf("report %+v", r)
	}
	d.checkBodies()
	d.close()
}

// wantDamage checks that the directory is refused, and that refusing it again
// gives the same answer.
func wantDamage(t *testing.T, o Options, code int) {
	t.Helper()
	var before string
	for range 2 {
		s, err := Open(context.Background(), o)
		if err == nil {
			_ = s.Close(context.Background())
			t.Fatal("a damaged directory was opened")
		}
		if ExitCode(err) != code {
			t.Fatalf("exit code %d, want %d: %v", ExitCode(err), code, err)
		}
		if code == ExitDamaged && !errors.Is(err, ErrDamaged) {
			t.Fatalf("not a DamageError: %v", err)
		}
		if before != "" && before != err.Error() {
			t.Fatalf("refused differently the second time:\n%s\n%v", before, err)
		}
		before = err.Error()
	}
	t.Log(before)
}
