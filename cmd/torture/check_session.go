package main

import (
	"fmt"
	"maps"
	"slices"
)

// Times are the client's, so the two sides may disagree by a little: a session
// must still exist until expiryEarly before its interval is over, and must be
// gone expiryLate after it.
const (
	expiryEarly = 700  // milliseconds
	expiryLate  = 2500 // milliseconds
)

type existence byte

const (
	existsNot existence = iota // also: never connected
	existsMaybe
	existsYes
)

// A peer is a client as its own packets show it.
type peer struct {
	name   string
	target *target // what its session is owed; nil while it was never durable

	conn    uint32 // current connection
	open    bool
	cut     bool   // the broker was killed while it was open
	since   uint64 // tick of its CONNACK, 0 before
	clean   bool   // of the current CONNECT
	sentAt  int64  // when the CONNECT was sent
	expiry  uint32 // of the last accepted CONNECT, then of the session
	asked   uint32 // of the current CONNECT
	exists  existence
	before  existence // what exists was when the current CONNECT was sent
	doubt   bool      // a CONNECT without answer may have begun a new session after the old one expired
	endedAt int64     // when the last accepted connection ended
	touched int64     // when the last connection ended, even if it was not accepted

	subs    map[string]*subscription
	subList []*subscription

	out     map[uint16]*outgoing // own publishes by identifier
	unacked [3][]uint16          // by QoS: sent on this connection, in order

	in     map[uint16]*incoming // the last delivery under each identifier
	under  map[Message]uint16   // identifier under which a message came last
	order  uint64               // number of the last fresh delivery
	cursor uint64               // order of the last delivery on this connection
	seen   map[Stream]*seqSet   // everything this client received
	stale  map[uint16]*incoming // not acknowledged, and not yet sent again on this connection
	max    uint16               // receive maximum of the current CONNECT, 0 = none
	flight map[uint16]struct{}  // deliveries begun and not finished on this connection
	onConn map[Stream]*seqSet   // everything received on this connection
	extra  map[Message]int      // copies beyond the first on this connection

	wills  []*will // of connections whose wills may still be published, the current one last
	voided *will   // the last one that must not be

	floors map[string]uint32 // ephemeral reader: retained topic → oldest legal value
	values map[string]bool   // retained topics that sent a value in this look
	live   map[string]uint32 // greatest number that came live in this look, by topic
}

func (c *Checker) peer(name string) *peer {
	p := c.peers[name]
	if p == nil {
		p = &peer{
			name: name, subs: map[string]*subscription{}, out: map[uint16]*outgoing{}, seen: map[Stream]*seqSet{},
		}
		p.forgetDeliveries()
		c.peers[name] = p
		c.peerList = append(c.peerList, p)
	}
	return p
}

// durable says whether the session outlives its connection.
func (p *peer) durable() bool { return p.expiry > 0 }

func (p *peer) forgetDeliveries() {
	p.in, p.under = map[uint16]*incoming{}, map[Message]uint16{}
	p.stale = map[uint16]*incoming{}
}

func (c *Checker) connect(p *peer, e *Event) {
	if p.open { // the broker is about to take the old connection over
		p.open, p.endedAt, p.touched = false, e.At, e.At
	}
	p.conn, p.since, p.sentAt = e.Conn, 0, e.At
	p.clean, p.asked, p.max = e.Clean, e.Expiry, e.Max
	p.flight, p.cut = map[uint16]struct{}{}, false
	p.cursor = 0
	p.onConn, p.extra = map[Stream]*seqSet{}, map[Message]int{}
	p.unacked = [3][]uint16{}
	p.stale = map[uint16]*incoming{}
	for id, x := range p.in {
		if x.state == deliveryOpen {
			p.stale[id] = x
		}
	}
	if e.Expiry > 0 && p.target == nil {
		p.target = c.newTarget(p.name)
		p.target.peer = p
	}
	c.armed(p, e)
	if e.Clean || !p.durable() {
		c.endSession(p)
	}
	if e.Clean && e.Expiry == 0 && p.exists == existsYes {
		p.exists = existsMaybe // gone as soon as the broker has read this
	}
	if p.exists == existsNot || !p.durable() {
		// This CONNECT may begin one; a session without expiry ends when the
		// broker notices that the connection did.
		p.before, p.exists = p.exists, existsMaybe
	} else {
		p.before = p.exists
	}
}

// endSession forgives what the session is owed: from now on nobody may count on
// it. What it must not receive is decided when the broker has confirmed the end.
func (c *Checker) endSession(p *peer) {
	for _, s := range p.subList {
		c.deactivate(p, s)
	}
}

// known returns whether the session existed when the broker answered at time
// at. A restart may begin its interval anew: a crash never shortens a session.
func (c *Checker) known(p *peer, at int64) existence {
	switch {
	case p.before == existsNot:
		return existsNot
	case !p.durable():
		return existsMaybe
	case p.expiry == NeverExpires:
		return p.before
	}
	interval, from := int64(p.expiry)*1000, p.touched
	for _, ready := range c.readyAt {
		if ready >= p.touched {
			from = ready
			break
		}
	}
	if from == p.touched && c.downAt >= p.touched {
		from = p.sentAt // it answers and nobody has noted yet that it is ready
	}
	switch {
	case p.sentAt-from > interval+expiryLate:
		return existsNot
	case at-p.endedAt > interval-expiryEarly:
		return existsMaybe
	}
	return p.before
}

func (c *Checker) connack(p *peer, e *Event) {
	if e.Code != 0 {
		if !busy(e.Code) {
			c.finding(p, e, "session", "MQTT-3.1.4-5", "CONNECT was refused with 0x%02x", e.Code)
		}
		return
	}
	known := c.known(p, e.At)
	switch {
	case p.clean && e.Present:
		c.finding(p, e, "session", "MQTT-3.2.2-2", "clean start, but session present is 1")
	case p.clean:
	case known == existsYes && !e.Present:
		c.finding(p, e, "session", "MQTT-3.2.2-3", "the session is gone: session present is 0")
	case known == existsNot && e.Present:
		c.finding(p, e, "session", "MQTT-4.1.0-2", "a session that ended or never was is present")
	}
	switch {
	case !e.Present:
		c.newSession(p)
		c.abandon(p)
	case p.expiry == 0: // the last one ended with its connection: a CONNECT without answer has begun this one
		c.newSession(p)
	case p.doubt:
		c.lapse(p)
	default:
		c.stats.Sessions++
	}
	p.doubt = false
	p.open, p.since, p.expiry, p.exists = true, e.Tick, p.asked, existsYes
	c.willsDecided(p, e)
}

// newSession begins with nothing: no subscription, no identifier in use.
func (c *Checker) newSession(p *peer) {
	c.endSession(p)
	for _, s := range p.subList {
		s.ranges = nil
	}
	p.forgetDeliveries()
}

// lapse takes a session that is present, but may be a new one: nobody can count
// on what the old one had.
func (c *Checker) lapse(p *peer) {
	c.endSession(p)
	clear(p.stale)
	for _, x := range p.in {
		x.lapsed = true
	}
}

func (c *Checker) end(p *peer, e *Event) {
	switch {
	case p.open:
		p.endedAt = e.At
	case p.since == 0 && !p.clean && p.durable() && p.expiry != NeverExpires:
		p.doubt = p.doubt || e.At-p.endedAt > int64(p.expiry)*1000-expiryEarly
	}
	p.open, p.touched = false, e.At
	c.willEnded(p, e)
	if !p.durable() {
		c.endSession(p)
	}
	if !e.Graceful || p.cut {
		return
	}
	for _, x := range p.in {
		if x.sent == e.Conn && x.state != deliveryOpen {
			x.sure = true
		}
	}
}

// down takes the end of the broker. After a kill no acknowledgement that a
// subscriber sent is sure to have been kept: they wait for nobody.
func (c *Checker) down(e *Event) {
	c.downAt = e.At
	for _, p := range c.peerList {
		c.willsKilled(p, e)
	}
	if e.Kind == Stop {
		return
	}
	c.stats.Kills++
	for _, p := range c.peerList {
		p.cut = p.open
		for _, x := range p.in {
			x.sure = false
		}
	}
	if n := len(c.readyAt); n > 256 {
		c.readyAt = append(c.readyAt[:0], c.readyAt[n-128:]...)
	}
}

// busy reports whether a CONNACK code says "not now": 3 (v3) and 0x88 server
// unavailable, 0x89 server busy, 0x97 quota exceeded.
func busy(code byte) bool { return code == 3 || code == 0x88 || code == 0x89 || code == 0x97 }

func (c *Checker) finishPeer(p *peer) {
	for _, s := range p.subList {
		if s.waiting {
			c.report(Finding{
				Rule: "stuck", Statement: "MQTT-3.8.4-1", Client: p.name,
				Text: fmt.Sprintf("%s: SUBSCRIBE or UNSUBSCRIBE of %s was never acknowledged", p.name, s.filter),
			})
		}
	}
	if !p.durable() {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(p.in)) {
		x := p.in[id]
		switch {
		case x.lapsed:
		case x.state == deliveryOpen && x.conn != p.conn:
			c.report(Finding{
				Rule: "redelivery", Statement: "MQTT-4.4.0-1", Client: p.name, Msg: x.msg,
				Text: fmt.Sprintf("%s, delivered to %s as %d and not acknowledged, was not sent again", x.msg, p.name, id),
			})
		case x.state == deliveryReceived:
			c.report(Finding{
				Rule: "redelivery", Statement: "MQTT-4.3.3-5", Client: p.name, Msg: x.msg,
				Text: fmt.Sprintf("%s: PUBREC of %s (%d) was never answered by PUBREL", p.name, x.msg, id),
			})
		}
	}
}
