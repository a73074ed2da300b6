package core

import (
	"fmt"
	"slices"

	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
)

// Check verifies the invariants of the whole state: that reference counts
// equal the references, that index, groups and deadlines agree with the
// sessions, and that sizes are what they count. It walks everything: for tests
// and tools. [Machine.CheckSlots] is for a running broker.
func (m *Machine) Check() error {
	for _, check := range []func() error{
		m.checkSlots, m.checkSessions, m.checkReferences, m.checkGroups, m.checkWills, m.checkDue, m.checkCounts,
	} {
		if err := check(); err != nil {
			return fmt.Errorf("core: after record %d: %w", m.applied, err)
		}
	}
	return nil
}

// CheckSlots verifies the sessions in up to n slots from one on, at the cost
// of walking their queues and subscriptions, and returns the slot to go on
// with, 0 at the end. It finds what concerns one session: a broken order, a
// message that is gone, a subscription that the index has not.
func (m *Machine) CheckSlots(from uint32, n int) (next uint32, err error) {
	for ; n > 0 && from < uint32(len(m.slots)); n-- {
		if s := m.slots[from].session; s != nil {
			if err := m.checkSession(s); err != nil {
				return 0, fmt.Errorf("core: after record %d: %w", m.applied, err)
			}
		}
		from++
	}
	if from >= uint32(len(m.slots)) {
		return 0, nil
	}
	return from, nil
}

// Patrol verifies of the sessions from a slot on as many as have budget entries
// together, and returns the slot to go on with, 0 at the end: identifiers in use
// once, the order of the entries, messages that are there and referred to, bytes
// as counted. It is for a running broker, at some 100 ns an entry; a session with
// more than 16 times the budget is passed over.
func (m *Machine) Patrol(from uint32, budget int) (next uint32, err error) {
	const each = 8 // what a session costs by itself, in entries
	left := budget
	for left > 0 && from < uint32(len(m.slots)) {
		left--
		if s := m.slots[from].session; s != nil {
			n := s.Out.Queued() + len(s.Out.Inflight()) + len(s.Received())
			if n <= 16*budget {
				if err := m.checkHeld(s); err != nil {
					return 0, err
				}
				left -= each + n
			}
		}
		from++
	}
	if from >= uint32(len(m.slots)) {
		return 0, nil
	}
	return from, nil
}

func (m *Machine) checkSlots() error {
	free := make(map[uint32]bool, len(m.free))
	for _, ref := range m.free {
		if free[ref] || m.slots[ref] != (slot{}) {
			return fmt.Errorf("slot %d is free twice or in use: %+v", ref, m.slots[ref])
		}
		free[ref] = true
	}
	n := 0
	for ref := range m.slots {
		sl := &m.slots[ref]
		if sl.used == free[uint32(ref)] {
			return fmt.Errorf("slot %d: used %v, free %v", ref, sl.used, free[uint32(ref)])
		}
		if s := sl.session; s != nil {
			n++
			if s.Ref != uint32(ref) || m.sessions[s.ID] != s {
				return fmt.Errorf("slot %d has session %d, which has slot %d", ref, s.ID, s.Ref)
			}
		}
	}
	if n != len(m.sessions) || n != len(m.byClient) {
		return fmt.Errorf("%d sessions in slots, %d by id, %d by client", n, len(m.sessions), len(m.byClient))
	}
	return nil
}

func (m *Machine) checkSessions() error {
	for id, s := range m.sessions {
		if s.ID != id || m.byClient[s.ClientID] != s {
			return fmt.Errorf("session %d is filed as %d, client %q has another", s.ID, id, s.ClientID)
		}
		if err := m.checkSession(s); err != nil {
			return err
		}
	}
	scanning := 0
	for _, s := range m.sessions {
		if len(s.Scans) > 0 {
			scanning++
		}
	}
	for i, s := range m.scanning {
		if len(s.Scans) == 0 || m.sessions[s.ID] != s || i > 0 && m.scanning[i-1].ID >= s.ID {
			return fmt.Errorf("session %d scans and does not, or out of order", s.ID)
		}
	}
	if scanning != len(m.scanning) {
		return fmt.Errorf("%d sessions have scans, %d are noted", scanning, len(m.scanning))
	}
	for i, s := range m.released {
		switch {
		case m.sessions[s.ID] == s:
			return fmt.Errorf("session %d has ended and lives", s.ID)
		case i > 0 && m.released[i-1].ID >= s.ID:
			return fmt.Errorf("ended sessions %d, %d out of order", m.released[i-1].ID, s.ID)
		case s.Subscriptions() > 0 || len(s.Received()) > 0 || s.Out.Queued()+len(s.Out.Inflight()) == 0:
			return fmt.Errorf("ended session %d holds what it should not, or nothing", s.ID)
		}
		if err := s.Check(); err != nil {
			return err
		}
	}
	return nil
}

// checkSession verifies one session against messages, index and groups.
func (m *Machine) checkSession(s *session.Session) error {
	if err := m.checkHeld(s); err != nil {
		return err
	}
	for _, f := range s.Filters() {
		sub, _ := s.Subscription(f)
		if !m.indexed(f, topic.Sub{Ref: s.Ref, ID: sub.ID, Opts: sub.Options}) {
			return fmt.Errorf("session %d: the index has no subscription to %q with options %#x", s.ID, f, sub.Options)
		}
	}
	return nil
}

// checkHeld verifies the entries of one session, and the messages they are of.
func (m *Machine) checkHeld(s *session.Session) error {
	if err := s.Check(); err != nil {
		return err
	}
	var queued uint64
	var err error
	s.Out.All(func(e *session.Entry[uint64]) bool {
		msg, ok := m.message(e.Msg)
		if !ok || msg.refs == 0 {
			err = fmt.Errorf("session %d waits for message %d, which is gone", s.ID, e.Msg)
		}
		if e.PID == 0 {
			queued += uint64(msg.size)
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	if queued != s.QueuedBytes {
		return fmt.Errorf("session %d: %d bytes queued, counted %d", s.ID, queued, s.QueuedBytes)
	}
	if s.Connected() && s.Out.Queued() > 0 && len(s.Out.Inflight()) == 0 {
		return fmt.Errorf("session %d is connected with %d messages queued and none in flight", s.ID, s.Out.Queued())
	}
	return nil
}

// indexed reports whether the index has a subscription. For a filter with
// wildcards it can be asked only through a topic that matches.
func (m *Machine) indexed(filter string, sub topic.Sub) bool {
	if k := keyOf(filter); k.Share != "" {
		g := m.index.Group(k.Share, k.Filter)
		return g != nil && slices.Contains(g.Members, sub)
	}
	var found topic.Matches
	m.index.Match([]byte(exampleOf(filter)), &found)
	return slices.Contains(found.Subs, sub)
}

// exampleOf returns a topic that matches a filter.
func exampleOf(filter string) string {
	b := []byte(filter)
	for i, c := range b {
		if c == '+' || c == '#' {
			b[i] = 'x'
		}
	}
	return string(b)
}

func (m *Machine) checkReferences() error {
	if m.fresh.id != 0 {
		return fmt.Errorf("message %d is still fresh", m.fresh.id)
	}
	refs := make(map[uint64]uint32, m.messages.len())
	count := func(s *session.Session) {
		s.Out.All(func(e *session.Entry[uint64]) bool {
			refs[e.Msg]++
			return true
		})
	}
	for _, s := range m.sessions {
		count(s)
	}
	for _, s := range m.released {
		count(s)
	}
	for _, g := range m.sortedGroups() {
		g.pending.each(func(_ pendingAt, p *pending) bool {
			refs[p.message]++
			return true
		})
	}
	var err error
	m.retained.All(func(name string, e retain.Entry) bool {
		refs[e.Message]++
		if msg, _ := m.message(e.Message); int(msg.size) != e.Bytes || msg.deadline != e.Deadline {
			err = fmt.Errorf("retained message of %q: %+v, message %d is %+v", name, e, e.Message, msg)
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	n := 0
	m.messages.each(func(id uint64, msg *message) {
		n++
		if refs[id] != msg.refs || msg.refs == 0 {
			err = fmt.Errorf("message %d has %d references, counted %d", id, refs[id], msg.refs)
		}
		delete(refs, id)
	})
	if err != nil {
		return err
	}
	if n != m.messages.len() {
		return fmt.Errorf("%d messages, counted %d", n, m.messages.len())
	}
	for id, n := range refs {
		return fmt.Errorf("%d references to message %d, which is gone", n, id)
	}
	return nil
}

func (m *Machine) checkGroups() error {
	durable := make(map[GroupKey]int)
	for _, s := range m.sessions {
		for _, f := range s.Shared() {
			durable[keyOf(f)]++
		}
	}
	for key, g := range m.groups {
		if g.key != key || g.name != key.String() || g.durable != durable[key] || g.durable == 0 {
			return fmt.Errorf("group %s is filed as %s, with %d durable members of %d", g.key, key, g.durable, durable[key])
		}
		delete(durable, key)
	}
	for key, n := range durable {
		return fmt.Errorf("group %s has %d durable members and no state", key, n)
	}
	for i, g := range m.dissolving {
		if g.durable != 0 || g.pending.len == 0 || m.groups[g.key] != nil || i > 0 && m.dissolving[i-1].key.compare(g.key) >= 0 {
			return fmt.Errorf("group %s dissolves with %d durable members and %d messages", g.key, g.durable, g.pending.len)
		}
	}
	for _, g := range m.sortedGroups() {
		if err := m.checkPending(g); err != nil {
			return fmt.Errorf("group %s: %w", g.key, err)
		}
	}
	return nil
}

func (m *Machine) checkPending(g *group) error {
	n, idle := 0, 0
	var bytes, last uint64
	var err error
	g.pending.each(func(_ pendingAt, p *pending) bool {
		n++
		if p.epoch == 0 {
			idle++
		}
		if p.message <= last || p.epoch == 0 && p.qos != 0 {
			err = fmt.Errorf("%+v after message %d", *p, last)
		}
		last = p.message
		msg, _ := m.message(p.message)
		bytes += uint64(msg.size)
		return err == nil
	})
	if err != nil {
		return err
	}
	if n != g.pending.len || idle != g.pending.idle || bytes != g.bytes {
		return fmt.Errorf("%d pending, %d wait, %d bytes, counted %d, %d, %d", n, idle, bytes, g.pending.len, g.pending.idle, g.bytes)
	}
	return nil
}

func (m *Machine) checkWills() error {
	epochs, waiting := 0, 0
	for id, w := range m.wills {
		switch {
		case w.id != id || id >= m.nextWill || w.due && w.epoch != 0:
			return fmt.Errorf("will %d is filed as %d of %d: %+v", w.id, id, m.nextWill, w)
		case w.epoch != 0:
			if epochs++; m.byEpoch[w.epoch] != id {
				return fmt.Errorf("will %d of connection %d, which has %d", id, w.epoch, m.byEpoch[w.epoch])
			}
		case w.waits():
			if waiting++; !slices.Contains(m.waiting[w.clientID], id) {
				return fmt.Errorf("will %d waits for %q, which has %v", id, w.clientID, m.waiting[w.clientID])
			}
		}
	}
	for client, ids := range m.waiting {
		if waiting -= len(ids); len(ids) == 0 || !slices.IsSorted(ids) {
			return fmt.Errorf("wills %v wait for %q", ids, client)
		}
	}
	if epochs != len(m.byEpoch) || waiting != 0 {
		return fmt.Errorf("%d wills of connections, %d filed; %d too few wait", epochs, len(m.byEpoch), waiting)
	}
	return nil
}

// checkDue verifies the heap against what sessions and wills say.
func (m *Machine) checkDue() error {
	want := make(map[deadline]bool)
	for _, s := range m.sessions {
		if s.Connected() {
			continue
		}
		if at, ends := s.ExpiresAt(); ends {
			want[deadline{at, s.ID, s.Ref, dueSession}] = true
		}
		if s.HasWill {
			want[deadline{s.WillAt, s.ID, s.Ref, dueSessionWill}] = true
		}
	}
	for id, w := range m.wills {
		if w.waits() {
			want[deadline{at: w.at, id: id, kind: dueWill}] = true
		}
	}
	for i := range m.due {
		d := &m.due[i]
		if !want[*d] {
			return fmt.Errorf("deadline %+v does not hold or is there twice", *d)
		}
		delete(want, *d)
		if *m.duePlace(d) != int32(i+1) || i > 0 && d.before(&m.due[(i-1)/2]) {
			return fmt.Errorf("deadline %+v is in place %d, noted as %d, or before its parent", *d, i, *m.duePlace(d)-1)
		}
	}
	for d := range want {
		return fmt.Errorf("deadline %+v is not in the heap", d)
	}
	return nil
}

func (m *Machine) checkCounts() error {
	want := Counts{
		Sessions: len(m.sessions), Retained: m.retained.Len(), Messages: m.messages.len(), Wills: len(m.wills), Ending: len(m.released),
	}
	for _, s := range m.sessions {
		if s.Connected() {
			want.Connected++
		}
		want.Subscriptions += s.Subscriptions()
		want.Queued += s.Out.Queued()
		want.Inflight += len(s.Out.Inflight())
	}
	for _, g := range m.sortedGroups() {
		want.Pending += g.pending.len
	}
	if got := m.Counts(); got != want {
		return fmt.Errorf("counts %+v, want %+v", got, want)
	}
	return nil
}
