package bench

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// File says which brokers to compare under which loads.
type File struct {
	// Ours is the broker whose ratios to the others are shown, and whose
	// failures fail the comparison.
	Ours     string        `yaml:"ours"`
	Rounds   int           `yaml:"rounds"`   // runs of each broker for each row; default 3
	Duration time.Duration `yaml:"duration"` // of a run; default 3s
	Limit    time.Duration `yaml:"limit"`    // after which a run is given up; default 2m
	// Calibrate measures the generator first.
	Calibrate bool          `yaml:"calibrate"`
	Brokers   []FileBroker  `yaml:"brokers"`
	Sections  []FileSection `yaml:"sections"`
}

// FileBroker is one broker. {dir} and {port} are filled in: see Command.
type FileBroker struct {
	Name    string            `yaml:"name"`
	About   string            `yaml:"about"` // a line for the page
	Command []string          `yaml:"command"`
	Version []string          `yaml:"version"` // a command whose first line says the version
	Files   map[string]string `yaml:"files"`
}

// FileSection is a table: rows that the same brokers run.
type FileSection struct {
	Title   string    `yaml:"title"`
	Text    string    `yaml:"text"`
	Brokers []string  `yaml:"brokers"`
	Layout  string    `yaml:"layout"` // "ratios" (default), or "brokers": a table a row, a line a broker
	Rows    []FileRow `yaml:"rows"`
}

// The layouts of a section.
const (
	LayoutRatios  = "ratios"
	LayoutBrokers = "brokers"
)

// FileRow is one load.
type FileRow struct {
	Name     string        `yaml:"name"`
	Mode     Mode          `yaml:"mode"`
	Load     FileLoad      `yaml:"load"`
	Quick    FileLoad      `yaml:"quick"` // on top of Load in a quick comparison
	Rounds   int           `yaml:"rounds"`
	Duration time.Duration `yaml:"duration"`
	Show     []string      `yaml:"show"` // names of metrics; default rate and cpu
	Bars     []FileBar     `yaml:"bars"`
}

// FileLoad are the options of a row; what is left out has the mode's default.
type FileLoad struct {
	Version       *int  `yaml:"version"`
	QoS           *int  `yaml:"qos"`
	Size          *int  `yaml:"size"`
	Window        *int  `yaml:"window"`
	Messages      *int  `yaml:"messages"`
	Pairs         *int  `yaml:"pairs"`
	Publishers    *int  `yaml:"publishers"`
	Subscribers   *int  `yaml:"subscribers"`
	Sessions      *int  `yaml:"sessions"`
	Rate          *int  `yaml:"rate"`
	Connections   *int  `yaml:"connections"`
	Topics        *int  `yaml:"topics"`
	Clients       *int  `yaml:"clients"`
	Subscriptions *int  `yaml:"subscriptions"`
	Shared        *bool `yaml:"shared"`
	Durable       *bool `yaml:"durable"`
	Spread        *bool `yaml:"spread"`
	Probe         *bool `yaml:"probe"` // time fdatasync on the broker's disk meanwhile
}

// FileBar is what a figure of ours has to reach: a ratio to another broker, or
// without Against an absolute value.
type FileBar struct {
	Metric  string `yaml:"metric"`
	Against string `yaml:"against"`
	// Least is how many times better ours has to be: our rate by theirs, or
	// their cost by ours. Most is how many times worse it may be. Absolute
	// values are compared as they are.
	Least float64 `yaml:"least"`
	Most  float64 `yaml:"most"`
}

// ParseFile reads a comparison, strictly.
func ParseFile(data []byte) (*File, error) {
	f := &File{Rounds: 3, Duration: 3 * time.Second, Limit: 2 * time.Minute}
	if err := yaml.UnmarshalWithOptions(data, f, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrOptions, yaml.FormatError(err, false, true))
	}
	return f, f.validate()
}

// ReadFile reads a comparison from a file.
func ReadFile(path string) (*File, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := ParseFile(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func (f *File) validate() error {
	var wrong []error
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	var names []string
	for _, b := range f.Brokers {
		if b.Name == "" || len(b.Command) == 0 || slices.Contains(names, b.Name) {
			add("broker %q: a name of its own and a command are needed", b.Name)
		}
		names = append(names, b.Name)
	}
	if !slices.Contains(names, f.Ours) {
		add("ours: %q is not among the brokers", f.Ours)
	}
	if f.Rounds < 1 || f.Duration <= 0 || f.Limit <= 0 {
		add("rounds, duration and limit have to be positive")
	}
	for i := range f.Sections {
		s := &f.Sections[i]
		if s.Layout == "" {
			s.Layout = LayoutRatios
		}
		if s.Layout != LayoutRatios && s.Layout != LayoutBrokers {
			add("section %q: layout %q is neither ratios nor brokers", s.Title, s.Layout)
		}
		for _, b := range s.Brokers {
			if !slices.Contains(names, b) {
				add("section %q: no broker %q", s.Title, b)
			}
		}
		for j := range s.Rows {
			wrong = append(wrong, s.Rows[j].complete(s)...)
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%w: %w", ErrOptions, errors.Join(wrong...))
	}
	return nil
}

// complete fills a row's defaults and says what is wrong with it.
func (r *FileRow) complete(s *FileSection) (wrong []error) {
	add := func(format string, args ...any) {
		wrong = append(wrong, fmt.Errorf("row %q: "+format, append([]any{r.Name}, args...)...))
	}
	if len(r.Show) == 0 {
		r.Show = []string{MetricRate, MetricCPU}
	}
	for _, quick := range []bool{false, true} {
		o, err := r.options(quick)
		if err == nil {
			o.Target, o.Process = "checked later", (*Broker)(nil)
			_, err = o.complete()
		}
		if err != nil {
			add("%w", err)
			break
		}
	}
	for _, b := range r.Bars {
		if !slices.Contains(r.Show, b.Metric) {
			add("a bar for %q, which is not shown", b.Metric)
		}
		if b.Against != "" && !slices.Contains(s.Brokers, b.Against) {
			add("a bar against %q, which is not in the section", b.Against)
		}
		if (b.Least > 0) == (b.Most > 0) {
			add("the bar for %q needs either least or most", b.Metric)
		}
	}
	return wrong
}

// options are the row's options, with neither target nor process.
func (r *FileRow) options(quick bool) (Options, error) {
	o, ok := Defaults(r.Mode)
	if !ok {
		return o, fmt.Errorf("unknown mode %q", r.Mode)
	}
	r.Load.apply(&o)
	if quick {
		r.Quick.apply(&o)
	}
	return o, nil
}

func (l *FileLoad) apply(o *Options) {
	for _, f := range []struct{ from, to *int }{
		{l.Size, &o.Size},
		{l.Window, &o.Window},
		{l.Messages, &o.Messages},
		{l.Pairs, &o.Pairs},
		{l.Publishers, &o.Publishers},
		{l.Subscribers, &o.Subscribers},
		{l.Sessions, &o.Sessions},
		{l.Rate, &o.Rate},
		{l.Connections, &o.Connections},
		{l.Topics, &o.Topics},
		{l.Clients, &o.Clients},
		{l.Subscriptions, &o.Subscriptions},
	} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	for _, f := range []struct{ from, to *bool }{{l.Shared, &o.Shared}, {l.Durable, &o.Durable}, {l.Spread, &o.Spread}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	if l.Version != nil {
		o.Version = packets.Version(*l.Version)
	}
	if l.QoS != nil {
		o.QoS = byte(*l.QoS)
	}
}

// probe reports whether the row wants the disk timed.
func (r *FileRow) probe() bool { return r.Load.Probe != nil && *r.Load.Probe }
