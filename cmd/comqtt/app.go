package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

const appHelp = `comqtt - a durable MQTT broker

USAGE:
   comqtt [command] [flags]

COMMANDS:
   serve      run the broker (what comqtt does without a command)
   backup     copy the state of the running broker into a new data directory
   sessions   list, show and remove durable sessions of the running broker
   retained   list, read and remove retained messages of the running broker
   recover    look at, check, repair and rewind a data directory
   migrate    copy a broker's state to another backend, and compare the two
   bench      measure this or another broker under load
   version    print the version

Flags of a command: comqtt COMMAND --help

EXAMPLES:
   comqtt
   comqtt serve --data /var/lib/comqtt --tcp :1883 --allow-anonymous
`

// app builds the command line. Errors come back from Run; nothing in it ends
// the process.
func (p *program) app() *cli.App {
	return &cli.App{
		Name:                  "comqtt",
		HideHelpCommand:       true,
		HideVersion:           true,
		Writer:                p.stdout,
		ErrWriter:             p.stderr,
		CustomAppHelpTemplate: appHelp,
		ExitErrHandler:        func(*cli.Context, error) {},
		OnUsageError:          usageErrorOf(nil),
		Commands: []*cli.Command{
			p.serveCommand(), p.verbCommand("", p.backupVerb()), p.sessionsCommand(), p.retainedCommand(),
			p.recoverCommand(), p.migrateCommand(), p.benchCommand(), p.versionCommand(),
		},
		// Reached when the first word is no command.
		Action: func(c *cli.Context) error {
			return unknown("command", c.Args().First(), commandNames(c.App), "comqtt --help")
		},
	}
}

func commandNames(app *cli.App) []string {
	var names []string
	for _, c := range app.VisibleCommands() {
		names = append(names, c.Name)
	}
	return names
}

// usageErrorOf returns the handler that turns the flag package's complaints
// into ours. flags are the names that exist, for suggestions.
func usageErrorOf(flags []string) cli.OnUsageErrorFunc {
	return func(c *cli.Context, err error, _ bool) error {
		help := strings.TrimSpace("comqtt "+c.Command.Name) + " --help"
		if c.Command.Name == "comqtt" {
			help = "comqtt --help"
		}
		return usageErrorFor(flags, help)(c, err, false)
	}
}

// usageErrorFor is usageErrorOf for a command whose help is shown by another
// one than its name says.
func usageErrorFor(flags []string, help string) cli.OnUsageErrorFunc {
	return func(_ *cli.Context, err error, _ bool) error {
		if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
			return unknown("flag", "--"+strings.TrimLeft(name, "-"), flags, help)
		}
		return &exitError{code: exitUsage, err: errors.New(flagComplaint(err.Error())), hints: []string{"see " + help}}
	}
}

// flagComplaint puts the flag package's messages about values into our form.
func flagComplaint(message string) string {
	if name, ok := strings.CutPrefix(message, "flag needs an argument: -"); ok {
		return "--" + strings.TrimLeft(name, "-") + " needs a value"
	}
	if rest, ok := strings.CutPrefix(message, "invalid boolean value "); ok {
		if value, tail, ok := strings.Cut(rest, " for -"); ok {
			name, _, _ := strings.Cut(tail, ":")
			return fmt.Sprintf("--%s: %s is not valid; allowed: true or false", strings.TrimLeft(name, "-"), value)
		}
	}
	return message
}

// noArguments refuses words after the flags.
func noArguments(c *cli.Context) error {
	if c.NArg() == 0 {
		return nil
	}
	return &exitError{
		code:  exitUsage,
		err:   fmt.Errorf("unexpected argument %q", c.Args().First()),
		hints: []string{"see comqtt " + c.Command.Name + " --help"},
	}
}

// unknown is the error for a word that is none of those that exist.
func unknown(what, word string, exist []string, help string) error {
	err := errors.New("unknown " + what + " " + word)
	if near := nearest(word, exist); near != "" {
		err = fmt.Errorf("%w; did you mean %s?", err, near)
	}
	return &exitError{code: exitUsage, err: err, hints: []string{"see " + help}}
}

// nearest returns the word that a typing mistake may have meant, or "".
func nearest(word string, exist []string) string {
	best, bestDistance := "", max(2, len(strings.TrimLeft(word, "-"))/3)+1
	for _, e := range exist {
		if d := distance(word, e); d < bestDistance {
			best, bestDistance = e, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to get from a to b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			differ := 1
			if a[i-1] == b[j-1] {
				differ = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+differ)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
