package main

import (
	"fmt"
	"io"

	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/recovery/inspect"
)

func (p *program) verifyVerb() verb {
	return verb{
		name: "verify", about: "check every checksum, every join and every state hash",
		notes: `Checks the manifest; every frame of the log and that it is in its place; that the
unused part of a segment is zero; every page and every value of the backend; that
log and backend join; that every message has its body; and that a replay into
memory comes to every state hash in the log and to that of the backend. Says which
file is bad first, at which offset. Exit 65 if anything is wrong; a torn tail,
which a crash explains, is not.`,
		examples: []string{"recover verify", "recover verify --data /var/lib/comqtt -o json"},
		run: func(r *verbRun) error {
			return r.look(func(d *inspect.Dir) error {
				v, err := d.Verify(r.ctx)
				if err != nil {
					return err
				}
				r.progress.end()
				r.out.one(v, func(w io.Writer) { writeVerdict(w, v) })
				return r.finding(v.Err(), "the data directory is not sound; nothing was changed",
					"copy it before anything else; then: "+recovery.Advice(r.data))
			})
		},
	}
}

func writeVerdict(w io.Writer, v *inspect.Verdict) {
	t := columns(w)
	for _, c := range v.Checks {
		if c.Result == inspect.CheckBad {
			_, _ = fmt.Fprintf(t, "%s\tBAD\tsee below\n", c.Name) // output keeps its error
			continue
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", c.Name, c.Result, c.Detail)
	}
	_ = t.Flush() // output keeps its error
	for i := range v.Findings {
		f := &v.Findings[i]
		where := f.File
		if f.Offset >= 0 {
			where += fmt.Sprintf(":%d", f.Offset)
		}
		if f.Index > 0 {
			where += fmt.Sprintf(", record %d", f.Index)
		}
		_, _ = fmt.Fprintf(w, "\nBAD %s\n    %s\n", where, f.What)
		if f.Stake != "" {
			_, _ = fmt.Fprintf(w, "    at stake: %s\n", f.Stake)
		}
	}
	if s := v.State; s != nil {
		_, _ = fmt.Fprintf(w, "\nstate at record %s, %s, hash %s\n", formatCount(s.Index), s.Time, s.Hash)
	}
	if v.Sound {
		_, _ = fmt.Fprintln(w, "sound")
	}
}
