package core

import (
	"cmp"
	"maps"
	"slices"

	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// GroupKey names a shared group: the group of $share/Share/Filter.
type GroupKey struct {
	Share, Filter string
}

// String returns the filter as a client writes it.
func (k GroupKey) String() string { return "$share/" + k.Share + "/" + k.Filter }

func (k GroupKey) compare(o GroupKey) int {
	return cmp.Or(cmp.Compare(k.Share, o.Share), cmp.Compare(k.Filter, o.Filter))
}

// keyOf returns the key of a filter's group; Share is empty when the filter
// is not shared.
func keyOf(filter string) GroupKey {
	share, inner, shared := topic.SplitShare(filter)
	if !shared {
		return GroupKey{}
	}
	return GroupKey{share, inner}
}

// group is a shared group that has a durable member. Its messages are either
// with a durable member, in its queue, or pending here: given to an ephemeral
// member, or waiting for anyone.
type group struct {
	key     GroupKey
	name    string // the filter as members have it
	durable int    // members with a durable session
	pending pendingList
	bytes   uint64          // of the pending messages
	dirty   map[uint64]bool // message ids whose entry changed; true: the backend has one
}

// mark notes that the stored entry of a message is out of date.
func (m *Machine) mark(g *group, id uint64, stored bool) {
	if len(g.dirty) == 0 {
		m.changed.groups = append(m.changed.groups, g)
	}
	if g.dirty == nil {
		g.dirty = make(map[uint64]bool)
	}
	if _, seen := g.dirty[id]; !seen {
		g.dirty[id] = stored
		m.changed.entries++
	}
}

// pend makes a message pending in a group, at its place by id, which is its
// old place when it comes back. It reports whether the group has room for it;
// the reference is the caller's business.
func (m *Machine) pend(g *group, p pending, fx *Effects) bool {
	msg, _ := m.message(p.message)
	if p.epoch == 0 && !m.makeRoom(g, &msg, fx) {
		fx.Dropped = append(fx.Dropped, Drop{NoRef, p.message, DropQueueFull})
		return false
	}
	g.pending.insert(p)
	g.bytes += uint64(msg.size)
	m.counts.Pending++
	m.mark(g, p.message, false)
	return true
}

// makeRoom applies the limits of a session's queue to what waits in a group.
func (m *Machine) makeRoom(g *group, msg *message, fx *Effects) bool {
	l := &m.limits
	for n := 0; l.QueueMessages > 0 && uint64(g.pending.len) >= l.QueueMessages ||
		l.QueueBytes > 0 && g.bytes+uint64(msg.size) > l.QueueBytes; n++ {
		if !l.DropOldest || g.pending.idle == 0 || n == m.bounds.push || l.QueueBytes > 0 && uint64(msg.size) > l.QueueBytes {
			return false
		}
		at := g.pending.oldestIdle()
		fx.Dropped = append(fx.Dropped, Drop{NoRef, g.pending.at(at).message, DropQueueFull})
		m.drop(g, at)
	}
	return true
}

// unpend takes a message out of a group. Its reference is passed on.
func (m *Machine) unpend(g *group, at pendingAt) pending {
	p := g.pending.remove(at)
	msg, _ := m.message(p.message)
	g.bytes -= uint64(msg.size)
	m.counts.Pending--
	m.mark(g, p.message, true)
	return p
}

// drop takes a message out of a group and lets it go.
func (m *Machine) drop(g *group, at pendingAt) message {
	return m.unref(m.unpend(g, at).message)
}

// own gives a pending message to an ephemeral connection, or with epoch 0
// takes it back.
func (m *Machine) own(g *group, at pendingAt, epoch record.Epoch, qos uint8) {
	g.pending.own(at, epoch, qos)
	m.mark(g, g.pending.at(at).message, true)
}

// join counts a durable member in.
func (m *Machine) join(filter string, existed bool, fx *Effects) {
	key := keyOf(filter)
	g := m.groups[key]
	if g == nil {
		if i, ok := m.findDissolving(key); ok { // just in time
			g = m.dissolving[i]
			m.dissolving = slices.Delete(m.dissolving, i, i+1)
		} else {
			g = &group{key: key, name: filter}
		}
		m.groups[key] = g
	}
	if !existed {
		g.durable++
	}
	if g.pending.idle > 0 {
		fx.wait(key)
	}
}

// leave counts a durable member out. The last one takes the group's state
// with it: what waits then goes to an ephemeral member or to nobody, a few
// messages per record.
func (m *Machine) leave(filter string) {
	g := m.groups[keyOf(filter)]
	g.durable--
	if g.durable > 0 {
		return
	}
	delete(m.groups, g.key)
	if g.pending.len > 0 {
		m.addDissolving(g)
	}
}

// takeBack returns to a group what is queued for it in a session that
// unsubscribed. What is in flight, and what is beyond GiveBackPerFilter, is
// still delivered [MQTT-3.10.4-3].
func (m *Machine) takeBack(s *session.Session, filter string, fx *Effects) {
	if len(s.Out.GroupOf) == 0 {
		return
	}
	key := keyOf(filter)
	s.Out.ExtractQueued(m.bounds.giveBack, func(e *session.Entry[uint64]) bool {
		return e.Group && s.Out.GroupOf[e.Seq] == filter
	}, func(e session.Entry[uint64]) {
		msg, _ := m.message(e.Msg)
		s.QueuedBytes -= uint64(msg.size)
		m.counts.Queued--
		m.changed.ended(&s.Out, e.Seq)
		m.giveBack(key, e.Msg, fx)
	})
}

// waitingFor lists the groups of a session that hold messages for anyone.
func (m *Machine) waitingFor(s *session.Session, fx *Effects) {
	for _, f := range s.Shared() {
		if g := m.groups[keyOf(f)]; g != nil && g.pending.idle > 0 {
			fx.wait(g.key)
		}
	}
}

// deliverGroup gives the fresh message to the member that the record chose.
func (m *Machine) deliverGroup(id uint64, p *record.Publish, tg *topic.Group, fx *Effects) {
	g := m.groups[GroupKey{tg.Share, tg.Filter}]
	if g == nil || p.QoS == 0 { // nothing durable: the broker picks freely
		fx.Groups = append(fx.Groups, tg)
		return
	}
	var choice record.Choice
	for i := range p.Choices {
		if c := &p.Choices[i]; string(c.Share) == g.key.Share && string(c.Filter) == g.key.Filter {
			choice = *c
			break
		}
	}
	entry := pending{message: id}
	switch {
	case choice.Session != 0:
		if owns, taken := m.give(g, choice.Session, id, fx); taken {
			if owns {
				m.ref(id)
			}
			return
		}
	case choice.Epoch != 0:
		entry.epoch, entry.qos = choice.Epoch, deliveryQoS(p.QoS, choice.QoS)
	}
	if !m.pend(g, entry, fx) {
		return
	}
	m.ref(id)
	if entry.epoch == 0 {
		fx.wait(g.key)
		return
	}
	fx.Owned = append(fx.Owned, Owned{Group: g.key, Epoch: entry.epoch, Message: id, QoS: p.QoS, Retain: p.Retain, Deadline: m.fresh.msg.deadline})
}

// deliveryQoS is the QoS that an ephemeral member gets a message with, as far
// as the record says.
func deliveryQoS(message, granted uint8) uint8 {
	if granted == 0 {
		return message
	}
	return min(message, granted)
}

// give hands a message to a durable member. taken says that the session is
// (still) a member; owns that it refers to the message now.
func (m *Machine) give(g *group, sid, id uint64, fx *Effects) (owns, taken bool) {
	s := m.sessions[sid]
	if s == nil {
		return false, false
	}
	sub, member := s.Subscription(g.name)
	if !member {
		return false, false
	}
	msg, _ := m.message(id)
	qos := min(msg.qos(), sub.Options.QoS()) // [MQTT-4.8.2-3]
	retain := msg.retain() && sub.Options.RetainAsPublished()
	m.scratch.ids = m.scratch.ids[:0]
	if sub.ID != 0 {
		m.scratch.ids = append(m.scratch.ids, sub.ID)
	}
	if qos == 0 {
		if s.Connected() {
			fx.direct(s.Ref, 0, retain, m.scratch.ids)
		}
		return false, true
	}
	return m.push(s, id, msg.size, qos, retain, m.scratch.ids, g.name, fx), true
}

// applyDispatch gives a pending message to a member, or (Session and Epoch 0)
// takes it back from the ephemeral connection that had it.
func (m *Machine) applyDispatch(rec []byte, fx *Effects) error {
	var d record.Dispatch
	if err := d.Decode(rec); err != nil {
		return err
	}
	fx.Reply.Message = d.Message
	g := m.groups[GroupKey{string(d.Share), string(d.Filter)}]
	if g == nil {
		return nil
	}
	at, ok := g.pending.find(d.Message)
	if !ok {
		return nil
	}
	p := g.pending.at(at)
	if d.Session == 0 && d.Epoch == 0 {
		if p.epoch != 0 && (d.From == 0 || d.From == p.epoch) {
			fx.Reply.Known = true
			m.own(g, at, 0, 0)
			fx.wait(g.key)
		}
		return nil
	}
	if p.epoch != 0 { // somebody has it
		return nil
	}
	msg, _ := m.message(d.Message)
	switch {
	case msg.expired(m.now): // [MQTT-3.3.2-5]
		m.drop(g, at)
		fx.Dropped = append(fx.Dropped, Drop{NoRef, d.Message, DropExpired})
	case d.Session != 0:
		owns, taken := m.give(g, d.Session, d.Message, fx)
		if !taken {
			fx.wait(g.key)
			return nil
		}
		fx.Reply.Known = true
		m.unpend(g, at)
		if !owns {
			m.unref(d.Message)
		}
	default:
		fx.Reply.Known = true
		m.own(g, at, d.Epoch, deliveryQoS(msg.qos(), d.QoS))
		fx.Owned = append(fx.Owned, Owned{Group: g.key, Epoch: d.Epoch, Message: d.Message, QoS: msg.qos(), Retain: msg.retain(), Deadline: msg.deadline})
	}
	return nil
}

// ackGroup ends a message that an ephemeral member acknowledged, or refused
// [MQTT-4.8.2-6].
func (m *Machine) ackGroup(a *record.Ack, fx *Effects) {
	g := m.groups[GroupKey{string(a.Share), string(a.Filter)}]
	if g == nil {
		return
	}
	at, ok := g.pending.find(a.Message)
	if !ok || a.Epoch == 0 || g.pending.at(at).epoch != a.Epoch {
		return
	}
	fx.Reply.Known = true
	m.drop(g, at)
}

// groupsAtStart takes messages back from the ephemeral connections that a
// crash ended. A QoS 2 delivery may have started there and dies with its
// session [MQTT-4.8.2-5].
func (m *Machine) groupsAtStart() {
	for _, g := range m.sortedGroups() {
		var back, started []uint64
		g.pending.each(func(_ pendingAt, p *pending) bool {
			switch {
			case p.epoch != 0 && p.qos == 2:
				started = append(started, p.message)
			case p.epoch != 0:
				back = append(back, p.message)
			}
			return true
		})
		for _, id := range back {
			at, _ := g.pending.find(id)
			m.own(g, at, 0, 0)
		}
		for _, id := range started {
			at, _ := g.pending.find(id)
			m.drop(g, at)
		}
	}
	m.dissolving = slices.DeleteFunc(m.dissolving, func(g *group) bool { return g.pending.len == 0 })
}

// sortedGroups returns the groups in the order of their keys, those that
// dissolve last.
func (m *Machine) sortedGroups() []*group {
	list := slices.SortedFunc(maps.Values(m.groups), func(a, b *group) int { return a.key.compare(b.key) })
	return append(list, m.dissolving...)
}

// HasDurable reports whether a group has a durable member, so that a message
// of QoS 1 or 2 for it must be logged, with the member chosen.
func (m *Machine) HasDurable(key GroupKey) bool { return m.groups[key] != nil }

// Waiting returns up to n ids of messages that wait in a group for anyone,
// oldest first.
func (m *Machine) Waiting(key GroupKey, n int) []uint64 {
	g := m.groups[key]
	if g == nil || n <= 0 {
		return nil
	}
	ids := make([]uint64, 0, min(n, g.pending.idle))
	g.pending.each(func(_ pendingAt, p *pending) bool {
		if p.epoch == 0 {
			ids = append(ids, p.message)
		}
		return len(ids) < cap(ids)
	})
	return ids
}

// OwnedBy returns the messages that an ephemeral connection has of a group.
func (m *Machine) OwnedBy(key GroupKey, epoch record.Epoch) []Owned {
	g := m.groups[key]
	if g == nil || epoch == 0 {
		return nil
	}
	var list []Owned
	g.pending.each(func(_ pendingAt, p *pending) bool {
		if p.epoch == epoch {
			msg, _ := m.message(p.message)
			list = append(list, Owned{Group: key, Epoch: epoch, Message: p.message, QoS: msg.qos(), Retain: msg.retain(), Deadline: msg.deadline})
		}
		return true
	})
	return list
}
