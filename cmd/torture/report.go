package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// summary prints the figures of a campaign.
func (c *campaign) summary() {
	s := c.journal.Stats()
	found, more := c.journal.Findings()
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "seed\t%d, mode %s\n", c.seed, c.mode)
	fmt.Fprintf(w, "kills\t%d, %d of them with a publish unacknowledged and a QoS 2 handshake open\n", c.kills, c.open)
	fmt.Fprintf(w, "\t%d with a simulated power failure; %d orderly stops\n", c.cuts, c.stops)
	if c.disk != nil {
		fmt.Fprintf(w, "cut at\t%s\n", counted(c.reached))
	}
	fmt.Fprintf(w, "published\t%d messages, %d resent, %d accepted, %d refused\n", s.Published, s.Resent, s.Accepted, s.Rejected)
	fmt.Fprintf(w, "delivered\t%d, of these %d redeliveries and %d QoS 1 duplicates, all with a cause\n",
		s.Delivered, s.Redelivery, s.Duplicates)
	fmt.Fprintf(w, "QoS 2\t%d handshakes completed\n", s.Completed)
	fmt.Fprintf(w, "sessions\t%d resumed, %d SUBACKs and UNSUBACKs, %d wills due\n", s.Sessions, s.Subscribes, s.Wills)
	fmt.Fprintf(w, "retained\t%d looks\n", s.Reads)
	fmt.Fprintf(w, "findings\t%d\n", len(found)+more)
	_ = w.Flush()
}

func printFindings(w io.Writer, found []Finding, more int) {
	const most = 10
	if n := len(found) - most; n > 0 {
		found, more = found[:most], more+n
	}
	for i := range found {
		fmt.Fprintf(w, "FINDING %s\n", found[i].String())
	}
	if more > 0 {
		fmt.Fprintf(w, "... and %d more\n", more)
	}
}

// evidence prints the findings with what bears on the first, and writes the
// whole kept history beside the broker's log and data.
func (c *campaign) evidence() error {
	history := filepath.Join(c.server.dir, "history.txt")
	if err := writeHistory(history, c.journal.Last(c.options.history)); err != nil { // first: whoever reads our output may hang up
		return err
	}
	found, more := c.journal.Findings()
	printFindings(c.out, found, more)
	if len(found) > 0 {
		events := c.journal.Evidence(&found[0])
		fmt.Fprintln(c.out, "history of the first finding:")
		const most = 60
		if n := len(events) - most; n > 0 {
			fmt.Fprintf(c.out, "    (%d earlier events: see the file)\n", n)
			events = events[n:]
		}
		for i := range events {
			fmt.Fprintln(c.out, "   ", events[i].String())
		}
	}
	if tail, err := logTail(filepath.Join(c.server.dir, "broker.log"), 12); err == nil {
		fmt.Fprintf(c.out, "end of the broker's log:\n%s", tail)
	}
	fmt.Fprintf(c.out, "kept: %s (data, broker.log, history.txt); repeat with -seed %d -mode %s\n", c.server.dir, c.seed, c.mode)
	return c.server.log.Close()
}

func writeHistory(file string, events []Event) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("torture: keep history: %w", err)
	}
	w := bufio.NewWriter(f)
	for i := range events {
		fmt.Fprintln(w, events[i].String())
	}
	if err := w.Flush(); err != nil {
		_ = f.Close()
		return fmt.Errorf("torture: keep history: %w", err)
	}
	return f.Close()
}

// logTail returns the last n lines of a file.
func logTail(file string, n int) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n-1):], nil), nil
}

// counted lists names with their counts.
func counted(m map[string]int) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, fmt.Sprintf("%s %d", name, m[name]))
	}
	return strings.Join(list, ", ")
}
