package bench

import (
	"fmt"
	"slices"
	"time"
)

// stresser does what the program mqtt-stresser does, of which comqtt v2 and
// others publish figures: each client is a publisher and a subscriber. The
// publisher sends its messages one write at a time at QoS 0, and only then does
// the subscriber begin to read. Publish rate is messages by the time the
// writes took; receive rate is messages by the time from then to the last one.
// Of all clients the fastest, the median and the slowest are shown.
func (l *load) stresser() (*Result, error) {
	l.o.QoS = 0
	sinks, err := l.makePairs()
	if err != nil {
		return nil, err
	}
	n := uint64(l.o.Messages)
	publish, receive := make([]float64, len(sinks)), make([]float64, len(sinks))
	first := l.gauge.sample(0)
	err = parallel(l.ctx, len(sinks), len(sinks), func(i int) error {
		p, r := l.publishers[i], l.receivers[i]
		start := time.Now()
		for seq := range n {
			if _, err := p.c.nc.Write(p.frames.prepare(seq, 1)); err != nil {
				return fmt.Errorf("bench: %s publishes: %w", p.c.id, err)
			}
		}
		sent := time.Now()
		p.sent.Store(int64(n))
		publish[i] = float64(n) / sent.Sub(start).Seconds()
		done := make(chan struct{})
		r.passed = func(_, after uint64) {
			if after == n {
				close(done)
			}
		}
		r.start()
		if err := l.untilQuiet(r, done); err != nil {
			return err
		}
		receive[i] = float64(r.count.Load()) / time.Since(sent).Seconds()
		return nil
	})
	i := between(first, l.gauge.sample(l.received()))
	if err != nil {
		return nil, err
	}
	l.closeConns()
	res := &Result{Seconds: i.seconds, Checks: l.checks()}
	for _, s := range sinks {
		res.Checks.add(s.stream.tally(n, false))
	}
	res.Metrics = slices.Concat(spread3("publish ", publish), spread3("receive ", receive), i.metrics("", "msg"))
	return res, nil
}

// untilQuiet waits until a receiver is done, or gets nothing any more: what is
// missing then is lost.
func (l *load) untilQuiet(r *receiver, done <-chan struct{}) error {
	tick := time.NewTicker(l.o.waits.stall)
	defer tick.Stop()
	for last := int64(-1); ; {
		select {
		case <-done:
			return nil
		case <-l.failed:
			return l.err
		case <-l.ctx.Done():
			return l.ctx.Err()
		case <-tick.C:
		}
		n := r.count.Load()
		if n == last {
			return nil
		}
		last = n
	}
}

// spread3 is the fastest, the median and the slowest of rates.
func spread3(prefix string, rates []float64) []Metric {
	slices.Sort(rates)
	n := len(rates)
	return []Metric{
		{prefix + "fastest", rates[n-1], "msg/s", true},
		{prefix + "median", (rates[(n-1)/2] + rates[n/2]) / 2, "msg/s", true},
		{prefix + "slowest", rates[0], "msg/s", true},
	}
}
