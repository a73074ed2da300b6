package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// ParseTranscript reads a history as Event.String prints it, one event a line;
// blank lines and lines that begin with # are skipped. The tick may be left
// out (each event then follows the one before) and so may the time, which then
// stays where it was. A kept history can so be checked again, and tests can
// write histories by hand.
func ParseTranscript(r io.Reader) ([]Event, error) {
	var events []Event
	var tick uint64
	var at int64
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		e := Event{Tick: tick + 1, At: at}
		if err := e.parse(line); err != nil {
			return nil, fmt.Errorf("torture: transcript line %d: %w", n, err)
		}
		tick, at = e.Tick, e.At
		events = append(events, e)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("torture: read transcript: %w", err)
	}
	return events, nil
}

func (e *Event) parse(line string) error {
	words := strings.Fields(line)
	for len(words) > 0 && (words[0][0] == '@' || strings.HasPrefix(words[0], "at=")) {
		if err := e.field(strings.Replace(words[0], "@", "tick=", 1)); err != nil {
			return err
		}
		words = words[1:]
	}
	if len(words) == 2 && words[0] == "-" {
		return e.kind(words[1])
	}
	if len(words) < 3 {
		return fmt.Errorf("%q: want client#conn, direction, packet", line)
	}
	name, conn, ok := strings.Cut(words[0], "#")
	if !ok {
		return fmt.Errorf("%q: want client#conn", words[0])
	}
	n, err := strconv.ParseUint(conn, 10, 32)
	if err != nil {
		return fmt.Errorf("connection of %q: %w", words[0], err)
	}
	e.Client, e.Conn = name, uint32(n)
	switch words[1] {
	case ">":
		e.Sent = true
	case "<":
	default:
		return fmt.Errorf("direction %q: want > or <", words[1])
	}
	if err := e.kind(words[2]); err != nil {
		return err
	}
	for _, w := range words[3:] {
		if err := e.field(w); err != nil {
			return err
		}
	}
	return nil
}

func (e *Event) kind(name string) error {
	i := slices.Index(kindNames[:], name)
	if i <= 0 {
		return fmt.Errorf("no event %q", name)
	}
	e.Kind = Kind(i)
	return nil
}

// field sets what one word says: a flag, or key=value.
func (e *Event) field(word string) error {
	key, val, _ := strings.Cut(word, "=")
	switch key {
	case "dup":
		e.Dup = true
	case "retain":
		e.Retain = true
	case "clean":
		e.Clean = true
	case "present":
		e.Present = true
	case "graceful":
		e.Graceful = true
	case "clear":
		e.Clear = true
	case "filter":
		e.Filter = val
	case "msg":
		return e.Msg.parse(val)
	default:
		n, err := strconv.ParseUint(val, 0, 64)
		if err != nil {
			return fmt.Errorf("%q: %w", word, err)
		}
		return e.number(key, n)
	}
	return nil
}

func (e *Event) number(key string, n uint64) error {
	switch key {
	case "tick":
		e.Tick = n
	case "at":
		e.At = int64(n)
	case "qos":
		e.QoS = byte(n)
	case "code":
		e.Code = byte(n)
	case "id":
		e.ID = uint16(n)
	case "expiry":
		e.Expiry = uint32(n)
	case "max":
		e.Max = uint16(n)
	default:
		return fmt.Errorf("no field %q", key)
	}
	return nil
}

// parse reads publisher:qos:topic:seq.
func (m *Message) parse(s string) error {
	parts := strings.Split(s, ":")
	if len(parts) != 4 {
		return fmt.Errorf("message %q: want publisher:qos:topic:seq", s)
	}
	qos, err := strconv.ParseUint(parts[1], 10, 8)
	if err != nil || qos > 2 {
		return fmt.Errorf("message %q: bad qos", s)
	}
	seq, err := strconv.ParseUint(parts[3], 10, 32)
	if err != nil {
		return fmt.Errorf("message %q: %w", s, err)
	}
	*m = Message{Stream{parts[0], parts[2], byte(qos)}, uint32(seq)}
	return nil
}
