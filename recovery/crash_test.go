package recovery

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/wal"
)

// image is what a crash at one step would leave.
type image struct {
	step string
	d    *driver
}

// images takes an image at every step of log and checkpoint.
type images struct {
	d    *driver
	root string
	all  []image
}

func (im *images) take(step string) {
	if im.d.s == nil || len(im.d.history) < 2 {
		return // Open itself
	}
	to := filepath.Join(im.root, fmt.Sprintf("%03d", len(im.all)))
	im.all = append(im.all, image{step, im.d.crash(to, false)})
}

func (im *images) hook(step string) func(uint64) error {
	return func(index uint64) error {
		im.take(fmt.Sprintf("%s %d", step, index))
		return nil
	}
}

// A crash at any step of writing the log, of a checkpoint (body transactions,
// commit, dropping of segments) and of a clean stop opens to a state equal to a
// pure replay of what was logged, with nothing acknowledged missing and every
// body readable.
func TestCrash_AtEveryStep(t *testing.T) {
	im := &images{root: fastDir(t)}
	o := Options{Dir: filepath.Join(im.root, "data"), SegmentSize: 4096}
	o.Checkpoint.BatchBytes = 3000 // several body transactions in a checkpoint
	d := newDriver(t, o)
	im.d = d
	d.opt.WAL.Hooks = &wal.Hooks{
		BeforeWrite: im.hook("before write"), AfterWrite: im.hook("after write"), AfterSync: im.hook("after sync"),
		AfterRotate: im.hook("after rotate"), BeforeUnlink: im.hook("before unlink"),
	}
	d.open()
	d.flush() // from here on one thing happens at a time
	d.gate.set(func(b *backends.Batch, m backends.Mark) error {
		im.take(fmt.Sprintf("before commit %d", m.Applied))
		return nil
	}, func(b *backends.Batch, m backends.Mark) { im.take(fmt.Sprintf("after commit %d", m.Applied)) })

	d.connect("away", nil)
	d.subscribe("away", "a/#")
	d.disconnect("away")
	d.connect("here", nil)
	d.subscribe("here", "a/+")
	for i := range 3 {
		for k := range 4 {
			d.log(publish("a/x", uint8(1+k%2), k == 0, make([]byte, 800+i)))
		}
		if i == 1 {
			d.ack("here", 100)
		}
		d.flush()
	}
	d.ack("here", 100)
	d.close()

	for _, i := range im.all {
		d := i.d
		d.openCrashed()
		d.checkBodies()
		// It goes on, and what is left behind in the backend goes too.
		d.connect("away", nil)
		for range 3 {
			d.ack("away", 1000)
		}
		d.flush()
		d.checkBackend()
		d.close()
		d.open()
		d.checkBodies()
		d.close()
		if t.Failed() {
			t.Fatalf("at step %q", i.step)
		}
	}
	t.Logf("%d images", len(im.all))
	if len(im.all) < 60 {
		t.Fatalf("only %d images", len(im.all))
	}
}

// A crash at any step of the first start leaves a directory that starts anew.
func TestCrash_DuringFirstOpen(t *testing.T) {
	root := fastDir(t)
	var dirs []string
	o := Options{Dir: filepath.Join(root, "data"), SegmentSize: 4096}
	snap := func() {
		to := filepath.Join(root, fmt.Sprint(len(dirs)))
		copyDir(t, o.Dir, to)
		dirs = append(dirs, to)
	}
	hook := func(uint64) error { snap(); return nil }
	o.WAL.Hooks = &wal.Hooks{BeforeWrite: hook, AfterWrite: hook, AfterSync: hook}
	o.WAL.IdleMark = -1
	o.WrapStore = func(s backends.Store) backends.Store {
		snap()
		return &gateStore{
			Store:  s,
			before: func(*backends.Batch, backends.Mark) error { snap(); return nil },
			after:  func(*backends.Batch, backends.Mark) { snap() },
		}
	}
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Compactor.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.WAL.Hooks, o.WrapStore = nil, nil
	for i, dir := range dirs {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			o := o
			o.Dir = dir
			d := newDriver(t, o)
			d.open()
			traffic(d)
			d.checkBodies()
			d.flush()
			d.checkBackend()
			d.close()
		})
	}
	if len(dirs) < 8 {
		t.Fatalf("only %d images", len(dirs))
	}
}
