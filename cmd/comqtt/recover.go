package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

const recoverIntro = `comqtt recover - look at, check, repair and rewind a data directory

USAGE:
   comqtt recover VERB [flags]

All verbs work on the files alone, while no broker runs, under the directory's
lock. They read, and change nothing unless their help says so.

VERBS:
`

const recoverExit = `
EXIT CODES:
   0   done; nothing is wrong
   64  wrong use of the command line
   65  something is damaged, or belongs to another broker
   66  there is nothing to look at: no such directory, client or record
   74  a file could not be read or written
   75  a broker, or another tool, has the data directory
   78  a newer version wrote it
   130 stopped by Ctrl-C (143: by SIGTERM)

EXAMPLES:
   comqtt recover inspect --data /var/lib/comqtt
   comqtt recover verify --data /var/lib/comqtt -o json

Flags of a verb: comqtt recover VERB --help
`

// recoverVerbs are the verbs in the order of help: those that look, then those
// that write.
func (p *program) recoverVerbs() []verb {
	return []verb{
		// Looking: package recovery/inspect, one file here for each.
		p.inspectVerb(), p.verifyVerb(), p.dumpVerb(), p.whyVerb(), p.diffVerb(),
		// Writing: package recovery/restore.
		p.repairVerb(), p.salvageVerb(), p.restoreVerb(),
	}
}

func (p *program) recoverCommand() *cli.Command {
	verbs := p.recoverVerbs()
	var help strings.Builder
	help.WriteString(recoverIntro)
	cmd := &cli.Command{Name: "recover", HideHelpCommand: true}
	var names []string
	for _, v := range verbs {
		names = append(names, v.name)
		fmt.Fprintf(&help, "   %-9s %s\n", v.name, v.about)
		cmd.Subcommands = append(cmd.Subcommands, p.verbCommand("recover", v))
	}
	help.WriteString(recoverExit)
	cmd.CustomHelpTemplate = help.String()
	const ask = "comqtt recover --help"
	cmd.OnUsageError = usageErrorFor([]string{"--help"}, ask)
	cmd.Action = func(c *cli.Context) error {
		if c.NArg() == 0 {
			return &exitError{code: exitUsage, err: errors.New("recover what?"), hints: []string{"see " + ask}}
		}
		return unknown("verb", c.Args().First(), names, ask)
	}
	return cmd
}
