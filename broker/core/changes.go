package core

import (
	"encoding/binary"
	"maps"
	"math"
	"math/bits"
	"slices"

	"github.com/wind-c/comqtt/v3/session"
)

// changes remembers what differs from the last Collect. A message that came
// and went in between leaves only its id behind.
type changes struct {
	config   bool
	messages []uint64 // new since then, perhaps gone again
	fresh    int      // of messages, those that are still there
	gone     []uint64 // stored messages without a reference left
	entries  int      // about how many entries of queues, windows and groups differ
	sessions []*session.Session
	topics   map[string]struct{}
	groups   []*group
	wills    map[uint64]struct{}
}

// messagesKeep is the number of new messages from which on the list of them is
// cleared of those that are gone again.
const messagesKeep = 1 << 10

// add notes a new message.
func (c *changes) add(m *Machine, id uint64) {
	if len(c.messages) >= messagesKeep && len(c.messages) > 2*c.fresh {
		c.messages = slices.DeleteFunc(c.messages, func(id uint64) bool {
			return m.messages.get(id) == nil
		})
	}
	c.messages = append(c.messages, id)
	c.fresh++
}

// ended notes the end of a queue or in-flight entry: a deletion, or nothing
// when it was never stored.
func (c *changes) ended(o *session.Outbound[uint64], seq uint64) {
	if o.Stored(seq) {
		c.entries++
	} else {
		c.entries--
	}
}

// assigned notes that an entry changed; one that is not stored is noted
// already.
func (c *changes) assigned(o *session.Outbound[uint64], seq uint64) {
	if o.Stored(seq) {
		c.entries++
	}
}

func (c *changes) retain(name []byte) {
	if _, noted := c.topics[string(name)]; noted {
		return
	}
	if c.topics == nil {
		c.topics = make(map[string]struct{})
	}
	c.topics[string(name)] = struct{}{}
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

// Sink takes the net changes of the state, as pairs of a backend (chunks.go):
// an entry each, but for the tables that are stored in chunks. Keys and values
// are valid only during the call.
type Sink interface {
	// Put sets a pair. isNew says that no Collect put it before, or that a
	// later one deleted it.
	Put(table byte, key, value []byte, isNew bool)
	// Delete removes a pair, which need not exist.
	Delete(table byte, key []byte)
	// Body says that the message with this id, whose page in TableMessage is put
	// at the same time, needs its body stored.
	Body(id uint64)
}

// Changed returns about how many entries a Collect would put and delete. It is
// above 0 whenever there is one.
func (m *Machine) Changed() int {
	c := &m.changed
	n := c.fresh + len(c.gone) + len(c.sessions) + max(c.entries, len(c.groups)) + len(c.topics) + len(c.wills)
	if c.config {
		n++
	}
	return n
}

// Collect gives the net changes since the last Collect to sink and takes them
// as stored. All of them together lead from that state to this one.
func (m *Machine) Collect(sink Sink) {
	c := &m.changed
	if c.config {
		sink.Put(TableConfig, configKey, m.configValue(), false)
		c.config = false
	}
	m.collectMessages(sink)
	c.messages, c.gone, c.fresh, c.entries = c.messages[:0], c.gone[:0], 0, 0
	for i, s := range c.sessions {
		m.collectSession(s, sink)
		c.sessions[i] = nil
	}
	c.sessions = c.sessions[:0]
	m.collectRetained(sink)
	m.collectGroups(sink)
	m.collectWills(sink)
}

// collectMessages gives the pages of messages that differ, and says whose
// bodies come and go.
func (m *Machine) collectMessages(sink Sink) {
	c := &m.changed
	var key [8]byte
	slices.Sort(c.gone)
	gone := c.gone
	for _, id := range gone {
		sink.Delete(TableBody, idKey(&key, id))
	}
	// Both lists are in the order of ids: what is new is noted as it comes.
	for fresh := c.messages; len(fresh)+len(gone) > 0; {
		page := uint64(math.MaxUint64)
		if len(fresh) > 0 {
			page = fresh[0] / PageLen
		}
		lost := len(gone) > 0 && gone[0]/PageLen <= page
		if lost {
			page = gone[0] / PageLen
		}
		for len(gone) > 0 && gone[0]/PageLen == page {
			gone = gone[1:]
		}
		changed := lost
		for len(fresh) > 0 && fresh[0]/PageLen == page {
			changed = changed || m.messages.get(fresh[0]) != nil
			fresh = fresh[1:]
		}
		if changed {
			m.collectPage(page, lost, sink)
		}
	}
}

// collectPage gives one page. lost says that messages that were in the
// backend's are gone.
func (m *Machine) collectPage(page uint64, lost bool, sink Sink) {
	var key [8]byte
	exist, list := m.messages.page(page)
	if exist == 0 {
		sink.Delete(TableMessage, idKey(&key, page))
		return
	}
	held := lost
	for i, rest := 0, exist; rest != 0; i, rest = i+1, rest&(rest-1) {
		held = held || list[i].stored()
	}
	m.scratch.value = appendPage(m.scratch.value[:0], exist, list)
	sink.Put(TableMessage, idKey(&key, page), m.scratch.value, !held)
	for i, rest := 0, exist; rest != 0; i, rest = i+1, rest&(rest-1) {
		if !list[i].stored() {
			list[i].flags |= messageStored
			sink.Body(page*PageLen + uint64(bits.TrailingZeros64(rest)))
		}
	}
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
	var name [16]byte
	s.Out.Changes(func(chunk uint64, isNew bool) {
		m.scratch.value = appendChunk(m.scratch.value[:0], &s.Out, chunk)
		sink.Put(TableQueue, chunkKey(&name, s.ID, chunk), m.scratch.value, isNew)
	}, func(chunk uint64) {
		sink.Delete(TableQueue, chunkKey(&name, s.ID, chunk))
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
			stored := g.dirty[id]
			if at, held := g.pending.find(id); held {
				m.scratch.value = g.pending.at(at).appendValue(m.scratch.value[:0])
				sink.Put(TableGroup, key, m.scratch.value, !stored)
			} else if stored {
				sink.Delete(TableGroup, key)
			}
		}
		g.dirty = nil
	}
	clear(m.changed.groups)
	m.changed.groups = m.changed.groups[:0]
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
