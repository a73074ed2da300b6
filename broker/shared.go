package broker

import (
	"slices"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// dispatchAtOnce is how many waiting messages of a group are under way to a
// member at a time.
const dispatchAtOnce = 64

// groupOf returns the connected members of a group.
func (s *Server) groupOf(key core.GroupKey) *groupRoute {
	g := s.machine.Index().Group(key.Share, key.Filter)
	r := &route{}
	if g == nil {
		return &groupRoute{key: &key}
	}
	r.addGroup(s, g)
	return &r.groups[0]
}

// inMemory leaves the members that can be given a message without a record:
// those without a durable session, whose identifiers are given out by Apply
// alone, and those that get it at QoS 0.
func (g *groupRoute) inMemory() *groupRoute {
	g.members = slices.DeleteFunc(g.members, func(m member) bool { return m.sid != 0 && m.opts.QoS() > 0 })
	return g
}

// chooseFor records a member for each durable group of a route.
func (s *Server) chooseFor(r *route) []record.Choice {
	return choose(nil, r, &s.turn)
}

// dispatch gives messages that wait in a group to connected members.
func (s *Server) dispatch(key core.GroupKey) {
	if s.dispatching[key] > 0 {
		return // goes on when those under way have arrived
	}
	g := s.groupOf(key)
	if len(g.members) == 0 {
		return
	}
	for _, id := range s.machine.Waiting(key, dispatchAtOnce) {
		m := g.pick(&s.turn)
		r := record.Dispatch{Share: []byte(key.Share), Filter: []byte(key.Filter), Message: id, Session: m.sid}
		if m.sid == 0 {
			r.Epoch, r.QoS = m.conn.epoch, m.opts.QoS()
		}
		s.dispatching[key]++
		var b batch
		b.addRecord(item{done: func() { s.dispatched(key) }}, r.AppendTo(nil))
		s.lane.put(&b, true)
	}
}

func (s *Server) dispatched(key core.GroupKey) {
	if s.dispatching[key]--; s.dispatching[key] > 0 {
		return
	}
	delete(s.dispatching, key)
	s.dispatch(key)
}

// toMember delivers to a member of a group that has no durable state.
func (d *delivery) toMember(m *member, key *core.GroupKey) {
	var ids []uint32
	if m.id != 0 {
		ids = []uint32{m.id}
	}
	d.to(m.conn, m.opts.QoS(), d.retain && m.opts.RetainAsPublished(), ids, ownership{key: key})
}

// deliverOwned delivers a message that the state gave to an ephemeral member.
func (s *Server) deliverOwned(d *delivery, o *core.Owned) {
	c := s.byEpoch[o.Epoch]
	var opts topic.Options
	var id uint32
	member := false
	if c != nil && !c.ended {
		for _, m := range s.groupOf(o.Group).members {
			if m.conn == c {
				opts, id, member = m.opts, m.id, true
			}
		}
	}
	if !member { // it left meanwhile: back to the group
		s.putBack(o.Group, o.Message, o.Epoch)
		return
	}
	var ids []uint32
	if id != 0 {
		ids = []uint32{id}
	}
	d.to(c, opts.QoS(), o.Retain && opts.RetainAsPublished(), ids, ownership{&o.Group, o.Message})
	if min(o.QoS, opts.QoS()) == 0 { // nobody will acknowledge it
		s.settleOwned(o.Group, c.epoch, o.Message)
	}
}

// putBack returns a message to its group, from the connection that had it.
func (s *Server) putBack(key core.GroupKey, id uint64, from record.Epoch) {
	r := record.Dispatch{Share: []byte(key.Share), Filter: []byte(key.Filter), Message: id, From: from}
	s.propose(r.AppendTo(nil), false)
}

// settleOwned ends a group's message that an ephemeral member had.
func (s *Server) settleOwned(key core.GroupKey, epoch record.Epoch, id uint64) {
	a := record.Ack{Epoch: epoch, Share: []byte(key.Share), Filter: []byte(key.Filter), Message: id}
	s.propose(a.AppendTo(nil), true)
}

// carryGroups delivers what a record gave to members, but for the message that
// a Publish itself brings: the bodies have to be looked up.
func (s *Server) carryGroups() {
	fx := &s.fx
	owned := fx.Owned
	if fx.Reply.Kind == record.KindPublish {
		owned = nil
	}
	for _, o := range owned {
		s.withBody(o.Message, func(body []byte) {
			if d := s.deliveryOf(o.Message, o.QoS, o.Retain); d.parse(body) {
				s.deliverOwned(d, &o)
			}
		})
	}
	for _, o := range fx.Orphans {
		s.withBody(o.Message, func(body []byte) {
			d := s.deliveryOf(o.Message, o.QoS, o.Retain)
			m := s.groupOf(o.Group).inMemory().pick(&s.turn)
			if m == nil || !d.parse(body) {
				s.dropped(nil, core.DropNoMember)
				return
			}
			d.toMember(m, &o.Group)
		})
	}
	if fx.Reply.Kind != record.KindDispatch {
		return
	}
	for i := range fx.Direct {
		e := fx.Direct[i]
		ids := append([]uint32(nil), e.IDs(fx)...)
		s.withBody(fx.Reply.Message, func(body []byte) {
			d := s.deliveryOf(fx.Reply.Message, 0, e.Retain)
			if c := s.clients.at(e.Ref); c != nil && d.parse(body) {
				d.to(c, 0, e.Retain, ids, ownership{})
			}
		})
	}
}

// deliveryOf builds the delivery of a stored message.
func (s *Server) deliveryOf(id uint64, qos byte, retain bool) *delivery {
	d := &delivery{srv: s, qos: qos, retain: retain, touched: &s.touched, single: true}
	if _, deadline, ok := s.machine.Message(id); ok && deadline != 0 {
		life := memo{hasLife: true, deadline: deadline}
		d.hasExpiry = true
		d.expiry, _ = life.left(s.machine.Now())
	}
	return d
}

// leftover is a group's message that a client without a durable session
// leaves behind.
type leftover struct {
	own     ownership
	epoch   record.Epoch
	memo    *memo // with own.message 0
	started bool  // a QoS 2 delivery that has begun dies with its session
}

// leftovers lists what the client owes to shared groups, in the order it was
// given. The caller holds mu.
func (c *conn) leftovers() []leftover {
	var list []leftover
	c.out.window.All(func(e *session.Entry[*memo]) bool {
		if m := e.Msg; m != nil && m.own.key != nil {
			list = append(list, leftover{m.own, c.epoch, m, e.QoS == 2 && e.PID != 0})
			m.own = ownership{} // once
		}
		return true
	})
	for i := range c.out.backlog {
		if w := &c.out.backlog[i]; w.own.key != nil {
			list = append(list, leftover{own: w.own, epoch: c.epoch, memo: w.memo})
			w.own = ownership{}
		}
	}
	return list
}

// passOn gives what a member left behind to another [MQTT-4.8.2-4].
func (s *Server) passOn(left []leftover) {
	for i := range left {
		l := &left[i]
		switch {
		case l.own.message != 0 && l.started:
			s.settleOwned(*l.own.key, l.epoch, l.own.message)
		case l.own.message != 0:
			s.putBack(*l.own.key, l.own.message, l.epoch)
		case l.started || l.memo == nil:
		default:
			d := &delivery{srv: s, qos: l.memo.qos, retain: l.memo.retain, touched: &s.touched, kept: l.memo, single: true}
			if left, expired := l.memo.left(s.clock()); l.memo.hasLife {
				if d.hasExpiry, d.expiry = true, left; expired {
					continue
				}
			}
			m := s.groupOf(*l.own.key).inMemory().pick(&s.turn)
			if m == nil || !d.parse(l.memo.body) {
				s.dropped(nil, core.DropNoMember)
				continue
			}
			d.toMember(m, l.own.key)
		}
	}
}
