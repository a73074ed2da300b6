package core

import (
	"cmp"
	"errors"
	"hash/crc32"
	"slices"

	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// applyPublish stores a message for whom it concerns.
func (m *Machine) applyPublish(index uint64, rec []byte, fx *Effects) error {
	p := &m.scratch.publish
	if err := p.Decode(rec); err != nil {
		return err
	}
	fx.Reply.PacketID, fx.Reply.QoS = p.PacketID, p.QoS
	origin := p.Session
	switch {
	case p.WillOf != 0:
		w := m.wills[p.WillOf]
		if w == nil || !w.due { // published already: once, whatever happens
			fx.Reply.Stale = true
			return nil
		}
		if s := m.byClient[w.clientID]; s != nil {
			origin = s.ID
		}
		m.removeWill(w)
		if len(p.Message) == 0 {
			return nil // the broker decided against it
		}
	case p.Session != 0:
		s := m.current(p.Session, p.Epoch)
		if s == nil {
			fx.Reply.Stale = true
			return nil
		}
		if p.QoS == 2 {
			if !s.Receive(p.PacketID) { // [MQTT-4.3.3-10]
				fx.Reply.Duplicate = true
				return nil
			}
			m.touch(s)
		}
	}
	msg, err := packets.ParseMessage(p.Message)
	if err != nil {
		return err
	}
	if len(msg.Topic) == 0 {
		return errors.New("message without a topic")
	}
	m.deliver(index, origin, p, &msg, fx)
	return nil
}

// deliver finds the subscribers of a message and keeps it for those with
// durable state. origin is the publisher's session, 0 for none.
func (m *Machine) deliver(id, origin uint64, p *record.Publish, msg *packets.Message, fx *Effects) {
	m.fresh = fresh{id: id, msg: message{size: uint32(len(p.Message)), flags: p.QoS}}
	if p.Retain {
		m.fresh.msg.flags |= messageRetain
	}
	if p.HasExpiry {
		m.fresh.msg.deadline = m.now + int64(p.Expiry)*1000
	}
	matches := &m.scratch.matches
	m.index.Match(msg.Topic, matches)
	fx.Reply.Matched = len(matches.Subs) + len(matches.Groups)
	if subs := matches.Subs; matches.Filters <= 1 || len(subs) == 1 {
		for i := range subs {
			m.deliverTo(origin, p, subs[i:i+1], fx)
		}
	} else { // one client may have matched more than once
		m.deliverSeveral(origin, p, subs, fx)
	}
	if len(matches.Groups) > 1 { // the index has them in an order that its history decides
		slices.SortFunc(matches.Groups, func(a, b *topic.Group) int {
			return cmp.Or(cmp.Compare(a.Share, b.Share), cmp.Compare(a.Filter, b.Filter))
		})
	}
	for _, g := range matches.Groups {
		m.deliverGroup(id, p, g, fx)
	}
	if p.Retain {
		m.retain(id, p, msg)
	}
	if m.fresh.msg.refs > 0 {
		m.fresh.msg.crc = crc32.Checksum(p.Message, castagnoli)
	}
	m.hold()
}

// deliverSeveral delivers to clients of which some may have several matching
// subscriptions. It links those of one client by their places, from 1: first
// holds that of a client's first, next that of the same client's next.
func (m *Machine) deliverSeveral(origin uint64, p *record.Publish, subs []topic.Sub, fx *Effects) {
	sc := &m.scratch
	if n := len(m.slots) - len(sc.first); n > 0 {
		sc.first = append(sc.first, make([]int32, n)...)
	}
	sc.next = slices.Grow(sc.next[:0], len(subs))[:len(subs)]
	for i := len(subs) - 1; i >= 0; i-- {
		ref := subs[i].Ref
		sc.next[i], sc.first[ref] = sc.first[ref], int32(i+1)
	}
	for i := range subs {
		ref := subs[i].Ref
		if sc.first[ref] == 0 { // the client has had it
			continue
		}
		sc.first[ref] = 0
		if sc.next[i] == 0 {
			m.deliverTo(origin, p, subs[i:i+1], fx)
			continue
		}
		sc.subs = sc.subs[:0]
		for at := int32(i + 1); at != 0; at = sc.next[at-1] {
			sc.subs = append(sc.subs, subs[at-1])
		}
		m.deliverTo(origin, p, sc.subs, fx)
	}
}

// deliverTo delivers the fresh message to one client, whose matching
// subscriptions are subs: once, with the highest QoS granted and all their
// identifiers [MQTT-3.3.4-2 to -4].
func (m *Machine) deliverTo(origin uint64, p *record.Publish, subs []topic.Sub, fx *Effects) {
	sl := &m.slots[subs[0].Ref]
	s := sl.session
	var own bool
	if s != nil {
		own = origin == s.ID
	} else {
		own = p.Epoch == sl.epoch
	}
	var qos byte
	var retain, any bool
	ids := m.scratch.ids[:0]
	for i := range subs {
		o := subs[i].Opts
		if own && o.NoLocal() { // [MQTT-3.8.3-3]
			continue
		}
		any = true
		qos = max(qos, min(p.QoS, o.QoS()))
		retain = retain || p.Retain && o.RetainAsPublished() // [MQTT-3.3.1-12, -13]
		if subs[i].ID != 0 {
			ids = append(ids, subs[i].ID)
		}
	}
	m.scratch.ids = ids
	if len(ids) > 1 {
		slices.Sort(ids) // whatever order the index has them in
	}
	switch {
	case !any:
		return
	case s == nil || qos == 0 && s.Connected():
		fx.direct(subs[0].Ref, qos, retain, ids)
		return
	case qos == 0:
		return // QoS 0 is not kept for absent clients
	}
	if m.push(s, m.fresh.id, m.fresh.msg.size, qos, retain, ids, "", fx) {
		m.fresh.msg.refs++
	}
}

// push gives a message to a session: at once with an identifier when the
// window has room, else into its queue. It reports whether the session now
// refers to the message; counting that is the caller's business.
func (m *Machine) push(s *session.Session, id uint64, size uint32, qos byte, retain bool, ids []uint32, group string, fx *Effects) bool {
	e := session.Entry[uint64]{Msg: id, QoS: qos, Retain: retain}
	if s.Connected() && s.Out.Queued() == 0 && len(s.Out.Inflight()) < s.Window(m.limits.MaxInflight) {
		s.Out.Deliver(e, ids, group)
		m.counts.Inflight++
		fx.touch(s.Ref)
	} else {
		if !m.makeQueueRoom(s, size, fx) {
			fx.Dropped = append(fx.Dropped, Drop{s.Ref, id, DropQueueFull})
			return false
		}
		s.Out.Push(e, ids, group)
		s.QueuedBytes += uint64(size)
		m.counts.Queued++
	}
	m.changed.entries++
	m.touch(s)
	return true
}

// makeQueueRoom applies the limits of a session's queue. A queue that drops
// its oldest messages does so as far as it helps.
func (m *Machine) makeQueueRoom(s *session.Session, size uint32, fx *Effects) bool {
	l := &m.limits
	for n := 0; l.QueueMessages > 0 && uint64(s.Out.Queued()) >= l.QueueMessages ||
		l.QueueBytes > 0 && s.QueuedBytes+uint64(size) > l.QueueBytes; n++ {
		if !l.DropOldest || s.Out.Queued() == 0 || n == m.bounds.push || l.QueueBytes > 0 && uint64(size) > l.QueueBytes {
			return false
		}
		m.dropHead(s, DropQueueFull, fx)
	}
	return true
}

// dropHead gives up the oldest queued message of a session.
func (m *Machine) dropHead(s *session.Session, why DropReason, fx *Effects) {
	e := s.Out.DropHead()
	msg := m.unref(e.Msg)
	s.QueuedBytes -= uint64(msg.size)
	m.counts.Queued--
	m.changed.ended(&s.Out, e.Seq)
	m.touch(s)
	fx.Dropped = append(fx.Dropped, Drop{s.Ref, e.Msg, why})
}

// fill gives identifiers to queued messages while the window of a connected
// session has room. Expired ones are dropped here, before their hand-over; if
// there are very many, those left get an identifier all the same, and the
// broker drops them before it sends them, by an Ack that leads here again.
func (m *Machine) fill(s *session.Session, fx *Effects) {
	if s.Out.Queued() == 0 || !s.Connected() {
		return
	}
	window := s.Window(m.limits.MaxInflight)
	if len(s.Out.Inflight()) >= window {
		return
	}
	m.touch(s)
	for dropped := 0; s.Out.Queued() > 0 && len(s.Out.Inflight()) < window; {
		head, _ := s.Out.Head()
		msg, _ := m.message(head.Msg)
		if msg.expired(m.now) && dropped < m.bounds.fill { // [MQTT-3.3.2-5]
			m.dropHead(s, DropExpired, fx)
			dropped++
			continue
		}
		s.Out.Assign()
		s.QueuedBytes -= uint64(msg.size)
		m.counts.Queued--
		m.counts.Inflight++
		m.changed.assigned(&s.Out, head.Seq)
		fx.touch(s.Ref)
	}
}

// retain replaces or clears the retained message of a topic (MQTT 5 section
// 3.3.1.3).
func (m *Machine) retain(id uint64, p *record.Publish, msg *packets.Message) {
	if len(msg.Payload) == 0 { // [MQTT-3.3.1-6, -7]
		m.unretain(msg.Topic)
		return
	}
	old, had := m.retained.SetBytes(msg.Topic, retain.Entry{
		Message: id, QoS: p.QoS, Time: m.now, Deadline: m.fresh.msg.deadline, Bytes: len(p.Message),
	})
	if had {
		m.unref(old.Message)
	}
	m.fresh.msg.refs++
	m.changed.retain(msg.Topic)
}

// unretain removes the retained message of a topic and reports whether there
// was one.
func (m *Machine) unretain(name []byte) bool {
	old, had := m.retained.Delete(string(name))
	if had {
		m.unref(old.Message)
		m.changed.retain(name)
	}
	return had
}
