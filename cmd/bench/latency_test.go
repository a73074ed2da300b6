package bench

import (
	"os"
	"testing"
	"time"
)

func metricsOf(ms []Metric) map[string]float64 {
	m := map[string]float64{}
	for _, e := range ms {
		m[e.Name] = e.Value
	}
	return m
}

func TestTimingQuantiles(t *testing.T) {
	a, b := newTiming(), newTiming()
	for i := 1; i <= 1000; i++ {
		h := a
		if i%2 == 0 {
			h = b
		}
		h.record(time.Duration(i) * time.Millisecond)
	}
	a.merge(b)
	m := metricsOf(a.metrics(""))
	for name, want := range map[string]float64{"p50": 500, "p99": 990, "p99.9": 999, "max": 1000} {
		if got := m[name]; got < want*0.999 || got > want*1.002 {
			t.Errorf("%s = %v ms, want %v", name, got, want)
		}
	}
	out := newTiming()
	out.record(-time.Second)
	out.record(time.Hour)
	if n := out.h.TotalCount(); n != 2 {
		t.Errorf("%d of 2 values out of range are counted", n)
	}
}

// Messages that were due during a stall are charged with the wait, each from
// its own time: no coordinated omission.
func TestLatencyCountsFromDue(t *testing.T) {
	const messages = 1000
	s := &schedule{start: time.Now().Add(-messages * time.Millisecond), pairs: 2, every: time.Millisecond}
	sink := &timed{one: one{source: 1}, schedule: s, from: s.start, timing: newTiming()}
	// A broker that woke up now delivers all of the last second at once.
	for seq := range uint64(messages / 2) {
		if !sink.take(&delivery{source: 1, seq: seq}) {
			t.Fatal("refused")
		}
	}
	m := metricsOf(sink.timing.metrics(""))
	if m["p50"] < 499 || m["p99"] < 980 || m["max"] < 998 {
		t.Errorf("half of the messages waited more than half a second, got %v", m)
	}
	if got := s.due(1, 10); !got.Equal(s.start.Add(21 * time.Millisecond)) {
		t.Errorf("due %v after the start", got.Sub(s.start))
	}
}

func TestWarmupIsLeftOut(t *testing.T) {
	now := time.Now()
	s := &schedule{start: now.Add(-time.Second), pairs: 1, every: time.Millisecond}
	sink := &timed{schedule: s, from: now.Add(-100 * time.Millisecond), timing: newTiming()}
	for seq := range uint64(1000) {
		sink.take(&delivery{seq: seq})
	}
	if n := sink.timing.h.TotalCount(); n != 100 {
		t.Errorf("%d messages timed, 100 were due after the warm-up", n)
	}
}

func TestExact(t *testing.T) {
	at := time.Now().Add(3 * time.Millisecond)
	exact(at)
	if time.Now().Before(at) {
		t.Error("too early")
	}
	exact(at) // in the past: returns
}

func TestProbe(t *testing.T) {
	dir := t.TempDir()
	p, err := startProbe(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := startProbe(dir + "/none"); err == nil {
		t.Error("a probe in a directory that is not there")
	}
}
