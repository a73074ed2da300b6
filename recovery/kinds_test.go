package recovery

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// The same life on badger: checkpoints, crashes, clean stops, and a backend that
// is lost while the log has everything.
func TestBadger(t *testing.T) {
	o := Options{Dir: fastDir(t) + "/data", Backend: BackendBadger}
	d := newDriver(t, o)
	d.open()
	d.connect("away", nil)
	d.subscribe("away", "a")
	for round := range 2 {
		d.traffic(50)
		d.flush()
		d.checkBackend()
		d.checkBodies()
		d.traffic(20) // in the log only
		next := d.crash(filepath.Join(fastDir(t), "data"), true)
		d.abandon()
		next.openCrashed()
		next.flush()
		next.checkBackend()
		if d = next; round == 1 {
			d.close()
			d.open()
		}
	}
	d.close()
	if err := os.RemoveAll(filepath.Join(d.opt.Dir, badgerName)); err != nil {
		t.Fatal(err)
	}
	d.open()
	d.flush()
	d.checkBackend()
	d.close()
}

// A directory is served by the backend that has its state, and by no other.
func TestOtherBackend(t *testing.T) {
	for kind, other := range map[string]string{BackendBbolt: BackendBadger, BackendBadger: BackendBbolt} {
		d := newDriver(t, Options{Dir: fastDir(t) + "/data", Backend: kind})
		d.open()
		d.close()
		o := d.opt
		o.Backend = other
		_, err := Open(t.Context(), o)
		if !errors.Is(err, ErrBackend) || ExitCode(err) != ExitConfig {
			t.Errorf("%s opened as %s: %v", kind, other, err)
		}
		if k, path := StoreFile(d.opt.Dir, nil); k != kind || filepath.Base(path) != storeName(kind) {
			t.Errorf("store file of %s: %s, %s", kind, k, path)
		}
		d.open()
		d.close()
	}
}
