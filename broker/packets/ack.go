package packets

import "encoding/binary"

// Ack is a PUBACK, PUBREC, PUBREL or PUBCOMP packet (sections 3.4 to 3.7).
type Ack struct {
	Type     Type // set before Decode and AppendTo
	PacketID uint16
	Code     Code // MQTT 5; always CodeSuccess before
	Props    ReasonProps
}

// ReasonProps are the properties of all answers that have no others: PUBACK,
// PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
type ReasonProps struct {
	HasReasonString bool
	ReasonString    []byte
	User            UserProperties
}

// Decode decodes the body of a packet of type a.Type. Errors are of type
// *Error. Both directions look alike.
func (a *Ack) Decode(v Version, flags byte, body []byte) error {
	a.Code, a.Props = CodeSuccess, ReasonProps{}
	r := reader{b: body}
	a.checkFlags(&r, v, flags)
	a.PacketID = r.packetID("MQTT-2.2.1-5")
	if v >= V5 && len(r.b) > 0 {
		a.Code = Code(r.byte("reason code"))
		if !a.Type.ackCode(a.Code) {
			r.fail(CodeProtocolError, "reason code not valid for this packet type", a.Type.ackStatement())
		}
		if len(r.b) > 0 {
			a.Props.decode(&r, a.Type.ackSection())
		}
	}
	return r.end()
}

func (a *Ack) checkFlags(r *reader, v Version, flags byte) {
	if a.Type != TypePubrel {
		r.flags(flags, 0, "MQTT-2.1.3-1")
		return
	}
	if v == V31 {
		flags &^= 0x08 // PUBREL could carry DUP (3.1 section 3.6)
	}
	r.flags(flags, 2, "MQTT-3.6.1-1")
}

// AppendTo appends the whole packet in its shortest form.
func (a *Ack) AppendTo(dst []byte, v Version) []byte {
	if v < V5 || !a.Props.HasReasonString && len(a.Props.User) == 0 {
		return AppendAck(dst, v, a.Type, a.PacketID, a.Code)
	}
	dst, at := begin(dst, a.Type, a.Type.ackFlags())
	dst = binary.BigEndian.AppendUint16(dst, a.PacketID)
	dst = append(dst, byte(a.Code))
	return end(a.Props.appendTo(dst), at)
}

// AppendAck appends a whole PUBACK, PUBREC, PUBREL or PUBCOMP without
// properties: the form in which nearly all of them are sent. Before MQTT 5 the
// code is left out.
func AppendAck(dst []byte, v Version, t Type, packetID uint16, code Code) []byte {
	header := byte(t)<<4 | t.ackFlags()
	if v < V5 || code == CodeSuccess {
		return append(dst, header, 2, byte(packetID>>8), byte(packetID))
	}
	return append(dst, header, 3, byte(packetID>>8), byte(packetID), byte(code))
}

func (t Type) ackFlags() byte {
	if t == TypePubrel {
		return 2
	}
	return 0
}

func (t Type) ackStatement() string {
	switch t {
	case TypePuback:
		return "MQTT-3.4.2-1"
	case TypePubrec:
		return "MQTT-3.5.2-1"
	case TypePubrel:
		return "MQTT-3.6.2-1"
	}
	return "MQTT-3.7.2-1"
}

func (t Type) ackSection() string {
	switch t {
	case TypePuback:
		return "3.4.2.2"
	case TypePubrec:
		return "3.5.2.2"
	case TypePubrel:
		return "3.6.2.2"
	}
	return "3.7.2.2"
}

// ackCode reports whether c may stand in a packet of type t.
func (t Type) ackCode(c Code) bool {
	switch c {
	case CodeSuccess:
		return true
	case CodePacketIdentifierNotFound:
		return t == TypePubrel || t == TypePubcomp
	case CodeNoMatchingSubscribers, CodeUnspecifiedError, CodeImplementationSpecificError,
		CodeNotAuthorized, CodeTopicNameInvalid, CodePacketIdentifierInUse, CodeQuotaExceeded,
		CodePayloadFormatInvalid:
		return t == TypePuback || t == TypePubrec
	}
	return false
}

func (rp *ReasonProps) decode(r *reader, section string) {
	*rp = ReasonProps{}
	p := r.properties(section, reasonSet)
	for p.next() {
		switch p.id {
		case PropReasonString:
			rp.ReasonString, rp.HasReasonString = p.text("reason string"), true
		case PropUser:
			p.user()
		}
	}
	rp.User = p.close(r)
}

// appendTo appends the property section with its length.
func (rp *ReasonProps) appendTo(dst []byte) []byte {
	dst = append(dst, 0)
	at := len(dst)
	if rp.HasReasonString {
		dst = appendPropString(dst, PropReasonString, rp.ReasonString)
	}
	return end(rp.User.appendTo(dst), at)
}
