package core

import (
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// applyAck ends deliveries: PUBACK of QoS 1, PUBCOMP of QoS 2, or the
// broker's decision not to send.
func (m *Machine) applyAck(rec []byte, fx *Effects) error {
	a := &m.scratch.ack
	if err := a.Decode(rec); err != nil {
		return err
	}
	if a.Message != 0 {
		m.ackGroup(a, fx)
		return nil
	}
	s := m.current(a.Session, a.Epoch)
	if s == nil {
		fx.Reply.Stale = true
		return nil
	}
	for _, run := range a.Runs {
		for i := range run.Count {
			if m.ack(s, run.First+i, a.Reason, fx) {
				fx.Reply.Known = true
			}
		}
	}
	m.fill(s, fx)
	return nil
}

// ack ends one delivery. A PUBACK does not end a QoS 2 delivery that the
// client has not taken by PUBREC.
func (m *Machine) ack(s *session.Session, pid uint16, why record.AckReason, fx *Effects) bool {
	e := s.Out.Find(pid)
	if e == nil || why == record.AckClient && e.QoS == 2 && e.Phase == session.PhasePublish {
		return false
	}
	id := e.Msg
	m.done(s, pid)
	switch why {
	case record.AckExpired:
		fx.Dropped = append(fx.Dropped, Drop{s.Ref, id, DropExpired})
	case record.AckTooLarge:
		fx.Dropped = append(fx.Dropped, Drop{s.Ref, id, DropTooLarge})
	case record.AckDenied:
		fx.Dropped = append(fx.Dropped, Drop{s.Ref, id, DropDenied})
	}
	return true
}

// done removes an in-flight entry and its reference.
func (m *Machine) done(s *session.Session, pid uint16) {
	e, _ := s.Out.Remove(pid)
	m.unref(e.Msg)
	m.counts.Inflight--
	m.changed.ended(&s.Out, e.Seq)
	m.touch(s)
}

// applyRec takes a PUBREC: the client has the message, or refuses it with a
// code of 0x80 and above, which ends the delivery [MQTT-4.4.0-2].
func (m *Machine) applyRec(rec []byte, fx *Effects) error {
	var r record.Rec
	if err := r.Decode(rec); err != nil {
		return err
	}
	fx.Reply.PacketID = r.PacketID
	s := m.current(r.Session, r.Epoch)
	if s == nil {
		fx.Reply.Stale = true
		return nil
	}
	e := s.Out.Find(r.PacketID)
	if e == nil || e.QoS != 2 {
		return nil
	}
	fx.Reply.Known = true
	switch {
	case r.Code >= 0x80:
		m.done(s, r.PacketID)
		m.fill(s, fx)
	case e.Phase == session.PhasePublish:
		s.Out.Released(e)
		m.changed.assigned(&s.Out, e.Seq)
		m.touch(s)
	}
	return nil
}

// applyPubRel releases a received identifier.
func (m *Machine) applyPubRel(rec []byte, fx *Effects) error {
	var p record.PubRel
	if err := p.Decode(rec); err != nil {
		return err
	}
	fx.Reply.PacketID = p.PacketID
	s := m.current(p.Session, p.Epoch)
	if s == nil {
		fx.Reply.Stale = true
		return nil
	}
	if s.Release(p.PacketID) {
		fx.Reply.Known = true
		m.touch(s)
	}
	return nil
}
