package core

import (
	"cmp"
	"maps"
	"slices"
	"strings"

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
	durable int // members with a durable session
	pending []pending
	dirty   map[uint64]bool // message ids whose entry changed; true: the backend has one
}

// pending is a message of a group without a durable owner, at the place of
// its id.
type pending struct {
	message uint64
	epoch   record.Epoch // ephemeral connection that delivers it, 0 = waits
	qos     uint8        // of the message
	retain  bool         // RETAIN flag of the message
}

func (g *group) find(id uint64) (int, bool) {
	return slices.BinarySearchFunc(g.pending, id, func(p pending, id uint64) int { return cmp.Compare(p.message, id) })
}

func (g *group) waiting() bool {
	return slices.ContainsFunc(g.pending, func(p pending) bool { return p.epoch == 0 })
}

// mark notes that the stored entry of a message is out of date.
func (g *group) mark(id uint64, stored bool) {
	if g.dirty == nil {
		g.dirty = make(map[uint64]bool)
	}
	if was, seen := g.dirty[id]; seen {
		stored = was
	}
	g.dirty[id] = stored
}

// add puts a message at its place by id, which is its old place when it
// comes back.
func (m *Machine) addPending(g *group, p pending) {
	i, had := g.find(p.message)
	if had {
		return
	}
	g.pending = slices.Insert(g.pending, i, p)
	g.mark(p.message, false)
	m.changed.group(g)
}

func (m *Machine) removePending(g *group, i int) pending {
	p := g.pending[i]
	g.pending = slices.Delete(g.pending, i, i+1)
	g.mark(p.message, true)
	m.changed.group(g)
	return p
}

// join counts a durable member in.
func (m *Machine) join(key GroupKey, existed bool, fx *Effects) {
	g := m.groups[key]
	if g == nil {
		g = &group{key: key}
		m.groups[key] = g
	}
	if !existed {
		g.durable++
	}
	if g.waiting() {
		fx.Waiting = append(fx.Waiting, key)
	}
}

// leave counts a durable member out. The last one takes the group's state
// with it: what waits then goes to an ephemeral member or to nobody.
func (m *Machine) leave(key GroupKey, fx *Effects) {
	g := m.groups[key]
	g.durable--
	if g.durable > 0 {
		return
	}
	for len(g.pending) > 0 {
		p := m.removePending(g, 0)
		m.unref(p.message)
		if p.epoch == 0 {
			fx.Orphans = append(fx.Orphans, Owned{Group: key, Message: p.message, QoS: p.qos, Retain: p.retain})
		}
	}
	delete(m.groups, key)
}

// giveBack takes from a session what it owes to shared groups: on an
// unsubscribe (filter set) what is queued for that group, at the session's
// end (filter empty) also what is in flight, but for QoS 2 deliveries that
// have started [MQTT-4.8.2-4, -5].
func (m *Machine) giveBack(s *session.Session, filter string, fx *Effects) {
	if len(s.Out.GroupOf) == 0 {
		return
	}
	keys := maps.Clone(s.Out.GroupOf)
	s.Out.Extract(func(e *session.Entry[uint64]) bool {
		switch {
		case !e.Group || filter != "" && keys[e.Seq] != filter:
			return false
		case e.PID != 0:
			return filter == "" && e.QoS == 1
		}
		return true
	}, func(e session.Entry[uint64]) {
		key := keyOf(keys[e.Seq])
		g := m.groups[key]
		msg := m.messages[e.Msg]
		s.QueuedBytes -= uint64(msg.size)
		if g == nil || g.durable == 0 {
			m.unref(e.Msg)
			return
		}
		m.addPending(g, pending{message: e.Msg, qos: e.QoS, retain: e.Retain})
		if len(fx.Waiting) == 0 || fx.Waiting[len(fx.Waiting)-1] != key {
			fx.Waiting = append(fx.Waiting, key)
		}
	})
}

// waitingFor lists the groups of a session that hold messages for anyone.
func (m *Machine) waitingFor(s *session.Session, fx *Effects) {
	for _, f := range s.Filters() {
		if !strings.HasPrefix(f, "$share/") {
			continue
		}
		if g := m.groups[keyOf(f)]; g != nil && g.waiting() {
			fx.Waiting = append(fx.Waiting, g.key)
		}
	}
}

// deliverGroup gives a message to the member that the record chose. It
// reports whether the message is now referred to.
func (m *Machine) deliverGroup(id uint64, p *record.Publish, size uint32, tg *topic.Group, fx *Effects) bool {
	g := m.groups[GroupKey{tg.Share, tg.Filter}]
	if g == nil || p.QoS == 0 { // nothing durable: the broker picks freely
		fx.Groups = append(fx.Groups, tg)
		return false
	}
	var choice record.Choice
	for i := range p.Choices {
		if c := &p.Choices[i]; string(c.Share) == g.key.Share && string(c.Filter) == g.key.Filter {
			choice = *c
			break
		}
	}
	entry := pending{message: id, qos: p.QoS, retain: p.Retain}
	if choice.Session != 0 {
		if owns, taken := m.give(g, choice.Session, &entry, size, fx); taken {
			return owns
		}
	} else if choice.Epoch != 0 {
		entry.epoch = choice.Epoch
		fx.Owned = append(fx.Owned, Owned{Group: g.key, Epoch: choice.Epoch, Message: id, QoS: p.QoS, Retain: p.Retain})
	}
	if entry.epoch == 0 {
		fx.Waiting = append(fx.Waiting, g.key)
	}
	m.addPending(g, entry)
	return true
}

// give hands a message to a durable member. taken says that the session is
// (still) a member; owns that it refers to the message now.
func (m *Machine) give(g *group, sid uint64, p *pending, size uint32, fx *Effects) (owns, taken bool) {
	s := m.sessions[sid]
	if s == nil {
		return false, false
	}
	filter := g.key.String()
	sub, member := s.Subscription(filter)
	if !member {
		return false, false
	}
	qos := min(p.qos, sub.Options.QoS())
	retain := p.retain && sub.Options.RetainAsPublished()
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
	return m.push(s, p.message, size, qos, retain, m.scratch.ids, filter, fx), true
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
	i, ok := g.find(d.Message)
	if !ok {
		return nil
	}
	p := &g.pending[i]
	switch {
	case d.Session == 0 && d.Epoch == 0:
		p.epoch = 0
		g.mark(d.Message, true)
		m.changed.group(g)
		fx.Waiting = append(fx.Waiting, g.key)
	case p.epoch != 0: // somebody has it
	case d.Session != 0:
		msg := m.messages[d.Message]
		owns, taken := m.give(g, d.Session, p, msg.size, fx)
		if !taken {
			fx.Waiting = append(fx.Waiting, g.key)
			return nil
		}
		fx.Reply.Known = true
		m.removePending(g, i)
		if !owns {
			m.unref(d.Message)
		}
	default:
		fx.Reply.Known = true
		p.epoch = d.Epoch
		g.mark(d.Message, true)
		m.changed.group(g)
		fx.Owned = append(fx.Owned, Owned{Group: g.key, Epoch: d.Epoch, Message: d.Message, QoS: p.qos, Retain: p.retain})
	}
	return nil
}

// ackGroup ends a message that an ephemeral member acknowledged.
func (m *Machine) ackGroup(a *record.Ack, fx *Effects) {
	g := m.groups[GroupKey{string(a.Share), string(a.Filter)}]
	if g == nil {
		return
	}
	i, ok := g.find(a.Message)
	if !ok || g.pending[i].epoch != a.Epoch {
		return
	}
	fx.Reply.Known = true
	m.removePending(g, i)
	m.unref(a.Message)
}

// groupsAtStart takes messages back from the ephemeral connections that a
// crash ended. A QoS 2 delivery may have started there and dies with its
// session [MQTT-4.8.2-5].
func (m *Machine) groupsAtStart() {
	for _, g := range m.sortedGroups() {
		for i := 0; i < len(g.pending); {
			p := &g.pending[i]
			if p.epoch != 0 && p.qos == 2 {
				m.unref(m.removePending(g, i).message)
				continue
			}
			if p.epoch != 0 {
				p.epoch = 0
				g.mark(p.message, true)
				m.changed.group(g)
			}
			i++
		}
	}
}

func (m *Machine) sortedGroups() []*group {
	return slices.SortedFunc(maps.Values(m.groups), func(a, b *group) int { return a.key.compare(b.key) })
}

// HasDurable reports whether a group has a durable member, so that a message
// of QoS 1 or 2 for it must be logged, with the member chosen.
func (m *Machine) HasDurable(key GroupKey) bool { return m.groups[key] != nil }

// Waiting returns up to n ids of messages that wait in a group for anyone,
// oldest first.
func (m *Machine) Waiting(key GroupKey, n int) []uint64 {
	g := m.groups[key]
	if g == nil {
		return nil
	}
	var ids []uint64
	for i := range g.pending {
		if len(ids) == n {
			break
		}
		if g.pending[i].epoch == 0 {
			ids = append(ids, g.pending[i].message)
		}
	}
	return ids
}

// OwnedBy returns the messages that an ephemeral connection has of a group.
func (m *Machine) OwnedBy(key GroupKey, epoch record.Epoch) []Owned {
	g := m.groups[key]
	if g == nil {
		return nil
	}
	var list []Owned
	for _, p := range g.pending {
		if p.epoch == epoch {
			list = append(list, Owned{Group: key, Epoch: epoch, Message: p.message, QoS: p.qos, Retain: p.retain})
		}
	}
	return list
}
