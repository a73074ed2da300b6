package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/wind-c/comqtt/v3/recovery/inspect"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// tablePayload is how many bytes of a payload a table shows.
const tablePayload = 40

func (p *program) dumpVerb() verb {
	return verb{
		name: "dump", about: "the records of the log",
		flags: []verbFlag{
			{"from", "INDEX", "", "first record"},
			{"to", "INDEX", "", "last record"},
			{"since", "TIME", "", "from this log time on, RFC 3339"},
			{"until", "TIME", "", "up to this log time, RFC 3339"},
			{"kind", "KIND,...", "", "kinds of record, such as connect,publish"},
			{"client", "ID", "", "records that this client caused or that name it"},
			{"topic", "FILTER", "", "messages, wills and subscriptions that a topic filter meets"},
			{"payload", "text|hex|none", inspect.PayloadText, "form of payloads"},
			{"payload-max", "BYTES", "", "of a payload; default 40 in a table, else all"},
		},
		notes: `Streams, with the memory of one frame. -o ndjson gives an object a line. Times are
log times in UTC. Records up to the first damage are shown; then exit 65.
Clients without a durable session leave nothing in the log but retained messages,
wills, and messages for durable sessions.`,
		examples: []string{
			"recover dump --client sensor-7 --since 2026-11-26T01:00:00Z",
			"recover dump --kind publish --topic 'plant/#' -o ndjson --payload hex",
		},
		run: runDump,
	}
}

func runDump(r *verbRun) error {
	f, err := dumpFilter(r)
	if err != nil {
		return err
	}
	return r.look(func(d *inspect.Dir) error {
		header := r.out.isTable()
		ext, err := d.Dump(r.ctx, f, func(l *inspect.Line) error {
			if header {
				header = false
				writeLineHeader(r.out)
			}
			r.out.item(l, func(w io.Writer) { writeLine(w, l) })
			return r.out.failed()
		})
		if err != nil {
			return err
		}
		r.progress.end()
		r.out.end()
		if t := ext.Torn; t != nil {
			r.say("a torn tail of %d bytes at %s:%d follows (%s); a start would cut it off", t.Bytes, t.File, t.Offset, t.Why)
		}
		if ext.Damage == nil {
			return nil
		}
		return r.finding(ext.Damage, fmt.Sprintf("the records after %d cannot be read: %v", ext.Last, ext.Damage),
			"for the whole story: comqtt recover verify --data "+r.data)
	})
}

// dumpFilter reads the flags.
func dumpFilter(r *verbRun) (*inspect.Filter, error) {
	f := &inspect.Filter{Client: r.c.String("client"), Topic: r.c.String("topic"), Payload: r.c.String("payload")}
	if r.out.isTable() {
		f.PayloadMax = tablePayload
	}
	for name, to := range map[string]*uint64{"from": &f.From, "to": &f.To} {
		if text := r.c.String(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 64)
			if err != nil || n == 0 {
				return nil, r.usage("--%s: %q is not valid; allowed: a record index, from 1", name, text)
			}
			*to = n
		}
	}
	for name, to := range map[string]*int64{"since": &f.Since, "until": &f.Until} {
		if text := r.c.String(name); text != "" {
			t, err := parseTime(text)
			if err != nil {
				return nil, r.usage("--%s: %w", name, err)
			}
			*to = t
		}
	}
	if f.To != 0 && f.From > f.To || f.Until != 0 && f.Since > f.Until {
		return nil, r.usage("the range is empty: its end lies before its begin")
	}
	if text := r.c.String("payload-max"); text != "" {
		n, err := parseSize(text)
		if err != nil {
			return nil, r.usage("--payload-max: %q is not valid; allowed: %s0 for all", text, sizeForm)
		}
		f.PayloadMax = int(n)
	}
	switch f.Payload {
	case inspect.PayloadText, inspect.PayloadHex, inspect.PayloadNone:
	default:
		return nil, r.usage("--payload: %q is not valid; allowed: text, hex or none", f.Payload)
	}
	if f.Topic != "" {
		if err := topic.ValidateFilter([]byte(f.Topic)); err != nil {
			return nil, r.usage("--topic: %s is not a topic filter: %w", safe(f.Topic), err)
		}
	}
	return f, dumpKinds(r, f)
}

func dumpKinds(r *verbRun, f *inspect.Filter) error {
	text := r.c.String("kind")
	if text == "" {
		return nil
	}
	kinds := map[string]record.Kind{}
	var all []string
	for k := record.Kind(1); record.Known(k); k++ {
		kinds[k.String()] = k
		all = append(all, k.String())
	}
	f.Kinds = map[record.Kind]bool{}
	for word := range strings.SplitSeq(text, ",") {
		k, ok := kinds[strings.TrimSpace(word)]
		if !ok {
			return unknown("kind of record", word, all, r.help+"; there are "+strings.Join(all, ", "))
		}
		f.Kinds[k] = true
	}
	return nil
}

const lineForm = "%10s  %-24s  %-14s  %-16s  %s\n"

func writeLineHeader(w io.Writer) {
	_, _ = fmt.Fprintf(w, lineForm, "RECORD", "TIME", "KIND", "CLIENT", "DETAIL") // output keeps its error
}

func writeLine(w io.Writer, l *inspect.Line) {
	client := "-"
	switch {
	case l.Client != "":
		client = safe(l.Client)
	case l.Session != 0:
		client = fmt.Sprintf("session %d", l.Session)
	case l.Epoch != 0:
		client = "conn. " + l.Epoch.String()
	}
	_, _ = fmt.Fprintf(w, lineForm, strconv.FormatUint(l.Index, 10), when(l.Time), l.Kind, client, l.Detail) // output keeps its error
}
