package bench

import "time"

// gauge reads what a process used, of the broker and of this process.
type gauge struct {
	pid int // the broker's; 0: unknown
}

// sample is the state of a run at one moment.
type sample struct {
	at     time.Time
	count  uint64 // messages
	broker time.Duration
	self   time.Duration
	known  bool // broker is
}

func (g gauge) sample(count uint64) sample {
	s := sample{at: time.Now(), count: count, self: selfCPU()}
	if g.pid > 0 {
		if cpu, err := processCPU(g.pid); err == nil {
			s.broker, s.known = cpu, true
		}
	}
	return s
}

// interval is what lies between two samples.
type interval struct {
	seconds float64
	count   uint64
	broker  time.Duration
	self    time.Duration
	known   bool
}

func between(a, b sample) interval {
	return interval{
		seconds: b.at.Sub(a.at).Seconds(), count: b.count - a.count,
		broker: b.broker - a.broker, self: b.self - a.self, known: a.known && b.known,
	}
}

// metrics are rate and CPU time per message; prefix goes before the names and
// what is counted is a message, a connection …
func (i interval) metrics(prefix, what string) []Metric {
	n := float64(i.count)
	if n == 0 || i.seconds <= 0 {
		return nil
	}
	out := []Metric{{prefix + MetricRate, n / i.seconds, what + "/s", true}}
	if i.known {
		out = append(out, Metric{prefix + MetricCPU, micros(i.broker) / n, "µs/" + what, false})
	}
	if i.self > 0 {
		out = append(out, Metric{prefix + MetricSelf, micros(i.self) / n, "µs/" + what, false})
	}
	return out
}

// cores is how much of how many processors the broker used.
func (i interval) cores() []Metric {
	if !i.known || i.seconds <= 0 {
		return nil
	}
	return []Metric{{"broker load", i.broker.Seconds() / i.seconds, "cores", false}}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// memory returns the broker's anonymous resident memory in bytes.
func (g gauge) memory() (int64, bool) {
	if g.pid == 0 {
		return 0, false
	}
	n, err := processMemory(g.pid)
	return n, err == nil
}
