package inspect_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/recovery/inspect"
	"github.com/wind-c/comqtt/v3/recovery/inspect/inspecttest"
)

// every runs everything that looks. Damage shows in what it returns; here it
// only has to end.
func every(t *testing.T, dir string) {
	t.Helper()
	looking(t, dir, func(d *inspect.Dir) {
		if _, err := d.Overview(background); err != nil {
			t.Errorf("overview: %v", err)
		}
		if _, err := d.Verify(background); err != nil {
			t.Errorf("verify: %v", err)
		}
		if _, err := d.Dump(background, &inspect.Filter{}, func(*inspect.Line) error { return nil }); err != nil {
			t.Errorf("dump: %v", err)
		}
		// These need a sound state, and say so otherwise.
		_, whyErr := d.Why(background, &inspect.Question{Client: "alice"}, func(*inspect.Event) error { return nil })
		_, diffErr := d.Diff(background, inspect.Point{Index: 3}, inspect.Point{Index: 9})
		for _, err := range []error{whyErr, diffErr} {
			if err != nil && !errors.Is(err, inspect.ErrNothing) && recovery.ExitCode(err) != recovery.ExitDamaged {
				t.Errorf("why, diff: %v", err)
			}
		}
	})
}

// Looking changes no byte, no time and no name, whatever state the directory is
// in: neither the settling commit of the backend, nor the rewrite of the log's
// tail, nor the lock file's process id.
func TestLookingChangesNothing(t *testing.T) {
	for name, o := range map[string]inspecttest.Options{
		"killed":   {},
		"clean":    {Clean: true},
		"segments": {SegmentSize: 1024},
		"memory":   {Backend: recovery.BackendMemory},
	} {
		for _, harm := range []string{"none", "torn", "flip", "backend", "no-lock", "no-backend", "no-log", "no-manifest"} {
			t.Run(name+"/"+harm, func(t *testing.T) {
				dir, _ := build(t, o)
				last := segments(t, dir)
				tail := last[len(last)-1]
				var err error
				switch harm {
				case "torn":
					err = os.Truncate(tail, fileSize(t, tail)-3)
				case "flip":
					flip(t, last[0], fileSize(t, last[0])/2, 3)
				case "backend":
					if o.Backend != recovery.BackendMemory {
						flip(t, recovery.BackendFile(dir), 3*4096+40, 0)
					}
				case "no-lock":
					err = os.Remove(filepath.Join(dir, "LOCK"))
				case "no-backend":
					err = os.RemoveAll(recovery.BackendFile(dir))
				case "no-log":
					err = os.RemoveAll(recovery.LogDir(dir))
				case "no-manifest":
					err = errors.Join(os.Remove(filepath.Join(dir, "MANIFEST")), os.RemoveAll(filepath.Join(dir, "MANIFEST.old")))
				}
				if err != nil {
					t.Fatal(err)
				}
				before := fingerprint(t, dir)
				every(t, dir)
				if after := fingerprint(t, dir); !maps.Equal(before, after) {
					t.Errorf("looking changed the directory:\n%v\n%v", before, after)
				}
			})
		}
	}
}

func TestOpen_NothingThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(t.TempDir(), "missing"), t.TempDir(), file} {
		if _, err := inspect.Open(dir, nil); !errors.Is(err, inspect.ErrNothing) {
			t.Errorf("open %s: %v", dir, err)
		}
	}
}

// Those who look share the directory; a broker and those who look exclude each
// other, and nobody is blamed who is gone.
func TestOpen_Lock(t *testing.T) {
	dir, _ := build(t, inspecttest.Options{Clean: true})
	a, b := open(t, dir), open(t, dir)
	_, _ = a, b
	_, err := recovery.Open(background, recovery.Options{Dir: dir})
	var locked *recovery.LockedError
	if !errors.As(err, &locked) || locked.PID != 0 {
		t.Fatalf("a broker beside those who look: %v", err)
	}
}

func TestOpen_LockedByBroker(t *testing.T) {
	dir, _ := build(t, inspecttest.Options{Clean: true})
	s, err := recovery.Open(background, recovery.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	var locked *recovery.LockedError
	if _, err := inspect.Open(dir, nil); !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("looking beside a broker: %v", err)
	}
	if err := s.Close(background); err != nil {
		t.Fatal(err)
	}
}

// A copy without its lock file is locked all the same, by its log.
func TestOpen_LockWithoutFile(t *testing.T) {
	dir, _ := build(t, inspecttest.Options{Clean: true})
	if err := os.Remove(filepath.Join(dir, "LOCK")); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if _, err := recovery.Open(background, recovery.Options{Dir: dir}); recovery.ExitCode(err) != recovery.ExitLocked {
		t.Errorf("a broker beside one who looks: %v", err)
	}
}

// A context that has ended ends everything with its error.
func TestCancelled(t *testing.T) {
	dir, _ := build(t, inspecttest.Options{})
	ctx, cancel := context.WithCancel(background)
	cancel()
	d := open(t, dir)
	_, overviewErr := d.Overview(ctx)
	_, verifyErr := d.Verify(ctx)
	_, dumpErr := d.Dump(ctx, &inspect.Filter{}, func(*inspect.Line) error { return nil })
	_, whyErr := d.Why(ctx, &inspect.Question{Client: "alice"}, func(*inspect.Event) error { return nil })
	_, diffErr := d.Diff(ctx, inspect.Point{Index: 3}, inspect.Point{Index: 9})
	for i, err := range []error{overviewErr, verifyErr, dumpErr, whyErr, diffErr} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("call %d: %v", i, err)
		}
	}
}
