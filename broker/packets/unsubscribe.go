package packets

import "encoding/binary"

// Unsubscribe is an UNSUBSCRIBE packet (section 3.10). Decode reuses Filters.
type Unsubscribe struct {
	PacketID uint16
	User     UserProperties // the only property there is
	Filters  [][]byte       // at least one; none is empty
}

// Decode decodes the body of an UNSUBSCRIBE packet. Errors are of type *Error.
func (u *Unsubscribe) Decode(v Version, flags byte, body []byte) error {
	u.Filters, u.User = u.Filters[:0], nil
	r := reader{b: body}
	if v == V31 {
		flags &^= 0x08 // could carry DUP (3.1 section 3.10)
	}
	r.flags(flags, 2, "MQTT-3.10.1-1")
	u.PacketID = r.packetID("MQTT-2.2.1-3")
	if v >= V5 {
		p := r.properties("3.10.2.1", unsubscribeSet)
		for p.next() {
			p.user()
		}
		u.User = p.close(&r)
	}
	if len(r.b) == 0 {
		r.fail(CodeProtocolError, "no topic filter", "MQTT-3.10.3-2")
	}
	for len(r.b) > 0 {
		u.Filters = append(u.Filters, r.filter())
	}
	return r.err
}

// AppendTo appends the whole packet. It panics if a field does not fit the
// format.
func (u *Unsubscribe) AppendTo(dst []byte, v Version) []byte {
	dst, at := begin(dst, TypeUnsubscribe, 2)
	dst = binary.BigEndian.AppendUint16(dst, u.PacketID)
	if v >= V5 {
		dst = append(dst, 0)
		props := len(dst)
		dst = end(u.User.appendTo(dst), props)
	}
	for _, f := range u.Filters {
		dst = appendString(dst, f)
	}
	return end(dst, at)
}

// Unsuback is an UNSUBACK packet (section 3.11). Decode reuses Codes.
type Unsuback struct {
	PacketID uint16
	Props    ReasonProps
	// Codes has one entry a filter, in the order of the UNSUBSCRIBE
	// [MQTT-3.11.3-1]. MQTT 3 has none on the wire.
	Codes []Code
}

// Decode decodes the body of an UNSUBACK packet. Errors are of type *Error.
func (u *Unsuback) Decode(v Version, flags byte, body []byte) error {
	u.Codes, u.Props = u.Codes[:0], ReasonProps{}
	r := reader{b: body}
	r.flags(flags, 0, "MQTT-2.1.3-1")
	u.PacketID = r.packetID("MQTT-2.2.1-6")
	if v < V5 {
		return r.end()
	}
	u.Props.decode(&r, "3.11.2.1")
	if len(r.b) == 0 {
		r.fail(CodeProtocolError, "no reason code", "MQTT-3.11.3-1")
	}
	for _, b := range r.b {
		if !unsubackCode(Code(b)) {
			r.fail(CodeProtocolError, "reason code not valid for this packet type", "MQTT-3.11.3-2")
			break
		}
		u.Codes = append(u.Codes, Code(b))
	}
	return r.err
}

func unsubackCode(c Code) bool {
	switch c {
	case CodeSuccess, CodeNoSubscriptionExisted, CodeUnspecifiedError, CodeImplementationSpecificError,
		CodeNotAuthorized, CodeTopicFilterInvalid, CodePacketIdentifierInUse:
		return true
	}
	return false
}

// AppendTo appends the whole packet.
func (u *Unsuback) AppendTo(dst []byte, v Version) []byte {
	dst, at := begin(dst, TypeUnsuback, 0)
	dst = binary.BigEndian.AppendUint16(dst, u.PacketID)
	if v >= V5 {
		dst = u.Props.appendTo(dst)
		for _, c := range u.Codes {
			dst = append(dst, byte(c))
		}
	}
	return end(dst, at)
}
