package core

import (
	"cmp"
	"slices"

	"github.com/wind-c/comqtt/v3/session"
)

// addReleased keeps the list ordered by session id, so that a machine that
// was loaded lets messages go in the same order as one that lived through it.
func (m *Machine) addReleased(s *session.Session) {
	i, _ := slices.BinarySearchFunc(m.released, s.ID, func(r *session.Session, id uint64) int { return cmp.Compare(r.ID, id) })
	m.released = slices.Insert(m.released, i, s)
}

// addDissolving keeps the list ordered by key, for the same reason.
func (m *Machine) addDissolving(g *group) {
	i, _ := m.findDissolving(g.key)
	m.dissolving = slices.Insert(m.dissolving, i, g)
}

func (m *Machine) findDissolving(key GroupKey) (int, bool) {
	return slices.BinarySearchFunc(m.dissolving, key, func(g *group, key GroupKey) int { return g.key.compare(key) })
}

// release deals with up to n messages that sessions and groups without a
// durable member left behind.
func (m *Machine) release(n int, fx *Effects) {
	for n > 0 && len(m.released) > 0 {
		s := m.released[0]
		m.touch(s)
		for ; n > 0 && m.releaseNext(s, fx); n-- {
		}
		if len(s.Out.Inflight())+s.Out.Queued() == 0 {
			m.released[0] = nil
			m.released = slices.Delete(m.released, 0, 1)
		}
	}
	for n > 0 && len(m.dissolving) > 0 {
		g := m.dissolving[0]
		for ; n > 0 && g.pending.len > 0; n-- {
			at := g.pending.start()
			p := *g.pending.at(at)
			msg := m.drop(g, at)
			if p.epoch == 0 {
				fx.Orphans = append(fx.Orphans, Owned{Group: g.key, Message: p.message, QoS: msg.qos(), Retain: msg.retain()})
			}
		}
		if g.pending.len == 0 {
			m.dissolving = slices.Delete(m.dissolving, 0, 1)
		}
	}
}

// releaseNext lets the oldest message of an ended session go. What it owes to
// a shared group goes back there, but for QoS 2 deliveries that have started:
// those die with the session [MQTT-4.8.2-5].
func (m *Machine) releaseNext(s *session.Session, fx *Effects) bool {
	var e session.Entry[uint64]
	var filter string
	switch in := s.Out.Inflight(); {
	case len(in) > 0:
		filter = s.Out.GroupOf[in[0].Seq]
		e, _ = s.Out.Remove(in[0].PID)
	case s.Out.Queued() > 0:
		head, _ := s.Out.Head()
		filter = s.Out.GroupOf[head.Seq]
		e = s.Out.DropHead()
	default:
		return false
	}
	m.changed.ended(&s.Out, e.Seq)
	if filter != "" && (e.PID == 0 || e.QoS != 2) {
		m.giveBack(keyOf(filter), e.Msg, fx)
	} else {
		m.unref(e.Msg)
	}
	return true
}

// giveBack returns a message to its group, or, when that has no durable member
// any more, to whichever ephemeral member the broker finds.
func (m *Machine) giveBack(key GroupKey, id uint64, fx *Effects) {
	g := m.groups[key]
	if g == nil {
		msg := m.unref(id)
		fx.Orphans = append(fx.Orphans, Owned{Group: key, Message: id, QoS: msg.qos(), Retain: msg.retain()})
		return
	}
	if !m.pend(g, pending{message: id}, fx) {
		m.unref(id)
		return
	}
	fx.wait(key)
}
