package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/wind-c/comqtt/v3/cmd/torture/powerfs"
)

// A lossyDisk is the disk under the broker's data directory that loses what was
// not synced. One goroutine uses it, but for strike.
type lossyDisk struct {
	disk  *powerfs.Disk
	mount *powerfs.Mount
	path  string // where it is mounted
}

// newLossyDisk mounts an empty one; powerfs.ErrUnavailable if that cannot be
// done here.
func newLossyDisk(dir string) (*lossyDisk, error) {
	d := &lossyDisk{disk: powerfs.New(), path: filepath.Join(dir, "disk")}
	if err := os.MkdirAll(d.path, 0o755); err != nil {
		return nil, fmt.Errorf("torture: %w", err)
	}
	return d, d.on()
}

func (d *lossyDisk) on() (err error) {
	if d.mount, err = d.disk.Mount(d.path); err != nil {
		return fmt.Errorf("torture: %w", err)
	}
	return nil
}

// watch kills the process when the power goes off, and only then lets what it
// waits for fail: so nothing follows from an operation after the cut.
func (d *lossyDisk) watch(p *process) {
	off := d.disk.Off()
	go func() {
		select {
		case <-off:
			p.kill()
			d.disk.Release()
		case <-p.exited:
		}
	}()
}

// crash cuts the power, if that has not happened yet, and lets the disk come
// back with what it kept. No process uses it any more.
func (d *lossyDisk) crash(loss powerfs.Loss, rnd *rand.Rand) (*powerfs.Damage, error) {
	if err := d.off(); err != nil {
		return nil, err
	}
	dmg := d.disk.Crash(loss, rnd)
	return dmg, d.on()
}

// off unmounts it.
func (d *lossyDisk) off() error {
	d.disk.Cut()
	d.disk.Release()
	if err := d.mount.Unmount(); err != nil {
		return fmt.Errorf("torture: %w", err)
	}
	return nil
}

// drawLoss draws what a cut takes: random parts more often than the extremes.
func drawLoss(rnd *rand.Rand) powerfs.Loss {
	losses := [...]powerfs.Loss{
		powerfs.LoseAll, powerfs.LoseAll, powerfs.LoseSome, powerfs.LoseSome, powerfs.LoseSome,
		powerfs.LoseLast, powerfs.LoseLast, powerfs.LoseNames, powerfs.LoseWrites,
	}
	return losses[rnd.IntN(len(losses))]
}

// save copies the content of the disk to a directory, as evidence.
func (d *lossyDisk) save(to string) error {
	err := d.disk.Export(func(name string, content []byte) error {
		file := filepath.Join(to, filepath.FromSlash(name))
		if content == nil {
			return os.MkdirAll(file, 0o755)
		}
		return os.WriteFile(file, content, 0o600)
	})
	if err != nil {
		return fmt.Errorf("torture: keep the disk: %w", err)
	}
	return nil
}

// instant is a place in the broker's work at which the power is cut: after the
// operation that begin names, so many others pass that the later list allows.
type instant struct {
	name  string
	begin func(op *powerfs.Op) bool
	of    func(op *powerfs.Op) bool // what is counted from there on; nil = everything
	count int                       // the greatest number of these that pass
	limit time.Duration             // how long to wait for it
	term  bool                      // the broker is told to stop first
	live  bool                      // mostly while it serves, now and then from the start on
	loss  powerfs.Loss              // what is lost, if torn
	torn  bool
}

const dataDir = "data" // on the lossy disk

func under(op *powerfs.Op, dir string) bool {
	return strings.HasPrefix(op.Path, path.Join(dataDir, dir)) || op.To != "" && strings.HasPrefix(op.To, path.Join(dataDir, dir))
}

func logSegment(name string) bool {
	dir, base := path.Split(name)
	return dir == dataDir+"/wal/" && isSegment(base)
}

func anything(*powerfs.Op) bool { return true }

func logSync(op *powerfs.Op) bool { return op.Kind == powerfs.OpSync && logSegment(op.Path) }

func backendFile(op *powerfs.Op) bool { return under(op, "state.bbolt") }

// instants are where cuts are placed; the issue asks for each of them.
var instants = []instant{
	{
		name: "rotation", live: true, count: 6, limit: 5 * time.Second,
		begin: func(op *powerfs.Op) bool {
			return op.Kind == powerfs.OpCreate && logSegment(op.Path) || op.Kind == powerfs.OpRename && logSegment(op.To)
		},
	},
	{
		name: "torn write", live: true, count: 60, limit: 3 * time.Second, torn: true, loss: powerfs.LoseLast,
		begin: logSync, of: logSync,
	},
	{
		name: "repair", count: 5, limit: 200 * time.Millisecond,
		begin: func(op *powerfs.Op) bool { return under(op, "wal/broken") },
	},
	{name: "checkpoint", live: true, begin: backendFile, of: backendFile, count: 60, limit: 5 * time.Second},
	{
		name: "truncation", live: true, count: 5, limit: 6 * time.Second,
		begin: func(op *powerfs.Op) bool {
			return logSegment(op.Path) && (op.Kind == powerfs.OpUnlink || op.Kind == powerfs.OpRename)
		},
	},
	{name: "start-up", begin: anything, count: 45, limit: 5 * time.Second},
	{
		name: "tail rewritten", count: 4, limit: 200 * time.Millisecond,
		begin: func(op *powerfs.Op) bool { return under(op, "wal/tail.tmp") },
	},
	{name: "shutdown", begin: anything, count: 40, limit: stopTimeout, term: true},
	{name: "manifest", begin: func(op *powerfs.Op) bool { return under(op, "MANIFEST") }, count: 8, limit: time.Second},
	{name: "archive", live: true, begin: func(op *powerfs.Op) bool { return under(op, "archive/") }, count: 12, limit: 6 * time.Second},
}

// arm makes the power go off at the instant, after so many operations more.
func (i *instant) arm(d *powerfs.Disk, pass int) {
	begun := false
	d.Arm(func(op powerfs.Op) bool {
		if !begun {
			begun = i.begin(&op)
		} else if i.of == nil || i.of(&op) {
			pass--
		}
		return begun && pass < 0
	})
}

// powerPlan draws how the power fails next.
func (c *campaign) powerPlan(round int) plan {
	var pl plan
	switch {
	case round%3 < 2 && !c.brief, round%2 == 0:
		i := &instants[c.instant%len(instants)]
		c.instant++
		pass := c.rnd.IntN(i.count + 1)
		pl = plan{name: fmt.Sprintf("%s+%d", i.name, pass), limit: i.limit, term: i.term, kind: 0}
		pl.at, pl.pass = i, pass
		pl.late = i.live && c.rnd.IntN(4) > 0
		if i.term {
			pl.after = c.lifetime()
		}
	case round%16 == 15:
		pl = plan{name: "stopped", after: c.lifetime(), term: true, limit: stopTimeout}
	default:
		pl = c.killPlan()
		pl.name = strings.Replace(pl.name, "SIGKILL", "power", 1)
	}
	pl.power = true
	pl.env = append(pl.env, smallLog()...)
	return pl
}

// smallLog makes rotation, truncation and checkpoints frequent.
func smallLog() []string {
	return []string{"COMQTT_SEGMENT_SIZE=65536", "COMQTT_CHECKPOINT_MS=250"}
}

// powerCuts runs a campaign on a disk that loses what was not synced. Where
// there is no FUSE, what is done instead is to cut the log where its last sync
// was, after a kill.
func powerCuts(o options, bin, dir string) (c *campaign, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("torture: %w", err)
	}
	if c, err = newCampaign(o, bin, dir); err != nil {
		return nil, err
	}
	disk, err := newLossyDisk(dir)
	if errors.Is(err, powerfs.ErrUnavailable) {
		fmt.Fprintf(o.out, "skipped: lossy disk (%v); instead, the log is cut behind its last sync after each kill\n", err)
		c.draw = func(c *campaign, round int) plan {
			pl := c.killPlan()
			if round%2 == 1 {
				pl = c.failpointPlan(round / 2)
			}
			pl.power = true
			pl.env = append(pl.env, smallLog()...)
			return pl
		}
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	c.disk, c.reached = disk, map[string]int{}
	c.server.data = filepath.Join(disk.path, dataDir)
	c.draw = (*campaign).powerPlan
	if o.lie != "" {
		lie, ok := findLie(o.lie)
		if !ok {
			return nil, errors.Join(fmt.Errorf("torture: no such lie: %s", o.lie), disk.off())
		}
		disk.disk.Deafen(lie.deaf)
	}
	return c, nil
}

// lie is a defect that is planted in the disk: it acknowledges syncs and does
// nothing. To the broker's files it is as if the broker had not asked.
type lie struct {
	name   string
	breaks string
	deaf   func(op powerfs.Op) bool
}

var lies = []lie{
	{
		name: "no-sync-of-the-log", breaks: "frames are acknowledged before they are synced",
		deaf: func(op powerfs.Op) bool { return op.Kind == powerfs.OpSync && under(&op, "wal/") },
	},
	{
		name: "no-sync-of-the-log-directory", breaks: "the name of a new segment is not synced",
		deaf: func(op powerfs.Op) bool { return op.Kind == powerfs.OpSyncDir && under(&op, "wal") },
	},
	{
		name: "no-sync-of-the-data-directory", breaks: "names of manifest and backend are not synced",
		deaf: func(op powerfs.Op) bool { return op.Kind == powerfs.OpSyncDir && op.Path == dataDir },
	},
	{
		name: "no-sync-of-the-backend", breaks: "segments are dropped before the backend is synced",
		deaf: func(op powerfs.Op) bool { return op.Kind == powerfs.OpSync && backendFile(&op) },
	},
	{
		name: "no-sync-of-the-manifest", breaks: "the manifest is renamed before it is synced",
		deaf: func(op powerfs.Op) bool { return op.Kind == powerfs.OpSync && under(&op, "MANIFEST") },
	},
}

func findLie(name string) (*lie, bool) {
	for i := range lies {
		if lies[i].name == name {
			return &lies[i], true
		}
	}
	return nil, false
}

func lieNames() string {
	var names []string
	for i := range lies {
		names = append(names, lies[i].name)
	}
	return strings.Join(names, ", ")
}

// power is mode power.
func power(ctx context.Context, o options, bin, dir string) (found bool, err error) {
	dir = filepath.Join(dir, "power")
	if o.sync != "" && o.sync != "always" {
		return lazyPower(ctx, o, bin, dir, o.sync)
	}
	c, err := powerCuts(o, bin, dir)
	if err != nil {
		return false, err
	}
	return c.finish(c.run(ctx), true)
}
