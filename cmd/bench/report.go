package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// WriteJSON writes the report for programs, indented.
func (r *Report) WriteJSON(w io.Writer) error {
	return writeJSON(w, r)
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "%s\n", r.Machine)
	for _, b := range r.Brokers {
		if b.Missing != "" {
			fmt.Fprintf(w, "%s is left out: %s\n", b.Name, b.Missing)
		}
	}
	if len(r.Calibration) > 0 {
		fmt.Fprintf(w, "\nCalibration\n")
		if err := r.Calibration.WriteTable(w); err != nil {
			return err
		}
	}
	for _, s := range r.Sections {
		fmt.Fprintf(w, "\n%s\n", s.Title)
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, line := range r.lines(s) {
			fmt.Fprintln(tw, strings.Join(line, "\t"))
		}
		if err := tw.Flush(); err != nil {
			return err
		}
		for _, n := range s.notes() {
			fmt.Fprintf(w, "  %s\n", n)
		}
	}
	return nil
}

// lines are a section's table, head first.
func (r *Report) lines(s ReportSection) [][]string {
	if s.Layout == LayoutBrokers {
		return s.byBroker()
	}
	others := slices.DeleteFunc(slices.Clone(s.Brokers), func(b string) bool { return b == r.Ours })
	head := append([]string{"load", "figure"}, s.Brokers...)
	for _, o := range others {
		head = append(head, "ratio to "+o)
	}
	out := [][]string{append(head, "must be")}
	for _, row := range s.Rows {
		name := row.Name
		for _, metric := range row.Show {
			line := []string{name, metric}
			name = "" // once
			for _, b := range s.Brokers {
				line = append(line, row.value(b, metric))
			}
			for _, o := range others {
				ratio := "-"
				if v, ok := row.ratio(metric, r.Ours, o); ok {
					ratio = formatRatio(v)
				}
				line = append(line, ratio)
			}
			out = append(out, append(line, row.barText(metric, r.Ours)))
		}
	}
	return out
}

// value is a figure of a broker, or why there is none.
func (r *ReportRow) value(broker, metric string) string {
	cell, here := r.Cells[broker]
	if m, ok := cell.get(metric); ok {
		if !cell.Checks.ok() {
			return m.String() + " (!)"
		}
		return m.String()
	}
	if here && cell.Error != "" {
		return "failed"
	}
	return "-"
}

// barText says what the bars of a metric are and which are missed.
func (r *ReportRow) barText(metric, ours string) string {
	var all []string
	for _, b := range r.Bars {
		if b.Metric != metric {
			continue
		}
		v := r.judge(b, ours)
		switch {
		case !v.known:
			all = append(all, v.bar+" (not measured)")
		case v.reached:
			all = append(all, v.bar)
		default:
			all = append(all, v.bar+" MISSED")
		}
	}
	return strings.Join(all, ", ")
}

// byBroker is the layout with a line a broker and a column a figure.
func (s *ReportSection) byBroker() (out [][]string) {
	for _, row := range s.Rows {
		out = append(out, append([]string{row.Name}, row.Show...))
		for _, b := range s.Brokers {
			line := []string{b}
			for _, metric := range row.Show {
				cell := row.Cells[b]
				text := row.value(b, metric)
				if m, ok := cell.get(metric); ok {
					text = strings.TrimSuffix(strings.TrimSuffix(text, " (!)"), " "+m.Unit)
				}
				line = append(line, text)
			}
			out = append(out, line)
		}
	}
	return out
}

// notes are errors, violated checks and remarks, a line each.
func (s *ReportSection) notes() (out []string) {
	for _, row := range s.Rows {
		for _, b := range s.Brokers {
			cell, here := row.Cells[b]
			if !here {
				continue
			}
			where := fmt.Sprintf("%s, %s: ", row.Name, b)
			if cell.Error != "" {
				out = append(out, where+cell.Error)
			}
			if !cell.Checks.ok() {
				out = append(out, where+"(!) "+cell.Checks.String())
			}
			for _, n := range cell.Notes {
				out = append(out, where+n)
			}
		}
	}
	return out
}

// The generated part of a page stands between these lines.
const (
	generatedBegin = "<!-- bench-compare: begin. Written by `make bench-compare`, do not edit. -->"
	generatedEnd   = "<!-- bench-compare: end -->"
)

// ErrMarkers means that a page has no place for a report.
var ErrMarkers = errors.New("bench: the page has no bench-compare markers")

// Insert returns the page with the report in place of what is between the
// markers.
func (r *Report) Insert(page []byte) ([]byte, error) {
	begin := bytes.Index(page, []byte(generatedBegin))
	end := bytes.Index(page, []byte(generatedEnd))
	if begin < 0 || end < begin {
		return nil, ErrMarkers
	}
	out := slices.Clone(page[:begin+len(generatedBegin)])
	out = append(out, "\n\n"...)
	out = append(out, r.markdown()...)
	return append(out, page[end:]...), nil
}

func (r *Report) markdown() []byte {
	var b bytes.Buffer
	quick := ""
	if r.Quick {
		quick = " This was a quick run of one round: only good to see that it works."
	}
	fmt.Fprintf(&b, "Measured %s in %.0f minutes, medians of %d rounds unless a row says less.%s\n\n",
		r.Began.UTC().Format("2006-01-02 15:04 MST"), r.Seconds/60, r.Rounds, quick)
	fmt.Fprintf(&b, "Machine: %s.\n\n| Broker | Version | |\n|---|---|---|\n", r.Machine)
	for _, br := range r.Brokers {
		about := br.About
		if br.Missing != "" {
			about += " (not installed, left out)"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", br.Name, br.Version, about)
	}
	b.WriteString("\n")
	if len(r.Calibration) > 0 {
		b.WriteString("### The generator's own cost\n\n")
		b.WriteString("Against the built-in relay, which parses, copies and writes, and does nothing else.\n\n")
		b.WriteString("| Load | msg/s | generator | relay |\n|---|--:|--:|--:|\n")
		for _, c := range r.Calibration {
			fmt.Fprintf(&b, "| %s | %s | %s µs/msg | %s µs/msg |\n", c.Load, formatValue(c.Rate), formatValue(c.Generator), formatValue(c.Relay))
		}
		b.WriteString("\n")
	}
	for _, s := range r.Sections {
		fmt.Fprintf(&b, "### %s\n\n", s.Title)
		if s.Text != "" {
			fmt.Fprintf(&b, "%s\n\n", strings.TrimSpace(s.Text))
		}
		r.markdownTable(&b, s)
		for _, n := range s.notes() {
			fmt.Fprintf(&b, "- %s\n", n)
		}
		if len(s.notes()) > 0 {
			b.WriteString("\n")
		}
	}
	return b.Bytes()
}

// markdownTable writes a section's table; with one table a row, each with a
// head of its own.
func (r *Report) markdownTable(b *bytes.Buffer, s ReportSection) {
	tables := [][][]string{r.lines(s)}
	if s.Layout == LayoutBrokers {
		tables = nil
		for _, row := range s.Rows {
			one := s
			one.Rows = []ReportRow{row}
			tables = append(tables, r.lines(one))
		}
	}
	for _, lines := range tables {
		for i, line := range lines {
			fmt.Fprintf(b, "| %s |\n", strings.Join(line, " | "))
			if i == 0 {
				left := 2
				if s.Layout == LayoutBrokers {
					left = 1
				}
				fmt.Fprintf(b, "|%s%s\n", strings.Repeat("---|", left), strings.Repeat("--:|", len(line)-left))
			}
		}
		b.WriteString("\n")
	}
}
