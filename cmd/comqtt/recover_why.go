package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/wind-c/comqtt/v3/recovery/inspect"
	"github.com/wind-c/comqtt/v3/session/topic"
)

// fatesShown is how many messages a table ends with.
const fatesShown = 50

func (p *program) whyVerb() verb {
	return verb{
		name: "why", about: "what became of a client's messages, and why",
		flags: []verbFlag{
			{"client", "ID", "", "the client; required"},
			{"topic", "FILTER", "", "messages whose topic a filter meets, delivered or not"},
			{"message", "INDEX", "", "this message alone, by the record of its publish"},
			{"payload", "text|hex|none", inspect.PayloadText, "form of payloads"},
		},
		notes: `Replays the records from the oldest state there is and tells every one that
concerns the client and the messages, with its consequence and the reason. Without
--topic and --message: whatever the client has to do with. With one of them also
what it did not get: no matching subscription, No Local, an expiry, a full queue.
Traffic that is not logged leaves no trace: QoS 0 that is not retained, and
everything between clients whose sessions end with their connection.`,
		examples: []string{
			"recover why --client sensor-7 --topic 'alarm/#'",
			"recover why --client sensor-7 --message 81244 -o ndjson",
		},
		run: runWhy,
	}
}

// whyEnd is the last element of the streamed forms.
type whyEnd struct {
	Story *inspect.Story `json:"story"`
}

func runWhy(r *verbRun) error {
	q, err := whyQuestion(r)
	if err != nil {
		return err
	}
	return r.look(func(d *inspect.Dir) error {
		header := r.out.isTable()
		story, err := d.Why(r.ctx, q, func(e *inspect.Event) error {
			if header {
				header = false
				writeLineHeader(r.out)
			}
			r.out.item(e, func(w io.Writer) { writeEvent(w, e) })
			return r.out.failed()
		})
		if err != nil {
			return err
		}
		r.progress.end()
		r.out.item(whyEnd{story}, func(w io.Writer) { writeStory(w, story) })
		r.out.end()
		if story.Damage != nil {
			return r.finding(story.Damage, fmt.Sprintf("the records after %d cannot be read: %v", story.To, story.Damage),
				"for the whole story: comqtt recover verify --data "+r.data)
		}
		if story.Events > 0 || len(story.Fates) > 0 {
			return nil
		}
		what := "nothing concerns client " + safe(q.Client)
		if near := nearest(q.Client, story.Clients); near != "" {
			what += "; did you mean " + safe(near) + "?"
		}
		return &exitError{exitNoInput, fmt.Errorf("%s", what), []string{"clients without a durable session are not in the log"}}
	})
}

func whyQuestion(r *verbRun) (*inspect.Question, error) {
	q := &inspect.Question{Client: r.c.String("client"), Topic: r.c.String("topic"), Payload: r.c.String("payload")}
	if r.out.isTable() {
		q.PayloadMax = tablePayload
	}
	if q.Client == "" {
		return nil, r.usage("--client is missing: whose messages?")
	}
	if text := r.c.String("message"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || n == 0 {
			return nil, r.usage("--message: %q is not valid; allowed: the record index of a publish", text)
		}
		q.Message = n
	}
	switch {
	case q.Message != 0 && q.Topic != "":
		return nil, r.usage("--topic and --message exclude each other")
	case q.Payload != inspect.PayloadText && q.Payload != inspect.PayloadHex && q.Payload != inspect.PayloadNone:
		return nil, r.usage("--payload: %q is not valid; allowed: text, hex or none", q.Payload)
	}
	if q.Topic != "" {
		if err := topic.ValidateFilter([]byte(q.Topic)); err != nil {
			return nil, r.usage("--topic: %s is not a topic filter: %w", safe(q.Topic), err)
		}
	}
	return q, nil
}

func writeEvent(w io.Writer, e *inspect.Event) {
	writeLine(w, e.Line)
	for i := range e.Outcomes {
		_, _ = fmt.Fprintf(w, "%12s%s\n", "", "→ "+outcomeWords(&e.Outcomes[i])) // output keeps its error
	}
	if e.Unknown {
		_, _ = fmt.Fprintf(w, "%12s%s\n", "", "→ older than the oldest state: what it led to cannot be told")
	}
}

func outcomeWords(o *inspect.Outcome) string {
	var b strings.Builder
	if o.Message != 0 {
		fmt.Fprintf(&b, "message %d", o.Message)
		if o.Topic != "" {
			b.WriteString(" (" + safe(o.Topic) + ")")
		}
		b.WriteString(": ")
	}
	b.WriteString(strings.ReplaceAll(o.Result, "-", " "))
	if o.PacketID != 0 {
		fmt.Fprintf(&b, " as packet %d", o.PacketID)
	}
	if o.QoS != nil {
		fmt.Fprintf(&b, ", QoS %d", *o.QoS)
	}
	if o.Reason != "" {
		b.WriteString(": " + o.Reason)
	}
	return b.String()
}

func writeStory(w io.Writer, s *inspect.Story) {
	if len(s.Fates) > 0 {
		fates := s.Fates
		_, _ = fmt.Fprintln(w)
		if n := len(fates) - fatesShown; n > 0 {
			_, _ = fmt.Fprintf(w, "%s older messages are not listed here\n", number(n))
			fates = fates[n:]
		}
		t := columns(w)
		_, _ = fmt.Fprintln(t, "MESSAGE\tTOPIC\tIN THE END\tSINCE RECORD\tREASON")
		for i := range fates {
			f := &fates[i]
			since := "-"
			if f.At != 0 {
				since = strconv.FormatUint(f.At, 10)
			}
			_, _ = fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\n", f.Message, safe(f.Topic), strings.ReplaceAll(f.Result, "-", " "), since, f.Reason)
		}
		_ = t.Flush() // output keeps its error
	}
	if s.From > 0 {
		_, _ = fmt.Fprintf(w, "\nThe story begins after record %d (%s), with %s; what came before,\nnothing here can tell.\n",
			s.From, s.FromTime, s.Source)
	} else {
		_, _ = fmt.Fprintf(w, "\nReplayed from %s on.\n", s.Source)
	}
	_, _ = fmt.Fprintln(w, "What is not logged leaves no trace: QoS 0 that is not retained, and what passes\nbetween clients whose sessions end with their connection.")
}
