package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wind-c/comqtt/v3/recovery/migrate"
)

const migrateIntro = `comqtt migrate - copy a broker's state to another backend, and compare the two

USAGE:
   comqtt migrate VERB --from URL --to URL [flags]

The broker is stopped. The source is only read; its log is replayed first, so that
the target holds the whole state. URLs:
   bbolt://DIR                          a data directory with the bbolt backend
   badger://DIR                         a data directory with the badger backend
   redis://HOST:PORT/DB?prefix=NAME     the keys of a Redis server (rediss:// with TLS)
DIR may be relative or, with three slashes in all, absolute: bbolt:///var/lib/comqtt.

VERBS:
`

const migrateExit = `
EXIT CODES:
   0   done; the same state on both sides
   1   not confirmed
   64  wrong use of the command line; off a terminal run needs --yes
   65  source and target differ, something is damaged, or the source has changed
       since the migration began
   66  the source is not there
   69  the server cannot be reached
   73  the target is not empty, half made (--resume), or cannot be made
   74  a file could not be read or written, or there is not enough space
   75  a broker, or another tool, has the data directory
   78  a newer version wrote it
   130 stopped by Ctrl-C (143: by SIGTERM); --resume goes on

EXAMPLES:
   comqtt migrate plan --from bbolt:///var/lib/comqtt --to badger:///var/lib/comqtt-new
   comqtt migrate run --from bbolt:///var/lib/comqtt --to badger:///var/lib/comqtt-new

Flags of a verb: comqtt migrate VERB --help
`

func (p *program) migrateCommand() *cli.Command {
	verbs := []verb{p.migratePlanVerb(), p.migrateRunVerb(), p.migrateVerifyVerb()}
	var help strings.Builder
	help.WriteString(migrateIntro)
	cmd := &cli.Command{Name: "migrate", HideHelpCommand: true}
	var names []string
	for _, v := range verbs {
		names = append(names, v.name)
		fmt.Fprintf(&help, "   %-9s %s\n", v.name, v.about)
		cmd.Subcommands = append(cmd.Subcommands, p.verbCommand("migrate", v))
	}
	help.WriteString(migrateExit)
	cmd.CustomHelpTemplate = help.String()
	const ask = "comqtt migrate --help"
	cmd.OnUsageError = usageErrorFor([]string{"--help"}, ask)
	cmd.Action = func(c *cli.Context) error {
		if c.NArg() == 0 {
			return &exitError{code: exitUsage, err: errors.New("migrate what?"), hints: []string{"see " + ask}}
		}
		return unknown("verb", c.Args().First(), names, ask)
	}
	return cmd
}

// migrateFlags are the flags that all verbs of migrate have, before their own.
func migrateFlags(more ...verbFlag) []verbFlag {
	return append([]verbFlag{
		{"from", "URL", "", "where the state is"},
		{"to", "URL", "", "where it is to go"},
	}, more...)
}

// sides reads --from and --to.
func (r *verbRun) sides() (from, to migrate.URL, err error) {
	for _, side := range []struct {
		name string
		url  *migrate.URL
	}{{"from", &from}, {"to", &to}} {
		text := r.c.String(side.name)
		if text == "" {
			return from, to, r.usage("--%s needs a URL, such as bbolt://DIR", side.name)
		}
		if *side.url, err = migrate.ParseURL(text); err != nil {
			return from, to, r.usage("--%s: %w", side.name, err)
		}
	}
	return from, to, nil
}

// sizeFlag reads a flag that holds a size; 0 if it is empty.
func (r *verbRun) sizeFlag(name string, least, most int64) (int64, error) {
	text := r.c.String(name)
	if text == "" {
		return 0, nil
	}
	n, err := parseSize(text)
	if err != nil || n < least || n > most {
		return 0, r.usage("--%s: %q is not a size from %s to %s, such as 4MiB", name, text, formatSize(least), formatSize(most))
	}
	return n, nil
}

// migrateFailed gives the errors of migrations their exit codes.
func (r *verbRun) migrateFailed(err error) error {
	const compare = "the source is as it was"
	fail := func(code int, hints ...string) error {
		return &exitError{code, err, append([]string{compare}, hints...)}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		r.say("%s; what is copied so far is kept: the same command with --resume goes on", compare)
		return err
	case errors.Is(err, migrate.ErrURL):
		return r.usage("%w", err)
	case errors.Is(err, migrate.ErrNoData):
		return &exitError{exitNoInput, err, []string{"--from and --to name a data directory with its backend, or a server: comqtt migrate --help"}}
	case errors.Is(err, migrate.ErrUnfinished):
		return fail(exitCantCreate, "go on with it: the same command with --resume", "or begin anew: remove it, or choose another target")
	case errors.Is(err, migrate.ErrExists):
		return fail(exitCantCreate, "name a directory that does not exist or is empty, or a prefix that nobody uses")
	case errors.Is(err, migrate.ErrOther):
		return fail(exitCantCreate, "name its source, or remove it, or choose another target")
	case errors.Is(err, migrate.ErrChanged):
		return &exitError{exitDamaged, err, []string{
			"a broker ran on the source meanwhile, or it was repaired", "begin anew: remove the target, or choose another",
		}}
	case errors.Is(err, migrate.ErrDiffer):
		return &exitError{exitDamaged, err, []string{"the target is not made whole, and no broker starts on it: remove it and begin anew"}}
	case errors.Is(err, migrate.ErrSpace):
		return fail(exitIO, "nothing was written; free space, or choose another target")
	case errors.Is(err, migrate.ErrUnreachable):
		return fail(exitUnavailable, "is the server up, and are host, port and password right?")
	}
	return err
}
