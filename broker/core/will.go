package core

import (
	"cmp"
	"maps"
	"slices"

	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// will is a will outside a session: due, waiting for its time, or of an
// ephemeral client that is connected.
type will struct {
	id       uint64
	epoch    record.Epoch // ephemeral connection it belongs to, 0 = the connection ended
	clientID string
	user     string
	will     record.Will
	at       int64 // log time at which it falls due, with epoch 0 and not due
	due      bool
}

// Due is a will to be published: the broker answers with a Publish record
// whose WillOf is ID, once, whatever happens in between.
type Due struct {
	ID       uint64
	ClientID string
	User     string
	Will     record.Will
}

// Due returns a will that fell due, ok false when it was published.
func (m *Machine) Due(id uint64) (d Due, ok bool) {
	w := m.wills[id]
	if w == nil || !w.due {
		return Due{}, false
	}
	return Due{w.id, w.clientID, w.user, w.will}, true
}

// PendingDue returns the ids of all wills that are due, in order: what a
// start has to publish.
func (m *Machine) PendingDue() []uint64 {
	var ids []uint64
	for _, id := range slices.Sorted(maps.Keys(m.wills)) {
		if m.wills[id].due {
			ids = append(ids, id)
		}
	}
	return ids
}

// PendingGroups returns the keys of the groups with messages that wait for a
// member: what a start has to dispatch.
func (m *Machine) PendingGroups() []GroupKey {
	var keys []GroupKey
	for _, g := range m.sortedGroups() {
		if g.waiting() {
			keys = append(keys, g.key)
		}
	}
	return keys
}

func (m *Machine) addWill(w *will) {
	w.id = m.nextWill
	m.nextWill++
	m.wills[w.id] = w
	m.changed.config = true // nextWill is in there
	m.changed.will(w.id)
	if w.epoch != 0 {
		m.byEpoch[w.epoch] = w.id
	} else if !w.due {
		m.due.add(deadline{w.at, dueWill, w.id})
	}
}

func (m *Machine) removeWill(id uint64) {
	w := m.wills[id]
	if w == nil {
		return
	}
	delete(m.wills, id)
	delete(m.byEpoch, w.epoch)
	m.changed.will(id)
}

// willDue turns the will of a session into one that is due.
func (m *Machine) willDue(s *session.Session, fx *Effects) {
	w := &will{clientID: s.ClientID, user: s.User, will: s.Will, due: true}
	s.HasWill, s.Will, s.WillAt = false, record.Will{}, 0
	m.touch(s)
	m.addWill(w)
	fx.WillsDue = append(fx.WillsDue, w.id)
}

// applyWill keeps the will of an ephemeral client.
func (m *Machine) applyWill(rec []byte) error {
	var r record.LoggedWill
	if err := r.Decode(rec); err != nil {
		return err
	}
	w := &will{epoch: r.Epoch, clientID: string(r.ClientID), user: string(r.User), will: r.Will}
	w.will.Message = slices.Clone(r.Will.Message)
	m.addWill(w)
	return nil
}

// disconnectEphemeral ends the connection of an ephemeral client whose will
// was logged. Its session ends with it, so that a delay does not count
// (MQTT 5 section 3.1.3.2.2).
func (m *Machine) disconnectEphemeral(d *record.Disconnect, fx *Effects) {
	id, ok := m.byEpoch[d.Epoch]
	if !ok {
		fx.Reply.Stale = true
		return
	}
	if d.DropWill {
		m.removeWill(id)
		return
	}
	w := m.wills[id]
	delete(m.byEpoch, w.epoch)
	w.epoch, w.due = 0, true
	m.changed.will(id)
	fx.WillsDue = append(fx.WillsDue, id)
}

// cancelWills forgets wills that wait for a client which is back.
func (m *Machine) cancelWills(clientID string) {
	for _, id := range m.WillsOf(clientID) {
		m.removeWill(id)
	}
}

// WillsOf returns the ids of wills that wait for their time and that a return
// of the client cancels.
func (m *Machine) WillsOf(clientID string) []uint64 {
	var ids []uint64
	for id, w := range m.wills {
		if w.clientID == clientID && !w.due && w.epoch == 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// willsAtStart lets the wills of ephemeral clients that a crash cut off wait
// for their return until the end of the grace.
func (m *Machine) willsAtStart(at int64) {
	for _, w := range slices.SortedFunc(maps.Values(m.wills), func(a, b *will) int { return cmp.Compare(a.id, b.id) }) {
		if w.epoch == 0 {
			continue
		}
		delete(m.byEpoch, w.epoch)
		w.epoch, w.at = 0, at
		m.changed.will(w.id)
		m.due.add(deadline{at, dueWill, w.id})
	}
}
