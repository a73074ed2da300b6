package core

import (
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// dueKind says what a deadline is of. The order is part of the state
// machine's semantics: it decides between equal times.
type dueKind uint8

const (
	dueSession     dueKind = iota // a session's expiry
	dueSessionWill                // the delayed will of a disconnected session
	dueWill                       // a will outside a session
)

// deadline is a moment at which something is to happen. There is at most one
// of a kind for a session, and one for a will.
type deadline struct {
	at   int64
	id   uint64 // of the session or will
	ref  uint32 // slot of the session
	kind dueKind
}

func (d *deadline) before(o *deadline) bool {
	if d.at != o.at {
		return d.at < o.at
	}
	if d.kind != o.kind {
		return d.kind < o.kind
	}
	return d.id < o.id
}

// duePlace is where the place of a deadline in the heap is kept: the place
// plus 1, 0 when it is not there.
func (m *Machine) duePlace(d *deadline) *int32 {
	if d.kind == dueWill {
		return &m.wills[d.id].place
	}
	return &m.slots[d.ref].due[d.kind]
}

// setDue puts a deadline into the heap, where it is not yet.
func (m *Machine) setDue(d deadline) {
	m.due = append(m.due, d)
	*m.duePlace(&d) = int32(len(m.due))
	m.fixDue(len(m.due) - 1)
}

// clearDue takes a deadline out of the heap, if it is there.
func (m *Machine) clearDue(d deadline) {
	place := m.duePlace(&d)
	if *place == 0 {
		return
	}
	i, last := int(*place-1), len(m.due)-1
	m.swapDue(i, last)
	m.due = m.due[:last]
	*place = 0
	if i < last {
		m.fixDue(i)
	}
}

func (m *Machine) swapDue(i, j int) {
	m.due[i], m.due[j] = m.due[j], m.due[i]
	*m.duePlace(&m.due[i]), *m.duePlace(&m.due[j]) = int32(i+1), int32(j+1)
}

func (m *Machine) fixDue(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !m.due[i].before(&m.due[parent]) {
			break
		}
		m.swapDue(i, parent)
		i = parent
	}
	for {
		kid := 2*i + 1
		if kid+1 < len(m.due) && m.due[kid+1].before(&m.due[kid]) {
			kid++
		}
		if kid >= len(m.due) || !m.due[kid].before(&m.due[i]) {
			return
		}
		m.swapDue(i, kid)
		i = kid
	}
}

// arm sets the deadlines of a disconnected session.
func (m *Machine) arm(s *session.Session) {
	if at, ends := s.ExpiresAt(); ends {
		m.setDue(deadline{at, s.ID, s.Ref, dueSession})
	}
	if s.HasWill && s.WillAt != 0 {
		m.setDue(deadline{s.WillAt, s.ID, s.Ref, dueSessionWill})
	}
}

// disarm takes the deadlines of a session away.
func (m *Machine) disarm(s *session.Session) {
	m.clearDue(deadline{ref: s.Ref, kind: dueSession})
	m.clearDue(deadline{ref: s.Ref, kind: dueSessionWill})
}

// NextDeadline returns the log time (unix ms) at which a Tick has something
// to do, false when nothing waits for time to pass. While there is work that
// was spread over records, that is now.
func (m *Machine) NextDeadline() (int64, bool) {
	if m.unfinished() {
		return m.now, true
	}
	_, e, ok := m.retained.Earliest()
	switch {
	case len(m.due) == 0:
		return e.Deadline, ok
	case ok && e.Deadline < m.due[0].at:
		return e.Deadline, true
	}
	return m.due[0].at, true
}

// applyTick lets deadlines fall due: sessions and wills first, then retained
// messages, then work that was spread: ExpirePerTick entries in all. What is
// left is due at the next.
func (m *Machine) applyTick(rec []byte, fx *Effects) error {
	var t record.Tick
	if err := t.Decode(rec); err != nil {
		return err
	}
	left := m.bounds.expire
	for left > 0 && len(m.due) > 0 && m.due[0].at <= m.now {
		left -= m.fall(m.due[0], fx)
	}
	for ; left > 0; left-- {
		name, e, ok := m.retained.Earliest()
		if !ok || e.Deadline > m.now {
			break
		}
		m.unretain([]byte(name))
		fx.RetainedExpired = append(fx.RetainedExpired, name)
	}
	if left > 0 {
		m.spread(left, record.KindTick, fx)
	}
	return nil
}

// fall does what a deadline is there for, and returns how much work it was.
func (m *Machine) fall(d deadline, fx *Effects) int {
	switch d.kind {
	case dueSession:
		s := m.sessions[d.id]
		work := 1 + s.Subscriptions()
		m.end(s, EndExpired, fx)
		return work
	case dueSessionWill:
		m.willDue(m.sessions[d.id], fx)
	case dueWill:
		m.willFalls(m.wills[d.id], fx)
	}
	return 1
}
