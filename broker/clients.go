package broker

import (
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// This file is the apply loop's part of connecting, subscribing and leaving.
// Functions marked "index" run with indexMu held for writing.

// connectedDurable finishes the CONNECT of a durable session.
func (s *Server) connectedDurable(c *conn, r *core.Reply) {
	s.takeOver(c)
	c.session, c.ref = r.Session, r.Ref
	c.sess = s.machine.Session(r.Ref)
	s.byClient[c.clientID] = c
	c.connected(r.Present, r.Expiry, &s.touched)
}

// takeOver ends an older connection with the same client identifier
// [MQTT-3.1.4-3].
func (s *Server) takeOver(c *conn) {
	old := s.byClient[c.clientID]
	if old == nil || old == c {
		return
	}
	s.stats.takeovers.Add(1)
	old.disconnect(packets.CodeSessionTakenOver)
	if !old.durable {
		s.indexMu.Lock()
		s.endEphemeral(old)
		s.generation.Add(1)
		s.indexMu.Unlock()
	}
}

// connectEphemeral decides about the CONNECT of a client with session expiry
// 0: a durable session in its way is resumed or removed by a record. Index.
func (s *Server) connectEphemeral(c *conn, clean bool) {
	sess := s.machine.SessionOf(c.clientID)
	var b batch
	switch {
	case sess != nil && !clean: // it lives on until this connection's end
		c.durable = true
		b.addRecord(item{conn: c}, c.connectRecord(false))
	case sess != nil || len(s.machine.WillsOf(c.clientID)) > 0:
		r := record.SessionRemove{ClientID: []byte(c.clientID), By: []byte("clean start")}
		b.addRecord(item{conn: c}, r.AppendTo(nil))
	default:
		s.attach(c)
		return
	}
	s.lane.put(&b, true)
}

// attach finishes the CONNECT of a client without a durable session. Index.
func (s *Server) attach(c *conn) {
	if old := s.byClient[c.clientID]; old != nil && old != c {
		s.stats.takeovers.Add(1)
		old.disconnect(packets.CodeSessionTakenOver)
		if !old.durable {
			s.endEphemeral(old)
		}
	}
	c.ref = s.machine.Attach(c.epoch)
	s.clients.set(c.ref, c)
	s.byClient[c.clientID] = c
	s.byEpoch[c.epoch] = c
	if w := c.will; w != nil && (w.QoS > 0 || w.Retain) { // it outlives a crash
		r := record.LoggedWill{Epoch: c.epoch, ClientID: []byte(c.clientID), User: []byte(c.user), Will: *w}
		s.propose(r.AppendTo(nil), true)
		c.hasLogged = true
	}
	c.connected(false, 0, &s.touched)
}

// endEphemeral takes a client without a durable session out of everything.
// Index.
func (s *Server) endEphemeral(c *conn) {
	if c.ended {
		return
	}
	c.ended = true
	s.machine.Detach(c.ref, c.filters.list())
	c.filters = filterSet{}
	if s.clients.at(c.ref) == c {
		s.clients.clear(c.ref)
	}
	if s.byClient[c.clientID] == c {
		delete(s.byClient, c.clientID)
	}
	delete(s.byEpoch, c.epoch)
	c.mu.Lock()
	drop, reported := c.dropWill, c.reported
	c.closed = true
	left := c.leftovers()
	c.out.backlog = nil
	c.mu.Unlock()
	switch {
	case c.hasLogged && reported:
	case c.hasLogged:
		r := record.Disconnect{Epoch: c.epoch, DropWill: drop, Reason: byte(c.endReason())}
		s.propose(r.AppendTo(nil), false)
	case c.will != nil && !drop:
		s.later = append(s.later, func() { s.publishMemory(c.will) })
	}
	if len(left) > 0 {
		s.later = append(s.later, func() { s.passOn(left) })
	}
}

func (c *conn) endReason() packets.Code {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// sessionEnded closes the connection of a durable session that ended.
func (s *Server) sessionEnded(e *core.Ended) {
	s.stats.ended.Add(1)
	c := s.byClient[e.ClientID]
	if c == nil || !c.durable || c.session != e.Session {
		return
	}
	delete(s.byClient, e.ClientID)
	c.sess = nil
	if e.Epoch == 0 {
		return
	}
	code := packets.CodeSessionTakenOver
	if e.Reason == core.EndRemoved {
		code = packets.CodeAdministrativeAction
	}
	c.disconnect(code)
}

// disconnectedDurable forgets a connection whose Disconnect was applied.
func (s *Server) disconnectedDurable(c *conn) {
	c.sess = nil
	if s.byClient[c.clientID] == c {
		delete(s.byClient, c.clientID)
	}
}

// subscribeMemory applies a SUBSCRIBE of a client without a durable session.
// Index.
func (s *Server) subscribeMemory(c *conn, pid uint16, id uint32, granted []record.Filter, codes []byte) {
	retained := false
	if !c.ended {
		for i := range granted {
			name, opts := string(granted[i].Name), granted[i].Options
			if _, gets := s.machine.BeginEphemeral(c.ref, name, opts, id, &s.fx); gets {
				retained = true
				c.holdScan(&scan{filter: name, before: s.machine.Applied() + 1, qos: opts.QoS(), id: id})
			}
			c.filters.add(name)
		}
	}
	c.answered(packets.TypeSuback, pid, codes, &s.touched)
	if retained {
		s.later = append(s.later, func() { s.pumpBacklog(c) })
	}
}

// unsubscribeMemory applies an UNSUBSCRIBE of a client without a durable
// session. Index.
func (s *Server) unsubscribeMemory(c *conn, pid uint16, filters [][]byte) {
	codes := make([]byte, len(filters))
	for i, f := range filters {
		name := string(f)
		if c.ended || !s.machine.UnsubscribeEphemeral(c.ref, name) {
			codes[i] = byte(packets.CodeNoSubscriptionExisted)
		}
		c.filters.remove(f)
		c.dropScans(f)
	}
	s.later = append(s.later, func() { s.pumpBacklog(c) }) // what waited behind a scan
	c.answered(packets.TypeUnsuback, pid, codes, &s.touched)
}

// answered sends the answer to a SUBSCRIBE or UNSUBSCRIBE and lets packets
// that waited for it go on.
func (c *conn) answered(t packets.Type, pid uint16, codes []byte, touched *touch) {
	c.mu.Lock()
	c.controls--
	c.unapplied.Add(-1)
	c.subackLocked(t, pid, codes, touched)
	c.idle.Broadcast()
	c.mu.Unlock()
}

// publishWill logs a will that fell due. Its Publish record removes it from
// the state, so that it is published once, whatever happens in between.
func (s *Server) publishWill(id uint64) {
	due, ok := s.machine.Due(id)
	if !ok {
		return
	}
	w := &due.Will
	r := record.Publish{
		WillOf: id, QoS: w.QoS, Retain: w.Retain, HasExpiry: w.HasExpiry, Expiry: w.Expiry, Message: w.Message,
	}
	if m, err := packets.ParseMessage(w.Message); err == nil && w.QoS > 0 {
		r.Choices = s.chooseFor(s.match(m.Topic))
	}
	if c := s.byClient[due.ClientID]; c != nil && !c.durable {
		r.Epoch = c.epoch // No Local goes by the client identifier [MQTT-3.8.3-3]
	}
	s.stats.wills.Add(1)
	s.propose(r.AppendTo(nil), false)
}

// publishMemory publishes a will that concerns nothing durable: QoS 0, not
// retained.
func (s *Server) publishMemory(w *record.Will) {
	d := delivery{
		srv: s, qos: w.QoS, hasExpiry: w.HasExpiry, expiry: w.Expiry, touched: &s.touched,
	}
	if !d.parse(w.Message) {
		return
	}
	s.stats.wills.Add(1)
	r := s.match(d.msg.Topic)
	for i := range r.targets {
		d.to(r.targets[i].conn, r.targets[i].qos, false, r.targets[i].ids, ownership{})
	}
	for i := range r.groups {
		if m := r.groups[i].pick(&s.turn); m != nil {
			d.toMember(m, r.groups[i].key)
		}
	}
}

// resumeState asks again for what the state has open after a start: wills
// that fell due. Groups wait for members to connect.
func (s *Server) resumeState() {
	for _, id := range s.machine.PendingDue() {
		s.publishWill(id)
	}
	s.setDeadline()
}
