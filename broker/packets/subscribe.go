package packets

import (
	"bytes"
	"encoding/binary"
)

// Subscribe is a SUBSCRIBE packet (section 3.8). Decode reuses Filters.
type Subscribe struct {
	PacketID uint16
	Props    SubscribeProps
	Filters  []Subscription // at least one
}

// Subscription is one topic filter of a SUBSCRIBE with its options.
type Subscription struct {
	// Filter is not empty and well-formed UTF-8. Whether its wildcards and
	// its $share prefix are in place is for session/topic to say.
	Filter []byte
	// Options is the options byte (section 3.8.3.1): QoS in bits 0 and 1, No
	// Local in 2, Retain As Published in 3, Retain Handling in 4 and 5.
	// Before MQTT 5 it is the QoS alone.
	Options byte
}

// SubscribeProps are the properties of a SUBSCRIBE (section 3.8.2.1).
type SubscribeProps struct {
	SubscriptionID uint32 // 1 to 268 435 455; 0: none
	User           UserProperties
}

// Decode decodes the body of a SUBSCRIBE packet. Errors are of type *Error.
func (s *Subscribe) Decode(v Version, flags byte, body []byte) error {
	s.Filters, s.Props = s.Filters[:0], SubscribeProps{}
	r := reader{b: body}
	if v == V31 {
		flags &^= 0x08 // could carry DUP (3.1 section 3.8)
	}
	r.flags(flags, 2, "MQTT-3.8.1-1")
	s.PacketID = r.packetID("MQTT-2.2.1-3")
	if v >= V5 {
		s.Props.decode(&r)
	}
	if len(r.b) == 0 {
		r.fail(CodeProtocolError, "no topic filter", "MQTT-3.8.3-2")
	}
	for len(r.b) > 0 {
		f := Subscription{Filter: r.filter()}
		f.Options = r.byte("subscription options")
		f.check(&r, v)
		s.Filters = append(s.Filters, f)
	}
	return r.err
}

// filter reads a Topic Filter: a string that is not empty.
func (r *reader) filter() []byte {
	if len(r.b) >= 2 && r.b[0]|r.b[1] == 0 {
		r.fail(CodeTopicFilterInvalid, "empty topic filter", "MQTT-4.7.3-1")
		return nil
	}
	v := r.binary("topic filter")
	if !plain(v) {
		r.checkText(v, "topic filter")
	}
	return v
}

func (f *Subscription) check(r *reader, v Version) {
	o := f.Options
	switch {
	case r.err != nil:
	case v < V5 && o > 2:
		r.fail(CodeMalformedPacket, "requested QoS is not 0, 1 or 2", "3.1.1:MQTT-3-8.3-4")
	case o&0xc0 != 0:
		r.fail(CodeMalformedPacket, "reserved bits of the subscription options", "MQTT-3.8.3-5")
	case o&3 == 3:
		r.fail(CodeProtocolError, "maximum QoS is 3", "3.8.3.1")
	case o>>4 == 3:
		r.fail(CodeProtocolError, "retain handling is 3", "3.8.3.1")
	case o&4 != 0 && bytes.HasPrefix(f.Filter, []byte("$share/")):
		r.fail(CodeProtocolError, "no local on a shared subscription", "MQTT-3.8.3-4")
	}
}

func (sp *SubscribeProps) decode(r *reader) {
	p := r.properties("3.8.2.1", subscribeSet)
	for p.next() {
		switch p.id {
		case PropSubscriptionID:
			if sp.SubscriptionID != 0 {
				p.fail(CodeProtocolError, "property given twice", "3.8.2.1.2")
			}
			sp.SubscriptionID = p.subscriptionID()
		case PropUser:
			p.user()
		}
	}
	sp.User = p.close(r)
}

// AppendTo appends the whole packet. It panics if a field does not fit the
// format.
func (s *Subscribe) AppendTo(dst []byte, v Version) []byte {
	dst, at := begin(dst, TypeSubscribe, 2)
	dst = binary.BigEndian.AppendUint16(dst, s.PacketID)
	mask := byte(0xff)
	if v >= V5 {
		dst = append(dst, 0)
		props := len(dst)
		if id := s.Props.SubscriptionID; id != 0 {
			dst = appendVarint(append(dst, PropSubscriptionID), int(id))
		}
		dst = end(s.Props.User.appendTo(dst), props)
	} else {
		mask = 3
	}
	for _, f := range s.Filters {
		dst = append(appendString(dst, f.Filter), f.Options&mask)
	}
	return end(dst, at)
}

// Suback is a SUBACK packet (section 3.9). Decode reuses Codes.
type Suback struct {
	PacketID uint16
	Props    ReasonProps
	// Codes has one entry a filter, in the order of the SUBSCRIBE
	// [MQTT-3.9.3-1]: the QoS granted, or a failure. Before MQTT 5 there is
	// one failure, 0x80, and AppendTo writes it for all.
	Codes []Code
}

// Decode decodes the body of a SUBACK packet. Errors are of type *Error.
func (s *Suback) Decode(v Version, flags byte, body []byte) error {
	s.Codes, s.Props = s.Codes[:0], ReasonProps{}
	r := reader{b: body}
	r.flags(flags, 0, "MQTT-2.1.3-1")
	s.PacketID = r.packetID("MQTT-2.2.1-6")
	if v >= V5 {
		s.Props.decode(&r, "3.9.2.1")
	}
	if len(r.b) == 0 {
		r.fail(CodeProtocolError, "no reason code", "MQTT-3.9.3-1")
	}
	for _, b := range r.b {
		c := Code(b)
		if !subackCode(c) || v < V5 && c > 2 && c != CodeUnspecifiedError {
			r.fail(CodeProtocolError, "reason code not valid for this packet type", "MQTT-3.9.3-2")
			break
		}
		s.Codes = append(s.Codes, c)
	}
	return r.err
}

func subackCode(c Code) bool {
	switch c {
	case CodeGrantedQoS0, CodeGrantedQoS1, CodeGrantedQoS2, CodeUnspecifiedError,
		CodeImplementationSpecificError, CodeNotAuthorized, CodeTopicFilterInvalid,
		CodePacketIdentifierInUse, CodeQuotaExceeded, CodeSharedSubscriptionsNotSupported,
		CodeSubscriptionIdentifiersNotSupported, CodeWildcardSubscriptionsNotSupported:
		return true
	}
	return false
}

// AppendTo appends the whole packet.
func (s *Suback) AppendTo(dst []byte, v Version) []byte {
	dst, at := begin(dst, TypeSuback, 0)
	dst = binary.BigEndian.AppendUint16(dst, s.PacketID)
	if v >= V5 {
		dst = s.Props.appendTo(dst)
	}
	for _, c := range s.Codes {
		if v < V5 && c.IsError() {
			c = CodeUnspecifiedError
		}
		dst = append(dst, byte(c))
	}
	return end(dst, at)
}
