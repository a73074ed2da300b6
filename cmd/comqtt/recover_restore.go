package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/wind-c/comqtt/v3/recovery/restore"
	"github.com/wind-c/comqtt/v3/wal/archive"
)

func (p *program) restoreVerb() verb {
	return verb{
		name: "restore", about: "the state as it was, as a new data directory",
		flags: []verbFlag{
			{"until", "INDEX|TIME", "", "last record of the state, or its moment as RFC 3339; without it the newest state"},
			{"to", "DIR", "", "data directory to make; it must not exist, or be empty"},
		},
		notes: `Reads the archive and the log, and changes neither. The new directory is a broker
of its own (a new store id) that comqtt serve starts on; it is built under another
name and renamed last, so that an interrupted restore leaves nothing of that name.
recover inspect says how far back it goes; exit 66 if that is not enough.`,
		examples: []string{
			"recover restore --until 2026-11-26T01:14:46Z --to /var/lib/comqtt-then",
			"recover restore --data /var/lib/comqtt --until 1234567 --to /tmp/then",
		},
		run: func(r *verbRun) error {
			o := restore.Options{Dir: r.data, To: r.c.String("to"), Progress: r.progress.show}
			if o.To == "" {
				return r.usage("--to needs a directory to make")
			}
			if until := r.c.String("until"); until != "" {
				at, err := parsePoint(until)
				if err != nil {
					return r.usage("--until: %w", err)
				}
				o.Index, o.Time = at.Index, at.Time
			}
			report, err := restore.Restore(r.ctx, o)
			if err != nil {
				return restoreFailed(err)
			}
			r.progress.end()
			r.out.one(report, func(w io.Writer) { restoreTable(w, report) })
			return nil
		},
	}
}

func restoreTable(w io.Writer, r *restore.Report) {
	t := columns(w)
	fmt.Fprintf(t, "state\tafter record %d, %s\n", r.Index, r.Time)
	began := "with nothing"
	if r.From > 0 {
		began = fmt.Sprintf("with the base at record %d", r.From)
	}
	fmt.Fprintf(t, "built\tbeginning %s, %d records replayed\n", began, r.Records)
	fmt.Fprintf(t, "proof\tstate hash %s, %d recorded ones agree\n", r.Hash, r.Compared)
	fmt.Fprintf(t, "holds\t%d sessions, %d retained, %d queued, %d in flight\n", r.Sessions, r.Retained, r.Queued, r.Inflight)
	for _, text := range r.Warnings {
		fmt.Fprintf(t, "warning\t%s\n", text)
	}
	fmt.Fprintf(t, "next\tcomqtt serve --data %s\n", safe(r.To))
	_ = t.Flush() // to the buffer of the output, which keeps errors
}

// restoreFailed gives the errors of those who make directories their exit
// codes.
func restoreFailed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, archive.ErrReach):
		return &exitError{exitNoInput, err, []string{"comqtt recover inspect says what there is"}}
	case errors.Is(err, restore.ErrNoData):
		return &exitError{exitNoInput, err, []string{"--data DIR (COMQTT_DATA) names the data directory of a broker"}}
	case errors.Is(err, restore.ErrExists):
		return &exitError{exitCantCreate, err, []string{"name a directory that does not exist, or is empty"}}
	case errors.Is(err, archive.ErrBase):
		return &exitError{exitDamaged, err, []string{"move the file away: an older base, or the log, may reach as well"}}
	case errors.Is(err, archive.ErrVersion):
		return &exitError{exitConfig, err, []string{"use the newer version of comqtt that wrote it"}}
	}
	return err
}
