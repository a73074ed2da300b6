package core

import (
	"cmp"
	"maps"
	"slices"

	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// will is a will outside a session. It goes through up to three stages:
//
//	connected  epoch of the ephemeral client it belongs to
//	waiting    epoch 0: a client that a crash cut off may return until at
//	due        to be published
type will struct {
	id       uint64
	epoch    record.Epoch
	clientID string
	user     string
	will     record.Will
	at       int64 // log time at which it falls due, while it waits
	due      bool
	place    int32 // in the heap of deadlines, see duePlace; not state
}

func (w *will) waits() bool { return w.epoch == 0 && !w.due }

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
	for id, w := range m.wills {
		if w.due {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// PendingGroups returns the keys of the groups with messages that wait for a
// member: what a start has to dispatch.
func (m *Machine) PendingGroups() []GroupKey {
	var keys []GroupKey
	for _, g := range m.sortedGroups() {
		if g.durable > 0 && g.pending.idle > 0 {
			keys = append(keys, g.key)
		}
	}
	return keys
}

// addWill gives a will its id.
func (m *Machine) addWill(w *will) {
	w.id = m.nextWill
	m.nextWill++
	m.changed.config = true // nextWill is in there
	m.changed.will(w.id)
	m.putWill(w)
}

// putWill files a will by its stage.
func (m *Machine) putWill(w *will) {
	m.wills[w.id] = w
	switch {
	case w.epoch != 0:
		m.byEpoch[w.epoch] = w.id
	case w.waits():
		ids := append(m.waiting[w.clientID], w.id)
		slices.Sort(ids)
		m.waiting[w.clientID] = ids
		m.setDue(deadline{at: w.at, id: w.id, kind: dueWill})
	}
}

// unfile is the opposite of putWill, but for the table.
func (m *Machine) unfile(w *will) {
	switch {
	case w.epoch != 0:
		delete(m.byEpoch, w.epoch)
	case w.waits():
		m.clearDue(deadline{id: w.id, kind: dueWill})
		ids := m.waiting[w.clientID]
		if ids = slices.DeleteFunc(ids, func(id uint64) bool { return id == w.id }); len(ids) > 0 {
			m.waiting[w.clientID] = ids
		} else {
			delete(m.waiting, w.clientID)
		}
	}
}

func (m *Machine) removeWill(w *will) {
	m.unfile(w)
	delete(m.wills, w.id)
	m.changed.will(w.id)
}

// willDue turns the will of a session into one that is due.
func (m *Machine) willDue(s *session.Session, fx *Effects) {
	w := &will{clientID: s.ClientID, user: s.User, will: s.Will, due: true}
	m.clearDue(deadline{ref: s.Ref, kind: dueSessionWill})
	s.HasWill, s.Will, s.WillAt = false, record.Will{}, 0
	m.touch(s)
	m.addWill(w)
	fx.WillsDue = append(fx.WillsDue, w.id)
}

// willFalls makes a will outside a session due.
func (m *Machine) willFalls(w *will, fx *Effects) {
	m.unfile(w)
	w.epoch, w.due = 0, true
	m.changed.will(w.id)
	fx.WillsDue = append(fx.WillsDue, w.id)
}

// applyWill keeps the will of an ephemeral client.
func (m *Machine) applyWill(rec []byte) error {
	var r record.LoggedWill
	if err := r.Decode(rec); err != nil {
		return err
	}
	if r.Epoch == 0 {
		return nil // of no connection: nothing would ever end it
	}
	if id, had := m.byEpoch[r.Epoch]; had { // a connection has one will
		m.removeWill(m.wills[id])
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
	switch {
	case !ok:
		fx.Reply.Stale = true
	case d.DropWill: // [MQTT-3.14.4-3]
		m.removeWill(m.wills[id])
	default:
		m.willFalls(m.wills[id], fx)
	}
}

// cancelWills forgets wills that wait for a client which is back.
func (m *Machine) cancelWills(clientID string) {
	for _, id := range slices.Clone(m.waiting[clientID]) {
		m.removeWill(m.wills[id])
	}
}

// WillsOf returns the ids of wills that wait for their time and that a return
// of the client cancels, in order.
func (m *Machine) WillsOf(clientID string) []uint64 { return slices.Clone(m.waiting[clientID]) }

// willsAtStart lets the wills of ephemeral clients that a crash cut off wait
// for their return until the end of the grace.
func (m *Machine) willsAtStart(at int64) {
	for _, id := range slices.SortedFunc(maps.Values(m.byEpoch), cmp.Compare[uint64]) {
		w := m.wills[id]
		m.unfile(w)
		w.epoch, w.at = 0, at
		m.putWill(w)
		m.changed.will(id)
	}
}
