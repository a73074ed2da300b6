package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/wind-c/comqtt/v3/recovery/inspect"
)

// diffShown is how many messages of a session a table names.
const diffShown = 8

func (p *program) diffVerb() verb {
	return verb{
		name: "diff", about: "what changed in the state between two records or times", args: "A B",
		notes: `A and B are record indexes or times as RFC 3339: the state after that record, or
after the last record up to that time. Sessions, subscriptions, queues and retained
messages are compared. How far back A may lie, inspect says.`,
		examples: []string{
			"recover diff 12000 12431",
			"recover diff --data /var/lib/comqtt 2026-11-26T01:00:00Z 2026-11-26T01:05:00Z -o json",
		},
		run: runDiff,
	}
}

func runDiff(r *verbRun) error {
	if r.c.NArg() != 2 {
		return r.usage("diff wants two points, A and B")
	}
	var points [2]inspect.Point
	for i, text := range r.c.Args().Slice() {
		var err error
		if points[i], err = parsePoint(text); err != nil {
			return r.usage("%w", err)
		}
	}
	if inspect.CheckOrder(points[0], points[1]) != nil {
		return r.usage("A lies after B")
	}
	return r.look(func(d *inspect.Dir) error {
		diff, err := d.Diff(r.ctx, points[0], points[1])
		if err != nil {
			return err
		}
		r.progress.end()
		r.out.one(diff, func(w io.Writer) { writeDiff(w, diff) })
		return nil
	})
}

// flagsFirst puts the flags of a verb before its other words, where the flag
// package looks for them: diff A B --data DIR.
func flagsFirst(args []string, switches ...string) []string {
	var flags, words []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			words = append(words, args[i:]...)
			break
		}
		if len(a) < 2 || a[0] != '-' {
			words = append(words, a)
			continue
		}
		flags = append(flags, a)
		alone := strings.Contains(a, "=") || slices.Contains(switches, strings.TrimLeft(a, "-"))
		if !alone && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	return append(flags, words...)
}

func writeDiff(w io.Writer, d *inspect.Difference) {
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) } // output keeps its error
	line("A  record %s, %s, hash %s", formatCount(d.A.Index), d.A.Time, d.A.Hash)
	line("B  record %s, %s, hash %s", formatCount(d.B.Index), d.B.Time, d.B.Hash)
	if d.Same {
		line("\nnothing changed")
		return
	}
	line("")
	t := columns(w)
	_, _ = fmt.Fprintln(t, "\tA\tB\tCHANGE")
	for _, row := range []struct {
		name string
		a, b int
	}{
		{"sessions", d.A.Sessions, d.B.Sessions},
		{"connected", d.A.Connected, d.B.Connected},
		{"subscriptions", d.A.Subscriptions, d.B.Subscriptions},
		{"messages", d.A.Messages, d.B.Messages},
		{"queued", d.A.Queued, d.B.Queued},
		{"in flight", d.A.Inflight, d.B.Inflight},
		{"retained", d.A.Retained, d.B.Retained},
	} {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%+d\n", row.name, number(row.a), number(row.b), row.b-row.a)
	}
	_ = t.Flush() // output keeps its error
	for _, part := range []struct {
		sign string
		list []inspect.SessionDiff
	}{{"+", d.Began}, {"-", d.Ended}, {"~", d.Others}} {
		for i := range part.list {
			writeSessionDiff(line, part.sign, &part.list[i])
		}
	}
	if len(d.Topics) > 0 {
		line("")
	}
	for i := range d.Topics {
		switch r := &d.Topics[i]; {
		case r.Before == 0:
			line("+ retained %s: message %d", safe(r.Topic), r.After)
		case r.After == 0:
			line("- retained %s: message %d", safe(r.Topic), r.Before)
		default:
			line("~ retained %s: message %d → %d", safe(r.Topic), r.Before, r.After)
		}
	}
}

func writeSessionDiff(line func(format string, args ...any), sign string, s *inspect.SessionDiff) {
	line("\n%s session %d of %s", sign, s.Session, safe(s.Client))
	for _, c := range s.Changes {
		line("    ~ %s", c)
	}
	for i := range s.Unsubscribed {
		line("    - subscription %s, QoS %d", safe(s.Unsubscribed[i].Filter), s.Unsubscribed[i].QoS)
	}
	for i := range s.Subscribed {
		line("    + subscription %s, QoS %d", safe(s.Subscribed[i].Filter), s.Subscribed[i].QoS)
	}
	q := &s.Queue
	for _, m := range []struct {
		text string
		ids  []uint64
	}{{"- messages gone", q.Went}, {"+ messages new", q.Came}, {"~ messages further on their way", q.Moved}} {
		if len(m.ids) > 0 {
			line("    %s: %s", m.text, idList(m.ids))
		}
	}
	if q.BeforeN != q.AfterN {
		line("    ~ queued and in flight: %s → %s", number(q.BeforeN), number(q.AfterN))
	}
}

// idList names the first few messages.
func idList(ids []uint64) string {
	var words []string
	for _, id := range ids[:min(len(ids), diffShown)] {
		words = append(words, strconv.FormatUint(id, 10))
	}
	s := strings.Join(words, ", ")
	if n := len(ids) - diffShown; n > 0 {
		s += fmt.Sprintf(" and %s more", number(n))
	}
	return s
}
