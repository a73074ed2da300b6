package bench

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"time"
)

// CompareOptions say how to run a comparison.
type CompareOptions struct {
	// Quick makes one round of half the duration.
	Quick bool
	// Only, if set, chooses the rows by name.
	Only func(row string) bool
	// Dir is where the brokers' directories are made; empty: the system's
	// temporary directory. Its disk is the one that is measured.
	Dir string
	// Relay is the command that starts a relay, for calibration.
	Relay Command
	// Progress is told what runs now, and how it goes.
	Progress func(step string, p Progress)
}

// Report is the outcome of a comparison.
type Report struct {
	Machine     Machine         `json:"machine"`
	Began       time.Time       `json:"began"`
	Seconds     float64         `json:"seconds"`
	Quick       bool            `json:"quick"`
	Rounds      int             `json:"rounds"`
	Ours        string          `json:"ours"`
	Brokers     []ReportBroker  `json:"brokers"`
	Calibration Calibrations    `json:"calibration,omitempty"`
	Sections    []ReportSection `json:"sections"`
}

// ReportBroker is a broker as it was compared.
type ReportBroker struct {
	Name    string `json:"name"`
	About   string `json:"about"`
	Version string `json:"version"`
	Missing string `json:"missing,omitempty"` // why it did not take part
}

// ReportSection is a table.
type ReportSection struct {
	Title   string      `json:"title"`
	Text    string      `json:"text,omitempty"`
	Layout  string      `json:"layout"`
	Brokers []string    `json:"brokers"` // those that took part
	Rows    []ReportRow `json:"rows"`
}

// ReportRow is a load and what it did to each broker.
type ReportRow struct {
	Name  string          `json:"name"`
	Load  string          `json:"load"`
	Show  []string        `json:"show"`
	Bars  []FileBar       `json:"bars,omitempty"`
	Cells map[string]Cell `json:"cells"` // by broker
}

// Cell is one broker under one load.
type Cell struct {
	Rounds  int      `json:"rounds"`
	Metrics []Metric `json:"metrics"` // medians
	Checks  Tally    `json:"checks"`  // of all rounds
	Notes   []string `json:"notes,omitempty"`
	Error   string   `json:"error,omitempty"` // of the round that failed
}

// get returns a median by the metric's name.
func (c *Cell) get(name string) (Metric, bool) {
	i := slices.IndexFunc(c.Metrics, func(m Metric) bool { return m.Name == name })
	if i < 0 {
		return Metric{}, false
	}
	return c.Metrics[i], true
}

// comparison is a comparison under way.
type comparison struct {
	file    *File
	o       CompareOptions
	report  *Report
	brokers map[string]FileBroker
}

// Compare runs every row of a file against its brokers. Each run has a fresh
// broker; the brokers take turns in each round, so that what the machine does
// besides hits them alike. A broker that fails a row has that in its cell; the
// error is about the comparison itself.
func Compare(ctx context.Context, f *File, o CompareOptions) (*Report, error) {
	c := &comparison{file: f, o: o, brokers: map[string]FileBroker{}}
	machine, err := describeMachine(o.Dir)
	if err != nil {
		return nil, err
	}
	c.report = &Report{Machine: machine, Began: time.Now(), Quick: o.Quick, Rounds: f.Rounds, Ours: f.Ours}
	if o.Quick {
		c.report.Rounds = 1
	}
	for _, b := range f.Brokers {
		c.report.Brokers = append(c.report.Brokers, c.introduce(ctx, b))
	}
	if f.Calibrate && len(o.Relay.Args) > 0 {
		c.report.Calibration, err = Calibrate(ctx, o.Relay, c.duration(0), func(p Progress) { c.tell("calibrating", p) })
		if err != nil {
			return nil, err
		}
	}
	for _, s := range f.Sections {
		rs, err := c.section(ctx, s)
		if err != nil {
			return nil, err
		}
		if len(rs.Rows) > 0 {
			c.report.Sections = append(c.report.Sections, rs)
		}
	}
	c.report.Seconds = time.Since(c.report.Began).Seconds()
	return c.report, nil
}

func (c *comparison) tell(step string, p Progress) {
	if c.o.Progress != nil {
		c.o.Progress(step, p)
	}
}

// duration is that of a run, from the row or the file.
func (c *comparison) duration(row time.Duration) time.Duration {
	d := c.file.Duration
	if row > 0 {
		d = row
	}
	if c.o.Quick {
		d /= 2
	}
	return d
}

// introduce finds a broker's program and its version.
func (c *comparison) introduce(ctx context.Context, b FileBroker) ReportBroker {
	r := ReportBroker{Name: b.Name, About: b.About}
	if _, err := exec.LookPath(b.Command[0]); err != nil {
		r.Missing = err.Error()
		return r
	}
	c.brokers[b.Name] = b
	if len(b.Version) > 0 {
		// Some print it with their help and a code that is not 0.
		out, _ := exec.CommandContext(ctx, b.Version[0], b.Version[1:]...).CombinedOutput()
		r.Version = firstLine(string(out))
	}
	return r
}

func (c *comparison) section(ctx context.Context, s FileSection) (ReportSection, error) {
	rs := ReportSection{Title: s.Title, Text: s.Text, Layout: s.Layout}
	for _, name := range s.Brokers {
		if _, here := c.brokers[name]; here {
			rs.Brokers = append(rs.Brokers, name)
		}
	}
	for _, row := range s.Rows {
		if c.o.Only != nil && !c.o.Only(row.Name) {
			continue
		}
		r, err := c.row(ctx, &row, rs.Brokers)
		if err != nil {
			return rs, err
		}
		rs.Rows = append(rs.Rows, r)
	}
	return rs, nil
}

// row runs one load: round by round, broker by broker.
func (c *comparison) row(ctx context.Context, row *FileRow, brokers []string) (ReportRow, error) {
	o, err := row.options(c.o.Quick)
	if err != nil {
		return ReportRow{}, err
	}
	rr := ReportRow{Name: row.Name, Show: row.Show, Bars: row.Bars, Cells: map[string]Cell{}}
	rounds := c.file.Rounds
	if row.Rounds > 0 {
		rounds = row.Rounds
	}
	if c.o.Quick {
		rounds = 1
	}
	results := map[string][]*Result{}
	for round := range rounds {
		for _, name := range brokers {
			cell := rr.Cells[name]
			if cell.Error != "" {
				continue
			}
			step := fmt.Sprintf("%s: %s, round %d of %d", row.Name, name, round+1, rounds)
			c.tell(step, Progress{Phase: "starting", Done: -1})
			o.Progress = func(p Progress) { c.tell(step, p) }
			res, err := c.run(ctx, row, c.brokers[name], o)
			switch {
			case ctx.Err() != nil:
				return rr, ctx.Err()
			case err != nil:
				cell.Error = firstLine(err.Error())
			default:
				rr.Load = res.Load
				results[name] = append(results[name], res)
				cell.Checks.add(res.Checks)
				cell.Notes = appendNew(cell.Notes, res.Notes)
			}
			rr.Cells[name] = cell
		}
	}
	for name, all := range results {
		cell := rr.Cells[name]
		cell.Rounds, cell.Metrics = len(all), medians(all)
		rr.Cells[name] = cell
	}
	return rr, nil
}

// run starts a broker, puts the load on it and ends it.
func (c *comparison) run(ctx context.Context, row *FileRow, fb FileBroker, o Options) (res *Result, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.file.Limit, fmt.Errorf("given up after %s", c.file.Limit))
	defer cancel()
	b, err := NewBroker(Command{Args: fb.Command, Files: fb.Files}, c.o.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	o.Duration, o.Keep = c.duration(row.Duration), true
	if o.Mode == Restart {
		o.Process = b
	} else {
		if o.PID, o.Target, err = b.Start(); err != nil {
			return nil, err
		}
		if err = b.Ready(ctx); err != nil {
			return nil, err
		}
	}
	if row.probe() {
		o.ProbeDir = b.Dir()
	}
	res, err = Run(ctx, o)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return res, err
}

func appendNew(all, more []string) []string {
	for _, s := range more {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// medians are the medians of each metric over several results.
func medians(all []*Result) []Metric {
	var out []Metric
	for _, m := range all[0].Metrics {
		var values []float64
		for _, r := range all {
			if v, ok := r.Get(m.Name); ok {
				values = append(values, v.Value)
			}
		}
		m.Value = median(values)
		out = append(out, m)
	}
	return out
}

// median of a few values; it sorts them. Of an even number it is the mean of
// the two in the middle.
func median(v []float64) float64 {
	slices.Sort(v)
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// ErrBehind is the error of a comparison in which a bar was not reached.
var ErrBehind = errors.New("bench: a bar was not reached")

// Err returns what is wrong with our own broker: a failed run or a violated
// check (ErrChecks), else a bar that was not reached (ErrBehind).
func (r *Report) Err() error {
	var failed, behind []error
	for _, s := range r.Sections {
		for _, row := range s.Rows {
			cell, here := row.Cells[r.Ours]
			if !here {
				continue
			}
			if cell.Error != "" {
				failed = append(failed, fmt.Errorf("%s: %s", row.Name, cell.Error))
			}
			if !cell.Checks.ok() {
				failed = append(failed, fmt.Errorf("%s: %w: %s", row.Name, ErrChecks, cell.Checks))
			}
			for _, b := range row.Bars {
				if v := row.judge(b, r.Ours); v.known && !v.reached {
					behind = append(behind, fmt.Errorf("%s: %s %s instead of %s", row.Name, b.Metric, v.value, v.bar))
				}
			}
		}
	}
	if len(failed) > 0 {
		return errors.Join(failed...)
	}
	if len(behind) > 0 {
		return fmt.Errorf("%w:\n%w", ErrBehind, errors.Join(behind...))
	}
	return nil
}

// verdict is a bar and whether it was reached.
type verdict struct {
	known, reached bool
	value, bar     string
}

// judge compares a figure of ours with a bar.
func (r *ReportRow) judge(b FileBar, ours string) verdict {
	if b.Against == "" {
		return r.judgeAbsolute(b, ours)
	}
	times, ok := r.ratio(b.Metric, ours, b.Against)
	v := verdict{known: ok}
	if b.Least > 0 {
		v.bar, v.value, v.reached = "≥ "+formatRatio(b.Least), formatRatio(times), times >= b.Least
	} else {
		v.bar, v.value, v.reached = "≤ "+formatRatio(b.Most)+" theirs", formatRatio(1/times), 1/times <= b.Most
	}
	return v
}

func (r *ReportRow) judgeAbsolute(b FileBar, ours string) verdict {
	cell := r.Cells[ours]
	m, ok := cell.get(b.Metric)
	v := verdict{known: ok, value: m.String()}
	if b.Least > 0 {
		v.bar, v.reached = "≥ "+formatValue(b.Least)+" "+m.Unit, m.Value >= b.Least
	} else {
		v.bar, v.reached = "≤ "+formatValue(b.Most)+" "+m.Unit, m.Value <= b.Most
	}
	return v
}

// ratio is how many times better ours is than another broker in a metric.
func (r *ReportRow) ratio(metric, ours, other string) (float64, bool) {
	a, b := r.Cells[ours], r.Cells[other]
	x, ok1 := a.get(metric)
	y, ok2 := b.get(metric)
	if !ok1 || !ok2 || x.Value <= 0 || y.Value <= 0 {
		return 0, false
	}
	if x.More {
		return x.Value / y.Value, true
	}
	return y.Value / x.Value, true
}

// formatRatio is a ratio as people read it: 0.83×, 2.4×, 25×.
func formatRatio(v float64) string {
	switch {
	case v >= 10:
		return fmt.Sprintf("%.0f×", v)
	case v >= 1:
		return fmt.Sprintf("%.1f×", v)
	}
	return fmt.Sprintf("%.2f×", v)
}
