package main

import "fmt"

type deliveryState byte

const (
	deliveryOpen     deliveryState = iota // PUBLISH came, nothing answered
	deliveryReceived                      // QoS 2: PUBREC sent
	deliveryReleased                      // QoS 2: PUBREL came
	deliveryDone                          // PUBACK or PUBCOMP sent
)

// incoming is a delivery of QoS > 0 as the client remembers it, by identifier.
type incoming struct {
	msg   Message
	qos   byte
	state deliveryState
	order uint64 // place among the fresh deliveries to this client
	conn  uint32 // connection on which the PUBLISH came last
	rel   uint32 // connection on which PUBREL came last
	sent  uint32 // connection on which the client answered last
	sure  bool   // the broker has read the last answer, and was not killed since
	// lapsed says that the session may have been replaced by a new one since.
	lapsed bool
	vague  bool // a redelivery or a second copy, nobody can tell: no order to check
}

// delivery judges a PUBLISH from the broker.
func (c *Checker) delivery(p *peer, e *Event) {
	if e.Retain {
		c.retainedValue(p, e)
		return
	}
	if p.reader() && p.floors != nil { // only what it means for retained values counts
		p.live[e.Msg.Topic] = max(p.live[e.Msg.Topic], e.Msg.Seq)
		return
	}
	s := c.streams[e.Msg.Stream]
	if s == nil || e.Msg.Seq >= s.base+uint32(len(s.msgs)) {
		c.finding(p, e, "payload", "MQTT-3.3.1-8", "%s was never published", e.Msg)
		return
	}
	sub := c.entitlement(p, e, s)
	if m := s.get(e.Msg.Seq); m != nil && m.void {
		c.finding(p, e, "will", "MQTT-3.14.4-3", "will %s was published although DISCONNECT had been read", e.Msg)
	}
	c.quota(p, e)
	if e.QoS == 0 {
		c.plain(p, e, s)
	} else if x := p.in[e.ID]; x != nil && !x.lapsed && (x.state == deliveryOpen || x.state == deliveryReceived) {
		if !c.again(p, e, x) {
			return
		}
	} else {
		c.fresh(p, e, s, x)
	}
	c.reached(p, e, s, sub)
}

// entitlement finds the subscription that explains the delivery and checks QoS.
func (c *Checker) entitlement(p *peer, e *Event, s *stream) *subscription {
	first, last := uint64(0), c.tick
	m := s.get(e.Msg.Seq)
	if m == nil {
		first = c.tick // long settled: when it was published is forgotten
		for _, sub := range p.subList {
			if matches(sub.match, e.Msg.Topic) {
				return sub
			}
		}
	} else {
		first = m.first
		if m.done != 0 {
			last = m.done
		}
	}
	sub := p.entitled(e.Msg.Topic, first, last)
	if sub == nil {
		c.finding(p, e, "subscription", "MQTT-3.10.4-2",
			"%s was published (ticks %d to %d) while no subscription of this session could match", e.Msg, first, last)
		return nil
	}
	if want := min(e.Msg.Stream.QoS, sub.qos); e.QoS != want {
		c.finding(p, e, "qos", "MQTT-3.8.4-8", "%s came at QoS %d, the subscription says %d", e.Msg, e.QoS, want)
	}
	return sub
}

// plain judges a QoS 0 delivery: at most once for each time it was sent.
func (c *Checker) plain(p *peer, e *Event, s *stream) {
	if e.Dup {
		c.finding(p, e, "redelivery", "MQTT-3.3.1-2", "%s at QoS 0 has DUP set", e.Msg)
	}
	c.copies(p, e, s)
}

// quota counts the deliveries that the client has not finished on this
// connection: never more than the Receive Maximum of its CONNECT.
func (c *Checker) quota(p *peer, e *Event) {
	if e.QoS == 0 {
		return
	}
	p.flight[e.ID] = struct{}{}
	if p.max > 0 && len(p.flight) > int(p.max) {
		c.finding(p, e, "quota", "MQTT-3.3.4-9", "%d deliveries in flight, the receive maximum is %d", len(p.flight), p.max)
	}
}

// again judges a PUBLISH whose identifier the client still holds: only a
// redelivery of the same message after a reconnect can be that. It reports
// whether it was.
func (c *Checker) again(p *peer, e *Event, x *incoming) bool {
	switch {
	case x.msg != e.Msg:
		c.finding(p, e, "identifier", "MQTT-2.2.1-4", "identifier %d was given to %s while it belongs to %s", e.ID, e.Msg, x.msg)
		return false
	case x.qos != e.QoS:
		c.finding(p, e, "qos", "MQTT-4.4.0-1", "%s came at QoS %d, at first at QoS %d", e.Msg, e.QoS, x.qos)
	case x.conn == e.Conn:
		c.finding(p, e, "redelivery", "MQTT-4.4.0-1", "%s was sent again although the connection did not change", e.Msg)
	case !e.Dup:
		c.finding(p, e, "redelivery", "MQTT-3.3.1-1", "%s was sent again without DUP", e.Msg)
	}
	if x.state == deliveryReceived && x.sure {
		c.finding(p, e, "redelivery", "MQTT-4.3.3-5", "%s was sent again although the broker had its PUBREC", e.Msg)
	}
	c.redelivered(p, e, x)
	if e.QoS == 1 {
		c.copies(p, e, c.streams[e.Msg.Stream])
	}
	return true
}

// redelivered checks that messages come again in the order in which they came
// first [MQTT-4.6.0-1], and before anything newer.
func (c *Checker) redelivered(p *peer, e *Event, x *incoming) {
	c.stats.Redelivery++
	if !x.vague {
		if x.order < p.cursor {
			c.finding(p, e, "redelivery", "MQTT-4.6.0-6", "%s was sent again after a message that came later", e.Msg)
		}
		p.cursor = max(p.cursor, x.order)
	}
	x.conn, x.sure = e.Conn, false
	delete(p.stale, e.ID)
}

// fresh judges a PUBLISH under an identifier that the client considers free. x
// is the delivery that had it before, nil if there was none.
func (c *Checker) fresh(p *peer, e *Event, s *stream, x *incoming) {
	single := s.attempts(e.Msg.Seq) == 1
	before := seen(p.seen, e.Msg.Stream).has(e.Msg.Seq)
	same := x != nil && x.msg == e.Msg && x.conn != e.Conn
	if same && x.lapsed { // so it was the old session after all
		c.redelivered(p, e, x)
		x.lapsed = false
		if x.qos == 1 {
			x.state = deliveryOpen
		}
		return
	}
	if e.QoS == 2 && before {
		c.finding(p, e, "duplicate-qos2", "P3", "%s was delivered twice%s", e.Msg, c.held(p, e))
		return
	}
	if e.QoS == 1 {
		c.copies(p, e, s)
	}
	if before && single && same { // acknowledged, but the PUBACK may be lost
		switch {
		case !e.Dup:
			c.finding(p, e, "redelivery", "MQTT-3.3.1-1", "%s was sent again without DUP", e.Msg)
		case x.sure:
			c.finding(p, e, "duplicate-qos1", "MQTT-4.3.2-2",
				"%s was sent again although its PUBACK was read, before an orderly end and without a kill", e.Msg)
		}
		c.redelivered(p, e, x)
		x.state = deliveryOpen
		return
	}
	sub := p.entitled(e.Msg.Topic, 0, c.tick)
	if before && single && (sub == nil || sub.group == nil) {
		c.finding(p, e, "identifier", "MQTT-4.4.0-1", "%s came again under the new identifier %d%s", e.Msg, e.ID, c.held(p, e))
	}
	if m := s.get(e.Msg.Seq); e.Dup && m != nil && m.first > p.since && !s.will {
		c.finding(p, e, "redelivery", "MQTT-3.3.1-3", "%s has DUP set, but was first published after this connection began", e.Msg)
	}
	if !before || single { // otherwise it may be the first copy, acknowledged but sent again
		c.overtaken(p, e)
	}
	p.order++
	vague := before && same && e.Dup
	if !vague {
		p.cursor = p.order
	}
	p.in[e.ID] = &incoming{msg: e.Msg, qos: e.QoS, order: p.order, conn: e.Conn, vague: vague}
	p.under[e.Msg] = e.ID
	if x != nil && p.under[x.msg] == e.ID && x.msg != e.Msg {
		delete(p.under, x.msg)
	}
}

// held says under which identifier the message came before, for a finding.
func (c *Checker) held(p *peer, e *Event) string {
	id, ok := p.under[e.Msg]
	if !ok {
		return ", and its first identifier had been given to another message since"
	}
	switch x := p.in[id]; x.state {
	case deliveryOpen:
		return fmt.Sprintf(", first as %d, which was not acknowledged", id)
	case deliveryReceived:
		return fmt.Sprintf(", first as %d, for which PUBREC had been sent", id)
	case deliveryReleased:
		return fmt.Sprintf(", first as %d, for which PUBREL had come", id)
	default:
		return fmt.Sprintf(", first as %d, which had been acknowledged", id)
	}
}

// overtaken finds an earlier message of the same stream that the client has not
// acknowledged and that the broker has not sent again on this connection.
func (c *Checker) overtaken(p *peer, e *Event) {
	var first *incoming
	for _, x := range p.stale {
		if x.msg.Stream == e.Msg.Stream && x.msg.Seq < e.Msg.Seq && (first == nil || x.order < first.order) {
			first = x
		}
	}
	if first != nil {
		c.finding(p, e, "redelivery", "MQTT-4.6.0-6", "%s came before %s was sent again", e.Msg, first.msg)
	}
}

// copies counts the copies of a message on one connection: there are never more
// than its publisher sent.
func (c *Checker) copies(p *peer, e *Event, s *stream) {
	before := seen(p.seen, e.Msg.Stream).has(e.Msg.Seq)
	if before {
		c.stats.Duplicates++
	}
	allowed := s.attempts(e.Msg.Seq)
	if before && e.QoS == 0 && allowed == 1 {
		c.finding(p, e, "duplicate-qos0", "MQTT-4.3.1", "%s was delivered twice", e.Msg)
		return
	}
	if seen(p.onConn, e.Msg.Stream).add(e.Msg.Seq) {
		return
	}
	p.extra[e.Msg]++
	if n := p.extra[e.Msg] + 1; n > allowed {
		c.finding(p, e, "duplicate-qos1", "MQTT-4.3.2-2", "%s came %d times on one connection, but was sent %d times", e.Msg, n, allowed)
	}
}

// reached notes that a message has come, and checks order and gaps.
func (c *Checker) reached(p *peer, e *Event, s *stream, sub *subscription) {
	set := seen(p.seen, e.Msg.Stream)
	high := set.max()
	isNew := set.add(e.Msg.Seq)
	t := p.target
	if sub != nil && sub.group != nil {
		t = sub.group
		if first := seen(t.seen, e.Msg.Stream).add(e.Msg.Seq); !first && isNew && e.QoS == 2 {
			c.finding(p, e, "duplicate-qos2", "P3", "%s was delivered to two members of %s", e.Msg, t.name)
		}
	} else if isNew && !s.will {
		if e.Msg.Seq < high && c.inOrderOwed(p, e, s) {
			c.finding(p, e, "order", "MQTT-4.6.0-5", "%s came for the first time after number %d", e.Msg, high)
		}
		c.gap(p, e, s, high)
	}
	if t == nil {
		return
	}
	m := s.get(e.Msg.Seq)
	switch {
	case m == nil:
	case m.need&^m.got&t.bit != 0:
		m.got |= t.bit
		t.pending--
		s.settle()
	case s.will: // its fate is known only now or later
		m.got |= t.bit
	}
}

// inOrderOwed reports whether a first delivery had to come before later numbers.
// It had not if the publisher sent the message again and the session, not yet
// subscribed when it was sent first, may have got only that second copy.
func (c *Checker) inOrderOwed(p *peer, e *Event, s *stream) bool {
	if s.attempts(e.Msg.Seq) == 1 {
		return true
	}
	m := s.get(e.Msg.Seq)
	return m != nil && p.target != nil && m.need&p.target.bit != 0
}

// gap finds acknowledged messages that are owed to p and can no longer come,
// because a later one of the same stream has come.
func (c *Checker) gap(p *peer, e *Event, s *stream, high uint32) {
	if p.target == nil {
		return
	}
	for seq := max(high+1, s.base); seq < e.Msg.Seq; seq++ {
		m := s.get(seq)
		if m.accepted == 0 || m.need&^m.got&p.target.bit == 0 {
			continue
		}
		lost := Message{s.Stream, seq}
		c.finding(p, e, "lost", "P1", "%s, acknowledged at tick %d, is missing: a later one came", lost, m.accepted)
		c.findingAbout(lost)
		m.need &^= p.target.bit
		p.target.pending--
	}
}

// receipt takes PUBACK, PUBREC and PUBCOMP that a subscriber sent.
func (c *Checker) receipt(p *peer, e *Event) {
	if e.Kind != Pubrec {
		delete(p.flight, e.ID)
	}
	x := p.in[e.ID]
	if x == nil {
		return
	}
	e.Msg = x.msg
	x.sent = e.Conn
	switch e.Kind {
	case Puback:
		x.state = deliveryDone
	case Pubrec:
		if x.state == deliveryOpen {
			x.state = deliveryReceived
		}
	case Pubcomp:
		if x.state == deliveryReleased {
			x.state = deliveryDone
			c.stats.Completed++
		}
	}
}

// released judges a PUBREL from the broker: it must answer a PUBREC.
func (c *Checker) released(p *peer, e *Event) {
	x := p.in[e.ID]
	switch {
	case x == nil || x.qos != 2:
		c.finding(p, e, "acknowledgement", "MQTT-4.3.3-5", "PUBREL for identifier %d, which has no QoS 2 delivery", e.ID)
		return
	case x.state == deliveryOpen:
		c.finding(p, e, "acknowledgement", "MQTT-4.3.3-5", "PUBREL for %s before its PUBREC", x.msg)
	case x.rel == e.Conn:
		c.finding(p, e, "acknowledgement", "MQTT-4.4.0-1", "second PUBREL for %s on one connection", x.msg)
	}
	e.Msg = x.msg
	x.rel, x.conn = e.Conn, e.Conn
	if x.state != deliveryOpen { // done: our PUBCOMP was lost, the client answers again
		x.state = deliveryReleased
	}
}

// findingAbout sets the message that the last finding is about.
func (c *Checker) findingAbout(m Message) {
	if c.suppressed == 0 && len(c.findings) > 0 {
		c.findings[len(c.findings)-1].Msg = m
	}
}
