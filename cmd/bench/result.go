package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// ErrChecks is the error of a run whose checks found something.
var ErrChecks = errors.New("bench: messages were lost, doubled, out of order, refused or damaged")

// Result is what a run measured.
type Result struct {
	Mode    Mode     `json:"mode"`
	Target  string   `json:"target"`
	Load    string   `json:"load"` // in words
	Seconds float64  `json:"seconds"`
	Metrics []Metric `json:"metrics"`
	Checks  Tally    `json:"checks"`
	Notes   []string `json:"notes,omitempty"`
}

// Metric is one figure.
type Metric struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// More is true if a larger value is the better one.
	More bool `json:"more_is_better"`
}

// Metric names that several modes share.
const (
	MetricRate = "rate"
	MetricCPU  = "cpu"           // the broker's CPU time, user and system, per message
	MetricSelf = "generator cpu" // the same of this process
)

// Get returns a metric by name.
func (r *Result) Get(name string) (Metric, bool) {
	for _, m := range r.Metrics {
		if m.Name == name {
			return m, true
		}
	}
	return Metric{}, false
}

// Err returns ErrChecks if the checks found something.
func (r *Result) Err() error {
	if r.Checks.ok() {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrChecks, r.Checks)
}

func (t Tally) String() string {
	s := []string{fmt.Sprintf("%d sent, %d received", t.Sent, t.Received)}
	for _, e := range []struct {
		n    uint64
		what string
	}{
		{t.Lost, "lost"},
		{t.Duplicates, "twice"},
		{t.Reordered, "out of order"},
		{t.Foreign, "foreign"},
		{t.Refused, "refused"},
		{t.Downgraded, "of lower QoS"},
	} {
		if e.n > 0 {
			s = append(s, fmt.Sprintf("%d %s", e.n, e.what))
		}
	}
	if t.ok() {
		s = append(s, "nothing lost, twice or out of order")
	}
	return strings.Join(s, ", ")
}

// WriteTable writes the result for people.
func (r *Result) WriteTable(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "%s\t%s\n", r.Mode, r.Load)
	for _, m := range r.Metrics {
		fmt.Fprintf(tw, "%s\t%s\n", m.Name, m)
	}
	if r.Checks != (Tally{}) { // else no message was sent
		fmt.Fprintf(tw, "checks\t%s\n", r.Checks)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(tw, "note\t%s\n", n)
	}
	return tw.Flush()
}

// WriteJSON writes the result for programs, indented.
func (r *Result) WriteJSON(w io.Writer) error {
	return writeJSON(w, r)
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// String is the value with its unit, rounded to three digits or to a whole
// number.
func (m Metric) String() string { return formatValue(m.Value) + " " + m.Unit }

// formatValue rounds to three significant digits, but never away from the
// whole, and groups thousands.
func formatValue(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "-"
	case a >= 100 || v == 0:
		return group3(strconv.FormatFloat(v, 'f', 0, 64))
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

// group3 groups the digits of a whole number: 1 234 567.
func group3(s string) string {
	head := 0
	if strings.HasPrefix(s, "-") {
		head = 1
	}
	for i := len(s) - 3; i > head; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}
