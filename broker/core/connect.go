package core

import (
	"cmp"
	"slices"
	"strings"

	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// applyConnect begins or resumes a session (MQTT 5 section 3.1.2.4).
func (m *Machine) applyConnect(index uint64, rec []byte, fx *Effects) error {
	var c record.Connect
	if err := c.Decode(rec); err != nil {
		return err
	}
	if c.Epoch == 0 { // of no connection
		fx.Reply.Stale = true
		return nil
	}
	s := m.byClient[string(c.ClientID)]
	if s != nil {
		s = m.resume(s, &c, fx)
	}
	fx.Reply.Present = s != nil
	if s == nil {
		s = &session.Session{ID: index, ClientID: string(c.ClientID)}
		s.Ref = m.attach(slot{session: s})
		m.sessions[s.ID], m.byClient[s.ClientID] = s, s
	}
	m.cancelWills(s.ClientID)
	m.disarm(s)
	if !s.Connected() {
		m.counts.Connected++
	}
	s.User, s.Version, s.Epoch = string(c.User), c.Version, c.Epoch
	s.Expiry = min(c.Expiry, m.limits.SessionExpiryMax)
	s.ReceiveMaximum, s.MaxPacket = max(c.ReceiveMaximum, 1), c.MaxPacket
	s.HasWill, s.Will, s.WillAt, s.Disconnected = c.HasWill, record.Will{}, 0, 0
	if c.HasWill {
		s.Will = c.Will
		s.Will.Message = slices.Clone(c.Will.Message)
	}
	s.Out.Reconnected()
	m.touch(s)
	m.fill(s, fx)
	if s.Out.Unsent() > 0 {
		fx.touch(s.Ref)
	}
	fx.Reply.Session, fx.Reply.Ref, fx.Reply.Expiry = s.ID, s.Ref, s.Expiry
	m.waitingFor(s, fx)
	return nil
}

// resume decides whether a Connect goes on with a session that exists; if
// not, it ends the session and returns nil.
func (m *Machine) resume(s *session.Session, c *record.Connect, fx *Effects) *session.Session {
	at, ends := s.ExpiresAt()
	switch {
	case ends && m.now >= at:
		m.end(s, EndExpired, fx)
	case s.User != string(c.User) && !m.limits.ShareUsers:
		m.end(s, EndUser, fx)
	case c.CleanStart:
		m.end(s, EndCleanStart, fx) // [MQTT-3.1.2-4]
	case s.Connected() && s.Expiry == 0:
		// The old connection closes, and the session with it (MQTT 5 section
		// 3.1.4, comment on takeover).
		m.end(s, EndExpired, fx)
	default:
		if s.Connected() {
			// The old connection closes without a DISCONNECT: its will is
			// published, unless a delay lets the new one forestall it
			// [MQTT-3.1.3-9].
			fx.Reply.TakenOver = s.Epoch
			if s.HasWill && s.Will.Delay == 0 {
				m.willDue(s, fx)
			}
		}
		return s
	}
	return nil
}

// applyDisconnect ends a connection.
func (m *Machine) applyDisconnect(rec []byte, fx *Effects) error {
	var d record.Disconnect
	if err := d.Decode(rec); err != nil {
		return err
	}
	if d.Session == 0 {
		m.disconnectEphemeral(&d, fx)
		return nil
	}
	s := m.current(d.Session, d.Epoch)
	if s == nil {
		fx.Reply.Stale = true
		return nil
	}
	if d.HasExpiry && s.Expiry != 0 { // 0 cannot be raised (section 3.14.2.2.2)
		s.Expiry = min(d.Expiry, m.limits.SessionExpiryMax)
	}
	if d.DropWill { // [MQTT-3.14.4-3]
		s.HasWill, s.Will = false, record.Will{}
	}
	m.disconnect(s, fx)
	return nil
}

// disconnect marks a session as offline and arms its deadlines.
func (m *Machine) disconnect(s *session.Session, fx *Effects) {
	s.Epoch, s.Disconnected = 0, m.now
	m.counts.Connected--
	m.touch(s)
	if s.Expiry == 0 {
		m.end(s, EndExpired, fx)
		return
	}
	if s.HasWill {
		if s.Will.Delay == 0 {
			m.willDue(s, fx)
		} else {
			s.WillAt = m.now + int64(s.Will.Delay)*1000
		}
	}
	m.arm(s)
}

// current returns the session with this id if epoch is its connection, else
// nil: whatever an earlier connection caused is dropped.
func (m *Machine) current(id uint64, epoch record.Epoch) *session.Session {
	s := m.sessions[id]
	if s == nil || s.Epoch != epoch || epoch == 0 {
		return nil
	}
	return s
}

// end ends a session: its will falls due, its subscriptions go, and its
// messages are let go, or back to their shared groups, bit by bit.
func (m *Machine) end(s *session.Session, why EndReason, fx *Effects) {
	m.disarm(s)
	if s.HasWill { // [MQTT-3.1.2-8], at the latest with the session's end
		m.willDue(s, fx)
	}
	fx.Ended = append(fx.Ended, Ended{Session: s.ID, ClientID: s.ClientID, Ref: s.Ref, Epoch: s.Epoch, Reason: why})
	for _, f := range s.Filters() {
		m.unsubscribe(s, f) // and with the last, the scans
	}
	for _, pid := range slices.Clone(s.Received()) {
		s.Release(pid)
	}
	delete(m.sessions, s.ID)
	delete(m.byClient, s.ClientID)
	m.detach(s.Ref)
	if s.Connected() {
		m.counts.Connected--
	}
	s.Epoch = 0
	m.touch(s)
	m.counts.Queued -= s.Out.Queued()
	m.counts.Inflight -= len(s.Out.Inflight())
	if s.Out.Queued()+len(s.Out.Inflight()) > 0 {
		m.released = insertByID(m.released, s)
	}
}

func (m *Machine) applySessionRemove(rec []byte, fx *Effects) error {
	var r record.SessionRemove
	if err := r.Decode(rec); err != nil {
		return err
	}
	if s := m.byClient[string(r.ClientID)]; s != nil {
		fx.Reply.Known = true
		m.end(s, EndRemoved, fx)
	}
	m.cancelWills(string(r.ClientID))
	return nil
}

// applyServerStart disconnects every session at this record's time, in the
// order of their ids.
func (m *Machine) applyServerStart(rec []byte, fx *Effects) error {
	var st record.ServerStart
	if err := st.Decode(rec); err != nil {
		return err
	}
	m.boot, m.changed.config = st.Boot, true
	grace := int64(m.limits.RestartGrace) * 1000
	m.groupsAtStart()
	for _, s := range m.sorted() {
		s.Out.Restarted()
		if !s.Connected() {
			continue
		}
		if s.HasWill { // the client gets the grace to return before its will fires
			s.Will.Delay = max(s.Will.Delay, m.limits.RestartGrace)
			if s.Expiry == 0 {
				m.addWill(&will{clientID: s.ClientID, user: s.User, will: s.Will, at: m.now + grace})
				s.HasWill, s.Will = false, record.Will{}
			}
		}
		m.disconnect(s, fx)
	}
	m.willsAtStart(m.now + grace)
	return nil
}

// sorted returns the sessions in the order of their ids.
func (m *Machine) sorted() []*session.Session {
	list := make([]*session.Session, 0, len(m.sessions))
	for _, s := range m.sessions {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *session.Session) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// attach gives a client a slot.
func (m *Machine) attach(s slot) uint32 {
	s.used = true
	if n := len(m.free); n > 0 {
		ref := m.free[n-1]
		m.free = m.free[:n-1]
		m.slots[ref] = s
		return ref
	}
	m.slots = append(m.slots, s)
	return uint32(len(m.slots) - 1)
}

func (m *Machine) detach(ref uint32) {
	m.slots[ref] = slot{}
	m.free = append(m.free, ref)
}

// Attach gives an ephemeral client a slot in the subscription index.
func (m *Machine) Attach(epoch record.Epoch) (ref uint32) { return m.attach(slot{epoch: epoch}) }

// Detach frees the slot of an ephemeral client and removes its subscriptions,
// which the caller lists.
func (m *Machine) Detach(ref uint32, filters []string) {
	for _, f := range filters {
		m.index.Unsubscribe(f, ref)
	}
	m.detach(ref)
}

// SubscribeEphemeral adds a subscription of an ephemeral client and lists the
// retained messages it gets. existed says that it replaced one.
func (m *Machine) SubscribeEphemeral(ref uint32, filter string, opts topic.Options, id uint32, fx *Effects) (existed bool) {
	existed, gets := m.BeginEphemeral(ref, filter, opts, id, fx)
	if gets {
		m.retained.Match(filter, func(_ string, e retain.Entry) bool {
			if e.Deadline == 0 || m.now < e.Deadline {
				fx.Retained = append(fx.Retained, Retained{Ref: ref, SubID: id, Message: e.Message, QoS: min(e.QoS, opts.QoS())})
			}
			return true
		})
	}
	return existed
}

// BeginEphemeral is SubscribeEphemeral for a caller that reads the retained
// messages bit by bit: gets says that there may be some, those with an id up to
// Applied. RetainedPage finds them.
func (m *Machine) BeginEphemeral(ref uint32, filter string, opts topic.Options, id uint32, fx *Effects) (existed, gets bool) {
	existed = m.index.Subscribe(filter, topic.Sub{Ref: ref, ID: id, Opts: opts})
	if key := keyOf(filter); key.Share != "" {
		if g := m.groups[key]; g != nil && g.pending.idle > 0 {
			fx.wait(key)
		}
		return existed, false
	}
	if !getsRetained(opts, existed) {
		return existed, false
	}
	if strings.ContainsAny(filter, "+#") {
		return existed, m.retained.Len() > 0
	}
	_, gets = m.retained.Get(filter)
	return existed, gets
}

// UnsubscribeEphemeral removes a subscription of an ephemeral client and
// reports whether there was one.
func (m *Machine) UnsubscribeEphemeral(ref uint32, filter string) bool {
	return m.index.Unsubscribe(filter, ref)
}
