package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/wind-c/comqtt/v3/recovery/migrate"
)

func (p *program) migrateRunVerb() verb {
	return verb{
		name: "run", about: "copy the whole state, read it back, and seal it", noData: true,
		flags: migrateFlags(
			verbFlag{"resume", "", "", "go on with what an interrupted run has begun"},
			verbFlag{"rate", "SIZE", "", "most bytes to copy in a second, such as 20MiB; none = no limit"},
			verbFlag{"batch", "SIZE", "3MiB", "bytes in one transaction of the target"},
			verbFlag{"yes", "", "", "do not ask"},
		),
		notes: `The target must not exist, or be empty. Until the last step it is nothing that a
broker starts on; an interrupted run goes on with --resume, from the last chunk. A
directory is a broker of its own afterwards (a new store id): run one of the two.`,
		examples: []string{
			"migrate run --from bbolt://comqtt-data --to badger://comqtt-badger",
			"migrate run --from badger:///var/lib/comqtt --to bbolt:///srv/comqtt --rate 20MiB --yes --resume",
		},
		run: func(r *verbRun) error {
			o, err := r.migration()
			if err != nil {
				return err
			}
			batch, err := r.sizeFlag("batch", 4<<10, 64<<20)
			if err != nil {
				return err
			}
			o.Batch = int(batch)
			if !r.c.Bool("yes") {
				o.Confirm = r.confirm
			}
			report, err := migrate.Run(r.ctx, *o)
			if err != nil {
				return r.migrateFailed(err)
			}
			r.progress.end()
			r.out.one(report, func(w io.Writer) { writeMigration(w, report, o) })
			return nil
		},
	}
}

// confirm shows the plan and asks whether to go on.
func (r *verbRun) confirm(p *migrate.Plan) error {
	r.progress.end()
	var text strings.Builder
	writePlan(&text, p)
	fmt.Fprintf(&text, "\nCopy this state to %s? [y/N] ", safe(p.To))
	if _, err := io.WriteString(r.p.stderr, text.String()); err != nil {
		return &exitError{code: exitUsage, err: errors.New("nobody can be asked: say --yes")}
	}
	answer := make(chan string, 1)
	go func() { answer <- r.readAnswer() }()
	select {
	case <-r.ctx.Done(): // the reader ends with the process
		return context.Canceled
	case a := <-answer:
		switch a {
		case "y", "yes":
			return nil
		case "":
			return &exitError{code: exitUsage, err: errors.New("nothing was written: not confirmed"), hints: []string{"without a terminal, say --yes"}}
		}
		return &exitError{code: exitFailed, err: errors.New("nothing was written: not confirmed")}
	}
}

// readAnswer reads a line; an end of the input, as off a terminal, is "".
func (r *verbRun) readAnswer() string {
	if r.p.stdin == nil {
		return ""
	}
	line, err := bufio.NewReader(r.p.stdin).ReadString('\n')
	if err != nil {
		return ""
	}
	if line = strings.ToLower(strings.TrimSpace(line)); line == "" {
		return "n"
	}
	return line
}

func writeMigration(w io.Writer, r *migrate.Report, o *migrate.Options) {
	t := columns(w)
	fmt.Fprintf(t, "from\t%s\n", safe(r.From))
	writeHoldings(t, r.Source)
	fmt.Fprintf(t, "to\t%s, store %s\n", safe(r.To), r.StoreID)
	switch {
	case r.Already:
		fmt.Fprintf(t, "copied\tnothing: an earlier run had done it all\n")
	case r.Resumed > 0:
		fmt.Fprintf(t, "copied\t%s pairs in %s, after %s of an earlier run\n", formatCount(r.Written), elapsed(r.Seconds), formatCount(r.Resumed))
	default:
		fmt.Fprintf(t, "copied\t%s pairs in %s\n", formatCount(r.Written), elapsed(r.Seconds))
	}
	fmt.Fprintf(t, "proof\tstate hash %s, read back from the target\n", r.Source.Hash)
	for _, text := range r.Warnings {
		fmt.Fprintf(t, "warning\t%s\n", text)
	}
	fmt.Fprintf(t, "next\t%s\n", serveAfter(o))
	_ = t.Flush() // to the buffer of the output, which keeps errors
}

func elapsed(seconds float64) string {
	return formatElapsed(time.Duration(seconds * float64(time.Second)))
}

// serveAfter is the command that serves what was migrated.
func serveAfter(o *migrate.Options) string {
	from, to, dir := safe(o.From.String()), safe(o.To.String()), safe(o.To.Dir)
	switch {
	case o.To.Dir == "" && o.From.Dir == "":
		return "comqtt migrate run --from " + to + " --to bbolt://DIR"
	case o.To.Dir == "":
		_, dir, _ = strings.Cut(from, "://")
		return "comqtt serve --data " + dir + " --backend " + to
	case o.To.Kind != migrate.KindBbolt:
		return "comqtt serve --data " + dir + " --backend " + o.To.Kind
	}
	return "comqtt serve --data " + dir
}
