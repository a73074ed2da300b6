package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Latencies are recorded in nanoseconds from a microsecond to a minute, to
// three digits.
const (
	latencyLeast = int64(time.Microsecond)
	latencyMost  = int64(time.Minute)
	latencyDigit = 3
)

// timing is a histogram of durations. Not for concurrent use.
type timing struct{ h *hdrhistogram.Histogram }

func newTiming() timing {
	return timing{hdrhistogram.New(latencyLeast, latencyMost, latencyDigit)}
}

// record notes a duration; what is out of range counts as the bound.
func (t timing) record(d time.Duration) {
	_ = t.h.RecordValue(min(max(int64(d), 0), latencyMost)) // in range: no error
}

func (t timing) merge(o timing) { t.h.Merge(o.h) }

// metrics are the quantiles that matter, in milliseconds.
func (t timing) metrics(prefix string) []Metric {
	ms := func(v int64) float64 { return float64(v) / float64(time.Millisecond) }
	return []Metric{
		{prefix + "p50", ms(t.h.ValueAtQuantile(50)), "ms", false},
		{prefix + "p99", ms(t.h.ValueAtQuantile(99)), "ms", false},
		{prefix + "p99.9", ms(t.h.ValueAtQuantile(99.9)), "ms", false},
		{prefix + "max", ms(t.h.Max()), "ms", false},
	}
}

// schedule says when message seq of pair i is due: the pairs take turns.
type schedule struct {
	start time.Time
	pairs int
	every time.Duration // between two messages of all pairs together
}

func (s *schedule) due(pair int, seq uint64) time.Time {
	return s.start.Add(time.Duration(seq*uint64(s.pairs)+uint64(pair)) * s.every)
}

// timed is the sink of a receiver that times its messages, from when they were
// due to now.
type timed struct {
	one
	schedule *schedule
	from     time.Time // what was due before is warm-up
	timing   timing
}

func (t *timed) take(d *delivery) bool {
	if !t.one.take(d) {
		return false
	}
	if due := t.schedule.due(int(d.source), d.seq); !due.Before(t.from) {
		t.timing.record(time.Since(due))
	}
	return true
}

// latency sends at a fixed rate whatever the broker does, and times each
// message from when it was due until it arrived.
func (l *load) latency() (*Result, error) {
	sinks, err := l.makePairs()
	if err != nil {
		return nil, err
	}
	s := &schedule{
		start: time.Now().Add(50 * time.Millisecond), pairs: l.o.Pairs,
		every: time.Second / time.Duration(l.o.Rate),
	}
	timeds := make([]*timed, len(sinks))
	for i, r := range l.receivers {
		timeds[i] = &timed{one: *sinks[i], schedule: s, from: s.start.Add(l.o.Warmup), timing: newTiming()}
		r.sink = timeds[i]
	}
	for _, p := range l.publishers {
		p.due = new(atomic.Int64)
		p.least = 1
		p.window = int64(p.c.receiveMaximum) // the rate is the only bound
	}
	probe, err := startProbe(l.o.ProbeDir)
	if err != nil {
		return nil, err
	}
	l.begin()
	lag := newTiming()
	paced := make(chan struct{})
	go func() {
		defer close(paced)
		l.pace(s, lag)
	}()
	first, last, err := l.measured(l.received)
	l.stopped.Store(true)
	<-paced
	if err == nil {
		err = l.drain(l.published)
	}
	if err = errors.Join(l.stalled(err), probe.stop()); err != nil {
		return nil, err
	}
	l.closeConns()
	all := newTiming()
	res := &Result{Checks: l.checks()}
	for i, t := range timeds {
		all.merge(t.timing)
		res.Checks.add(t.stream.tally(uint64(l.publishers[i].sent.Load()), false))
	}
	i := between(first, last)
	res.Seconds = i.seconds
	res.Metrics = append(all.metrics(""), i.metrics("", "msg")...)
	res.Metrics = append(res.Metrics, lag.metrics("send lag ")...)
	res.Metrics = append(res.Metrics, probe.metrics()...)
	return res, nil
}

// pace makes message after message due, each at its time. lag is how late it
// was itself; that time is part of the latency, whoever is to blame.
func (l *load) pace(s *schedule, lag timing) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for k := 0; !l.stopped.Load(); k++ {
		at := s.due(0, 0).Add(time.Duration(k) * s.every)
		exact(at)
		lag.record(time.Since(at))
		p := l.publishers[k%len(l.publishers)]
		p.due.Add(1)
		p.pump()
	}
}

// probeEvery is the time between two syncs of the probe: rare enough not to
// load the disk.
const probeEvery = 10 * time.Millisecond

// A probe times fdatasync of a small file, to tell a slow broker from a slow
// disk.
type probe struct {
	file   *os.File
	quit   chan struct{}
	done   chan error
	timing timing
}

// startProbe starts a probe in dir; an empty dir is none.
func startProbe(dir string) (*probe, error) {
	if dir == "" {
		return nil, nil
	}
	f, err := os.Create(filepath.Join(dir, "bench-sync-probe"))
	if err != nil {
		return nil, fmt.Errorf("bench: probe: %w", err)
	}
	p := &probe{file: f, quit: make(chan struct{}), done: make(chan error, 1), timing: newTiming()}
	go func() { p.done <- p.run() }()
	return p, nil
}

func (p *probe) run() error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	block := make([]byte, 4096)
	for {
		select {
		case <-p.quit:
			return nil
		case <-tick.C:
		}
		if _, err := p.file.Write(block); err != nil {
			return fmt.Errorf("bench: probe: %w", err)
		}
		start := time.Now()
		if err := syncData(p.file); err != nil {
			return fmt.Errorf("bench: probe: %w", err)
		}
		p.timing.record(time.Since(start))
	}
}

// stop ends the probe and removes its file.
func (p *probe) stop() error {
	if p == nil {
		return nil
	}
	close(p.quit)
	return errors.Join(<-p.done, p.file.Close(), os.Remove(p.file.Name()))
}

func (p *probe) metrics() []Metric {
	if p == nil {
		return nil
	}
	return p.timing.metrics("fdatasync ")
}
