package bench

import (
	"fmt"
	"time"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// subscribeBatch is how many SUBSCRIBE packets a client sends before it waits
// for the answers.
const subscribeBatch = 50

// subscribe makes many wildcard subscriptions and says how fast, what they
// weigh, and how fast messages find theirs among them.
func (l *load) subscribe() (*Result, error) {
	conns, err := l.connectAll(l.o.Clients, "s", l.o.Durable)
	if err != nil {
		return nil, err
	}
	before, known := l.gauge.memory()
	made, err := l.makeSubscriptions(conns)
	if err != nil {
		closeAll(conns)
		return nil, err
	}
	metrics := made.metrics("subscribe ", "subscription")
	if known {
		after, err := l.settledMemory()
		if err != nil {
			closeAll(conns)
			return nil, err
		}
		metrics = append(metrics, Metric{"memory", float64(after-before) / float64(l.o.Subscriptions), "B/subscription", false})
	}
	sinks, err := l.makeMatchers(conns)
	if err != nil {
		return nil, err
	}
	res, err := l.throughput(l.published)
	if err != nil {
		return nil, err
	}
	for i, s := range sinks {
		res.Checks.add(s.stream.tally(uint64(l.publishers[i].sent.Load()), false))
	}
	for i := range res.Metrics {
		res.Metrics[i].Name = "match " + res.Metrics[i].Name
	}
	res.Seconds += made.seconds
	res.Metrics = append(metrics, res.Metrics...)
	return res, nil
}

// share is how many subscriptions client i has: numbers i, i+clients, …
func (l *load) share(i int) int {
	return (l.o.Subscriptions + l.o.Clients - 1 - i) / l.o.Clients
}

func (l *load) makeSubscriptions(conns []*conn) (interval, error) {
	first := l.gauge.sample(0)
	err := parallel(l.ctx, len(conns), len(conns), func(i int) error {
		c := conns[i]
		for done := 0; done < l.share(i); {
			n := min(subscribeBatch, l.share(i)-done)
			if err := l.subscribeSome(c, i, done, n); err != nil {
				return fmt.Errorf("bench: %s subscribes: %w", c.id, err)
			}
			done += n
		}
		return nil
	})
	return between(first, l.gauge.sample(uint64(l.o.Subscriptions))), err
}

// subscribeSome makes n subscriptions of client i, one a packet.
func (l *load) subscribeSome(c *conn, i, from, n int) error {
	b := c.scratch[:0]
	for k := range n {
		pk := subscription(l.o.QoS, l.topic("sub/%0*d/+", numberDigits, (from+k)*l.o.Clients+i))
		pk.PacketID = uint16(k) + 1
		b = pk.AppendTo(b, c.version)
	}
	c.scratch = b
	if err := c.nc.SetDeadline(time.Now().Add(replyTimeout)); err != nil {
		return err
	}
	if _, err := c.nc.Write(b); err != nil {
		return err
	}
	for range n {
		f, err := c.frame()
		if err != nil {
			return err
		}
		if f.Type() != packets.TypeSuback {
			return fmt.Errorf("%s instead of SUBACK", f.Type())
		}
		if err := c.granted(f, l.o.QoS, 1); err != nil {
			return err
		}
		c.consume()
	}
	return c.nc.SetDeadline(time.Time{})
}

// makeMatchers connects a publisher for each client, whose messages go to that
// client's topics in turn. A source's messages to different topics have no
// order that a broker must keep, but it has no reason to change it either.
func (l *load) makeMatchers(conns []*conn) ([]*one, error) {
	pubs, err := l.connectAll(len(conns), "p", false)
	if err != nil {
		closeAll(conns)
		return nil, err
	}
	sinks := make([]*one, len(conns))
	for i := range conns {
		sinks[i] = &one{source: uint32(i)}
		r := l.newReceiver(conns[i], sinks[i])
		topic, at := numbered(l.topic("sub/"))
		p := l.newPublisher(pubs[i], publisherSpec{topic: topic + "/x", number: at, source: uint32(i), qos: l.o.QoS})
		l.newAckReader(p)
		p.group = newGroup(int(p.window))
		p.group.only = p
		r.passed = func(before, after uint64) { p.group.give(int(after - before)) }
		share, clients := uint64(l.share(i)), uint64(l.o.Clients)
		p.choose = func(frame int, seq uint64) {
			p.frames.setTopic(frame, seq%share*clients+uint64(i))
		}
	}
	return sinks, nil
}
