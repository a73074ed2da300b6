package core

import (
	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Reason codes that Apply answers an UNSUBSCRIBE with (MQTT 5 section 3.11.3).
const (
	codeSuccess       = 0x00
	codeNoSubExisted  = 0x11
	retainSendAlways  = 0
	retainSendWhenNew = 1
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
	m.touch(s)
	for _, f := range sub.Filters {
		filter := string(f.Name)
		existed := s.Subscribe(filter, session.Subscription{Options: f.Options, ID: sub.ID})
		m.index.Subscribe(filter, topic.Sub{Ref: s.Ref, ID: sub.ID, Opts: f.Options})
		if key := keyOf(filter); key.Share != "" {
			m.join(key, existed, fx)
			continue
		}
		m.retainedFor(s, s.Ref, filter, f.Options, sub.ID, existed, fx)
	}
	m.fill(s, fx)
	if s.Out.Unsent() > 0 {
		fx.Touched = append(fx.Touched, s.Ref)
	}
	return nil
}

// retainedFor gives a new subscription its retained messages (MQTT 5 section
// 3.3.1.3): into the queue of a durable session when QoS is above 0, else as
// Effects. Shared subscriptions get none.
func (m *Machine) retainedFor(s *session.Session, ref uint32, filter string, opts topic.Options, id uint32, existed bool, fx *Effects) {
	_, _, shared := topic.SplitShare(filter)
	how := opts.RetainHandling()
	if shared || how != retainSendAlways && (how != retainSendWhenNew || existed) {
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
		m.scratch.ids = append(m.scratch.ids[:0], id)
		if id == 0 {
			m.scratch.ids = m.scratch.ids[:0]
		}
		msg := m.messages[e.Message]
		if m.push(s, e.Message, msg.size, qos, true, m.scratch.ids, "", fx) {
			m.ref(e.Message, 1)
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
	m.touch(s)
	for _, f := range u.Filters {
		code := byte(codeNoSubExisted)
		if _, had := s.Subscription(string(f)); had {
			m.unsubscribe(s, string(f), fx)
			code = codeSuccess
		}
		fx.Reply.Codes = append(fx.Reply.Codes, code)
	}
	return nil
}

// unsubscribe removes one subscription from session, index and group.
func (m *Machine) unsubscribe(s *session.Session, filter string, fx *Effects) {
	s.Unsubscribe(filter)
	m.index.Unsubscribe(filter, s.Ref)
	if key := keyOf(filter); key.Share != "" {
		m.giveBack(s, filter, fx)
		m.leave(key, fx)
	}
}

func (m *Machine) applyRetainClear(rec []byte) error {
	var c record.RetainClear
	if err := c.Decode(rec); err != nil {
		return err
	}
	m.unretain(string(c.Topic))
	return nil
}

// unretain removes the retained message of a topic.
func (m *Machine) unretain(name string) {
	if old, had := m.retained.Delete(name); had {
		m.unref(old.Message)
		m.changed.retain(name)
	}
}

// MatchRetained calls fn for the retained messages that match a filter, in
// topic order, until it returns false.
func (m *Machine) MatchRetained(filter string, fn func(topic string, e retain.Entry) bool) {
	m.retained.Match(filter, fn)
}
