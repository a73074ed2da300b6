package core

import (
	"container/heap"

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

// deadline is a moment at which something is to happen. One that no longer
// holds is found out when its time comes.
type deadline struct {
	at   int64
	kind dueKind
	id   uint64
}

func (d deadline) before(o deadline) bool {
	if d.at != o.at {
		return d.at < o.at
	}
	if d.kind != o.kind {
		return d.kind < o.kind
	}
	return d.id < o.id
}

// deadlines is a heap, earliest first.
type deadlines []deadline

func (h deadlines) Len() int           { return len(h) }
func (h deadlines) Less(i, j int) bool { return h[i].before(h[j]) }
func (h deadlines) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push is for container/heap.
func (h *deadlines) Push(x any) { *h = append(*h, x.(deadline)) }

// Pop is for container/heap.
func (h *deadlines) Pop() any {
	old := *h
	d := old[len(old)-1]
	*h = old[:len(old)-1]
	return d
}

func (h *deadlines) add(d deadline) { heap.Push(h, d) }

// holds reports whether a deadline still stands.
func (m *Machine) holds(d deadline) bool {
	if d.kind == dueWill {
		w := m.wills[d.id]
		return w != nil && !w.due && w.epoch == 0 && w.at == d.at
	}
	s := m.sessions[d.id]
	if s == nil || s.Connected() {
		return false
	}
	if d.kind == dueSessionWill {
		return s.HasWill && s.WillAt == d.at
	}
	at, ends := s.ExpiresAt()
	return ends && at == d.at
}

// NextDeadline returns the log time (unix ms) at which a Tick has something
// to do, false when nothing waits for time to pass.
func (m *Machine) NextDeadline() (int64, bool) {
	for len(m.due) > 0 && !m.holds(m.due[0]) {
		heap.Pop(&m.due)
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
// messages, ExpirePerTick entries at most. What is left is due at the next.
func (m *Machine) applyTick(rec []byte, fx *Effects) error {
	var t record.Tick
	if err := t.Decode(rec); err != nil {
		return err
	}
	for n := 0; n < ExpirePerTick; {
		if len(m.due) == 0 || m.due[0].at > m.now {
			return m.expireRetained(ExpirePerTick-n, fx)
		}
		d := heap.Pop(&m.due).(deadline)
		if m.holds(d) { // only what counts in a loaded state counts here
			m.fall(d, fx)
			n++
		}
	}
	return nil
}

// fall does what a deadline is there for.
func (m *Machine) fall(d deadline, fx *Effects) {
	switch d.kind {
	case dueSession:
		m.end(m.sessions[d.id], EndExpired, fx)
	case dueSessionWill:
		m.willDue(m.sessions[d.id], fx)
	case dueWill:
		m.wills[d.id].due = true
		m.changed.will(d.id)
		fx.WillsDue = append(fx.WillsDue, d.id)
	}
}

func (m *Machine) expireRetained(n int, fx *Effects) error {
	for range n {
		name, e, ok := m.retained.Earliest()
		if !ok || e.Deadline > m.now {
			return nil
		}
		m.unretain(name)
		fx.RetainedExpired = append(fx.RetainedExpired, name)
	}
	return nil
}

// armed puts the deadlines of a loaded session back.
func (m *Machine) armed(s *session.Session) {
	if at, ends := s.ExpiresAt(); ends {
		m.due.add(deadline{at, dueSession, s.ID})
	}
	if !s.Connected() && s.HasWill && s.WillAt != 0 {
		m.due.add(deadline{s.WillAt, dueSessionWill, s.ID})
	}
}
