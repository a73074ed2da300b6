package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wind-c/comqtt/v3/broker/admin"
)

const groupHelp = `comqtt %s - %s

USAGE:
   comqtt %s VERB [flags] NAME

Asks the running broker through the admin socket in its data directory.

VERBS:
%s
EXIT CODES:
   0   done
   64  wrong use of the command line
   66  there is no such %s
   69  no broker answers

EXAMPLES:
%s
Flags of a verb: comqtt %s VERB --help
`

// groupCommand is a command with verbs of its own.
func (p *program) groupCommand(name, about, thing string, verbs []verb, examples ...string) *cli.Command {
	var list, shown strings.Builder
	cmd := &cli.Command{Name: name, HideHelpCommand: true}
	var names []string
	for _, v := range verbs {
		names = append(names, v.name)
		fmt.Fprintf(&list, "   %-5s %s\n", v.name, v.about)
		cmd.Subcommands = append(cmd.Subcommands, p.verbCommand(name, v))
	}
	for _, e := range examples {
		fmt.Fprintf(&shown, "   comqtt %s\n", e)
	}
	cmd.CustomHelpTemplate = fmt.Sprintf(groupHelp, name, about, name, list.String(), thing, shown.String(), name)
	ask := "comqtt " + name + " --help"
	cmd.OnUsageError = usageErrorFor([]string{"--help"}, ask)
	cmd.Action = func(c *cli.Context) error {
		if c.NArg() == 0 {
			return &exitError{code: exitUsage, err: errors.New(name + " what?"), hints: []string{"see " + ask}}
		}
		return unknown("verb", c.Args().First(), names, ask)
	}
	return cmd
}

func (p *program) sessionsCommand() *cli.Command {
	return p.groupCommand("sessions", "durable sessions of the running broker", "session", []verb{
		{
			name: "ls", about: "list them",
			examples: []string{"sessions ls", "sessions ls --data /var/lib/comqtt -o ndjson"},
			run:      (*verbRun).listSessions,
		},
		{
			name: "show", about: "one with its subscriptions and what is in flight", args: "CLIENT",
			examples: []string{"sessions show c1", "sessions show -o json c1"},
			run:      (*verbRun).showSession,
		},
		{
			name: "rm", about: "end one, with everything that waits for it", args: "CLIENT",
			notes: `The session ends by a record that names you; a client that is connected with it is
disconnected. What waited for it is gone; recover restore brings the state before
that record back, into another directory.`,
			examples: []string{"sessions rm c1", "sessions rm --data /var/lib/comqtt c1"},
			run:      (*verbRun).removeSession,
		},
	}, "sessions ls", "sessions rm c1")
}

// control runs fn with a client of the broker.
func (r *verbRun) control(fn func(c *admin.Client) error) error {
	c := admin.NewClient(r.data)
	defer c.Close()
	return controlFailed(fn(c))
}

// name is the one word after the flags.
func (r *verbRun) name(what string) (string, error) {
	if r.c.NArg() != 1 {
		return "", r.usage("needs one %s after the flags, not %d words", what, r.c.NArg())
	}
	return r.c.Args().First(), nil
}

func (r *verbRun) listSessions() error {
	return r.control(func(c *admin.Client) error {
		if !r.out.isTable() {
			err := c.Sessions(r.ctx, func(s admin.Session) error {
				r.out.item(s, nil)
				return nil
			})
			r.out.end()
			return err
		}
		var list []admin.Session
		if err := c.Sessions(r.ctx, func(s admin.Session) error { list = append(list, s); return nil }); err != nil {
			return err
		}
		slices.SortFunc(list, func(a, b admin.Session) int { return cmp.Compare(a.Client, b.Client) })
		t := columns(r.out)
		fmt.Fprintln(t, "CLIENT\tSTATE\tSUBSCRIPTIONS\tQUEUED\tBYTES\tIN FLIGHT\tENDS")
		for i := range list {
			s := &list[i]
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%d\t%s\n", safe(s.Client), sessionState(s), s.Subscriptions,
				s.Queued, roughSize(int64(s.QueuedBytes)), s.Inflight, moment(s.Ends))
		}
		return t.Flush()
	})
}

func sessionState(s *admin.Session) string {
	if s.Connected {
		return "connected"
	}
	return "away since " + moment(s.Disconnected)
}

// moment is a time for people; 0 does not apply.
func moment(ms int64) string {
	if ms == 0 {
		return "-"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05Z")
}

func (r *verbRun) showSession() error {
	client, err := r.name("client identifier")
	if err != nil {
		return err
	}
	return r.control(func(c *admin.Client) error {
		s, err := c.Session(r.ctx, client)
		if errors.Is(err, admin.ErrNotFound) {
			err = fmt.Errorf("%w: client %q has no durable session", err, client)
		}
		if err != nil {
			return err
		}
		r.out.one(s, func(w io.Writer) { sessionTable(w, s) })
		return nil
	})
}

func sessionTable(w io.Writer, s *admin.SessionDetail) {
	t := columns(w)
	fmt.Fprintf(t, "client\t%s\n", safe(s.Client))
	if s.User != "" {
		fmt.Fprintf(t, "user\t%s\n", safe(s.User))
	}
	fmt.Fprintf(t, "state\t%s\n", sessionState(&s.Session))
	fmt.Fprintf(t, "began\tat record %d\n", s.ID)
	fmt.Fprintf(t, "ends\t%s\n", moment(s.Ends))
	fmt.Fprintf(t, "queued\t%d messages, %s\n", s.Queued, roughSize(int64(s.QueuedBytes)))
	for _, f := range s.Filters {
		fmt.Fprintf(t, "subscription\t%s   QoS %d\n", safe(f.Filter), f.QoS)
	}
	for _, d := range s.InFlight {
		phase := "sent"
		if d.Released {
			phase = "released"
		}
		fmt.Fprintf(t, "in flight\tidentifier %d   message %d   QoS %d   %s\n", d.PacketID, d.Message, d.QoS, phase)
	}
	_ = t.Flush() // to the buffer of the output, which keeps errors
}

func (r *verbRun) removeSession() error {
	client, err := r.name("client identifier")
	if err != nil {
		return err
	}
	return r.control(func(c *admin.Client) error {
		index, err := c.RemoveSession(r.ctx, client)
		if errors.Is(err, admin.ErrNotFound) {
			err = fmt.Errorf("%w: client %q has no durable session", err, client)
		}
		if err != nil {
			return err
		}
		r.out.one(struct {
			Client string `json:"client"`
			Index  uint64 `json:"index"`
		}{client, index}, func(w io.Writer) {
			fmt.Fprintf(w, "session of %s removed by record %d\n", safe(client), index)
		})
		return nil
	})
}
