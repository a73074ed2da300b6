package core

import "fmt"

// message is what the machine knows of a stored message. Its body is in the
// log or a backend, under the same id.
type message struct {
	deadline int64  // log time of its expiry, unix ms; 0 = never
	refs     uint32 // queue and in-flight entries, retained topic, groups
	size     uint32 // bytes of the stored form
	crc      uint32 // CRC-32C of the stored form
	flags    uint8
}

// Bits of message.flags; the lowest two are the QoS of the PUBLISH.
const (
	messageRetain = 1 << 2 // RETAIN flag of the PUBLISH
	messageStored = 1 << 7 // the backend has it; not state
)

func (m *message) qos() uint8 { return m.flags & 3 }

func (m *message) retain() bool { return m.flags&messageRetain != 0 }

func (m *message) stored() bool { return m.flags&messageStored != 0 }

func (m *message) expired(now int64) bool { return m.deadline != 0 && now >= m.deadline }

// fresh is the message of the Publish that is being applied. It goes into the
// table of messages once, with all its references.
type fresh struct {
	id  uint64 // 0 between records
	msg message
}

// hold stores the fresh message, if anything refers to it.
func (m *Machine) hold() {
	id := m.fresh.id
	m.fresh.id = 0
	if m.fresh.msg.refs == 0 {
		return
	}
	m.messages.put(id, m.fresh.msg)
	m.changed.add(m, id)
}

// message returns what is known of a message, the fresh one too.
func (m *Machine) message(id uint64) (message, bool) {
	if id == m.fresh.id && id != 0 {
		return m.fresh.msg, true
	}
	if msg := m.messages.get(id); msg != nil {
		return *msg, true
	}
	return message{}, false
}

// ref adds a reference to a message.
func (m *Machine) ref(id uint64) {
	if id == m.fresh.id {
		m.fresh.msg.refs++
		return
	}
	msg := m.messages.get(id)
	if msg == nil {
		panic(fmt.Sprintf("core: reference to message %d, which is gone, after record %d", id, m.applied))
	}
	msg.refs++
}

// unref takes one reference from a message and forgets it with the last.
func (m *Machine) unref(id uint64) message {
	if id == m.fresh.id && m.fresh.msg.refs > 0 {
		m.fresh.msg.refs--
		return m.fresh.msg
	}
	msg := m.messages.get(id)
	if msg == nil || msg.refs == 0 {
		panic(fmt.Sprintf("core: reference count of message %d below zero after record %d", id, m.applied))
	}
	msg.refs--
	was := *msg
	if was.refs > 0 {
		return was
	}
	m.messages.delete(id)
	if was.stored() {
		m.changed.gone = append(m.changed.gone, id)
	} else {
		m.changed.fresh--
	}
	return was
}

// Message returns size in bytes, expiry (log time ms, 0 = never) and whether
// the machine still refers to a message.
func (m *Machine) Message(id uint64) (size uint32, deadline int64, ok bool) {
	msg, ok := m.message(id)
	return msg.size, msg.deadline, ok
}
