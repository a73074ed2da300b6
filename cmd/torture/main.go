package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Exit codes.
const (
	exitOK      = 0
	exitFinding = 1  // a promise was broken; the evidence is printed and kept
	exitFailed  = 2  // the torture itself could not be carried out
	exitUsage   = 64 // as in sysexits
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// damagesPerKill is how many damages are tried where others kill once.
const damagesPerKill = 20

var modes = []string{"all", "kill", "failpoint", "mixed", "fsync", "enospc", "power", "damage"}

// flags are the command line.
type flags struct {
	options
	bin   string
	dir   string
	check string
	prove bool
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var f flags
	fs := flag.NewFlagSet("torture", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&f.bin, "bin", "", "broker `binary`, built with the tag failpoints; empty: build ./cmd/comqtt")
	fs.StringVar(&f.dir, "dir", "", "`directory` for data and logs; empty: a temporary one, kept only after a finding")
	fs.StringVar(&f.check, "check", "", "check the transcript in this `file` instead of running a broker")
	fs.IntVar(&f.kills, "kills", 100, "how often to kill the broker")
	fs.Uint64Var(&f.seed, "seed", uint64(time.Now().UnixNano()), "seed of every random choice")
	fs.StringVar(&f.mode, "mode", "all", "what is done to it: "+strings.Join(modes, ", ")+"; all: mixed, fsync, enospc, power and damage, then -prove")
	fs.StringVar(&f.engine, "log-engine", "", "what writes the broker's log: tidwall or native; empty: its default")
	fs.StringVar(&f.lie, "lie", "", "planted `defect` of the disk in mode power: "+lieNames())
	fs.StringVar(&f.sync, "sync", "always", "in mode power, when the broker syncs its log: always, `duration` or never")
	fs.StringVar(&f.fault, "fault", "", "planted `defect` to run with (COMQTT_FAULT)")
	fs.BoolVar(&f.prove, "prove", false, "run every planted defect and demand that the checker finds it")
	fs.Func("ignore", "`rule` not to report, because the defect is known; may be repeated", func(rule string) error {
		f.ignore = append(f.ignore, rule)
		return nil
	})
	fs.IntVar(&f.history, "history", 400_000, "events kept as evidence")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	if fs.NArg() > 0 || !slices.Contains(modes, f.mode) || f.kills < 1 || f.history < 1 {
		fmt.Fprintf(stderr, "torture: bad arguments; modes are %s\n", strings.Join(modes, ", "))
		return exitUsage
	}
	f.out = stdout
	if f.check != "" {
		return check(f.check, stdout, stderr)
	}
	found, err := f.torture(ctx)
	switch {
	case err != nil:
		fmt.Fprintln(stderr, err)
		return exitFailed
	case found:
		return exitFinding
	}
	return exitOK
}

// torture builds the binary if need be and does what the flags say.
func (f *flags) torture(ctx context.Context) (found bool, err error) {
	dir := f.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "torture-"); err != nil {
			return false, fmt.Errorf("torture: %w", err)
		}
		defer os.Remove(dir) // only if empty: evidence stays
	} else if err = os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("torture: %w", err)
	}
	if f.bin == "" {
		f.bin = filepath.Join(dir, "comqtt")
		if err := build(ctx, f.bin); err != nil {
			return false, err
		}
		defer os.Remove(f.bin)
	}
	if f.prove && f.lie != "" {
		missed, _, err := proveLies(ctx, f.options, f.bin, dir)
		return missed > 0, err
	}
	if f.prove {
		return prove(ctx, f.options, f.bin, dir)
	}
	return f.campaigns(ctx, dir)
}

// campaigns runs the campaign of the mode, or all of them until one finds
// something.
func (f *flags) campaigns(ctx context.Context, dir string) (found bool, err error) {
	o := f.options
	switch o.mode {
	case "enospc":
		return fullDisk(ctx, o, f.bin, dir)
	case "fsync":
		return failingSync(ctx, o, f.bin, dir)
	case "damage":
		return damage(ctx, o, f.bin, dir, f.kills*damagesPerKill)
	case "power":
		return power(ctx, o, f.bin, dir)
	case "all":
	default:
		return campaignIn(ctx, o, f.bin, filepath.Join(dir, "run"), true)
	}
	few := max(1, f.kills/5)
	parts := []options{
		{mode: "mixed", kills: f.kills},
		{mode: "fsync", kills: few},
		{mode: "enospc", kills: few},
	}
	for _, engine := range []string{"native", "tidwall"} { // what loses nothing twice is worth the double time
		parts = append(
			parts,
			options{mode: "power", engine: engine, sync: "always", kills: f.kills},
			options{mode: "power", engine: engine, sync: "100ms", kills: few},
			options{mode: "power", engine: engine, sync: "never", kills: few},
			options{mode: "damage", engine: engine, kills: f.kills},
		)
	}
	for _, part := range parts {
		g := *f
		g.mode, g.kills, g.sync = part.mode, part.kills, part.sync
		if f.engine == "" {
			g.engine = part.engine
		} else if part.engine != "" && part.engine != f.engine {
			continue
		}
		fmt.Fprintf(o.out, "== %s %s %s\n", g.mode, g.sync, g.engine)
		if found, err = g.campaigns(ctx, dir); found || err != nil {
			return found, err
		}
	}
	fmt.Fprintln(o.out, "== planted defects")
	return prove(ctx, o, f.bin, dir)
}

// build builds the broker with failpoints into file.
func build(ctx context.Context, file string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "failpoints", "-o", file, "github.com/wind-c/comqtt/v3/cmd/comqtt")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("torture: build broker: %w\n%s", err, out)
	}
	return nil
}

// campaignIn runs one campaign in a new directory dir.
func campaignIn(ctx context.Context, o options, bin, dir string, summary bool) (found bool, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("torture: %w", err)
	}
	c, err := newCampaign(o, bin, dir)
	if err != nil {
		return false, err
	}
	return c.finish(c.run(ctx), summary)
}

// finish reports on a campaign that has run, and removes its directory unless
// there is something to look into.
func (c *campaign) finish(err error, summary bool) (found bool, _ error) {
	if err != nil && !errors.Is(err, errFound) {
		return false, errors.Join(err, c.release(true), fmt.Errorf("torture: log and data in %s", c.server.dir))
	}
	if summary {
		c.summary()
	}
	if errors.Is(err, errFound) {
		return true, errors.Join(c.evidence(), c.release(true))
	}
	return false, c.remove()
}

// check judges a transcript.
func check(file string, stdout, stderr io.Writer) int {
	r, err := os.Open(file)
	if err != nil {
		fmt.Fprintln(stderr, "torture:", err)
		return exitFailed
	}
	defer r.Close()
	events, err := ParseTranscript(r)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	c := NewChecker()
	for i := range events {
		c.Observe(&events[i])
	}
	c.Finish()
	found, more := c.Findings()
	printFindings(stdout, found, more)
	if len(found) > 0 {
		return exitFinding
	}
	fmt.Fprintf(stdout, "%d events, no finding\n", len(events))
	return exitOK
}
