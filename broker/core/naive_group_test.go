package core

import (
	"cmp"
	"slices"

	"github.com/wind-c/comqtt/v3/wal/record"
)

// This file is the naive broker's idea of shared groups.

func (n *naive) durable(k GroupKey) bool {
	return slices.ContainsFunc(n.sessions, func(s *naiveSession) bool { _, ok := s.subs[k.String()]; return ok })
}

func (n *naive) giveBack(k GroupKey, msg uint64) {
	if !n.durable(k) {
		n.did.add("orphan", k, msg)
		return
	}
	n.pend(k, naivePending{msg: msg})
}

func (n *naive) pend(k GroupKey, p naivePending) {
	full := func() bool {
		bytes := n.messages[p.msg].size
		for _, o := range n.pending[k] {
			bytes += n.messages[o.msg].size
		}
		l := n.limits
		return l.QueueMessages > 0 && len(n.pending[k]) >= int(l.QueueMessages) || l.QueueBytes > 0 && bytes > int(l.QueueBytes)
	}
	for p.epoch == 0 && full() {
		i := slices.IndexFunc(n.pending[k], func(p naivePending) bool { return p.epoch == 0 })
		if !n.limits.DropOldest || i < 0 || n.limits.QueueBytes > 0 && n.messages[p.msg].size > int(n.limits.QueueBytes) {
			n.did.add("drop", 0, p.msg, DropQueueFull)
			return
		}
		n.did.add("drop", 0, n.pending[k][i].msg, DropQueueFull)
		n.pending[k] = slices.Delete(n.pending[k], i, i+1)
	}
	n.pending[k] = append(n.pending[k], p)
	slices.SortFunc(n.pending[k], func(a, b naivePending) int { return cmp.Compare(a.msg, b.msg) })
}

func (n *naive) groups() []GroupKey {
	var keys []GroupKey
	for _, s := range n.sessions {
		for f := range s.subs {
			if k := keyOf(f); k.Share != "" && !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
	}
	slices.SortFunc(keys, GroupKey.compare)
	return keys
}

func (n *naive) deliverGroup(k GroupKey, m *naiveMessage, p *record.Publish) {
	wait := naivePending{msg: m.id}
	for _, c := range p.Choices {
		if string(c.Share) != k.Share || string(c.Filter) != k.Filter {
			continue
		}
		if c.Session != 0 && n.give(k, c.Session, m) {
			return
		}
		if c.Session == 0 && c.Epoch != 0 {
			if wait.epoch, wait.qos = c.Epoch, m.qos; c.QoS != 0 {
				wait.qos = min(m.qos, c.QoS)
			}
			n.did.add("owned", k, m.id, c.Epoch)
		}
		break
	}
	n.pend(k, wait)
}

func (n *naive) give(k GroupKey, sid uint64, m *naiveMessage) bool {
	s := n.byID(sid)
	if s == nil {
		return false
	}
	sub, member := s.subs[k.String()]
	if !member {
		return false
	}
	e := naiveEntry{
		Msg: m.id, QoS: min(m.qos, sub.Options.QoS()), Retain: m.retain && sub.Options.RetainAsPublished(),
		IDs: idList(sub.ID), Group: k.String(),
	}
	switch {
	case e.QoS > 0:
		n.push(s, e)
	case s.epoch != 0:
		n.did.add("direct", s.id, e.Retain, e.IDs)
	}
	return true
}

func (n *naive) dispatch(d *record.Dispatch) {
	k := GroupKey{string(d.Share), string(d.Filter)}
	i := slices.IndexFunc(n.pending[k], func(p naivePending) bool { return p.msg == d.Message })
	if i < 0 || !n.durable(k) {
		return
	}
	p, m := &n.pending[k][i], n.messages[d.Message]
	drop := func() { n.pending[k] = slices.Delete(n.pending[k], i, i+1) }
	switch {
	case d.Session == 0 && d.Epoch == 0:
		if p.epoch != 0 && (d.From == 0 || d.From == p.epoch) {
			p.epoch, p.qos = 0, 0
		}
	case p.epoch != 0:
	case m.deadline != 0 && m.deadline <= n.now:
		n.did.add("drop", 0, m.id, DropExpired)
		drop()
	case d.Session != 0:
		if n.give(k, d.Session, m) {
			drop()
		}
	default:
		if p.epoch, p.qos = d.Epoch, m.qos; d.QoS != 0 {
			p.qos = min(m.qos, d.QoS)
		}
		n.did.add("owned", k, m.id, d.Epoch)
	}
}
