package main

import (
	"fmt"
	"maps"
	"slices"
)

// A stream holds what is known of one publisher's messages to one topic at one
// QoS, from the oldest that is owed to somebody (and a few settled before it).
type stream struct {
	Stream
	base    uint32 // sequence number of msgs[0]
	msgs    []message
	settled int               // how many of msgs, from the front, are settled
	retries map[uint32]uint16 // attempts of messages sent more than once
	will    bool              // wills: no order, and sent by the broker
}

type message struct {
	first    uint64 // tick of the first send
	accepted uint64 // tick of the PUBACK or PUBREC that took it, 0 = none
	done     uint64 // tick from which it cannot be published any more, 0 = open
	need     uint64 // targets it is owed to
	got      uint64 // of these, the ones that have it
	void     bool   // a will that must not be published
}

// outgoing is a PUBLISH of QoS > 0 as its publisher remembers it.
type outgoing struct {
	msg      Message
	received bool // QoS 2: PUBREC came, the message must not be sent again
	released bool // QoS 2: PUBREL sent
}

func (s *stream) get(seq uint32) *message {
	if i := int(int64(seq) - int64(s.base)); i >= 0 && i < len(s.msgs) {
		return &s.msgs[i]
	}
	return nil
}

// attempts returns how often the publisher has sent a message, so how many
// copies of it QoS 1 permits. A QoS 2 message permits one.
func (s *stream) attempts(seq uint32) int {
	if s == nil || s.QoS == 2 {
		return 1
	}
	return max(1, int(s.retries[seq]))
}

func (c *Checker) stream(id Stream) *stream {
	s := c.streams[id]
	if s == nil {
		s = &stream{Stream: id, base: 1, retries: map[uint32]uint16{}}
		c.streams[id] = s
		c.streamList = append(c.streamList, s)
	}
	return s
}

func (c *Checker) publish(p *peer, e *Event) {
	s := c.stream(e.Msg.Stream)
	m := s.get(e.Msg.Seq)
	if m == nil {
		if e.Msg.Seq != s.base+uint32(len(s.msgs)) {
			panic(fmt.Sprintf("torture: history: %s is not the next of its stream", e.Msg))
		}
		s.msgs = append(s.msgs, message{first: e.Tick})
		m = &s.msgs[len(s.msgs)-1]
		c.stats.Published++
		if s.QoS > 0 {
			m.need = c.subscribed(e.Msg.Topic)
			c.each(m.need, func(t *target) { t.pending++ })
		}
	} else {
		s.retries[e.Msg.Seq] = max(1, s.retries[e.Msg.Seq]) + 1
		c.stats.Resent++
	}
	if e.Retain {
		c.retainedSent(e)
	}
	if e.QoS == 0 {
		m.done = e.Tick
		s.settle()
		return
	}
	p.out[e.ID] = &outgoing{msg: e.Msg}
	p.unacked[e.QoS] = append(p.unacked[e.QoS], e.ID)
}

// acknowledged takes PUBACK, PUBREC and PUBCOMP from the broker.
func (c *Checker) acknowledged(p *peer, e *Event) {
	x := p.out[e.ID]
	if x == nil {
		c.finding(p, e, "acknowledgement", "MQTT-4.3.2-2", "%s for identifier %d, which is not in use", e.Kind, e.ID)
		return
	}
	e.Msg = x.msg
	if (e.Kind == Puback) != (x.msg.QoS == 1) {
		c.finding(p, e, "acknowledgement", "MQTT-4.3.3-4", "%s answers a QoS %d publish", e.Kind, x.msg.QoS)
		return
	}
	m := c.stream(x.msg.Stream).get(x.msg.Seq)
	if e.Kind == Pubcomp {
		if !x.released {
			c.finding(p, e, "acknowledgement", "MQTT-4.3.3-11", "PUBCOMP for %s, whose PUBREL was not sent", x.msg)
			return // the client ignores it, too
		}
		c.stats.Completed++
		c.finish(p, e, x, m)
		return
	}
	if x.received {
		c.finding(p, e, "acknowledgement", "MQTT-4.3.3-4", "second PUBREC for %s", x.msg)
		return
	}
	c.inOrder(p, e, x)
	if e.Code >= 0x80 {
		c.stats.Rejected++
		c.each(m.need&^m.got, func(t *target) { t.pending-- })
		m.need &= m.got
		c.finish(p, e, x, m)
		return
	}
	if m.accepted == 0 {
		c.stats.Accepted++
		m.accepted = e.Tick
	}
	x.received = true
	if e.Kind == Puback {
		c.finish(p, e, x, m)
	}
}

// inOrder checks that the broker acknowledges in the order in which it received.
func (c *Checker) inOrder(p *peer, e *Event, x *outgoing) {
	q := p.unacked[x.msg.QoS]
	for i, id := range q {
		if id != e.ID {
			continue
		}
		if i > 0 {
			c.finding(p, e, "acknowledgement", "MQTT-4.6.0-2", "%s for %s overtook the one for %s",
				e.Kind, x.msg, p.out[q[0]].msg)
		}
		p.unacked[x.msg.QoS] = append(q[:i], q[i+1:]...)
		return
	}
}

// finish ends a publish: its identifier is free.
func (c *Checker) finish(p *peer, e *Event, x *outgoing, m *message) {
	delete(p.out, e.ID)
	s := c.stream(x.msg.Stream)
	m.done = e.Tick
	if r := c.retained[x.msg.Topic]; r != nil && e.Code < 0x80 && m.accepted != 0 {
		r.done = max(r.done, x.msg.Seq)
	}
	s.settle()
}

// release notes that the publisher sent PUBREL.
func (c *Checker) release(p *peer, e *Event) {
	if x := p.out[e.ID]; x != nil {
		e.Msg = x.msg
		x.released = true
	}
}

// settle drops the oldest messages that are owed to nobody any more.
func (s *stream) settle() {
	for s.settled < len(s.msgs) {
		if m := &s.msgs[s.settled]; m.done == 0 || m.need&^m.got != 0 {
			break
		}
		s.settled++
	}
	if s.settled > 2*keepSettled {
		n := s.settled - keepSettled
		s.msgs = append(s.msgs[:0], s.msgs[n:]...)
		s.base += uint32(n)
		s.settled = keepSettled
	}
}

func (c *Checker) each(mask uint64, fn func(t *target)) {
	for _, t := range c.targets {
		if mask&t.bit != 0 {
			fn(t)
		}
	}
}

// forgive ends what is owed to t from streams that of selects.
func (c *Checker) forgive(t *target, of func(s *stream) bool) {
	for _, s := range c.streamList {
		if !of(s) {
			continue
		}
		for i := s.settled; i < len(s.msgs); i++ {
			if m := &s.msgs[i]; m.need&^m.got&t.bit != 0 {
				m.need &^= t.bit
				t.pending--
			}
		}
		s.settle()
	}
}

// abandon ends every publish of p that is still open, with unknown outcome.
func (c *Checker) abandon(p *peer) {
	for _, id := range slices.Sorted(maps.Keys(p.out)) {
		x := p.out[id]
		s := c.stream(x.msg.Stream)
		m := s.get(x.msg.Seq)
		if m.accepted == 0 { // nothing was promised
			c.each(m.need&^m.got, func(t *target) { t.pending-- })
			m.need &= m.got
		}
		m.done = c.tick
		s.settle()
		delete(p.out, id)
	}
	p.unacked = [3][]uint16{}
}

func (c *Checker) finishStream(s *stream) {
	for i := range s.msgs {
		m, msg := &s.msgs[i], Message{s.Stream, s.base + uint32(i)}
		if m.done == 0 && !s.will {
			c.report(Finding{
				Rule: "stuck", Statement: "MQTT-4.3.2-4", Client: s.Publisher, Msg: msg,
				Text: fmt.Sprintf("%s, first sent at tick %d, was never acknowledged", msg, m.first),
			})
		}
		if m.accepted == 0 {
			continue
		}
		c.each(m.need&^m.got, func(t *target) {
			c.report(Finding{
				Rule: "lost", Statement: "P1", Client: t.name, Msg: msg,
				Text: fmt.Sprintf("%s, acknowledged at tick %d, never reached %s", msg, m.accepted, t.name),
			})
		})
	}
}
