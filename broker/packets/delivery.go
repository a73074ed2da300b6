package packets

import (
	"encoding/binary"
	"slices"
)

// Delivery says how one stored message goes to one subscriber: everything in
// a PUBLISH that is not in the message. The zero value with a Version is a
// QoS 0 delivery.
type Delivery struct {
	Version  Version
	QoS      byte // 0, 1 or 2; the packet has PacketID only above 0
	Dup      bool
	Retain   bool
	PacketID uint16

	// The rest is for MQTT 5 and ignored for older versions.

	TopicAlias      uint16   // 0: none
	OmitTopic       bool     // leave the topic name empty; the alias is known to the peer
	HasExpiry       bool     // Expiry is present
	Expiry          uint32   // remaining lifetime, seconds [MQTT-3.3.2-6]
	SubscriptionIDs []uint32 // of all matching subscriptions [MQTT-3.3.4-3]
}

// sizes returns the Remaining Length, the length of the property section and
// that of the topic name as sent.
func (d *Delivery) sizes(m *Message) (remaining, props, topic int) {
	topic = len(m.Topic)
	if d.Version >= V5 {
		props = len(m.Props)
		if d.OmitTopic {
			topic = 0
		}
		if d.TopicAlias != 0 {
			props += 3
		}
		if d.HasExpiry {
			props += 5
		}
		for _, id := range d.SubscriptionIDs {
			props += 1 + varintSize(int(id))
		}
		remaining = varintSize(props) + props
	}
	if d.QoS > 0 {
		remaining += 2
	}
	return remaining + 2 + topic + len(m.Payload), props, topic
}

// Size returns the size of the whole packet that AppendTo appends, to be held
// against the client's Maximum Packet Size and against MaxPacket.
func (d *Delivery) Size(m *Message) int {
	remaining, _, _ := d.sizes(m)
	return 1 + varintSize(remaining) + remaining
}

// PacketIDOffset returns where the Packet Identifier stands in the packet that
// AppendTo appends, for PatchPublish; 0 if QoS is 0.
func (d *Delivery) PacketIDOffset(m *Message) int {
	if d.QoS == 0 {
		return 0
	}
	remaining, _, topic := d.sizes(m)
	return 1 + varintSize(remaining) + 2 + topic
}

// AppendTo appends the whole PUBLISH packet. MQTT 3 gets no properties;
// MQTT 5 gets alias, expiry and subscription identifiers before the stored
// ones. It allocates only if dst has no room, and panics if the packet is
// larger than MaxRemaining allows: check Size first.
func (d *Delivery) AppendTo(dst []byte, m *Message) []byte {
	remaining, props, topic := d.sizes(m)
	mustFit(remaining)
	at := len(dst)
	size := 1 + varintSize(remaining) + remaining
	dst = slices.Grow(dst, size)[:at+size]
	b := dst[at:]

	b[0] = publishHeader(d.Dup && d.QoS > 0, d.QoS, d.Retain)
	b = b[1+putVarint(b[1:], remaining):]
	binary.BigEndian.PutUint16(b, uint16(topic))
	copy(b[2:], m.Topic[:topic])
	b = b[2+topic:]
	if d.QoS > 0 {
		binary.BigEndian.PutUint16(b, d.PacketID)
		b = b[2:]
	}
	if d.Version >= V5 {
		b = b[putVarint(b, props):]
		b = d.putProps(b)
		b = b[copy(b, m.Props):]
	}
	copy(b, m.Payload)
	return dst
}

// putProps writes the properties of this transmission and returns what is
// left of b.
func (d *Delivery) putProps(b []byte) []byte {
	if d.TopicAlias != 0 {
		b[0], b[1], b[2] = PropTopicAlias, byte(d.TopicAlias>>8), byte(d.TopicAlias)
		b = b[3:]
	}
	if d.HasExpiry {
		b[0] = PropMessageExpiry
		binary.BigEndian.PutUint32(b[1:], d.Expiry)
		b = b[5:]
	}
	for _, id := range d.SubscriptionIDs {
		b[0] = PropSubscriptionID
		b = b[1+putVarint(b[1:], int(id)):]
	}
	return b
}

// PatchPublish sets the Packet Identifier and the DUP flag of a whole encoded
// PUBLISH of QoS 1 or 2. offset is Delivery.PacketIDOffset. This is how one
// encoded frame is copied to many subscribers.
func PatchPublish(b []byte, offset int, packetID uint16, dup bool) {
	b[0] &^= 0x08
	if dup {
		b[0] |= 0x08
	}
	binary.BigEndian.PutUint16(b[offset:], packetID)
}
