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
	fx.Reply.PacketID = p.PacketID
	if p.Session != 0 {
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
	if p.WillOf != 0 {
		m.removeWill(p.WillOf)
		if len(p.Message) == 0 {
			return nil // the broker decided against it
		}
	}
	msg, err := packets.ParseMessage(p.Message)
	if err != nil {
		return err
	}
	if len(msg.Topic) == 0 {
		return errors.New("message without a topic")
	}
	m.deliver(index, p, &msg, fx)
	return nil
}

// deliver finds the subscribers of a message and keeps it for those with
// durable state.
func (m *Machine) deliver(id uint64, p *record.Publish, msg *packets.Message, fx *Effects) {
	size := uint32(len(p.Message))
	var at int64
	if p.HasExpiry {
		at = m.now + int64(p.Expiry)*1000
	}
	matches := &m.scratch.matches
	m.index.Match(msg.Topic, matches)
	fx.Reply.Matched = len(matches.Subs) + len(matches.Groups)
	var refs uint32
	if matches.Filters > 1 { // one client may have matched twice
		slices.SortStableFunc(matches.Subs, func(a, b topic.Sub) int { return cmp.Compare(a.Ref, b.Ref) })
	}
	for subs := matches.Subs; len(subs) > 0; {
		n := 1
		for n < len(subs) && subs[n].Ref == subs[0].Ref {
			n++
		}
		if m.deliverTo(id, p, size, subs[:n], fx) {
			refs++
		}
		subs = subs[n:]
	}
	for _, g := range matches.Groups {
		if m.deliverGroup(id, p, size, g, fx) {
			refs++
		}
	}
	if p.Retain {
		refs += m.retain(id, p, msg, at)
	}
	if refs > 0 {
		m.hold(id, message{refs: refs, size: size, crc: crc32.Checksum(p.Message, castagnoli), deadline: at})
	}
}

// deliverTo delivers a message to one client, whose matching subscriptions
// are subs: once, with the highest QoS granted and all their identifiers
// [MQTT-3.3.4-2 to -4]. It reports whether the message is now referred to.
func (m *Machine) deliverTo(id uint64, p *record.Publish, size uint32, subs []topic.Sub, fx *Effects) bool {
	sl := &m.slots[subs[0].Ref]
	s := sl.session
	var own bool
	if s != nil {
		own = p.Session == s.ID
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
	if len(ids) > 1 { // the index may list them in another order after a restart
		slices.Sort(ids)
	}
	m.scratch.ids = ids
	switch {
	case !any:
		return false
	case s == nil || qos == 0 && s.Connected():
		fx.direct(subs[0].Ref, qos, retain, ids)
		return false
	case qos == 0:
		return false // QoS 0 is not kept for absent clients
	}
	return m.push(s, id, size, qos, retain, ids, "", fx)
}

func (fx *Effects) direct(ref uint32, qos uint8, retain bool, ids []uint32) {
	d := Direct{Ref: ref, QoS: qos, Retain: retain, subIDs: uint32(len(fx.SubIDs)), nSubs: uint32(len(ids))}
	fx.SubIDs = append(fx.SubIDs, ids...)
	fx.Direct = append(fx.Direct, d)
}

// push queues a message for a session and gives it an identifier when the
// window has room. It reports whether the session now refers to the message.
func (m *Machine) push(s *session.Session, id uint64, size uint32, qos byte, retain bool, ids []uint32, group string, fx *Effects) bool {
	queued := s.Out.Queued()
	if l := &m.limits; queued > 0 || !s.Connected() {
		full := func() bool {
			return l.QueueMessages > 0 && uint64(s.Out.Queued()) >= l.QueueMessages ||
				l.QueueBytes > 0 && s.QueuedBytes+uint64(size) > l.QueueBytes
		}
		for l.DropOldest && full() && s.Out.Queued() > 0 {
			m.dropHead(s, DropQueueFull, fx)
		}
		if full() {
			fx.Dropped = append(fx.Dropped, Drop{s.Ref, id, DropQueueFull})
			return false
		}
	}
	m.touch(s)
	s.Out.Push(session.Entry[uint64]{Msg: id, QoS: qos, Retain: retain}, ids, group)
	s.QueuedBytes += uint64(size)
	if queued == 0 && s.Connected() && len(s.Out.Inflight()) < s.Window(m.limits.MaxInflight) {
		s.Out.Assign()
		fx.Touched = append(fx.Touched, s.Ref)
	}
	return true
}

// dropHead gives up the oldest queued message of a session.
func (m *Machine) dropHead(s *session.Session, why DropReason, fx *Effects) {
	e := s.Out.DropHead()
	msg := m.unref(e.Msg)
	s.QueuedBytes -= uint64(msg.size)
	m.touch(s)
	fx.Dropped = append(fx.Dropped, Drop{s.Ref, e.Msg, why})
}

// fill gives identifiers to queued messages while the window of a connected
// session has room. Expired ones are dropped here, before their hand-over.
func (m *Machine) fill(s *session.Session, fx *Effects) {
	if !s.Connected() || s.Out.Queued() == 0 {
		return
	}
	window := s.Window(m.limits.MaxInflight)
	assigned := false
	for s.Out.Queued() > 0 && len(s.Out.Inflight()) < window {
		head, _ := s.Out.Head()
		if msg := m.messages[head.Msg]; msg.expired(m.now) { // [MQTT-3.3.2-5]
			m.dropHead(s, DropExpired, fx)
			continue
		}
		s.Out.Assign()
		assigned = true
	}
	if assigned {
		m.touch(s)
		fx.Touched = append(fx.Touched, s.Ref)
	}
}

// retain replaces or clears the retained message of a topic and returns the
// references it takes (MQTT 5 section 3.3.1.3).
func (m *Machine) retain(id uint64, p *record.Publish, msg *packets.Message, deadline int64) uint32 {
	name := string(msg.Topic)
	if len(msg.Payload) == 0 { // [MQTT-3.3.1-6, -7]
		m.unretain(name)
		return 0
	}
	old, had := m.retained.Set(name, retain.Entry{
		Message: id, QoS: p.QoS, Time: m.now, Deadline: deadline, Bytes: len(p.Message),
	})
	if had {
		m.unref(old.Message)
	}
	m.changed.retain(name)
	return 1
}
