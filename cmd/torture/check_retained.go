package main

// retainedTopic is a topic whose publisher counts upwards and retains every
// value. Its streams of all QoS levels would race each other, so it has one.
type retainedTopic struct {
	sent   uint32 // greatest sequence number sent
	done   uint32 // greatest acknowledged to the end (PUBACK, PUBCOMP)
	clears seqSet // which of them remove the value
}

func (c *Checker) retainedSent(e *Event) {
	r := c.retained[e.Msg.Topic]
	if r == nil {
		r = &retainedTopic{}
		c.retained[e.Msg.Topic] = r
		c.topics = append(c.topics, e.Msg.Topic)
	}
	r.sent = max(r.sent, e.Msg.Seq)
	if e.Clear {
		r.clears.add(e.Msg.Seq)
	}
}

// reader reports whether the client was never durable: it only looks.
func (p *peer) reader() bool { return p.target == nil }

// look begins when a reader is about to subscribe: from now on it must not see
// anything older than what is acknowledged now.
func (c *Checker) look(p *peer, s *subscription) {
	if p.floors == nil {
		p.floors, p.values, p.live = map[string]uint32{}, map[string]bool{}, map[string]uint32{}
	}
	clear(p.live)
	for _, topic := range c.topics {
		if matches(s.match, topic) {
			p.floors[topic] = c.retained[topic].done
			delete(p.values, topic)
		}
	}
}

// retainedValue judges a retained message that a reader received.
func (c *Checker) retainedValue(p *peer, e *Event) {
	r := c.retained[e.Msg.Topic]
	if r == nil {
		c.finding(p, e, "retained", "MQTT-3.3.1-5", "a retained message on %s, where none was published", e.Msg.Topic)
		return
	}
	floor, looked := p.floors[e.Msg.Topic]
	switch {
	case !looked: // first published after the look began
	case e.Msg.Seq < floor:
		c.finding(p, e, "retained", "P1", "%s is older than the acknowledged %d", e.Msg, floor)
	}
	if n := p.live[e.Msg.Topic]; n > e.Msg.Seq {
		c.finding(p, e, "retained-order", "MQTT-4.6.0-6", "%s came as the retained value after the newer number %d", e.Msg, n)
	}
	switch {
	case e.Msg.Seq > r.sent:
		c.finding(p, e, "retained", "MQTT-3.3.1-5", "%s was never sent", e.Msg)
	case r.clears.has(e.Msg.Seq):
		c.finding(p, e, "retained", "MQTT-3.3.1-7", "%s removed the value, yet it has one", e.Msg)
	}
	if p.values != nil {
		p.values[e.Msg.Topic] = true
	}
}

// read ends a look: a topic that sent nothing must be allowed to be empty.
func (c *Checker) read(p *peer, e *Event) {
	c.stats.Reads++
	for _, topic := range c.topics {
		floor, looked := p.floors[topic]
		if !looked || !matches(e.Filter, topic) {
			continue
		}
		if c.missing(p, topic) {
			c.finding(p, e, "retained", "P1", "%s is empty, but %d was acknowledged and nothing removed it since", topic, floor)
		}
		delete(p.floors, topic)
		delete(p.values, topic)
	}
}

// missing reports whether a topic has sent nothing in this look, but must not
// be empty. A live message that is new enough is as good as the value it has
// replaced.
func (c *Checker) missing(p *peer, topic string) bool {
	floor, r := p.floors[topic], c.retained[topic]
	return !p.values[topic] && floor > 0 && p.live[topic] < floor && !r.clears.any(floor, r.sent)
}

// Missing returns how many retained values a reader still has to get.
func (c *Checker) Missing(client string) int {
	p, n := c.peer(client), 0
	for topic := range p.floors {
		if c.missing(p, topic) {
			n++
		}
	}
	return n
}

// any reports whether the set has a number from lo to hi.
func (s *seqSet) any(lo, hi uint32) bool {
	i := s.search(lo)
	return i < len(s.spans) && s.spans[i].lo <= hi
}
