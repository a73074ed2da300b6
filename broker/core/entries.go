package core

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
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

// Export calls fn for every pair of the state but the bodies, as a backend
// stores them: tables and keys in order where the state has one. Slices are valid during the call.
func (m *Machine) Export(fn func(table byte, key, value []byte)) {
	var v []byte
	if m.level != 0 {
		fn(TableConfig, configKey, m.configValue())
	}
	for _, s := range append(m.sorted(), m.released...) {
		m.exportSession(s, fn)
	}
	var key [8]byte
	m.messages.eachPage(func(page, exist uint64, list []message) {
		v = appendPage(v[:0], exist, list)
		fn(TableMessage, idKey(&key, page), v)
	})
	m.retained.All(func(name string, e retain.Entry) bool {
		v = appendRetained(v[:0], e)
		fn(TableRetained, []byte(name), v)
		return true
	})
	for _, g := range m.sortedGroups() {
		var name []byte
		g.pending.each(func(_ pendingAt, p *pending) bool {
			name, v = appendGroupKey(name[:0], g.key, p.message), p.appendValue(v[:0])
			fn(TableGroup, name, v)
			return true
		})
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
	var name [16]byte
	next := uint64(0)
	s.Out.All(func(e *session.Entry[uint64]) bool {
		if c := e.Seq / session.ChunkLen; c >= next {
			v = appendChunk(v[:0], &s.Out, c)
			fn(TableQueue, chunkKey(&name, s.ID, c), v)
			next = c + 1
		}
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

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// Flag bits of a session.
const (
	sessionWill  = 1 << 0
	sessionScans = 1 << 1
)

func appendSession(dst []byte, s *session.Session) []byte {
	var flags byte
	if s.HasWill {
		flags |= sessionWill
	}
	if len(s.Scans) > 0 {
		flags |= sessionScans
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
	if len(s.Scans) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(s.Scans)))
	}
	for i := range s.Scans {
		sc := &s.Scans[i]
		dst = appendString(appendString(dst, sc.Filter), sc.After)
		dst = binary.AppendUvarint(append(dst, sc.QoS), uint64(sc.ID))
		dst = binary.AppendUvarint(dst, sc.Before)
	}
	return dst
}

func appendSubscription(dst []byte, sub session.Subscription) []byte {
	dst = append(dst, entryVersion, byte(sub.Options))
	return binary.AppendUvarint(dst, uint64(sub.ID))
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
	dst = append(dst, entryVersion, p.qos)
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
