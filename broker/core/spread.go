package core

import (
	"cmp"
	"slices"

	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// This file is the work that one record begins and later ones go on with, so
// that none of them holds the loop for long: retained messages for a new
// subscription, and what ended sessions and groups leave behind. What is
// unfinished is state, and its order follows from the state, so that a machine
// that was loaded goes on exactly like one that lived through it.

// unfinished reports whether there is such work.
func (m *Machine) unfinished() bool { return len(m.scanning)+len(m.released)+len(m.dissolving) > 0 }

// spread goes on with up to about n topics and messages, by a record of this
// kind. New retained messages for a client come with the kinds that brought
// the first of them, so that the broker looks for them only there.
func (m *Machine) spread(n int, kind record.Kind, fx *Effects) {
	if len(m.scanning) > 0 && ChangesIndex(kind) {
		m.goOnScanning(n, fx)
	}
	m.release(n, fx)
}

func insertByID(list []*session.Session, s *session.Session) []*session.Session {
	if i, found := findByID(list, s.ID); !found {
		return slices.Insert(list, i, s)
	}
	return list
}

func findByID(list []*session.Session, id uint64) (int, bool) {
	return slices.BinarySearchFunc(list, id, func(s *session.Session, id uint64) int { return cmp.Compare(s.ID, id) })
}

// beginScan gives a new subscription its retained messages, those of up to
// limit topics at once. It returns how much of the limit it used.
func (m *Machine) beginScan(s *session.Session, scan session.Scan, limit int, fx *Effects) int {
	used := 0
	if limit > 0 {
		var done bool
		if used, done = m.scan(s, &scan, limit, fx); done {
			return used
		}
	}
	s.Scans = append(s.Scans, scan)
	m.scanning = insertByID(m.scanning, s)
	return max(used, limit)
}

// goOnScanning takes the next step of the oldest session's oldest scan.
func (m *Machine) goOnScanning(limit int, fx *Effects) {
	s := m.scanning[0]
	m.touch(s)
	if _, done := m.scan(s, &s.Scans[0], limit, fx); !done {
		return
	}
	s.Scans = slices.Delete(s.Scans, 0, 1)
	if len(s.Scans) == 0 {
		s.Scans = nil
		m.scanning = slices.Delete(m.scanning, 0, 1)
	}
}

// scan gives a session the retained messages of up to limit topics: into the
// queue when QoS is above 0, else as Effects. It returns how many it found. A
// message published since the SUBSCRIBE was delivered then.
func (m *Machine) scan(s *session.Session, scan *session.Scan, limit int, fx *Effects) (n int, done bool) {
	scan.After, done = m.retained.MatchFrom(scan.Filter, scan.After, limit, func(_ string, e retain.Entry) bool {
		n++
		qos := min(e.QoS, scan.QoS)
		switch {
		case e.Message >= scan.Before, e.Deadline != 0 && m.now >= e.Deadline: // [MQTT-3.3.2-5]
		case qos > 0:
			m.scratch.ids = m.scratch.ids[:0]
			if scan.ID != 0 {
				m.scratch.ids = append(m.scratch.ids, scan.ID)
			}
			if m.push(s, e.Message, uint32(e.Bytes), qos, true, m.scratch.ids, "", fx) {
				m.ref(e.Message)
			}
		case s.Connected():
			fx.Retained = append(fx.Retained, Retained{Ref: s.Ref, SubID: scan.ID, Message: e.Message})
		}
		return true
	})
	return n, done
}

// dropScans ends the scans for a subscription that is gone [MQTT-3.10.4-2].
func (m *Machine) dropScans(s *session.Session, filter string) {
	if len(s.Scans) == 0 {
		return
	}
	s.Scans = slices.DeleteFunc(s.Scans, func(scan session.Scan) bool { return scan.Filter == filter })
	if len(s.Scans) == 0 {
		s.Scans = nil
		i, _ := findByID(m.scanning, s.ID)
		m.scanning = slices.Delete(m.scanning, i, i+1)
	}
}

// addDissolving keeps the list ordered by key.
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
				fx.Orphans = append(fx.Orphans, Owned{Group: g.key, Message: p.message, QoS: msg.qos(), Retain: msg.retain(), Deadline: msg.deadline})
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
		fx.Orphans = append(fx.Orphans, Owned{Group: key, Message: id, QoS: msg.qos(), Retain: msg.retain(), Deadline: msg.deadline})
		return
	}
	if !m.pend(g, pending{message: id}, fx) {
		m.unref(id)
		return
	}
	fx.wait(key)
}
