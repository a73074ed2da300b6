package packets

import "strconv"

// Version is an MQTT protocol level as it stands in the CONNECT packet
// (MQTT 5.0 section 3.1.2.2).
type Version byte

// The protocol versions this package speaks.
const (
	V31  Version = 3 // MQTT 3.1, protocol name "MQIsdp"
	V311 Version = 4 // MQTT 3.1.1, protocol name "MQTT"
	V5   Version = 5 // MQTT 5.0, protocol name "MQTT"
)

// String returns the version as the specifications name it, such as "3.1.1".
func (v Version) String() string {
	switch v {
	case V31:
		return "3.1"
	case V311:
		return "3.1.1"
	case V5:
		return "5.0"
	}
	return "Version(" + strconv.Itoa(int(v)) + ")"
}

// Type is an MQTT Control Packet type, 1 to 15 (MQTT 5.0 section 2.1.2).
type Type byte

// The Control Packet types. TypeAuth exists in MQTT 5.0 only.
const (
	TypeConnect     Type = 1
	TypeConnack     Type = 2
	TypePublish     Type = 3
	TypePuback      Type = 4
	TypePubrec      Type = 5
	TypePubrel      Type = 6
	TypePubcomp     Type = 7
	TypeSubscribe   Type = 8
	TypeSuback      Type = 9
	TypeUnsubscribe Type = 10
	TypeUnsuback    Type = 11
	TypePingreq     Type = 12
	TypePingresp    Type = 13
	TypeDisconnect  Type = 14
	TypeAuth        Type = 15
)

// String returns the type as the specification writes it, such as "PUBLISH".
func (t Type) String() string {
	switch t {
	case TypeConnect:
		return "CONNECT"
	case TypeConnack:
		return "CONNACK"
	case TypePublish:
		return "PUBLISH"
	case TypePuback:
		return "PUBACK"
	case TypePubrec:
		return "PUBREC"
	case TypePubrel:
		return "PUBREL"
	case TypePubcomp:
		return "PUBCOMP"
	case TypeSubscribe:
		return "SUBSCRIBE"
	case TypeSuback:
		return "SUBACK"
	case TypeUnsubscribe:
		return "UNSUBSCRIBE"
	case TypeUnsuback:
		return "UNSUBACK"
	case TypePingreq:
		return "PINGREQ"
	case TypePingresp:
		return "PINGRESP"
	case TypeDisconnect:
		return "DISCONNECT"
	case TypeAuth:
		return "AUTH"
	}
	return "Type(" + strconv.Itoa(int(t)) + ")"
}

// Limits that the wire format itself sets.
const (
	// MaxRemaining is the greatest Remaining Length, and the greatest value of
	// any Variable Byte Integer (MQTT 5.0 section 1.5.5).
	MaxRemaining = 268_435_455
	// MaxPacket is the size of the largest possible packet, header included.
	MaxPacket = 1 + 4 + MaxRemaining
	// MaxString is the longest UTF-8 string or binary field, in bytes.
	MaxString = 65_535
)

// The two packets without variable header and payload, whole. They are
// strings, so they cost nothing to append: dst = append(dst, Pingresp...).
const (
	Pingreq  = "\xc0\x00"
	Pingresp = "\xd0\x00"
)

// CheckPing checks a PINGREQ or PINGRESP: reserved flags and an empty body.
func CheckPing(flags byte, body []byte) error {
	var r reader
	r.b = body
	r.flags(flags, 0, "MQTT-2.1.3-1")
	return r.end()
}

// Packet is any packet of this package: *Connect, *Connack, *Publish, *Ack,
// *Subscribe, *Suback, *Unsubscribe, *Unsuback, *Ping, *Disconnect or *Auth.
type Packet interface {
	// AppendTo appends the whole packet, fixed header included, to dst.
	AppendTo(dst []byte, v Version) []byte
}

// Ping is a PINGREQ or PINGRESP packet (sections 3.12 and 3.13).
type Ping struct {
	Type Type
}

// AppendTo appends the whole packet.
func (p *Ping) AppendTo(dst []byte, _ Version) []byte {
	return append(dst, byte(p.Type)<<4, 0)
}

// Decode decodes a frame into a new packet of its type. v is ignored for a
// CONNECT, which brings its own. It is for tools and tests: a server decodes
// into structs that it reuses. Errors are of type *Error.
func (f Frame) Decode(v Version) (Packet, error) {
	switch t := f.Type(); t {
	case TypeConnect:
		p := new(Connect)
		return p, p.Decode(f.Flags(), f.Body)
	case TypePuback, TypePubrec, TypePubrel, TypePubcomp:
		p := &Ack{Type: t}
		return p, p.Decode(v, f.Flags(), f.Body)
	case TypePingreq, TypePingresp:
		return &Ping{Type: t}, CheckPing(f.Flags(), f.Body)
	}
	var p interface {
		Packet
		Decode(v Version, flags byte, body []byte) error
	}
	switch f.Type() {
	case TypeConnack:
		p = new(Connack)
	case TypePublish:
		p = new(Publish)
	case TypeSubscribe:
		p = new(Subscribe)
	case TypeSuback:
		p = new(Suback)
	case TypeUnsubscribe:
		p = new(Unsubscribe)
	case TypeUnsuback:
		p = new(Unsuback)
	case TypeDisconnect:
		p = new(Disconnect)
	case TypeAuth:
		p = new(Auth)
	default:
		return nil, malformed("packet type 0", "2.1.2")
	}
	return p, p.Decode(v, f.Flags(), f.Body)
}
