package bench

import (
	"errors"
	"fmt"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// retained sets retained messages, then gets them all by wildcard.
func (l *load) retained() (*Result, error) {
	before, known := l.gauge.memory()
	set, err := l.setRetained()
	if err != nil {
		return nil, err
	}
	res := &Result{Metrics: set.metrics("set ", "msg")}
	if known {
		after, err := l.settledMemory()
		if err != nil {
			return nil, err
		}
		res.Metrics = append(res.Metrics, Metric{"memory", float64(after-before) / float64(l.o.Topics), "B/topic", false})
	}
	get, err := l.getRetained(l.o.Clients, &res.Checks)
	if err != nil {
		return nil, err
	}
	res.Seconds = set.seconds + get.seconds
	res.Metrics = append(res.Metrics, get.metrics("get ", "msg")...)
	res.Checks.add(l.checks())
	return res, l.clearRetained()
}

func (l *load) setRetained() (interval, error) {
	if err := l.makeStorers("keep", l.o.Topics, true); err != nil {
		return interval{}, err
	}
	return l.untilConfirmed("setting", l.o.Topics)
}

// getRetained subscribes clients to everything that setRetained has set and
// waits until each has it.
func (l *load) getRetained(clients int, t *Tally) (interval, error) {
	conns, err := l.connectAll(clients, "get", false)
	if err != nil {
		return interval{}, err
	}
	sinks := make([]*retainedSink, clients)
	mine := len(l.receivers)
	for i, c := range conns {
		sinks[i] = &retainedSink{
			seen: make([]uint64, (l.o.Topics+63)/64), publishers: uint64(l.o.Publishers), topics: uint64(l.o.Topics),
		}
		r := l.newReceiver(c, sinks[i])
		r.buffer = readBufferMany
		r.subscribed = true
	}
	got := func() (n uint64) {
		for _, r := range l.receivers[mine:] {
			n += uint64(r.count.Load())
		}
		return n
	}
	total := uint64(l.o.Topics) * uint64(clients)
	first := l.gauge.sample(0)
	for _, r := range l.receivers[mine:] {
		r.start()
		if err := r.c.send(subscription(l.o.QoS, l.topic("keep/#"))); err != nil {
			return interval{}, err
		}
	}
	err = l.stalled(l.wait("getting", total, got, func() bool { return got() >= total }))
	last := l.gauge.sample(got())
	if err != nil {
		return interval{}, err
	}
	l.closeConns()
	l.closing.Store(false)
	for _, s := range sinks {
		t.add(s.tally())
	}
	return between(first, last), nil
}

// clearRetained removes what setRetained has set, unless it is to be kept.
func (l *load) clearRetained() error {
	if l.o.Keep {
		return nil
	}
	c, err := l.dialer.connect(l.ctx, login{id: l.id("clear", 0)})
	if err != nil {
		return err
	}
	return errors.Join(l.clearTopics(c), c.nc.Close())
}

// clearTopics sends an empty retained message to each topic, then waits for a
// ping, before which the broker has read them.
func (l *load) clearTopics(c *conn) error {
	prefix, _ := numbered(l.topic("keep/"))
	prefix = prefix[:len(prefix)-numberDigits]
	pk := packets.Publish{Retain: true}
	var b []byte
	for n := range l.o.Topics {
		pk.Topic = fmt.Appendf(pk.Topic[:0], "%s%0*d/%d", prefix, numberDigits, n, n%l.o.Publishers)
		if b = pk.AppendTo(b, c.version); len(b) < batchBytes && n < l.o.Topics-1 {
			continue
		}
		if _, err := c.nc.Write(b); err != nil {
			return fmt.Errorf("bench: clear retained: %w", err)
		}
		b = b[:0]
	}
	_, err := c.call(&packets.Ping{Type: packets.TypePingreq}, packets.TypePingresp)
	return err
}

// retainedSink checks that each retained topic comes once. They come in any
// order.
type retainedSink struct {
	seen               []uint64 // a bit a topic
	publishers, topics uint64
	received, twice    uint64
}

func (s *retainedSink) take(d *delivery) bool {
	n := d.seq*s.publishers + uint64(d.source)
	if uint64(d.source) >= s.publishers || n >= s.topics {
		return false
	}
	if word, bit := &s.seen[n/64], uint64(1)<<(n%64); *word&bit == 0 {
		*word |= bit
		s.received++
	} else {
		s.twice++
	}
	return true
}

func (s *retainedSink) tally() Tally {
	return Tally{Received: s.received, Duplicates: s.twice, Lost: s.topics - s.received}
}
