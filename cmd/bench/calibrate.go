package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Calibration is what one load costs the generator, with nothing to wait for.
type Calibration struct {
	Load      string  `json:"load"`
	Rate      float64 `json:"rate"`          // msg/s
	Generator float64 `json:"generator_cpu"` // µs per message
	Relay     float64 `json:"relay_cpu"`     // µs per message, of the relay
}

// calibrations are the loads that are calibrated.
func calibrations() []Options {
	var all []Options
	for _, c := range []struct {
		mode Mode
		qos  byte
	}{{Pairs, 0}, {Pairs, 1}, {Pairs, 2}, {FanOut, 0}} {
		o, _ := Defaults(c.mode)
		o.QoS = c.qos
		all = append(all, o)
	}
	return all
}

// Calibrations are those of all loads.
type Calibrations []Calibration

// Calibrate runs the generator against a relay, which the command line of
// relay starts (it has to be a process of its own, so that its CPU time is not
// ours), each load for a time.
func Calibrate(ctx context.Context, relay Command, d time.Duration, progress func(Progress)) (Calibrations, error) {
	var all Calibrations
	for _, o := range calibrations() {
		c, err := calibrate(ctx, relay, o, d, progress)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func calibrate(ctx context.Context, relay Command, o Options, d time.Duration, progress func(Progress)) (c Calibration, err error) {
	b, err := NewBroker(relay, "")
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if o.PID, o.Target, err = b.Start(); err != nil {
		return c, err
	}
	if err = b.Ready(ctx); err != nil {
		return c, err
	}
	o.Duration, o.Progress = d, progress
	r, err := Run(ctx, o)
	if err != nil {
		return c, err
	}
	if err := r.Err(); err != nil {
		return c, err
	}
	rate, _ := r.Get(MetricRate)
	self, _ := r.Get(MetricSelf)
	cpu, _ := r.Get(MetricCPU)
	return Calibration{r.Load, rate.Value, self.Value, cpu.Value}, nil
}

// WriteTable writes the calibrations for people.
func (all Calibrations) WriteTable(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "msg/s\tgenerator µs/msg\trelay µs/msg\t  load\n")
	for _, c := range all {
		fmt.Fprintf(tw, "%s\t%s\t%s\t  %s\n", formatValue(c.Rate), formatValue(c.Generator), formatValue(c.Relay), c.Load)
	}
	return tw.Flush()
}

// WriteJSON writes the calibrations for programs, indented.
func (all Calibrations) WriteJSON(w io.Writer) error { return writeJSON(w, all) }
