package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Exit codes of the broker.
const (
	exitDamaged = 65 // its data is damaged (EX_DATAERR)
	exitIO      = 74 // its disk failed (EX_IOERR)
)

const (
	// diskSize is the size of the small file system for the full disk.
	diskSize = 128 << 20
	// fullTimeout bounds the wait for what a full disk must lead to.
	fullTimeout = 20 * time.Second
	// heldFor is how long nothing must be accepted to call it push-back.
	heldFor = time.Second
	// failTimeout bounds the wait for the sync that fails.
	failTimeout = 10 * time.Second
)

// failingSync runs a broker whose k-th sync returns EIO: it must end with 74,
// and what it acknowledged must be there after the restart, although the pages
// that were not synced are gone.
func failingSync(ctx context.Context, o options, bin, dir string) (bool, error) {
	return special(ctx, o, bin, filepath.Join(dir, "fsync"), func(c *campaign, round int) plan {
		most := 400
		if round%5 == 0 {
			most = 12 // while it opens the log, recovers and starts
		}
		k := 1 + c.rnd.IntN(most)
		return plan{
			name: fmt.Sprintf("fsync-error:%d", k), env: []string{fmt.Sprintf("COMQTT_FAULT=fsync-error:%d", k)},
			limit: failTimeout, exit: exitIO, power: true,
		}
	})
}

// special runs a campaign with plans of its own.
func special(ctx context.Context, o options, bin, dir string, draw func(*campaign, int) plan) (bool, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("torture: %w", err)
	}
	c, err := newCampaign(o, bin, dir)
	if err != nil {
		return false, err
	}
	c.draw = draw
	return c.finish(c.run(ctx), true)
}

// disk is a small file system of its own, and a file that fills it.
type disk struct{ path string }

// mountDisk makes one. os.ErrPermission means that this process may not mount.
func mountDisk(path string) (*disk, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("torture: %w", err)
	}
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0755", diskSize)); err != nil {
		return nil, fmt.Errorf("torture: mount a small file system: %w", err)
	}
	return &disk{path}, nil
}

func (d *disk) ballast() string { return filepath.Join(d.path, "ballast") }

// fill leaves that many bytes free.
func (d *disk) fill(leave int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(d.path, &fs); err != nil {
		return fmt.Errorf("torture: %w", err)
	}
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("torture: fill the disk: %w", err)
	}
	block := make([]byte, 64<<10)
	for left := int64(fs.Bavail)*fs.Bsize - leave; left > 0 && err == nil; left -= int64(len(block)) {
		_, err = f.Write(block[:min(left, int64(len(block)))])
	}
	if errors.Is(err, syscall.ENOSPC) {
		err = nil // somebody was faster
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("torture: fill the disk: %w", err)
	}
	return nil
}

// free gives the space back.
func (d *disk) free() error {
	if err := os.Remove(d.ballast()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("torture: free the disk: %w", err)
	}
	return nil
}

func (d *disk) unmount() error { return syscall.Unmount(d.path, syscall.MNT_DETACH) }

// fullDisk runs a broker on a disk that fills up under load: it must push back
// or end with 74, start again when there is space, and have lost nothing.
func fullDisk(ctx context.Context, o options, bin, dir string) (found bool, err error) {
	d, err := mountDisk(filepath.Join(dir, "disk"))
	if errors.Is(err, os.ErrPermission) {
		fmt.Fprintf(o.out, "skipped: full disk: this user may not mount a small file system (%v)\n", err)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	kept := filepath.Join(dir, "enospc")
	defer func() {
		if found || err != nil { // the evidence must not vanish with the disk
			err = errors.Join(err, os.CopyFS(filepath.Join(kept, "data"), os.DirFS(d.path)))
		}
		err = errors.Join(err, d.unmount(), os.Remove(d.path))
	}()
	return special(ctx, o, bin, kept, func(c *campaign, round int) plan {
		c.server.data = filepath.Join(d.path, "data")
		c.journal.lenient()
		return c.fullPlan(d, round)
	})
}

// fullPlan alternates what happens when the disk is full: the watermark stops
// the publishers in time, or every byte vanishes at once.
func (c *campaign) fullPlan(d *disk, round int) plan {
	pl := plan{after: time.Duration(100+c.rnd.IntN(400)) * time.Millisecond, exit: exitIO}
	leave, release := int64(0), round%4 < 2
	mark := "16MiB"
	if round%2 == 0 {
		pl.name, leave = "disk below the watermark", 8<<20+c.rnd.Int64N(8<<20)
	} else {
		pl.name, leave = "disk full at once", c.rnd.Int64N(256<<10)
		mark = "1MiB"
	}
	if release {
		pl.name += ", then freed"
	}
	pl.env = []string{"COMQTT_MIN_FREE_SPACE=" + mark}
	pl.live = func(ctx context.Context, p *process, pl plan) error {
		defer func() { p.kill(); <-p.exited }()
		if over, err := c.pause(ctx, p, pl.after); over || err != nil {
			return errors.Join(err, d.free())
		}
		if err := d.fill(leave); err != nil {
			return err
		}
		held, err := c.held(ctx, p)
		if err != nil || !held || !release {
			p.kill()
			<-p.exited
			return errors.Join(err, d.free())
		}
		if err := d.free(); err != nil {
			return err
		}
		return c.resumes(ctx, p)
	}
	return pl
}

// pause waits; over says that the process ended meanwhile.
func (c *campaign) pause(ctx context.Context, p *process, d time.Duration) (over bool, err error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false, nil
	case <-p.exited:
		return true, nil
	case <-c.journal.Found():
		return false, errFound
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// held waits until the broker pushes back (nothing is accepted any more), or
// ends. A broker that goes on accepting must have found the space for it.
func (c *campaign) held(ctx context.Context, p *process) (bool, error) {
	began := time.Now()
	last, moved := c.journal.Stats().Accepted, began
	for time.Since(began) < fullTimeout {
		if over, err := c.pause(ctx, p, 20*time.Millisecond); over || err != nil {
			return false, err
		}
		if n := c.journal.Stats().Accepted; n != last {
			last, moved = n, time.Now()
		}
		if time.Since(moved) > heldFor {
			return true, nil
		}
	}
	return false, nil
}

// resumes waits until publishes are accepted again.
func (c *campaign) resumes(ctx context.Context, p *process) error {
	began := time.Now()
	before := c.journal.Stats().Accepted
	for time.Since(began) < fullTimeout {
		if over, err := c.pause(ctx, p, 20*time.Millisecond); over || err != nil {
			return err
		}
		if c.journal.Stats().Accepted > before {
			return nil
		}
	}
	c.process("the disk was freed, but nothing was accepted for %v", fullTimeout)
	return errFound
}
