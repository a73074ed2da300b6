package core

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// The tables of the state's logical entries, by the letters that package
// backends keeps them under. An entry's value starts with entryVersion.
const (
	TableConfig       byte = 'C'
	TableSession      byte = 'S'
	TableSubscription byte = 'U'
	TableQueue        byte = 'Q'
	TableReceived     byte = 'R'
	TableMessage      byte = 'M'
	TableBody         byte = 'B' // not part of the hash: the message entry holds its checksum
	TableRetained     byte = 'T'
	TableGroup        byte = 'G'
	TableWill         byte = 'W'
)

const entryVersion = 1

var configKey = []byte("state")

// ErrEntry reports a state entry that cannot be read.
var ErrEntry = errors.New("core: bad state entry")

// Export calls fn for every entry of the state but the bodies, tables and
// keys in order where the state has one. Slices are valid during the call.
func (m *Machine) Export(fn func(table byte, key, value []byte)) {
	var v []byte
	if m.level != 0 {
		fn(TableConfig, configKey, m.configValue())
	}
	for _, s := range append(m.sorted(), m.released...) {
		m.exportSession(s, fn)
	}
	var key [8]byte
	for _, id := range slices.Sorted(maps.Keys(m.messages)) {
		msg := m.messages[id]
		v = msg.appendValue(v[:0])
		fn(TableMessage, idKey(&key, id), v)
	}
	m.retained.All(func(name string, e retain.Entry) bool {
		v = appendRetained(v[:0], e)
		fn(TableRetained, []byte(name), v)
		return true
	})
	for _, g := range m.sortedGroups() {
		for i := range g.pending {
			v = g.pending[i].appendValue(v[:0])
			fn(TableGroup, appendGroupKey(nil, g.key, g.pending[i].message), v)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.wills)) {
		v = m.wills[id].appendValue(v[:0])
		fn(TableWill, idKey(&key, id), v)
	}
}

func (m *Machine) exportSession(s *session.Session, fn func(table byte, key, value []byte)) {
	var v []byte
	head := idKey(new([8]byte), s.ID)
	if m.sessions[s.ID] == s {
		v = appendSession(v[:0], s)
		fn(TableSession, head, v)
	}
	key := make([]byte, 0, 64)
	for _, f := range s.Filters() {
		sub, _ := s.Subscription(f)
		key = append(append(key[:0], head...), f...)
		v = appendSubscription(v[:0], sub)
		fn(TableSubscription, key, v)
	}
	for _, pid := range s.Received() {
		key = binary.BigEndian.AppendUint16(append(key[:0], head...), pid)
		fn(TableReceived, key, []byte{entryVersion})
	}
	s.Out.All(func(e *session.Entry[uint64]) bool {
		key = binary.BigEndian.AppendUint64(append(key[:0], head...), e.Seq)
		v = appendQueueEntry(v[:0], &s.Out, e)
		fn(TableQueue, key, v)
		return true
	})
}

// The value layouts. Numbers are uvarints, byte strings uvarint-prefixed.

func (m *Machine) configValue() []byte {
	b := []byte{entryVersion}
	b = append(b, m.genesis.StoreID[:]...)
	b = binary.AppendUvarint(b, uint64(m.level))
	b = binary.AppendUvarint(b, uint64(m.boot))
	b = binary.AppendUvarint(b, m.nextWill)
	return m.limits.AppendTo(b)
}

func (msg *message) appendValue(dst []byte) []byte {
	dst = append(dst, entryVersion)
	dst = binary.AppendUvarint(dst, uint64(msg.size))
	dst = binary.LittleEndian.AppendUint32(dst, msg.crc)
	return binary.AppendUvarint(dst, uint64(msg.deadline))
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendSession(dst []byte, s *session.Session) []byte {
	var flags byte
	if s.HasWill {
		flags |= 1
	}
	dst = append(dst, entryVersion, flags, s.Version)
	dst = appendString(dst, s.ClientID)
	dst = appendString(dst, s.User)
	dst = binary.AppendUvarint(dst, uint64(s.Epoch))
	dst = binary.AppendUvarint(dst, uint64(s.Expiry))
	dst = binary.AppendUvarint(dst, uint64(s.ReceiveMaximum))
	dst = binary.AppendUvarint(dst, uint64(s.MaxPacket))
	dst = binary.AppendUvarint(dst, uint64(s.Disconnected))
	dst = binary.AppendUvarint(dst, s.Out.Tail())
	dst = binary.AppendUvarint(dst, uint64(s.Out.LastPID))
	if s.HasWill {
		dst = binary.AppendUvarint(dst, uint64(s.WillAt))
		dst = s.Will.AppendTo(dst)
	}
	return dst
}

func appendSubscription(dst []byte, sub session.Subscription) []byte {
	dst = append(dst, entryVersion, byte(sub.Options))
	return binary.AppendUvarint(dst, uint64(sub.ID))
}

// Flag bits of a queue entry; the lowest two are the QoS.
const (
	entryRetain   = 1 << 2
	entryReleased = 1 << 3
	entryGroup    = 1 << 4
)

func appendQueueEntry(dst []byte, o *session.Outbound[uint64], e *session.Entry[uint64]) []byte {
	flags := e.QoS
	if e.Retain {
		flags |= entryRetain
	}
	if e.Phase == session.PhaseRelease {
		flags |= entryReleased
	}
	if e.Group {
		flags |= entryGroup
	}
	dst = append(dst, entryVersion, flags)
	dst = binary.AppendUvarint(dst, e.Msg)
	dst = binary.AppendUvarint(dst, uint64(e.PID))
	switch {
	case e.Many:
		ids := o.SubIDs[e.Seq]
		dst = binary.AppendUvarint(dst, uint64(len(ids)))
		for _, id := range ids {
			dst = binary.AppendUvarint(dst, uint64(id))
		}
	case e.SubID != 0:
		dst = binary.AppendUvarint(append(dst, 1), uint64(e.SubID))
	default:
		dst = append(dst, 0)
	}
	if e.Group {
		dst = appendString(dst, o.GroupOf[e.Seq])
	}
	return dst
}

func appendRetained(dst []byte, e retain.Entry) []byte {
	dst = append(dst, entryVersion, e.QoS)
	dst = binary.AppendUvarint(dst, e.Message)
	dst = binary.AppendUvarint(dst, uint64(e.Time))
	dst = binary.AppendUvarint(dst, uint64(e.Deadline))
	return binary.AppendUvarint(dst, uint64(e.Bytes))
}

func appendGroupKey(dst []byte, k GroupKey, id uint64) []byte {
	dst = appendString(dst, k.Share)
	dst = appendString(dst, k.Filter)
	return binary.BigEndian.AppendUint64(dst, id)
}

func (p *pending) appendValue(dst []byte) []byte {
	flags := p.qos
	if p.retain {
		flags |= entryRetain
	}
	dst = append(dst, entryVersion, flags)
	return binary.AppendUvarint(dst, uint64(p.epoch))
}

func (w *will) appendValue(dst []byte) []byte {
	var flags byte
	if w.due {
		flags |= 1
	}
	dst = append(dst, entryVersion, flags)
	dst = binary.AppendUvarint(dst, uint64(w.epoch))
	dst = appendString(dst, w.clientID)
	dst = appendString(dst, w.user)
	dst = binary.AppendUvarint(dst, uint64(w.at))
	return w.will.AppendTo(dst)
}

// entry is a cursor over a value; the first failure sticks.
type entry struct {
	b   []byte
	err error
}

func openEntry(value []byte) entry {
	if len(value) == 0 {
		return entry{err: fmt.Errorf("%w: empty", ErrEntry)}
	}
	if value[0] != entryVersion {
		return entry{err: fmt.Errorf("%w: version %d is unknown to this release", ErrEntry, value[0])}
	}
	return entry{b: value[1:]}
}

func (e *entry) fail() {
	if e.err == nil {
		e.err = fmt.Errorf("%w: truncated", ErrEntry)
	}
	e.b = nil
}

func (e *entry) take(n uint64) []byte {
	if n > uint64(len(e.b)) {
		e.fail()
		return nil
	}
	v := e.b[:n]
	e.b = e.b[n:]
	return v
}

func (e *entry) u8() byte {
	if v := e.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (e *entry) num() uint64 {
	v, n := binary.Uvarint(e.b)
	if n <= 0 {
		e.fail()
		return 0
	}
	e.b = e.b[n:]
	return v
}

func (e *entry) str() string { return string(e.take(e.num())) }

func (e *entry) will() (w record.Will) {
	if e.err == nil {
		var n int
		if n, e.err = w.Decode(e.b); e.err == nil {
			w.Message = slices.Clone(w.Message)
			e.b = e.b[n:]
		}
	}
	return w
}

func (e *entry) end() error {
	if e.err == nil && len(e.b) > 0 {
		return fmt.Errorf("%w: %d bytes too many", ErrEntry, len(e.b))
	}
	return e.err
}

func splitID(key []byte) (uint64, []byte, error) {
	if len(key) < 8 {
		return 0, nil, fmt.Errorf("%w: key of %d bytes", ErrEntry, len(key))
	}
	return binary.BigEndian.Uint64(key), key[8:], nil
}

func splitGroupKey(key []byte) (GroupKey, uint64, error) {
	e := entry{b: key}
	k := GroupKey{Share: e.str(), Filter: e.str()}
	id := e.take(8)
	if err := e.end(); err != nil {
		return k, 0, err
	}
	return k, binary.BigEndian.Uint64(id), nil
}

func decodeSubscription(value []byte) (sub session.Subscription, err error) {
	e := openEntry(value)
	sub.Options, sub.ID = topic.Options(e.u8()), uint32(e.num())
	return sub, e.end()
}
