package packets

import "encoding/binary"

// Connect is a CONNECT packet (section 3.1).
type Connect struct {
	// Version is V31, V311 or V5 as soon as the protocol level was read, also
	// when Decode fails later, so that the refusal can be encoded. For a level
	// no version has, it is the one to answer in: V311 below 5, V5 above.
	Version     Version
	Level       byte // the protocol level as received
	CleanStart  bool // Clean Session before MQTT 5
	HasWill     bool
	HasUsername bool
	HasPassword bool
	KeepAlive   uint16 // seconds; 0: off
	// ClientID may be empty; whether that is acceptable depends on version
	// and CleanStart and is for the broker to say.
	ClientID []byte
	Username []byte
	Password []byte
	Will     Will
	Props    ConnectProps
}

// Will is the will message of a CONNECT (section 3.1.2.5).
type Will struct {
	QoS    byte // 0, 1 or 2
	Retain bool
	Delay  uint32 // Will Delay Interval, seconds; 0: at once
	Topic  []byte // not empty, without wildcards
	// Props are the will's other properties; Props.HasExpiry and Props.Expiry
	// are its Message Expiry Interval, which begins when it is published.
	Props   PublishProps
	Payload []byte
}

// ConnectProps are the properties of a CONNECT (section 3.1.2.11). A field
// without its Has flag is the zero value; the comments give the default.
type ConnectProps struct {
	HasSessionExpiry       bool
	HasReceiveMaximum      bool
	HasMaximumPacketSize   bool
	HasTopicAliasMaximum   bool
	HasRequestResponseInfo bool
	HasRequestProblemInfo  bool
	HasAuthMethod          bool
	HasAuthData            bool

	RequestResponseInfo bool   // absent: false
	RequestProblemInfo  bool   // absent: true
	ReceiveMaximum      uint16 // absent: 65535
	TopicAliasMaximum   uint16 // absent: 0, no aliases
	SessionExpiry       uint32 // seconds; absent: 0; 0xFFFFFFFF: never
	MaximumPacketSize   uint32 // bytes; absent: no limit

	AuthMethod []byte
	AuthData   []byte
	User       UserProperties
}

// The connect flags (section 3.1.2.3).
const (
	flagReserved   = 0x01
	flagCleanStart = 0x02
	flagWill       = 0x04
	flagWillQoS    = 0x18
	flagWillRetain = 0x20
	flagPassword   = 0x40
	flagUsername   = 0x80
)

// Decode decodes the body of a CONNECT packet of any version. Errors are of
// type *Error; CodeUnsupportedProtocolVersion for a protocol name or level
// that is none of the three.
//
// MQTT 3.1 has bits that are "not used", which are ignored in it as it says:
// the reserved connect flag, and will QoS and will retain without a will.
func (c *Connect) Decode(flags byte, body []byte) error {
	*c = Connect{}
	r := reader{b: body}
	r.flags(flags, 0, "MQTT-2.1.3-1")
	c.decodeVersion(&r)
	bits := r.byte("connect flags")
	if c.Version == V31 {
		bits &^= flagReserved
		if bits&flagWill == 0 {
			bits &^= flagWillQoS | flagWillRetain
		}
	}
	c.checkFlags(&r, bits)
	c.KeepAlive = r.uint16("keep alive")
	if c.Version >= V5 {
		c.Props.decode(&r)
	}
	c.ClientID = r.text("client identifier")
	if c.HasWill = bits&flagWill != 0; c.HasWill {
		c.Will.QoS, c.Will.Retain = bits>>3&3, bits&flagWillRetain != 0
		c.Will.decode(&r, c.Version)
	}
	c.CleanStart = bits&flagCleanStart != 0
	c.HasUsername, c.HasPassword = bits&flagUsername != 0, bits&flagPassword != 0
	c.decodeCredentials(&r)
	return r.end()
}

// decodeCredentials reads user name and password. In MQTT 3.1 the Remaining
// Length takes precedence over the flags: a field may be announced and missing
// (3.1 section 3.1).
func (c *Connect) decodeCredentials(r *reader) {
	lenient := c.Version == V31 && r.err == nil
	if lenient && len(r.b) == 0 {
		c.HasUsername = false
	}
	if c.HasUsername {
		c.Username = r.text("user name")
	}
	if lenient && len(r.b) == 0 && r.err == nil {
		c.HasPassword = false
	}
	if c.HasPassword {
		c.Password = r.binary("password")
	}
}

// decodeVersion reads the protocol name and level (sections 3.1.2.1, 3.1.2.2).
func (c *Connect) decodeVersion(r *reader) {
	name := r.text("protocol name")
	c.Level = r.byte("protocol level")
	c.Version = V311
	if c.Level >= byte(V5) {
		c.Version = V5
	}
	switch {
	case r.err != nil:
	case string(name) == "MQTT":
		if c.Level != byte(V311) && c.Level != byte(V5) {
			r.fail(CodeUnsupportedProtocolVersion, "unsupported protocol level", "MQTT-3.1.2-2")
		}
	case string(name) == "MQIsdp":
		if c.Level != byte(V31) {
			r.fail(CodeUnsupportedProtocolVersion, "unsupported protocol level", "MQTT-3.1.2-2")
			return
		}
		c.Version = V31
	default:
		r.fail(CodeUnsupportedProtocolVersion, "unsupported protocol name", "MQTT-3.1.2-1")
	}
}

func (c *Connect) checkFlags(r *reader, bits byte) {
	switch {
	case bits&flagReserved != 0:
		r.fail(CodeMalformedPacket, "reserved connect flag", "MQTT-3.1.2-3")
	case bits&flagWill == 0 && bits&flagWillQoS != 0:
		r.fail(CodeMalformedPacket, "will QoS without a will", "MQTT-3.1.2-11")
	case bits&flagWill == 0 && bits&flagWillRetain != 0:
		r.fail(CodeMalformedPacket, "will retain without a will", "MQTT-3.1.2-13")
	case bits&flagWillQoS == flagWillQoS:
		r.fail(CodeMalformedPacket, "will QoS 3", "MQTT-3.1.2-12")
	case c.Version < V5 && bits&flagPassword != 0 && bits&flagUsername == 0:
		r.fail(CodeMalformedPacket, "password without user name", "3.1.1:MQTT-3.1.2-22")
	}
}

func (w *Will) decode(r *reader, v Version) {
	if v >= V5 {
		w.Delay = w.Props.decode(r, "3.1.3.2", willSet)
	}
	w.Topic = r.topicName("will topic", "MQTT-4.7.1-1")
	if len(w.Topic) == 0 && r.err == nil {
		r.fail(CodeTopicNameInvalid, "empty will topic", "MQTT-4.7.3-1")
	}
	w.Payload = r.binary("will payload")
}

func (cp *ConnectProps) decode(r *reader) {
	p := r.properties("3.1.2.11", connectSet)
	for p.next() {
		switch p.id {
		case PropSessionExpiry:
			cp.SessionExpiry, cp.HasSessionExpiry = p.uint32("session expiry interval"), true
		case PropReceiveMaximum:
			cp.ReceiveMaximum, cp.HasReceiveMaximum = p.nonzero16("receive maximum"), true
		case PropMaximumPacketSize:
			cp.MaximumPacketSize, cp.HasMaximumPacketSize = p.nonzero32("maximum packet size"), true
		case PropTopicAliasMaximum:
			cp.TopicAliasMaximum, cp.HasTopicAliasMaximum = p.uint16("topic alias maximum"), true
		case PropRequestResponseInfo:
			cp.RequestResponseInfo, cp.HasRequestResponseInfo = p.bool("request response information"), true
		case PropRequestProblemInfo:
			cp.RequestProblemInfo, cp.HasRequestProblemInfo = p.bool("request problem information"), true
		case PropAuthMethod:
			cp.AuthMethod, cp.HasAuthMethod = p.text("authentication method"), true
		case PropAuthData:
			cp.AuthData, cp.HasAuthData = p.binary("authentication data"), true
		case PropUser:
			p.user()
		}
	}
	cp.User = p.close(r)
	if r.err == nil && cp.HasAuthData && !cp.HasAuthMethod {
		r.fail(CodeProtocolError, "authentication data without method", "3.1.2.11.10")
	}
}

// AppendTo appends the whole packet in version v; c.Version and c.Level are
// not looked at.
func (c *Connect) AppendTo(dst []byte, v Version) []byte {
	dst, at := begin(dst, TypeConnect, 0)
	if v == V31 {
		dst = append(dst, "\x00\x06MQIsdp"...)
	} else {
		dst = append(dst, "\x00\x04MQTT"...)
	}
	dst = append(dst, byte(v), c.flags())
	dst = binary.BigEndian.AppendUint16(dst, c.KeepAlive)
	if v >= V5 {
		dst = c.Props.appendTo(dst)
	}
	dst = appendString(dst, c.ClientID)
	if c.HasWill {
		dst = c.Will.appendTo(dst, v)
	}
	if c.HasUsername {
		dst = appendString(dst, c.Username)
	}
	if c.HasPassword {
		dst = appendString(dst, c.Password)
	}
	return end(dst, at)
}

func (c *Connect) flags() byte {
	var bits byte
	if c.CleanStart {
		bits |= flagCleanStart
	}
	if c.HasWill {
		bits |= flagWill | c.Will.QoS&3<<3
		if c.Will.Retain {
			bits |= flagWillRetain
		}
	}
	if c.HasUsername {
		bits |= flagUsername
	}
	if c.HasPassword {
		bits |= flagPassword
	}
	return bits
}

// appendTo appends the property section with its length.
func (cp *ConnectProps) appendTo(dst []byte) []byte {
	dst = append(dst, 0)
	at := len(dst)
	if cp.HasSessionExpiry {
		dst = appendProp32(dst, PropSessionExpiry, cp.SessionExpiry)
	}
	if cp.HasReceiveMaximum {
		dst = appendProp16(dst, PropReceiveMaximum, cp.ReceiveMaximum)
	}
	if cp.HasMaximumPacketSize {
		dst = appendProp32(dst, PropMaximumPacketSize, cp.MaximumPacketSize)
	}
	if cp.HasTopicAliasMaximum {
		dst = appendProp16(dst, PropTopicAliasMaximum, cp.TopicAliasMaximum)
	}
	if cp.HasRequestResponseInfo {
		dst = appendPropBool(dst, PropRequestResponseInfo, cp.RequestResponseInfo)
	}
	if cp.HasRequestProblemInfo {
		dst = appendPropBool(dst, PropRequestProblemInfo, cp.RequestProblemInfo)
	}
	if cp.HasAuthMethod {
		dst = appendPropString(dst, PropAuthMethod, cp.AuthMethod)
	}
	if cp.HasAuthData {
		dst = appendPropString(dst, PropAuthData, cp.AuthData)
	}
	return end(cp.User.appendTo(dst), at)
}

// appendTo appends the will's part of the CONNECT payload.
func (w *Will) appendTo(dst []byte, v Version) []byte {
	if v >= V5 {
		dst = append(dst, 0)
		at := len(dst)
		if w.Delay != 0 {
			dst = appendProp32(dst, PropWillDelay, w.Delay)
		}
		dst = end(w.Props.appendTo(dst, true), at)
	}
	dst = appendString(dst, w.Topic)
	return appendString(dst, w.Payload)
}

// AppendMessage appends the will message in its stored form, without Will
// Delay Interval and Message Expiry Interval.
func (w *Will) AppendMessage(dst []byte) []byte {
	return w.Props.appendMessage(dst, w.Topic, w.Payload, true)
}
