package main

import (
	"fmt"
	"io"
	"time"

	"github.com/wind-c/comqtt/v3/recovery/migrate"
)

func (p *program) migratePlanVerb() verb {
	return verb{
		name: "plan", about: "what is there, what it takes, and whether run would begin", noData: true,
		flags: migrateFlags(
			verbFlag{"resume", "", "", "as for run"},
			verbFlag{"rate", "SIZE", "", "as for run: most bytes to copy in a second; none = no limit"},
		),
		notes: `Reads the source and looks at the target; changes neither. If run would refuse to
begin, plan says why and exits as run would.`,
		examples: []string{
			"migrate plan --from bbolt://comqtt-data --to badger://comqtt-badger",
			"migrate plan --from bbolt:///var/lib/comqtt --to 'redis://10.0.0.7:6379/0?prefix=mq' -o json",
		},
		run: func(r *verbRun) error {
			o, err := r.migration()
			if err != nil {
				return err
			}
			plan, err := migrate.MakePlan(r.ctx, *o)
			if err != nil {
				return r.migrateFailed(err)
			}
			r.progress.end()
			r.out.one(plan, func(w io.Writer) { writePlan(w, plan) })
			return r.migrateFailed(plan.Refusal())
		},
	}
}

// migration reads the flags of plan and run.
func (r *verbRun) migration() (*migrate.Options, error) {
	o := &migrate.Options{Resume: r.c.Bool("resume"), Progress: r.progress.show}
	var err error
	if o.From, o.To, err = r.sides(); err != nil {
		return nil, err
	}
	o.Rate, err = r.sizeFlag("rate", 1<<10, 1<<40)
	return o, err
}

func writePlan(w io.Writer, p *migrate.Plan) {
	t := columns(w)
	fmt.Fprintf(t, "from\t%s\n", safe(p.From))
	writeHoldings(t, p.Source)
	fmt.Fprintf(t, "to\t%s, %s\n", safe(p.To), safe(p.Target))
	if p.Need > 0 {
		free := "unknown"
		if p.Free >= 0 {
			free = roughSize(p.Free)
		}
		fmt.Fprintf(t, "space\tabout %s needed, %s free\n", roughSize(p.Need), free)
	}
	fmt.Fprintf(t, "time\tabout %s\n", max(time.Duration(p.Seconds*float64(time.Second)).Round(time.Second), time.Second))
	for _, text := range p.Warnings {
		fmt.Fprintf(t, "warning\t%s\n", text)
	}
	if p.Ready {
		next := ""
		if p.Resumes {
			next = " --resume"
		}
		fmt.Fprintf(t, "next\tcomqtt migrate run%s --from %s --to %s\n", next, safe(p.From), safe(p.To))
	}
	_ = t.Flush() // to the buffer of the output, which keeps errors
}

// writeHoldings writes what a state holds, two lines.
func writeHoldings(w io.Writer, h *migrate.Holdings) {
	replayed := ""
	if h.Replayed > 0 {
		replayed = fmt.Sprintf(", %s records of it from the log", formatCount(h.Replayed))
	}
	fmt.Fprintf(w, "state\tafter record %s, %s%s\n", formatCount(h.Index), h.Time, replayed)
	fmt.Fprintf(w, "holds\t%s sessions, %s subscriptions, %s queued, %s in flight, %s retained\n", formatCount(uint64(h.Sessions)),
		formatCount(uint64(h.Subscriptions)), formatCount(uint64(h.Queued)), formatCount(uint64(h.Inflight)), formatCount(uint64(h.Retained)))
	fmt.Fprintf(w, "size\t%s messages, %s pairs, %s\n", formatCount(uint64(h.Messages)), formatCount(h.Pairs), roughSize(h.Bytes))
}
