package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/cmd/bench"
)

const benchIntro = `comqtt bench - put a measured load on any MQTT broker

USAGE:
   comqtt bench MODE --target ADDR [flags]
   comqtt bench --compare FILE.yml [--write PAGE.md] [--quick] [--only PATTERN]
   comqtt bench --calibrate

MODES:
`

const benchFlagsHelp = `
FLAGS without a mode:
   --compare FILE        start the brokers in FILE, run its rows on them in turns, show ratios
   --write PAGE          put the outcome between the markers of a Markdown page
   --quick               one round of half the duration
   --only PATTERN        rows whose name matches a shell pattern
   --dir DIR             where the brokers get their directories (the system's temporary one)
   --calibrate           measure the generator against a relay that does nothing
   --duration TIME       of each calibration (2s)
   -o table|json         form of the result (table)

Loss, duplicates and order are checked in every run; exit 1 if one is violated,
or if a bar of the comparison is not reached.

EXAMPLES:
   comqtt bench pairs --target 127.0.0.1:1883 --qos 1 --pid "$(pidof comqtt)"
   comqtt bench latency --target broker.example:1883 --rate 500 -o json
   comqtt bench restart --exec 'comqtt serve --data {dir}/data --tcp 127.0.0.1:{port} --ws off --http off'

Flags of a mode: comqtt bench MODE --help
`

// benchFlag is one setting of a mode.
type benchFlag struct {
	name, value, usage string // as in option
	modes              []bench.Mode
	set                func(o *bench.Options, text string) error
	def                func(o *bench.Options) string // the mode's default, for help
}

// in reports whether a mode has the flag; one without modes is in all.
func (f *benchFlag) in(m bench.Mode) bool {
	if len(f.modes) == 0 {
		return true
	}
	for _, has := range f.modes {
		if has == m {
			return true
		}
	}
	return false
}

// benchNumber makes a flag of a number; what is too large or small for a run,
// the engine says.
func benchNumber(name, usage string, field func(*bench.Options) *int, modes ...bench.Mode) benchFlag {
	return benchFlag{
		name, "N", usage, modes,
		func(o *bench.Options, text string) (err error) {
			*field(o), err = strconv.Atoi(text)
			return err
		},
		func(o *bench.Options) string { return strconv.Itoa(*field(o)) },
	}
}

func benchSwitch(name, usage string, field func(*bench.Options) *bool, modes ...bench.Mode) benchFlag {
	return benchFlag{
		name, "", usage, modes,
		func(o *bench.Options, text string) (err error) {
			*field(o), err = strconv.ParseBool(text)
			return err
		},
		func(o *bench.Options) string {
			if *field(o) {
				return "on"
			}
			return "off"
		},
	}
}

func benchText(name, value, usage, none string, field func(*bench.Options) *string, modes ...bench.Mode) benchFlag {
	return benchFlag{
		name, value, usage, modes,
		func(o *bench.Options, text string) error {
			*field(o) = text
			return nil
		},
		func(*bench.Options) string { return none },
	}
}

func benchPeriod(name, usage, none string, field func(*bench.Options) *time.Duration, modes ...bench.Mode) benchFlag {
	return benchFlag{
		name, "TIME", usage, modes,
		func(o *bench.Options, text string) (err error) {
			*field(o), err = time.ParseDuration(text)
			return err
		},
		func(o *bench.Options) string {
			if none != "" {
				return none
			}
			return field(o).String()
		},
	}
}

// benchFlags are the settings of all modes, in the order of help.
func benchFlags() []benchFlag {
	const (
		pairs, durable, fanout, fanin = bench.Pairs, bench.Durable, bench.FanOut, bench.FanIn
		offline, latency, connect     = bench.Offline, bench.Latency, bench.Connect
		idle, retained, subscribe     = bench.Idle, bench.Retained, bench.Subscribe
		restart, stresser             = bench.Restart, bench.Stresser
	)
	timed := []bench.Mode{pairs, durable, fanout, fanin, latency, connect, subscribe}
	load := []bench.Mode{pairs, durable, fanout, fanin, offline, latency, retained, subscribe, restart}
	return []benchFlag{
		benchText("target", "ADDR", "the broker: host:port, tls:host:port or unix:PATH", "127.0.0.1:1883",
			func(o *bench.Options) *string { return &o.Target },
			pairs, durable, fanout, fanin, offline, latency, connect, idle, retained, subscribe, stresser),
		{
			"pid", "N", "the broker's process, if it is on this machine: adds its CPU time and memory", nil,
			func(o *bench.Options, text string) (err error) { o.PID, err = strconv.Atoi(text); return err },
			func(*bench.Options) string { return "none" },
		},
		benchText("exec", "COMMAND", "command line of the broker, words separated by spaces; {dir} and {port} are filled in", "none",
			func(o *bench.Options) *string { return &o.Target }, restart),
		{
			"version", "4|5", "MQTT 3.1.1 or 5.0", nil, setBenchVersion,
			func(o *bench.Options) string { return strconv.Itoa(int(o.Version)) },
		},
		{
			"qos", "0|1|2", "of messages and subscriptions", append(load, connect),
			func(o *bench.Options, text string) error {
				n, err := strconv.ParseUint(text, 10, 8)
				o.QoS = byte(n)
				return err
			},
			func(o *bench.Options) string { return strconv.Itoa(int(o.QoS)) },
		},
		benchNumber("pairs", "publishers, each with a subscriber", func(o *bench.Options) *int { return &o.Pairs }, pairs, durable, latency, stresser),
		benchNumber("publishers", "clients that publish", func(o *bench.Options) *int { return &o.Publishers }, fanin, offline, retained, restart),
		benchNumber("subscribers", "clients that subscribe", func(o *bench.Options) *int { return &o.Subscribers }, fanout, fanin),
		benchSwitch("shared", "subscribers are a shared group", func(o *bench.Options) *bool { return &o.Shared }, fanin),
		benchSwitch("durable", "sessions of subscribers outlive the connection", func(o *bench.Options) *bool { return &o.Durable }, fanout, fanin, latency, subscribe),
		benchNumber("sessions", "durable sessions that are away", func(o *bench.Options) *int { return &o.Sessions }, offline, restart),
		benchSwitch("spread", "each message to one session instead of to all", func(o *bench.Options) *bool { return &o.Spread }, offline, restart),
		benchNumber("messages", "in all; in pairs and durable instead of --duration; each client's in stresser", func(o *bench.Options) *int { return &o.Messages }, pairs, durable, offline, restart, stresser),
		benchNumber("topics", "retained topics", func(o *bench.Options) *int { return &o.Topics }, retained, restart),
		benchNumber("clients", "clients that get everything, or that share the subscriptions", func(o *bench.Options) *int { return &o.Clients }, retained, subscribe),
		benchNumber("subscriptions", "wildcard subscriptions in all", func(o *bench.Options) *int { return &o.Subscriptions }, subscribe),
		benchNumber("rate", "messages per second in all", func(o *bench.Options) *int { return &o.Rate }, latency),
		benchNumber("connections", "connections, at a time or in all", func(o *bench.Options) *int { return &o.Connections }, connect, idle),
		benchNumber("size", "payload in bytes, 16 or more", func(o *bench.Options) *int { return &o.Size }, append(load, stresser)...),
		benchWindow(load),
		benchPeriod("duration", "measured time", "", func(o *bench.Options) *time.Duration { return &o.Duration }, timed...),
		benchPeriod("warmup", "time before that", "a quarter of it, at most 1s", func(o *bench.Options) *time.Duration { return &o.Warmup }, timed...),
		benchText("probe", "DIR", "time fdatasync in DIR meanwhile", "off", func(o *bench.Options) *string { return &o.ProbeDir }, latency),
		benchSwitch("keep", "leave sessions and retained messages in the broker", func(o *bench.Options) *bool { return &o.Keep }, durable, fanout, fanin, offline, latency, retained),
		benchText("username", "NAME", "to log in with", "none", func(o *bench.Options) *string { return &o.Username }),
		benchText("password", "WORD", "to log in with", "none", func(o *bench.Options) *string { return &o.Password }),
	}
}

func benchWindow(modes []bench.Mode) benchFlag {
	f := benchNumber("window", "messages under way per publisher", func(o *bench.Options) *int { return &o.Window }, modes...)
	f.def = func(o *bench.Options) string {
		if o.Window == 0 {
			return "256 with QoS 0, else 20"
		}
		return strconv.Itoa(o.Window)
	}
	return f
}

func setBenchVersion(o *bench.Options, text string) error {
	switch text {
	case "4", "3.1.1":
		o.Version = packets.V311
	case "5", "5.0":
		o.Version = packets.V5
	default:
		return errors.New("unknown")
	}
	return nil
}

func (p *program) benchCommand() *cli.Command {
	cmd := &cli.Command{
		Name:               "bench",
		HideHelpCommand:    true,
		CustomHelpTemplate: benchHelp(),
		OnUsageError: usageErrorOf([]string{
			"--compare", "--write", "--quick", "--only", "--dir", "--calibrate", "--duration", "--output", "--help",
		}),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "compare"},
			&cli.StringFlag{Name: "write"},
			&cli.BoolFlag{Name: "quick"},
			&cli.StringFlag{Name: "only"},
			&cli.StringFlag{Name: "dir"},
			&cli.BoolFlag{Name: "calibrate"},
			&cli.DurationFlag{Name: "duration", Value: 2 * time.Second},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table"},
		},
		Action: p.benchAction,
	}
	names, about := bench.Modes()
	for i, m := range names {
		cmd.Subcommands = append(cmd.Subcommands, p.benchMode(m, about[i]))
	}
	cmd.Subcommands = append(cmd.Subcommands, p.benchRelay())
	return cmd
}

func benchHelp() string {
	var b strings.Builder
	b.WriteString(benchIntro)
	names, about := bench.Modes()
	for i, m := range names {
		fmt.Fprintf(&b, "   %-21s %s\n", m, about[i])
	}
	b.WriteString(benchFlagsHelp)
	return b.String()
}

// benchMode is the command of one mode.
func (p *program) benchMode(m bench.Mode, about string) *cli.Command {
	defaults, _ := bench.Defaults(m)
	defaults.Target = "127.0.0.1:1883"
	var mine []benchFlag
	cmd := &cli.Command{Name: string(m), HideHelpCommand: true}
	known := []string{"--output", "--help"}
	var help strings.Builder
	fmt.Fprintf(&help, "comqtt bench %s - %s\n\nUSAGE:\n   comqtt bench %s [flags]\n\nFLAGS, with defaults in parentheses:\n", m, about, m)
	for _, f := range benchFlags() {
		if !f.in(m) {
			continue
		}
		mine, known = append(mine, f), append(known, "--"+f.name)
		fmt.Fprintf(&help, "   %-21s %s (%s)\n", strings.TrimSpace("--"+f.name+" "+f.value), f.usage, f.def(&defaults))
		if f.value == "" {
			cmd.Flags = append(cmd.Flags, &cli.BoolFlag{Name: f.name})
		} else {
			cmd.Flags = append(cmd.Flags, &cli.StringFlag{Name: f.name})
		}
	}
	fmt.Fprintf(&help, "   %-21s %s (%s)\n", "-o table|json", "form of the result", "table")
	cmd.Flags = append(cmd.Flags, &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table"})
	cmd.CustomHelpTemplate, cmd.OnUsageError = help.String(), usageErrorOf(known)
	cmd.Action = func(c *cli.Context) error {
		if err := noArguments(c); err != nil {
			return err
		}
		o := defaults
		for _, f := range mine {
			if !c.IsSet(f.name) {
				continue
			}
			if err := f.set(&o, fmt.Sprint(c.Value(f.name))); err != nil {
				return benchUsage(m, fmt.Errorf("--%s: %q is not valid", f.name, c.Value(f.name)))
			}
		}
		return p.benchRun(c, o)
	}
	return cmd
}

func benchUsage(m bench.Mode, err error) error {
	return &exitError{code: exitUsage, err: err, hints: []string{"see comqtt bench " + string(m) + " --help"}}
}

// benchRun puts one load on a broker.
func (p *program) benchRun(c *cli.Context, o bench.Options) (err error) {
	write, err := benchOutput(c)
	if err != nil {
		return err
	}
	ctx, cancel := p.signalContext()
	defer cancel()
	if o.Mode == bench.Restart {
		if !c.IsSet("exec") {
			return benchUsage(o.Mode, errors.New("restart has to start the broker itself: --exec is missing"))
		}
		b, err := bench.NewBroker(bench.Command{Args: strings.Fields(o.Target)}, "")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.Close()) }()
		o.Process = b
	}
	line := p.newBenchLine()
	o.Progress = func(pr bench.Progress) { line.show(string(o.Mode), pr) }
	r, err := bench.Run(ctx, o)
	line.clear()
	if err != nil {
		return benchFailed(ctx, o.Target, err)
	}
	if err := write(p.stdout, r); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return r.Err()
}

// benchFailed gives an error of a run its exit code.
func benchFailed(ctx context.Context, target string, err error) error {
	var stopped *exitError
	var dial *net.OpError
	switch {
	case errors.As(context.Cause(ctx), &stopped):
		return stopped
	case errors.Is(err, bench.ErrOptions):
		return &exitError{code: exitUsage, err: err, hints: []string{"see comqtt bench --help"}}
	case errors.Is(err, fs.ErrNotExist):
		return &exitError{code: exitNoInput, err: err}
	case errors.As(err, &dial) && dial.Op == "dial":
		return &exitError{code: exitUnavailable, err: err, hints: []string{"is a broker listening on " + target + "? --target ADDR names another"}}
	}
	return &exitError{code: exitFailed, err: err}
}

// printable is a result that can be written in both forms.
type printable interface {
	WriteTable(w io.Writer) error
	WriteJSON(w io.Writer) error
}

// benchOutput reads -o.
func benchOutput(c *cli.Context) (func(io.Writer, printable) error, error) {
	switch form := c.String("output"); form {
	case "table":
		return func(w io.Writer, r printable) error { return r.WriteTable(w) }, nil
	case "json":
		return func(w io.Writer, r printable) error { return r.WriteJSON(w) }, nil
	default:
		return nil, &exitError{code: exitUsage, err: fmt.Errorf("--output: %q is not valid; allowed: table or json", form)}
	}
}

// benchAction is bench without a mode.
func (p *program) benchAction(c *cli.Context) error {
	if c.NArg() > 0 {
		var names []string
		modes, _ := bench.Modes()
		for _, m := range modes {
			names = append(names, string(m))
		}
		return unknown("mode", c.Args().First(), names, "comqtt bench --help")
	}
	switch {
	case c.IsSet("compare"):
		return p.benchCompare(c)
	case c.Bool("calibrate"):
		return p.benchCalibrate(c)
	}
	return &exitError{code: exitUsage, err: errors.New("bench what?"), hints: []string{"see comqtt bench --help"}}
}

func (p *program) benchCalibrate(c *cli.Context) error {
	write, err := benchOutput(c)
	if err != nil {
		return err
	}
	relay, err := relayCommand()
	if err != nil {
		return err
	}
	ctx, cancel := p.signalContext()
	defer cancel()
	line := p.newBenchLine()
	all, err := bench.Calibrate(ctx, relay, c.Duration("duration"), func(pr bench.Progress) { line.show("calibrating", pr) })
	line.clear()
	if err != nil {
		return benchFailed(ctx, "", err)
	}
	return write(p.stdout, all)
}

func (p *program) benchCompare(c *cli.Context) error {
	write, err := benchOutput(c)
	if err != nil {
		return err
	}
	f, err := bench.ReadFile(c.String("compare"))
	if err != nil {
		return benchFailed(context.Background(), "", err)
	}
	if _, err := path.Match(c.String("only"), ""); err != nil {
		return &exitError{code: exitUsage, err: fmt.Errorf("--only: %w", err)}
	}
	page := c.String("write")
	if page != "" { // a page without a place for it is better known before than after
		if err := writePage(page, nil); err != nil {
			return err
		}
	}
	relay, err := relayCommand()
	if err != nil {
		return err
	}
	o := bench.CompareOptions{Quick: c.Bool("quick"), Dir: c.String("dir"), Relay: relay}
	if pattern := c.String("only"); pattern != "" {
		o.Only = func(row string) bool { ok, _ := path.Match(pattern, row); return ok }
	}
	ctx, cancel := p.signalContext()
	defer cancel()
	line := p.newBenchLine()
	o.Progress = line.show
	r, err := bench.Compare(ctx, f, o)
	line.clear()
	if err != nil {
		return benchFailed(ctx, "", err)
	}
	if err := write(p.stdout, r); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	if page != "" {
		if err := writePage(page, r); err != nil {
			return err
		}
	}
	return r.Err()
}

// writePage puts a report into a page; without a report it only looks whether
// that is possible.
func writePage(name string, r *bench.Report) error {
	old, err := os.ReadFile(name)
	if err != nil {
		return &exitError{code: exitNoInput, err: err}
	}
	page, err := cmp.Or(r, &bench.Report{}).Insert(old)
	if err != nil {
		return &exitError{code: exitUsage, err: fmt.Errorf("%s: %w", name, err)}
	}
	if r == nil {
		return nil
	}
	return os.WriteFile(name, page, 0o644)
}

// relayCommand starts this program as a relay.
func relayCommand() (bench.Command, error) {
	self, err := os.Executable()
	if err != nil {
		return bench.Command{}, fmt.Errorf("find this program: %w", err)
	}
	return bench.Command{Args: []string{self, "bench", "relay", "--listen", "127.0.0.1:{port}"}}, nil
}

// benchRelay is the relay that --calibrate starts.
func (p *program) benchRelay() *cli.Command {
	return &cli.Command{
		Name: "relay", Hidden: true, HideHelpCommand: true,
		Flags: []cli.Flag{&cli.StringFlag{Name: "listen", Value: "127.0.0.1:1883"}},
		Action: func(c *cli.Context) error {
			r, err := bench.NewRelay(c.String("listen"))
			if err != nil {
				return &exitError{code: exitUnavailable, err: err}
			}
			ctx, cancel := p.signalContext()
			defer cancel()
			stop := context.AfterFunc(ctx, func() { _ = r.Close() }) // Serve says what went wrong
			defer stop()
			return r.Serve()
		},
	}
}

// benchLine is the line on a terminal that says what is going on.
type benchLine struct {
	w     io.Writer // nil: not a terminal
	width int       // of what stands there now
}

func (p *program) newBenchLine() *benchLine {
	f, ok := p.stderr.(*os.File)
	if !ok {
		return &benchLine{}
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return &benchLine{}
	}
	return &benchLine{w: f}
}

// show replaces the line.
func (l *benchLine) show(step string, pr bench.Progress) {
	if l.w == nil {
		return
	}
	text := step + ": " + pr.Phase
	if pr.Done >= 0 {
		text += fmt.Sprintf(" %3.0f%%", 100*min(pr.Done, 1))
	}
	if pr.Rate > 0 {
		text += fmt.Sprintf(", %s/s", formatCount(uint64(pr.Rate)))
	}
	fmt.Fprintf(l.w, "\r%-*s", l.width, text)
	l.width = utf8.RuneCountInString(text)
}

// clear takes the line away.
func (l *benchLine) clear() {
	if l.w != nil && l.width > 0 {
		fmt.Fprintf(l.w, "\r%*s\r", l.width, "")
		l.width = 0
	}
}
