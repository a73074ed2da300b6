package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/wind-c/comqtt/v3/broker/admin"
	"github.com/wind-c/comqtt/v3/recovery/restore"
	"github.com/wind-c/comqtt/v3/wal/archive"
)

func (p *program) backupVerb() verb {
	return verb{
		name: "backup", about: "copy the state of the running broker into a new data directory",
		flags: []verbFlag{{"to", "DIR", "", "data directory to make; it must not exist, or be empty"}},
		notes: `Asks the broker, through the admin socket in its data directory, to hold log and
archive still, and builds the state out of them: the broker goes on, and its
backend is read only if the archive does not reach back. The backup is a data
directory of its own (a new store id): comqtt serve --data DIR starts on it.
Everything that was acknowledged before the command began is in it.`,
		examples: []string{"backup --to /backup/comqtt-today", "backup --data /var/lib/comqtt --to /backup/b1 -o json"},
		run: func(r *verbRun) error {
			to := r.c.String("to")
			if to == "" {
				return r.usage("--to needs a directory to make")
			}
			report, err := r.backup(to)
			if err != nil {
				return controlFailed(restoreFailed(err))
			}
			r.progress.end()
			r.out.one(report, func(w io.Writer) { restoreTable(w, report) })
			return nil
		},
	}
}

// backup restores what a running broker holds still.
func (r *verbRun) backup(to string) (*restore.Report, error) {
	c := admin.NewClient(r.data)
	defer c.Close()
	report, err := r.heldBackup(c, to, false)
	if errors.Is(err, archive.ErrReach) { // then from the live state
		report, err = r.heldBackup(c, to, true)
	}
	return report, err
}

func (r *verbRun) heldBackup(c *admin.Client, to string, base bool) (*restore.Report, error) {
	held, release, err := c.Hold(r.ctx, base)
	if err != nil {
		return nil, err
	}
	defer release()
	if held.Durable == 0 {
		return nil, fmt.Errorf("%w: nothing is in the log", archive.ErrReach)
	}
	report, err := restore.Restore(r.ctx, restore.Options{
		Dir: r.data, To: to, Index: held.Durable, Live: true, Base: held.Base, Progress: r.progress.show,
	})
	if held.Base != "" {
		err = errors.Join(err, os.Remove(held.Base))
	}
	return report, err
}

// controlFailed gives the errors of the admin socket their exit codes.
func controlFailed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, admin.ErrNoBroker):
		return &exitError{exitUnavailable, err, []string{
			"start the broker, or name its data directory with --data DIR (COMQTT_DATA)",
			"the files of a broker that is stopped are looked at with comqtt recover",
		}}
	case errors.Is(err, admin.ErrNotFound):
		return &exitError{code: exitNoInput, err: err}
	}
	return err
}
