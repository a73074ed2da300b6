package main

// subscription is what a client knows of one of its filters.
type subscription struct {
	filter string
	match  string  // the filter without $share/group/
	group  *target // nil if not shared
	qos    byte    // asked for last
	active bool    // surely in force: SUBACK came, no UNSUBSCRIBE sent since
	was    bool    // surely in force when UNSUBSCRIBE was sent
	tries  int     // UNSUBSCRIBE packets since then

	waiting bool       // SUBSCRIBE or UNSUBSCRIBE not answered on this session
	ranges  []tickSpan // when it may have been in force, of this session
}

// tickSpan runs from the SUBSCRIBE that was sent to the UNSUBACK that came (0 =
// not yet). In it the subscription may be in force, outside it cannot be.
type tickSpan struct{ from, to uint64 }

// rangesMax bounds the spans remembered of one filter.
const rangesMax = 64

func (c *Checker) subscription(p *peer, filter string) *subscription {
	s := p.subs[filter]
	if s == nil {
		group, inner, shared := splitShare(filter)
		s = &subscription{filter: filter, match: inner}
		if shared {
			s.group = c.groups[filter]
			if s.group == nil {
				s.group = c.newTarget("$share/" + group + "/" + inner)
				s.group.members = map[*peer]struct{}{}
				c.groups[filter] = s.group
			}
		}
		p.subs[filter] = s
		p.subList = append(p.subList, s)
	}
	return s
}

func (c *Checker) subscribe(p *peer, e *Event) {
	s := c.subscription(p, e.Filter)
	s.qos, s.waiting = e.QoS, true
	if n := len(s.ranges); n == 0 || s.ranges[n-1].to != 0 {
		if n == rangesMax {
			s.ranges = append(s.ranges[:0], s.ranges[1:]...)
		}
		s.ranges = append(s.ranges, tickSpan{from: e.Tick})
	}
	if p.reader() {
		c.look(p, s)
	}
}

func (c *Checker) suback(p *peer, e *Event) {
	c.stats.Subscribes++
	s := c.subscription(p, e.Filter)
	if !s.waiting {
		c.finding(p, e, "suback", "MQTT-3.8.4-1", "SUBACK for %s, which was not asked for", e.Filter)
		return
	}
	s.waiting = false
	if e.Code != s.qos {
		if e.Code < 0x80 || !busy(e.Code) && !(c.full && e.Code == 0x80) {
			c.finding(p, e, "suback", "MQTT-3.8.4-6", "%s: asked for QoS %d, answered 0x%02x", e.Filter, s.qos, e.Code)
		}
		if e.Code >= 0x80 {
			return
		}
	}
	s.active = true
	c.audience = nil
	if s.group != nil {
		s.group.members[p] = struct{}{}
	}
}

func (c *Checker) unsubscribe(p *peer, e *Event) {
	s := c.subscription(p, e.Filter)
	if s.active {
		s.was, s.tries = true, 0
	}
	s.tries++
	s.waiting = true
	c.deactivate(p, s)
}

func (c *Checker) unsuback(p *peer, e *Event) {
	c.stats.Subscribes++
	s := c.subscription(p, e.Filter)
	if !s.waiting {
		c.finding(p, e, "suback", "MQTT-3.10.4-4", "UNSUBACK for %s, which was not asked for", e.Filter)
		return
	}
	s.waiting = false
	// 0x11 (no subscription existed) is true only if an earlier try was lost.
	if e.Code != 0 && !(e.Code == 0x11 && (!s.was || s.tries > 1)) {
		c.finding(p, e, "subscription", "MQTT-3.10.4-4", "%s was in force, UNSUBACK says 0x%02x", e.Filter, e.Code)
	}
	s.was = false
	if n := len(s.ranges); n > 0 && s.ranges[n-1].to == 0 {
		s.ranges[n-1].to = e.Tick
	}
}

// deactivate ends the certainty that s is in force, and what it was owed.
func (c *Checker) deactivate(p *peer, s *subscription) {
	if !s.active {
		return
	}
	s.active = false
	c.audience = nil
	if g := s.group; g != nil {
		// What the member held goes to another one, except the QoS 2 messages it
		// had already been sent [MQTT-4.8.2-5], and nobody can tell which.
		delete(g.members, p)
		last := len(g.members) == 0
		c.forgive(g, func(st *stream) bool { return last || st.QoS == 2 })
		return
	}
	if p.target == nil {
		return
	}
	c.forgive(p.target, func(st *stream) bool {
		return matches(s.match, st.Topic) && !p.covered(st.Topic)
	})
}

// covered reports whether a subscription that is surely in force and not shared
// matches the topic.
func (p *peer) covered(topic string) bool {
	for _, s := range p.subList {
		if s.active && s.group == nil && matches(s.match, topic) {
			return true
		}
	}
	return false
}

// subscribed returns the targets that a message to topic is owed to if it is
// published now.
func (c *Checker) subscribed(topic string) uint64 {
	if c.audience == nil {
		c.audience = map[string]uint64{}
	}
	mask, ok := c.audience[topic]
	if ok {
		return mask
	}
	for _, p := range c.peerList {
		if p.target == nil {
			continue
		}
		for _, s := range p.subList {
			switch {
			case !s.active || s.qos == 0 || !matches(s.match, topic):
			case s.group != nil:
				mask |= s.group.bit
			default:
				mask |= p.target.bit
			}
		}
	}
	c.audience[topic] = mask
	return mask
}

// entitled returns the subscription by which p may receive a message that could
// have been published from tick first to tick last, nil if there is none.
func (p *peer) entitled(topic string, first, last uint64) *subscription {
	for _, s := range p.subList {
		if !matches(s.match, topic) {
			continue
		}
		for _, r := range s.ranges {
			if r.from <= last && (r.to == 0 || r.to >= first) {
				return s
			}
		}
	}
	return nil
}
