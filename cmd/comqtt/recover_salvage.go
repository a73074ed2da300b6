package main

import (
	"fmt"
	"io"

	"github.com/wind-c/comqtt/v3/recovery/restore"
)

func (p *program) salvageVerb() verb {
	return verb{
		name: "salvage", about: "everything that can still be read, as a new data directory",
		flags: []verbFlag{{"to", "DIR", "", "data directory to make; it must not exist, or be empty"}},
		notes: `Reads past damage: the backend's state, or a base of the archive, or nothing, and
then every intact record, over the gaps. The report lists each range of records
that is lost. What began in one is missing; what ended in one is there again.
Nothing is changed in --data.`,
		examples: []string{
			"recover salvage --to /var/lib/comqtt-saved",
			"recover salvage --data /var/lib/comqtt --to /tmp/saved -o json",
		},
		run: func(r *verbRun) error {
			to := r.c.String("to")
			if to == "" {
				return r.usage("--to needs a directory to make")
			}
			report, err := restore.Salvage(r.ctx, restore.Options{Dir: r.data, To: to, Progress: r.progress.show})
			if err != nil {
				return restoreFailed(err)
			}
			r.progress.end()
			r.out.one(report, func(w io.Writer) { salvageTable(w, report) })
			return nil
		},
	}
}

func salvageTable(w io.Writer, s *restore.SalvageReport) {
	t := columns(w)
	fmt.Fprintf(t, "state\tafter record %d, %s\n", s.Index, s.Time)
	fmt.Fprintf(t, "built\tbeginning with %s; %d records after it\n", s.Began, s.Records)
	fmt.Fprintf(t, "holds\t%d sessions, %d retained, %d queued, %d in flight\n", s.Sessions, s.Retained, s.Queued, s.Inflight)
	for _, g := range s.Lost {
		fmt.Fprintf(t, "lost\trecords %d to %d: %s\n", g.From, g.To, g.Why)
	}
	if len(s.Lost) == 0 {
		fmt.Fprintf(t, "lost\tnothing\n")
	}
	fmt.Fprintf(t, "next\tcomqtt serve --data %s\n", safe(s.To))
	_ = t.Flush() // to the buffer of the output, which keeps errors
}
