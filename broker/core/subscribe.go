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
	left := m.bounds.retained
	for _, f := range sub.Filters {
		if topic.ValidateFilter(f.Name) != nil {
			continue // not granted by any broker
		}
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
		if getsRetained(f.Options, existed) {
			left -= m.beginScan(s, session.Scan{
				Filter: filter, ID: sub.ID, QoS: f.Options.QoS(), Before: m.applied + 1,
			}, left, fx)
		}
	}
	m.fill(s, fx)
	return nil
}

// getsRetained reports whether a subscription that is not shared gets the
// retained messages now (MQTT 5 section 3.3.1.3).
func getsRetained(opts topic.Options, existed bool) bool {
	switch opts.RetainHandling() {
	case topic.RetainSend: // [MQTT-3.3.1-9]
		return true
	case topic.RetainSendIfNew: // [MQTT-3.3.1-10]
		return !existed
	}
	return false // [MQTT-3.3.1-11]
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
	m.dropScans(s, filter)
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
