package packets

import (
	"encoding/binary"
	"errors"
	"slices"
)

// Message is a stored message, taken apart: the body of an MQTT 5 QoS 0
// PUBLISH without Topic Alias, Message Expiry Interval and Subscription
// Identifier (doc.go has the picture). The slices alias what was parsed.
type Message struct {
	Topic   []byte
	Props   []byte // property section without its length, in received order
	Payload []byte
}

// ErrMessage says that bytes are not a stored message. It is not an *Error:
// no peer is to blame, storage is.
var ErrMessage = errors.New("packets: stored message is truncated")

// ParseMessage takes a stored message apart. It trusts the content of the
// fields, which were checked when the message was received, but never reads
// beyond b. It does not allocate. The only error is ErrMessage.
func ParseMessage(b []byte) (Message, error) {
	if len(b) < 3 {
		return Message{}, ErrMessage
	}
	at := 2 + int(binary.BigEndian.Uint16(b))
	if at >= len(b) {
		return Message{}, ErrMessage
	}
	n, size := int(b[at]), 1
	if n >= 0x80 {
		if n, size, _ = varint(b[at:]); size == 0 {
			return Message{}, ErrMessage
		}
	}
	props := at + size
	payload := props + n
	if payload > len(b) {
		return Message{}, ErrMessage
	}
	return Message{
		Topic:   b[2:at:at],
		Props:   b[props:payload:payload],
		Payload: b[payload:len(b):len(b)],
	}, nil
}

// Size returns the number of bytes AppendTo appends.
func (m *Message) Size() int {
	return 2 + len(m.Topic) + varintSize(len(m.Props)) + len(m.Props) + len(m.Payload)
}

// AppendTo appends the message in its stored form.
func (m *Message) AppendTo(dst []byte) []byte {
	dst = slices.Grow(dst, m.Size())
	dst = appendString(dst, m.Topic)
	dst = appendVarint(dst, len(m.Props))
	dst = append(dst, m.Props...)
	return append(dst, m.Payload...)
}

// AppendMessage appends the packet's message in its stored form. topic is the
// topic name with an alias already resolved; nil means p.Topic.
func (p *Publish) AppendMessage(dst, topic []byte) []byte {
	if topic == nil {
		topic = p.Topic
	}
	transport := p.Props.HasExpiry || p.Props.TopicAlias != 0 || len(p.Props.SubscriptionIDs) > 0
	return p.Props.appendMessage(dst, topic, p.Payload, transport)
}

// AsMessage returns the packet's message in its stored form without copying
// it: the parts alias the packet, and scratch where properties have to be left
// out. topic is as with AppendMessage. It returns scratch for the next call.
func (p *Publish) AsMessage(scratch, topic []byte) (Message, []byte) {
	if topic == nil {
		topic = p.Topic
	}
	m := Message{Topic: topic, Payload: p.Payload}
	pp := &p.Props
	switch {
	case len(pp.Raw) == 0:
		scratch = pp.appendTo(scratch[:0], false)
		m.Props = scratch
	case pp.HasExpiry || pp.TopicAlias != 0 || len(pp.SubscriptionIDs) > 0:
		scratch = appendStored(scratch[:0], pp.Raw)
		m.Props = scratch
	default:
		m.Props = pp.Raw
	}
	return m, scratch
}

// appendMessage appends a stored message. transport says whether Raw may hold
// properties that are not stored.
func (pp *PublishProps) appendMessage(dst, topic, payload []byte, transport bool) []byte {
	if !transport && len(pp.Raw) > 0 {
		m := Message{Topic: topic, Props: pp.Raw, Payload: payload}
		return m.AppendTo(dst)
	}
	dst = slices.Grow(dst, 2+len(topic)+4+len(pp.Raw)+len(payload))
	dst = append(appendString(dst, topic), 0)
	at := len(dst)
	if len(pp.Raw) > 0 {
		dst = appendStored(dst, pp.Raw)
	} else {
		dst = pp.appendTo(dst, false)
	}
	return append(end(dst, at), payload...)
}

// appendStored appends those properties of a section that belong to the
// message itself, in their order.
func appendStored(dst, section []byte) []byte {
	for len(section) > 0 {
		n := propertySize(section)
		if n == 0 {
			break // not after Decode
		}
		if uint64(transportSet)>>(section[0]&63)&1 == 0 {
			dst = append(dst, section[:n]...)
		}
		section = section[n:]
	}
	return dst
}
