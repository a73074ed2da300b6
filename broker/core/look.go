package core

import (
	"encoding/binary"

	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// This file is for tools that look at a state as a whole. Nothing here is on a
// path of the running broker.

// Sessions calls fn for the durable sessions, in the order of their ids, until
// it returns false.
func (m *Machine) Sessions(fn func(s *session.Session) bool) {
	for _, s := range m.sorted() {
		if !fn(s) {
			return
		}
	}
}

// AllRetained calls fn for the retained messages until it returns false, in an
// order of their own.
func (m *Machine) AllRetained(fn func(topic string, e retain.Entry) bool) { m.retained.All(fn) }

// StoredMessage is what the machine knows of a message that it refers to.
type StoredMessage struct {
	ID       uint64 // index of its Publish record
	Size     uint32 // bytes of the stored form
	CRC      uint32 // CRC-32C of the stored form
	Refs     uint32 // references to it
	Deadline int64  // log time of its expiry, unix ms; 0 = never
}

// Messages calls fn for the messages that the state refers to, in the order of
// their ids, until it returns false.
func (m *Machine) Messages(fn func(msg StoredMessage) bool) {
	goOn := true
	m.messages.each(func(id uint64, msg *message) {
		if goOn {
			goOn = fn(StoredMessage{ID: id, Size: msg.size, CRC: msg.crc, Refs: msg.refs, Deadline: msg.deadline})
		}
	})
}

// Group returns how many messages of a shared group wait for anybody, how many
// are with ephemeral members, and how many durable members the group has. ok
// is false if it has no durable member.
func (m *Machine) Group(key GroupKey) (waiting, owned, durable int, ok bool) {
	g := m.groups[key]
	if g == nil {
		return 0, 0, 0, false
	}
	return g.pending.idle, g.pending.len - g.pending.idle, g.durable, true
}

// SessionEntry reads from an entry of TableSession, with its key, what names
// the session.
func SessionEntry(key, value []byte) (id uint64, clientID string, epoch record.Epoch, err error) {
	if id, _, err = splitID(key, 0); err != nil {
		return 0, "", 0, err
	}
	e := openEntry(value)
	e.flags(sessionWill | sessionScans)
	e.u8()
	clientID = e.str()
	e.str()
	epoch = record.Epoch(e.num())
	return id, clientID, epoch, e.err
}

// MessageKey returns the id in a key of TableMessage or TableBody, 0 if it is
// not one.
func MessageKey(key []byte) uint64 {
	if len(key) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(key)
}
