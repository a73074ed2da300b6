package core

import (
	"encoding/binary"
	"fmt"

	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Scan calls fn for every entry of a table in key order, with the key as
// Export and Collect gave it.
type Scan func(table byte, fn func(key, value []byte) error) error

// Load builds the machine that Export or Collect wrote down after the record
// applied, at log time now. It is equal to the one that wrote: the same
// records make the same of both.
func Load(scan Scan, applied uint64, now int64) (*Machine, error) {
	m := &loader{Machine: New(), tails: make(map[uint64]uint64)}
	m.applied, m.now = applied, now
	for _, t := range []struct {
		table byte
		load  func(key, value []byte) error
	}{
		{TableConfig, m.loadConfig},
		{TableMessage, m.loadMessage},
		{TableSession, m.loadSession},
		{TableSubscription, m.loadSubscription},
		{TableReceived, m.loadReceived},
		{TableQueue, m.loadQueueEntry},
		{TableRetained, m.loadRetained},
		{TableGroup, m.loadPending},
		{TableWill, m.loadWill},
	} {
		if err := scan(t.table, t.load); err != nil {
			return nil, fmt.Errorf("core: load table %c: %w", t.table, err)
		}
	}
	for _, s := range m.sorted() {
		s.Out.Restored(m.tails[s.ID], s.Out.LastPID)
		m.armed(s)
	}
	for _, s := range m.released {
		s.Out.Restored(s.Out.Tail(), 0)
	}
	for id, msg := range m.messages {
		if msg.refs == 0 {
			return nil, fmt.Errorf("%w: nothing refers to message %d", ErrEntry, id)
		}
	}
	return m.Machine, nil
}

// loader is a machine being loaded.
type loader struct {
	*Machine
	tails map[uint64]uint64 // newest sequence number of each session
}

func (m *loader) loadConfig(_, value []byte) error {
	e := openEntry(value)
	if id := e.take(16); id != nil {
		m.genesis.StoreID = [16]byte(id)
	}
	m.level, m.boot, m.nextWill = uint32(e.num()), uint32(e.num()), e.num()
	if e.err == nil {
		e.err = m.limits.Decode(e.b)
		e.b = nil
	}
	m.genesis.FeatureLevel, m.genesis.Limits = m.level, m.limits
	if e.err == nil && m.level > FeatureLevel {
		return fmt.Errorf("feature level %d is newer than this release's %d", m.level, FeatureLevel)
	}
	return e.end()
}

func (m *loader) loadMessage(key, value []byte) error {
	id, _, err := splitID(key)
	if err != nil {
		return err
	}
	e := openEntry(value)
	msg := message{size: uint32(e.num()), stored: true}
	if crc := e.take(4); crc != nil {
		msg.crc = binary.LittleEndian.Uint32(crc)
	}
	msg.deadline = int64(e.num())
	m.messages[id] = msg
	return e.end()
}

// take adds a reference to a loaded message.
func (m *loader) take(id uint64) (message, error) {
	msg, ok := m.messages[id]
	if !ok {
		return msg, fmt.Errorf("%w: message %d is missing", ErrEntry, id)
	}
	msg.refs++
	m.messages[id] = msg
	return msg, nil
}

func (m *loader) loadSession(key, value []byte) error {
	id, _, err := splitID(key)
	if err != nil {
		return err
	}
	e := openEntry(value)
	flags := e.u8()
	s := &session.Session{ID: id, Version: e.u8(), ClientID: e.str(), User: e.str()}
	s.Epoch, s.Expiry = record.Epoch(e.num()), uint32(e.num())
	s.ReceiveMaximum, s.MaxPacket = uint16(e.num()), uint32(e.num())
	s.Disconnected = int64(e.num())
	m.tails[id], s.Out.LastPID = e.num(), uint16(e.num())
	if s.HasWill = flags&1 != 0; s.HasWill {
		s.WillAt = int64(e.num())
		s.Will = e.will()
	}
	if err := e.end(); err != nil {
		return err
	}
	s.Ref = m.attach(slot{session: s})
	m.sessions[id], m.byClient[s.ClientID] = s, s
	return nil
}

func (m *loader) loadSubscription(key, value []byte) error {
	id, name, err := splitID(key)
	if err != nil {
		return err
	}
	s := m.sessions[id]
	if s == nil {
		return fmt.Errorf("%w: subscription of session %d, which does not exist", ErrEntry, id)
	}
	sub, err := decodeSubscription(value)
	if err != nil {
		return err
	}
	filter := string(name)
	s.RestoreSubscription(filter, sub)
	m.index.Subscribe(filter, topic.Sub{Ref: s.Ref, ID: sub.ID, Opts: sub.Options})
	if k := keyOf(filter); k.Share != "" {
		var fx Effects
		m.join(k, false, &fx)
	}
	return nil
}

func (m *loader) loadReceived(key, value []byte) error {
	id, pid, err := splitID(key)
	s := m.sessions[id]
	if err != nil || s == nil || len(pid) != 2 {
		return fmt.Errorf("%w: received identifier of session %d", ErrEntry, id)
	}
	s.RestoreReceived(binary.BigEndian.Uint16(pid))
	e := openEntry(value)
	return e.end()
}

func (m *loader) loadQueueEntry(key, value []byte) error {
	id, rest, err := splitID(key)
	if err != nil || len(rest) != 8 {
		return fmt.Errorf("%w: queue key of session %d", ErrEntry, id)
	}
	s := m.sessions[id]
	if s == nil { // the session ended; its messages are still being let go
		if n := len(m.released); n > 0 && m.released[n-1].ID == id {
			s = m.released[n-1]
		} else {
			s = &session.Session{ID: id}
			m.released = append(m.released, s)
		}
	}
	e := openEntry(value)
	flags := e.u8()
	q := session.Entry[uint64]{Seq: binary.BigEndian.Uint64(rest), QoS: flags & 3, Retain: flags&entryRetain != 0}
	if flags&entryReleased != 0 {
		q.Phase = session.PhaseRelease
	}
	q.Msg, q.PID = e.num(), uint16(e.num())
	ids := make([]uint32, 0, 1)
	for n := e.num(); n > 0 && e.err == nil; n-- {
		ids = append(ids, uint32(e.num()))
	}
	group := ""
	if flags&entryGroup != 0 {
		group = e.str()
	}
	if err := e.end(); err != nil {
		return err
	}
	msg, err := m.take(q.Msg)
	if err != nil {
		return err
	}
	s.QueuedBytes += uint64(msg.size)
	s.Out.Restore(q, ids, group)
	return nil
}

func (m *loader) loadRetained(key, value []byte) error {
	e := openEntry(value)
	r := retain.Entry{QoS: e.u8(), Message: e.num(), Time: int64(e.num()), Deadline: int64(e.num()), Bytes: int(e.num())}
	if err := e.end(); err != nil {
		return err
	}
	if _, err := m.take(r.Message); err != nil {
		return err
	}
	m.retained.Set(string(key), r)
	return nil
}

func (m *loader) loadPending(key, value []byte) error {
	k, id, err := splitGroupKey(key)
	if err != nil {
		return err
	}
	g := m.groups[k]
	if g == nil {
		return fmt.Errorf("%w: message of group %s, which has no durable member", ErrEntry, k)
	}
	e := openEntry(value)
	flags := e.u8()
	p := pending{message: id, qos: flags & 3, retain: flags&entryRetain != 0, epoch: record.Epoch(e.num())}
	if err := e.end(); err != nil {
		return err
	}
	if _, err := m.take(id); err != nil {
		return err
	}
	g.pending = append(g.pending, p)
	return nil
}

func (m *loader) loadWill(key, value []byte) error {
	id, _, err := splitID(key)
	if err != nil {
		return err
	}
	e := openEntry(value)
	w := &will{id: id, due: e.u8()&1 != 0}
	w.epoch, w.clientID, w.user = record.Epoch(e.num()), e.str(), e.str()
	w.at, w.will = int64(e.num()), e.will()
	if err := e.end(); err != nil {
		return err
	}
	m.wills[id] = w
	switch {
	case w.epoch != 0:
		m.byEpoch[w.epoch] = id
	case !w.due:
		m.due.add(deadline{w.at, dueWill, id})
	}
	return nil
}
