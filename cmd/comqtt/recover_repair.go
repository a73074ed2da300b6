package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/wind-c/comqtt/v3/recovery/restore"
)

// namesShown is how many topics or clients a table names.
const namesShown = 20

func (p *program) repairVerb() verb {
	return verb{
		name: "repair", about: "what it takes to start again, and exactly what would be lost",
		flags: []verbFlag{
			{"dry-run", "", "", "print the plan and change nothing; this is what happens without --apply"},
			{"apply", "", "", "carry the plan out; what it replaces is copied to DIR/quarantine first"},
		},
		notes: `Cuts a torn tail off, rebuilds a missing or damaged backend from archive and log,
moves damaged log segments away that the backend does not need, and where
acknowledged records are gone, cuts the log off before them. Exit 65 if there is
something to repair and it was not applied, or if no repair in place leads to a
state that can be proved: then recover salvage saves what is left.`,
		examples: []string{"recover repair --dry-run", "recover repair --data /var/lib/comqtt --apply"},
		run:      (*verbRun).repair,
	}
}

func (r *verbRun) repair() error {
	apply := r.c.Bool("apply")
	if apply && r.c.Bool("dry-run") {
		return r.usage("--apply and --dry-run exclude each other")
	}
	plan, err := restore.MakePlan(r.ctx, restore.Options{Dir: r.data, Progress: r.progress.show})
	if err != nil {
		return repairFailed(restoreFailed(err))
	}
	r.progress.end()
	if apply {
		err = plan.Apply()
	}
	r.out.one(struct {
		*restore.Plan
		Applied bool `json:"applied"`
	}{plan, apply && err == nil}, func(w io.Writer) { planTable(w, plan, apply && err == nil) })
	if err = errors.Join(err, plan.Close()); err != nil {
		return err
	}
	if !apply && len(plan.Steps) > 0 {
		return &exitError{code: exitDamaged, err: errors.New("there is something to repair"), hints: []string{"to do it: comqtt recover repair --apply"}}
	}
	return nil
}

func repairFailed(err error) error {
	if errors.Is(err, restore.ErrBeyondRepair) {
		return &exitError{exitDamaged, err, []string{
			"nothing was changed",
			"to save what is left: comqtt recover salvage --to DIR",
		}}
	}
	return err
}

func planTable(w io.Writer, p *restore.Plan, applied bool) {
	if len(p.Findings) == 0 {
		fmt.Fprintln(w, "nothing is wrong")
		return
	}
	t := columns(w)
	for _, f := range p.Findings {
		fmt.Fprintf(t, "found\t%s\n", f)
	}
	word := "would"
	if applied {
		word = "did"
	}
	for _, s := range p.Steps {
		if len(s.Copies) > 0 {
			fmt.Fprintf(t, "%s\tcopy %s to quarantine/\n", word, strings.Join(s.Copies, ", "))
		}
		fmt.Fprintf(t, "%s\t%s\n", word, s.What)
	}
	if len(p.Steps) == 0 {
		fmt.Fprintf(t, "%s\tnothing: a start mends it\n", word)
	}
	if l := &p.Lost; l.Records > 0 {
		fmt.Fprintf(t, "lost\t%d acknowledged records, %d to %d; %d of them cannot be read any more\n", l.Records, l.From, l.To, l.Unreadable)
		fmt.Fprintf(t, "lost\tin the others: %d messages\n", l.Messages)
		fmt.Fprintf(t, "topics\t%s\n", named(l.Topics))
		fmt.Fprintf(t, "clients\t%s\n", named(l.Clients))
	} else {
		fmt.Fprintf(t, "lost\tnothing that was acknowledged\n")
	}
	_ = t.Flush() // to the buffer of the output, which keeps errors
}

// named is a list of names for people.
func named(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	var out []string
	for _, n := range list[:min(len(list), namesShown)] {
		out = append(out, safe(n))
	}
	if n := len(list) - len(out); n > 0 {
		out = append(out, fmt.Sprintf("and %d more (-o json)", n))
	}
	return strings.Join(out, ", ")
}
