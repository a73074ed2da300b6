package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
)

// verb is a command of the tools that look at or change a data directory: one
// description that help, parsing and running come from.
type verb struct {
	name, about string
	args        string     // words after the flags, for help; "" = none are allowed
	flags       []verbFlag // beside --data, -o and --quiet
	notes       string     // after the flags, in help
	noData      bool       // it names what it works on by flags of its own, not by --data
	examples    []string   // two, without the program's name
	run         func(r *verbRun) error
}

// verbFlag is one flag of a verb. One without a value is a switch.
type verbFlag struct{ name, value, def, usage string }

// verbRun is one run of a verb.
type verbRun struct {
	p        *program
	c        *cli.Context
	ctx      context.Context // ends with SIGINT or SIGTERM
	data     string          // the data directory
	out      *output
	progress *progress
	help     string // the command that shows the verb's help
}

// usage is the error for a command line that cannot be run.
func (r *verbRun) usage(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...), hints: []string{"see " + r.help}}
}

// say writes a line to standard error, beside the result.
func (r *verbRun) say(format string, args ...any) {
	r.progress.end()
	// Nobody is left to tell when standard error is gone.
	_, _ = fmt.Fprintf(r.p.stderr, "comqtt: "+format+"\n", args...)
}

// verbCommand makes the command of a verb; parent is the command it stands
// under, "" for none.
func (p *program) verbCommand(parent string, v verb) *cli.Command {
	full := strings.TrimSpace(parent + " " + v.name)
	var all []verbFlag
	if !v.noData {
		all = append(all, verbFlag{"data", "DIR", p.dataDir(), "data directory; default $COMQTT_DATA, then $STATE_DIRECTORY"})
	}
	all = append(append(all, []verbFlag{
		{"output", "table|json|ndjson", formTable, "form of the result; -o for short"},
		{"quiet", "", "", "no progress on standard error"},
	}...), v.flags...)
	known := []string{"--help", "-o"}
	cmd := &cli.Command{Name: v.name, HideHelpCommand: true, CustomHelpTemplate: verbHelp(full, &v, all)}
	for _, f := range all {
		known = append(known, "--"+f.name)
		switch {
		case f.value == "":
			cmd.Flags = append(cmd.Flags, &cli.BoolFlag{Name: f.name})
		case f.name == "output":
			cmd.Flags = append(cmd.Flags, &cli.StringFlag{Name: f.name, Aliases: []string{"o"}, Value: f.def})
		default:
			cmd.Flags = append(cmd.Flags, &cli.StringFlag{Name: f.name, Value: f.def})
		}
	}
	help := "comqtt " + full + " --help"
	cmd.OnUsageError = usageErrorFor(known, help)
	cmd.Action = func(c *cli.Context) error { return p.runVerb(c, &v, help) }
	return cmd
}

func verbHelp(full string, v *verb, flags []verbFlag) string {
	var b strings.Builder
	usage := strings.TrimSpace("comqtt " + full + " [flags] " + v.args)
	fmt.Fprintf(&b, "comqtt %s - %s\n\nUSAGE:\n   %s\n\nFLAGS, with defaults in parentheses:\n", full, v.about, usage)
	for _, f := range flags {
		def := f.def
		if f.value == "" {
			def = "off"
		}
		if def == "" {
			def = "none"
		}
		fmt.Fprintf(&b, "   %-26s %s (%s)\n", strings.TrimSpace("--"+f.name+" "+f.value), f.usage, def)
	}
	if v.notes != "" {
		b.WriteString("\n" + v.notes + "\n")
	}
	b.WriteString("\nEXAMPLES:\n")
	for _, e := range v.examples {
		b.WriteString("   comqtt " + e + "\n")
	}
	return b.String()
}

// runVerb does what all verbs have in common: the words after the flags, the
// form of the result, signals, and what is left to write.
func (p *program) runVerb(c *cli.Context, v *verb, help string) error {
	r := &verbRun{p: p, c: c, data: c.String("data"), help: help, progress: p.newProgress(c.Bool("quiet"))}
	if v.args == "" && c.NArg() > 0 {
		return r.usage("unexpected argument %q", c.Args().First())
	}
	if r.data == "" && !v.noData {
		return r.usage("--data needs a directory")
	}
	out, err := p.newOutput(c.String("output"))
	if err != nil {
		return r.usage("%w", err)
	}
	ctx, cancel := p.signalContext()
	defer cancel()
	r.ctx, r.out = ctx, out
	err = v.run(r)
	r.progress.end()
	var stopped *exitError
	if errors.Is(err, context.Canceled) && errors.As(context.Cause(ctx), &stopped) {
		err = stopped
	}
	if ferr := out.flush(); err == nil {
		err = ferr
	}
	return err
}

// signalContext ends with a signal; its cause is the error to exit with.
func (p *program) signalContext() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		select {
		case s := <-p.signals:
			code := exitSignal
			if n, ok := s.(syscall.Signal); ok {
				code += int(n)
			}
			cancel(&exitError{code: code, err: fmt.Errorf("stopped: %s", s)})
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// dataDir is the data directory without --data.
func (p *program) dataDir() string {
	if dir, ok := p.lookupEnv(envName("data")); ok && dir != "" {
		return dir
	}
	return p.defaultData()
}
