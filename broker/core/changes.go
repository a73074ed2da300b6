package core

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/wind-c/comqtt/v3/session"
)

// changes remembers what differs from the last Collect. A message that came
// and went in between leaves only its id behind.
type changes struct {
	config   bool
	messages []uint64 // new since then, perhaps gone again
	gone     []uint64 // stored messages without a reference left
	sessions []*session.Session
	topics   map[string]struct{}
	groups   []*group
	wills    map[uint64]struct{}
}

func (c *changes) retain(name string) {
	if c.topics == nil {
		c.topics = make(map[string]struct{})
	}
	c.topics[name] = struct{}{}
}

func (c *changes) group(g *group) {
	if len(g.dirty) == 1 && !slices.Contains(c.groups, g) {
		c.groups = append(c.groups, g)
	}
}

func (c *changes) will(id uint64) {
	if c.wills == nil {
		c.wills = make(map[uint64]struct{})
	}
	c.wills[id] = struct{}{}
}

// touch notes that something of a session changed.
func (m *Machine) touch(s *session.Session) {
	if !s.Dirty {
		s.Dirty = true
		m.changed.sessions = append(m.changed.sessions, s)
	}
}

// Sink takes the net changes of the state. Keys and values are valid only
// during the call.
type Sink interface {
	// Put sets an entry. isNew says that no Collect put it before, or that a
	// later one deleted it.
	Put(table byte, key, value []byte, isNew bool)
	// Delete removes an entry, which need not exist.
	Delete(table byte, key []byte)
	// Body says that the message with this id, whose entry in TableMessage is
	// put at the same time, needs its body stored.
	Body(id uint64)
}

// Changed returns about how many entries a Collect would visit.
func (m *Machine) Changed() int {
	return len(m.changed.messages) + len(m.changed.gone) + len(m.changed.sessions) + len(m.changed.topics) + len(m.changed.wills)
}

// Collect gives the net changes since the last Collect to sink and takes them
// as stored. All of them together lead from that state to this one.
func (m *Machine) Collect(sink Sink) {
	c := &m.changed
	if c.config {
		sink.Put(TableConfig, configKey, m.configValue(), false)
		c.config = false
	}
	var key [8]byte
	for _, id := range c.messages {
		msg, alive := m.messages[id]
		if !alive || msg.stored {
			continue
		}
		msg.stored = true
		m.messages[id] = msg
		m.scratch.value = msg.appendValue(m.scratch.value[:0])
		sink.Put(TableMessage, idKey(&key, id), m.scratch.value, true)
		sink.Body(id)
	}
	for _, id := range c.gone {
		sink.Delete(TableMessage, idKey(&key, id))
		sink.Delete(TableBody, idKey(&key, id))
	}
	c.messages, c.gone = c.messages[:0], c.gone[:0]
	for i, s := range c.sessions {
		m.collectSession(s, sink)
		c.sessions[i] = nil
	}
	c.sessions = c.sessions[:0]
	m.collectRetained(sink)
	m.collectGroups(sink)
	m.collectWills(sink)
}

func idKey(buf *[8]byte, id uint64) []byte {
	binary.BigEndian.PutUint64(buf[:], id)
	return buf[:]
}

func (m *Machine) collectSession(s *session.Session, sink Sink) {
	s.Dirty = false
	head := idKey(new([8]byte), s.ID)
	if m.sessions[s.ID] == s {
		m.scratch.value = appendSession(m.scratch.value[:0], s)
		sink.Put(TableSession, head, m.scratch.value, false)
	} else {
		sink.Delete(TableSession, head)
	}
	key := make([]byte, 0, 64)
	s.SubscriptionChanges(func(filter string, sub session.Subscription, held bool) {
		key = append(append(key[:0], head...), filter...)
		if held {
			m.scratch.value = appendSubscription(m.scratch.value[:0], sub)
			sink.Put(TableSubscription, key, m.scratch.value, false)
		} else {
			sink.Delete(TableSubscription, key)
		}
	})
	s.ReceivedChanges(func(pid uint16, held bool) {
		key = binary.BigEndian.AppendUint16(append(key[:0], head...), pid)
		if held {
			sink.Put(TableReceived, key, []byte{entryVersion}, true)
		} else {
			sink.Delete(TableReceived, key)
		}
	})
	s.Out.Changes(func(e *session.Entry[uint64], isNew bool) {
		key = binary.BigEndian.AppendUint64(append(key[:0], head...), e.Seq)
		m.scratch.value = appendQueueEntry(m.scratch.value[:0], &s.Out, e)
		sink.Put(TableQueue, key, m.scratch.value, isNew)
	}, func(seq uint64) {
		key = binary.BigEndian.AppendUint64(append(key[:0], head...), seq)
		sink.Delete(TableQueue, key)
	})
}

func (m *Machine) collectRetained(sink Sink) {
	for _, name := range slices.Sorted(maps.Keys(m.changed.topics)) {
		if e, ok := m.retained.Get(name); ok {
			m.scratch.value = appendRetained(m.scratch.value[:0], e)
			sink.Put(TableRetained, []byte(name), m.scratch.value, false)
		} else {
			sink.Delete(TableRetained, []byte(name))
		}
	}
	clear(m.changed.topics)
}

func (m *Machine) collectGroups(sink Sink) {
	for _, g := range m.changed.groups {
		for _, id := range slices.Sorted(maps.Keys(g.dirty)) {
			key := appendGroupKey(nil, g.key, id)
			if i, held := g.find(id); held {
				m.scratch.value = g.pending[i].appendValue(m.scratch.value[:0])
				sink.Put(TableGroup, key, m.scratch.value, false)
			} else if g.dirty[id] {
				sink.Delete(TableGroup, key)
			}
		}
		g.dirty = nil
	}
	m.changed.groups = nil
}

func (m *Machine) collectWills(sink Sink) {
	for _, id := range slices.Sorted(maps.Keys(m.changed.wills)) {
		key := idKey(new([8]byte), id)
		if w := m.wills[id]; w != nil {
			m.scratch.value = w.appendValue(m.scratch.value[:0])
			sink.Put(TableWill, key, m.scratch.value, false)
		} else {
			sink.Delete(TableWill, key)
		}
	}
	clear(m.changed.wills)
}
