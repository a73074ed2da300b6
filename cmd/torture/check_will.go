package main

// lateDisconnect is how long before a kill a DISCONNECT must have been read so
// that the broker cannot have forgotten it: nothing acknowledges it.
const lateDisconnect = 1000 // milliseconds

// A will is the will message of one connection until its fate is known, which
// is when a later connection is accepted: by then it was published, or never
// will be [MQTT-3.1.3-9].
type will struct {
	msg      Message
	conn     uint32
	accepted bool // the connection got its CONNACK
	parted   bool // DISCONNECT was sent
	ended    bool
	killed   bool // the broker ended before that: whether it fires depends on who is faster
	at       int64
}

// armed notes the will of a CONNECT.
func (c *Checker) armed(p *peer, e *Event) {
	if n := len(p.wills); n > 0 { // taken over, unless it ended
		p.wills[n-1].ended = true
	}
	if e.Msg.Seq == 0 {
		return
	}
	s := c.stream(e.Msg.Stream)
	s.will = true
	s.msgs = append(s.msgs, message{first: e.Tick})
	p.wills = append(p.wills, &will{msg: e.Msg, conn: e.Conn})
}

// currentWill returns the will of the connection that e is about.
func (p *peer) currentWill(e *Event) *will {
	if n := len(p.wills); n > 0 && p.wills[n-1].conn == e.Conn {
		return p.wills[n-1]
	}
	return nil
}

// willEnded decides about a will at the end of its connection: after a
// DISCONNECT that was surely read it must not be published [MQTT-3.14.4-3].
func (c *Checker) willEnded(p *peer, e *Event) {
	w := p.currentWill(e)
	if w == nil {
		return
	}
	w.ended, w.at = true, e.At
	if m := c.stream(w.msg.Stream).get(w.msg.Seq); w.parted && e.Graceful && !p.cut && m != nil {
		m.void = true
		p.voided = w
	}
}

// willsKilled takes the end of the broker: what it had not yet published it may
// publish after its restart, or not, if the client is back before.
func (c *Checker) willsKilled(p *peer, e *Event) {
	for _, w := range p.wills {
		w.killed = true
	}
	if w := p.voided; w != nil && e.Kind == Kill && e.At-w.at < lateDisconnect {
		if m := c.stream(w.msg.Stream).get(w.msg.Seq); m != nil {
			m.void = false
		}
	}
}

// willsDecided is called when a connection is accepted: the wills of all
// connections before it have been published by now, or never will be.
func (c *Checker) willsDecided(p *peer, e *Event) {
	keep := p.wills[:0]
	for _, w := range p.wills {
		if w.conn == e.Conn {
			w.accepted = true
			keep = append(keep, w)
			continue
		}
		s := c.stream(w.msg.Stream)
		m := s.get(w.msg.Seq)
		m.done = e.Tick
		if w.accepted && w.ended && !w.parted && !w.killed {
			c.stats.Wills++
			m.accepted = e.Tick
			m.need = c.subscribed(w.msg.Topic)
			c.each(m.need&^m.got, func(t *target) { t.pending++ })
		}
		s.settle()
	}
	p.wills = keep
}
