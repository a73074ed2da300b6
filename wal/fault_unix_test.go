//go:build unix

package wal

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// faultDisk stands between a log and its files: it fails one operation of a
// workload, and knows what a power cut would leave at any moment.
type faultDisk struct {
	Engine
	directory
	t      *testing.T
	dir    string
	failAt int  // operation to fail, from 1
	lie    bool // the failed sync works: the error comes after the data is safe
	half   bool // a failed append leaves half a frame

	ops    int
	failed bool
	after  int              // operations after the failed one: there must be none
	synced map[string]int64 // bytes of each file that a power cut leaves
	names  map[string]bool  // files whose names it leaves
}

func (d *faultDisk) fail() bool {
	if d.failed {
		d.after++
	}
	d.ops++
	d.failed = d.failed || d.ops == d.failAt
	return d.ops == d.failAt
}

func (d *faultDisk) settle(name string) {
	info, err := os.Stat(filepath.Join(d.dir, name))
	if err != nil {
		d.t.Fatal(err)
	}
	d.synced[name] = info.Size()
	if tail := d.Engine.Tail(); name == segmentName(tail.Segment) {
		d.synced[name] = tail.Offset // zeros may follow
	}
}

func (d *faultDisk) settleNames() {
	for _, name := range readFiles(d.t, d.dir).names() {
		d.names[name] = true
	}
}

func (d *faultDisk) Append(entry []byte) (Position, error) {
	tail := d.Engine.Tail()
	if d.fail() {
		if d.half {
			f, err := os.OpenFile(filepath.Join(d.dir, segmentName(tail.Segment)), os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt(entry[:len(entry)/2], tail.Offset)
			}
			if err := errors.Join(err, f.Close()); err != nil {
				d.t.Fatal(err)
			}
		}
		return tail, errFault
	}
	at, err := d.Engine.Append(entry)
	if err == nil && d.Engine.Tail().Segment != tail.Segment { // the contract of a rotation
		d.settle(segmentName(tail.Segment))
		d.synced[segmentName(d.Engine.Tail().Segment)] = 0
	}
	return at, err
}

// Sync of the engine.
func (d *faultDisk) syncEngine() error {
	if d.fail() {
		if d.lie {
			d.settle(segmentName(d.Engine.Tail().Segment))
		}
		return errFault
	}
	if err := d.Engine.Sync(); err != nil {
		return err
	}
	d.settle(segmentName(d.Engine.Tail().Segment))
	return nil
}

// faultEngine and faultDir give the two halves their Sync and Close.
type faultEngine struct{ *faultDisk }

func (e faultEngine) Sync() error  { return e.syncEngine() }
func (e faultEngine) Close() error { return e.Engine.Close() }
func (e faultEngine) Roll() error {
	if e.fail() {
		return errFault
	}
	old := e.Engine.Tail().Segment
	err := e.Engine.Roll()
	if err == nil {
		e.settle(segmentName(old))
		e.synced[segmentName(e.Engine.Tail().Segment)] = 0
	}
	return err
}

type faultDir struct {
	*faultDisk
	directory // if it is not the disk's
}

func (d faultDir) Sync() error {
	if d.fail() {
		return errFault
	}
	d.settleNames()
	return d.handle().Sync()
}

func (d faultDir) Close() error { return d.handle().Close() }

func (d faultDir) handle() directory {
	if d.directory != nil {
		return d.directory
	}
	return d.faultDisk.directory
}

// powerCut returns the files with only what was synced: the rest is cut off, as
// of a file that had grown, or zero, as of one that was preallocated.
func (d *faultDisk) powerCut() (cut, zero files) {
	cut, zero = files{}, files{}
	for name, b := range readFiles(d.t, d.dir) {
		if d.names[name] {
			n := d.synced[name]
			cut[name] = b[:n]
			zero[name] = append(bytes.Clone(b[:n]), make([]byte, int64(len(b))-n)...)
		}
	}
	return cut, zero
}

// openFaulty opens a log over a faultDisk.
func openFaulty(t *testing.T, o Options, d *faultDisk) *Log {
	t.Helper()
	d.t, d.dir, d.synced, d.names = t, o.Dir, map[string]int64{}, map[string]bool{}
	open := o.engine()
	o.Engine = func(dir string, tail Position, segmentSize int64) (Engine, error) {
		e, err := open(dir, tail, segmentSize)
		d.Engine = e
		return faultEngine{d}, err
	}
	l := mustOpen(t, o)
	d.directory = l.dir
	l.dir, l.drop = faultDir{faultDisk: d}, faultDir{faultDisk: d, directory: l.drop}
	for name := range maps.Keys(readFiles(t, o.Dir)) {
		d.settle(name)
	}
	d.settleNames()
	return l
}

// workload commits until an error, with rotations, an oversized frame, a drop
// and marks, and returns the records that were promised to be durable.
func workload(l *Log) (acked uint64, err error) {
	for i := range 40 {
		n := i%4 + 1
		if i == 20 || i == 22 || i == 25 {
			n = 60 // larger than a segment
		}
		if err = l.Commit(frame(l.Last(), n)); err == nil && i%10 == 9 {
			err = l.Sync()
		}
		if err == nil && i%7 == 3 {
			err = l.Mark()
		}
		if err == nil && i == 30 {
			err = l.DropBefore(l.Last() - 20)
		}
		if err != nil {
			return l.Durable(), err
		}
	}
	acked = l.Last()
	if err = l.Close(); err != nil {
		acked = l.Durable()
	}
	return acked, err
}

// Fail each operation on the disk in turn. Whatever was promised before must be
// in the log after a power cut that takes every unsynced byte and name, and
// after a kill that takes none; and nothing may be written after a failure.
func TestFaultSweep(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		t.Parallel()
		for _, mode := range []SyncMode{SyncAlways, SyncNever} {
			for _, k := range []struct {
				name      string
				half, lie bool
			}{{"clean", false, false}, {"half a frame", true, false}, {"error after success", false, true}} {
				if thin && k.half {
					continue
				}
				t.Run(mode.String()+" "+k.name, func(t *testing.T) {
					ops := 0
					for n := 1; ; n++ {
						o := options(t)
						o.Sync = mode
						d := &faultDisk{failAt: n, half: k.half, lie: k.lie}
						l := openFaulty(t, o, d)
						acked, err := workload(l)
						checkPoison(t, l, d, n, err)
						checkAfterFault(t, o, d, n, acked)
						if err == nil {
							break
						}
						ops++
					}
					if ops < 50 && mode == SyncAlways || ops < 40 {
						t.Fatalf("only %d operations", ops)
					}
				})
			}
		}
	})
}

// checkPoison checks that the failure was final.
func checkPoison(t *testing.T, l *Log, d *faultDisk, n int, err error) {
	t.Helper()
	if err == nil {
		if d.failed {
			t.Fatalf("fault at op %d was swallowed", n)
		}
		return
	}
	if !errors.Is(err, ErrPoisoned) || !errors.Is(err, errFault) {
		t.Fatalf("fault at op %d: %v", n, err)
	}
	for _, again := range []error{l.Commit(frame(l.Last(), 1)), l.Sync(), l.Mark(), l.DropBefore(l.Last()), l.Err()} {
		if closed := errors.Is(again, ErrClosed); !closed && (!errors.Is(again, ErrPoisoned) || !errors.Is(again, errFault)) {
			t.Fatalf("fault at op %d, afterwards: %v", n, again)
		}
	}
	if err := l.Close(); !errors.Is(err, errFault) && !errors.Is(err, ErrClosed) {
		t.Fatalf("fault at op %d, close: %v", n, err)
	}
	if d.after > 0 {
		t.Fatalf("fault at op %d: %d operations after it", n, d.after)
	}
}

// checkAfterFault opens what a power cut and what a kill leave.
func checkAfterFault(t *testing.T, o Options, d *faultDisk, n int, acked uint64) {
	t.Helper()
	cut, zero := d.powerCut()
	for what, disk := range map[string]files{"power cut": cut, "power cut, zeros": zero, "kill": readFiles(t, o.Dir)} {
		disk.write(t, o.Dir)
		l, _, err := Open(o)
		if err != nil {
			t.Fatalf("fault at op %d, %s: %v", n, what, err)
		}
		if l.Last() < acked {
			t.Fatalf("fault at op %d, %s: log ends at %d, %d was acknowledged", n, what, l.Last(), acked)
		}
		verify(t, l, l.First(), l.Last())
		mustClose(t, l)
	}
}

// Every hook can fail, and its error is final.
func TestHookErrorsPoison(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		fail := func(uint64) error { return errFault }
		for name, h := range map[string]*Hooks{
			"before write":  {BeforeWrite: fail},
			"after write":   {AfterWrite: fail},
			"before sync":   {BeforeSync: fail},
			"after sync":    {AfterSync: fail},
			"before rotate": {BeforeRotate: fail},
			"after rotate":  {AfterRotate: fail},
		} {
			t.Run(name, func(t *testing.T) {
				o := options(t)
				o.Hooks = h
				l := mustOpen(t, o)
				var err error
				for range 100 {
					if err = l.Commit(frame(l.Last(), 3)); err != nil {
						break
					}
				}
				if !errors.Is(err, ErrPoisoned) || !errors.Is(err, errFault) {
					t.Fatal(err)
				}
				acked := l.Last()
				if err := l.Close(); !errors.Is(err, errFault) {
					t.Fatal(err)
				}
				o.Hooks = nil
				l = mustOpen(t, o)
				if l.Last() < acked || l.Last() > acked+3 {
					t.Fatalf("log ends at %d, acknowledged %d", l.Last(), acked)
				}
				verify(t, l, 1, l.Last())
			})
		}
	})
}

// A failed unlink is not final: the segment stays and the call can be repeated.
func TestDropFailureIsNotFinal(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		fail := true
		o.Hooks = &Hooks{BeforeUnlink: func(last uint64) error {
			if fail && last > 20 {
				return errFault
			}
			return nil
		}}
		l := mustOpen(t, o)
		for len(l.Segments()) < 6 {
			commit(t, l, 3)
		}
		segs := l.Segments()
		if err := l.DropBefore(l.Last()); !errors.Is(err, errFault) || errors.Is(err, ErrPoisoned) {
			t.Fatal(err)
		}
		if n := len(l.Segments()); n == 6 || n == 1 {
			t.Fatalf("%d segments left", n)
		}
		verify(t, l, l.First(), l.Last())
		fail = false
		if err := l.DropBefore(l.Last()); err != nil {
			t.Fatal(err)
		}
		if l.First() != segs[5].First && l.First() != segs[4].First {
			t.Fatalf("first is %d: %+v", l.First(), segs)
		}
		verify(t, l, l.First(), l.Last())
		commit(t, l, 1)
	})
}

// The kernel's own error: a limit on the file size makes a write fail half-way,
// as a full disk does. In a process of its own, because the limit is the
// process's.
func TestWriteFailsHalfWay(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		o := options(t)
		o.SegmentSize = DefaultSegmentSize
		if dir := os.Getenv("WAL_TEST_LIMITED_DIR"); dir != "" {
			o.Dir = dir
			limitedWriter(t, o)
			return
		}
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe, "-test.run=^"+strings.Replace(t.Name(), "/", "$/^", 1)+"$", "-test.v")
		cmd.Env = append(os.Environ(), "WAL_TEST_LIMITED_DIR="+o.Dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		content := bytes.TrimRight(readFiles(t, o.Dir)[segmentName(1)], "\x00")
		if len(content) != fileLimit {
			t.Fatalf("segment has %d bytes, want a write cut off at %d", len(content), fileLimit)
		}
		var acked uint64
		if _, err := fmt.Sscanf(string(readFiles(t, o.Dir)["acked"]), "%d", &acked); err != nil || acked == 0 {
			t.Fatalf("%d, %v", acked, err)
		}
		l, r := mustReport(t, o)
		if r.TornBytes == 0 || l.Last() != acked {
			t.Fatalf("log ends at %d, acknowledged %d: %+v", l.Last(), acked, r)
		}
		checkSaved(t, r)
		verify(t, l, 1, acked)
		commit(t, l, 1)
	})
}

const fileLimit = 10_000

func limitedWriter(t *testing.T, o Options) {
	signal.Ignore(syscall.SIGXFSZ)
	o.IdleMark = time.Millisecond
	l := mustOpen(t, o)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: fileLimit, Max: fileLimit}); err != nil {
		t.Fatal(err)
	}
	var err error
	for err == nil {
		err = l.Commit(frame(l.Last(), 3))
	}
	if !errors.Is(err, syscall.EFBIG) || !errors.Is(err, ErrPoisoned) {
		t.Fatal(err)
	}
	for range 3 {
		if again := l.Commit(frame(l.Last(), 1)); again.Error() != err.Error() {
			t.Fatalf("%v, then %v", err, again)
		}
	}
	if err := os.WriteFile(filepath.Join(o.Dir, "acked"), fmt.Append(nil, l.Durable()), filePerm); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); !errors.Is(err, syscall.EFBIG) {
		t.Fatal(err)
	}
}
