package core

import (
	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Reason codes that Apply answers an UNSUBSCRIBE with (MQTT 5 section 3.11.3).
const (
	codeSuccess      = 0x00
	codeNoSubExisted = 0x11
)

// applySubscribe adds subscriptions and the retained messages they bring, in
// one step.
func (m *Machine) applySubscribe(rec []byte, fx *Effects) error {
	sub := &m.scratch.subscribe
	if err := sub.Decode(rec); err != nil {
		return err
	}
	fx.Reply.PacketID = sub.PacketID
	s := m.current(sub.Session, sub.Epoch)
	if s == nil {
		fx.Reply.Stale = true
		return nil
	}
	for _, f := range sub.Filters {
		m.touch(s)
		filter := string(f.Name)
		existed := s.Subscribe(filter, session.Subscription{Options: f.Options, ID: sub.ID})
		m.index.Subscribe(filter, topic.Sub{Ref: s.Ref, ID: sub.ID, Opts: f.Options})
		if !existed {
			m.counts.Subscriptions++
		}
		if _, _, shared := topic.SplitShare(filter); shared {
			m.join(filter, existed, fx)
			continue
		}
		m.retainedFor(s, s.Ref, filter, f.Options, sub.ID, existed, fx)
	}
	m.fill(s, fx)
	return nil
}

// retainedFor gives a new subscription its retained messages (MQTT 5 section
// 3.3.1.3): into the queue of a durable session when QoS is above 0, else as
// Effects. Shared subscriptions get none.
func (m *Machine) retainedFor(s *session.Session, ref uint32, filter string, opts topic.Options, id uint32, existed bool, fx *Effects) {
	switch _, _, shared := topic.SplitShare(filter); {
	case shared:
		return
	case opts.RetainHandling() == topic.RetainSend: // [MQTT-3.3.1-9]
	case opts.RetainHandling() == topic.RetainSendIfNew && !existed: // [MQTT-3.3.1-10]
	default: // [MQTT-3.3.1-11]
		return
	}
	m.retained.Match(filter, func(_ string, e retain.Entry) bool {
		if e.Deadline != 0 && m.now >= e.Deadline {
			return true
		}
		qos := min(e.QoS, opts.QoS())
		if s == nil || qos == 0 {
			fx.Retained = append(fx.Retained, Retained{Ref: ref, SubID: id, Message: e.Message, QoS: qos})
			return true
		}
		m.scratch.ids = m.scratch.ids[:0]
		if id != 0 {
			m.scratch.ids = append(m.scratch.ids, id)
		}
		if m.push(s, e.Message, uint32(e.Bytes), qos, true, m.scratch.ids, "", fx) {
			m.ref(e.Message)
		}
		return true
	})
}

// applyUnsubscribe removes subscriptions.
func (m *Machine) applyUnsubscribe(rec []byte, fx *Effects) error {
	u := &m.scratch.unsubscribe
	if err := u.Decode(rec); err != nil {
		return err
	}
	fx.Reply.PacketID = u.PacketID
	s := m.current(u.Session, u.Epoch)
	if s == nil {
		fx.Reply.Stale = true
		return nil
	}
	for _, f := range u.Filters {
		code := byte(codeNoSubExisted)
		filter := string(f)
		if _, had := s.Subscription(filter); had {
			m.takeBack(s, filter, fx)
			m.unsubscribe(s, filter)
			code = codeSuccess
		}
		fx.Reply.Codes = append(fx.Reply.Codes, code)
	}
	return nil
}

// unsubscribe removes one subscription from session, index and group.
func (m *Machine) unsubscribe(s *session.Session, filter string) {
	m.touch(s)
	s.Unsubscribe(filter)
	m.index.Unsubscribe(filter, s.Ref)
	m.counts.Subscriptions--
	if _, _, shared := topic.SplitShare(filter); shared {
		m.leave(filter)
	}
}

func (m *Machine) applyRetainClear(rec []byte, fx *Effects) error {
	var c record.RetainClear
	if err := c.Decode(rec); err != nil {
		return err
	}
	fx.Reply.Known = m.unretain(c.Topic)
	return nil
}

// MatchRetained calls fn for the retained messages that match a filter, in
// topic order, until it returns false.
func (m *Machine) MatchRetained(filter string, fn func(topic string, e retain.Entry) bool) {
	m.retained.Match(filter, fn)
}
