package packets

// Connack is a CONNACK packet (section 3.2).
type Connack struct {
	SessionPresent bool // not in MQTT 3.1
	// Code is a reason code in every version: MQTT 3 return codes are
	// translated (Code.ConnackV3).
	Code  Code
	Props ConnackProps
}

// ConnackProps are the properties of a CONNACK (section 3.2.2.3). A field
// without its Has flag is the zero value, which is not always the default the
// specification names; the comments give that.
type ConnackProps struct {
	HasSessionExpiry           bool
	HasReceiveMaximum          bool
	HasMaximumQoS              bool
	HasRetainAvailable         bool
	HasMaximumPacketSize       bool
	HasAssignedClientID        bool
	HasTopicAliasMaximum       bool
	HasReasonString            bool
	HasWildcardAvailable       bool
	HasSubscriptionIDAvailable bool
	HasSharedAvailable         bool
	HasServerKeepAlive         bool
	HasResponseInfo            bool
	HasServerReference         bool
	HasAuthMethod              bool
	HasAuthData                bool

	RetainAvailable         bool   // absent: true
	WildcardAvailable       bool   // absent: true
	SubscriptionIDAvailable bool   // absent: true
	SharedAvailable         bool   // absent: true
	MaximumQoS              byte   // 0 or 1; absent: 2
	ReceiveMaximum          uint16 // absent: 65535
	TopicAliasMaximum       uint16 // absent: 0, no aliases
	ServerKeepAlive         uint16 // seconds; absent: the client's own
	SessionExpiry           uint32 // seconds; absent: as in the CONNECT
	MaximumPacketSize       uint32 // bytes; absent: no limit

	AssignedClientID []byte
	ReasonString     []byte
	ResponseInfo     []byte
	ServerReference  []byte
	AuthMethod       []byte
	AuthData         []byte
	User             UserProperties
}

// Decode decodes the body of a CONNACK packet. Errors are of type *Error.
func (c *Connack) Decode(v Version, flags byte, body []byte) error {
	*c = Connack{}
	r := reader{b: body}
	r.flags(flags, 0, "MQTT-2.1.3-1")
	ack := r.byte("acknowledge flags")
	if ack > 1 || v == V31 && ack != 0 {
		r.fail(CodeMalformedPacket, "reserved acknowledge flags", "MQTT-3.2.2-1")
	}
	c.SessionPresent = ack == 1
	code, ok := r.byte("reason code"), false
	if v >= V5 {
		c.Code = Code(code)
		ok = connackCode(c.Code)
	} else {
		c.Code, ok = connackFromV3(code)
	}
	if !ok {
		r.fail(CodeProtocolError, "reason code not valid for this packet type", "MQTT-3.2.2-8")
	}
	if c.SessionPresent && c.Code != CodeSuccess {
		r.fail(CodeProtocolError, "session present with a refusal", "MQTT-3.2.2-6")
	}
	if v >= V5 {
		c.Props.decode(&r)
	}
	return r.end()
}

func connackCode(c Code) bool {
	switch c {
	case CodeSuccess, CodeUnspecifiedError, CodeMalformedPacket, CodeProtocolError,
		CodeImplementationSpecificError, CodeUnsupportedProtocolVersion, CodeClientIdentifierNotValid,
		CodeBadUserNameOrPassword, CodeNotAuthorized, CodeServerUnavailable, CodeServerBusy, CodeBanned,
		CodeBadAuthenticationMethod, CodeTopicNameInvalid, CodePacketTooLarge, CodeQuotaExceeded,
		CodePayloadFormatInvalid, CodeRetainNotSupported, CodeQoSNotSupported, CodeUseAnotherServer,
		CodeServerMoved, CodeConnectionRateExceeded:
		return true
	}
	return false
}

func (cp *ConnackProps) decode(r *reader) {
	p := r.properties("3.2.2.3", connackSet)
	for p.next() {
		switch p.id {
		case PropSessionExpiry:
			cp.SessionExpiry, cp.HasSessionExpiry = p.uint32("session expiry interval"), true
		case PropReceiveMaximum:
			cp.ReceiveMaximum, cp.HasReceiveMaximum = p.nonzero16("receive maximum"), true
		case PropMaximumQoS:
			cp.HasMaximumQoS = true
			if p.bool("maximum QoS") {
				cp.MaximumQoS = 1
			}
		case PropRetainAvailable:
			cp.RetainAvailable, cp.HasRetainAvailable = p.bool("retain available"), true
		case PropMaximumPacketSize:
			cp.MaximumPacketSize, cp.HasMaximumPacketSize = p.nonzero32("maximum packet size"), true
		case PropTopicAliasMaximum:
			cp.TopicAliasMaximum, cp.HasTopicAliasMaximum = p.uint16("topic alias maximum"), true
		case PropWildcardAvailable:
			cp.WildcardAvailable, cp.HasWildcardAvailable = p.bool("wildcard subscription available"), true
		case PropSubscriptionIDsAllowed:
			cp.SubscriptionIDAvailable, cp.HasSubscriptionIDAvailable = p.bool("subscription identifiers available"), true
		case PropSharedAvailable:
			cp.SharedAvailable, cp.HasSharedAvailable = p.bool("shared subscription available"), true
		case PropServerKeepAlive:
			cp.ServerKeepAlive, cp.HasServerKeepAlive = p.uint16("server keep alive"), true
		case PropUser:
			p.user()
		default:
			cp.decodeString(&p)
		}
	}
	cp.User = p.close(r)
}

func (cp *ConnackProps) decodeString(p *properties) {
	switch p.id {
	case PropAssignedClientID:
		cp.AssignedClientID, cp.HasAssignedClientID = p.text("assigned client identifier"), true
	case PropReasonString:
		cp.ReasonString, cp.HasReasonString = p.text("reason string"), true
	case PropResponseInfo:
		cp.ResponseInfo, cp.HasResponseInfo = p.text("response information"), true
	case PropServerReference:
		cp.ServerReference, cp.HasServerReference = p.text("server reference"), true
	case PropAuthMethod:
		cp.AuthMethod, cp.HasAuthMethod = p.text("authentication method"), true
	case PropAuthData:
		cp.AuthData, cp.HasAuthData = p.binary("authentication data"), true
	}
}

// AppendTo appends the whole packet.
func (c *Connack) AppendTo(dst []byte, v Version) []byte {
	dst, at := begin(dst, TypeConnack, 0)
	present := byte(0)
	if c.SessionPresent && v != V31 {
		present = 1
	}
	if v < V5 {
		code, _ := c.Code.ConnackV3()
		return end(append(dst, present, code), at)
	}
	dst = append(dst, present, byte(c.Code), 0)
	props := len(dst)
	dst = c.Props.appendNumbers(dst)
	return end(end(c.Props.appendStrings(dst), props), at)
}

func (cp *ConnackProps) appendNumbers(dst []byte) []byte {
	if cp.HasSessionExpiry {
		dst = appendProp32(dst, PropSessionExpiry, cp.SessionExpiry)
	}
	if cp.HasReceiveMaximum {
		dst = appendProp16(dst, PropReceiveMaximum, cp.ReceiveMaximum)
	}
	if cp.HasMaximumQoS {
		dst = appendProp8(dst, PropMaximumQoS, cp.MaximumQoS)
	}
	if cp.HasRetainAvailable {
		dst = appendPropBool(dst, PropRetainAvailable, cp.RetainAvailable)
	}
	if cp.HasMaximumPacketSize {
		dst = appendProp32(dst, PropMaximumPacketSize, cp.MaximumPacketSize)
	}
	if cp.HasTopicAliasMaximum {
		dst = appendProp16(dst, PropTopicAliasMaximum, cp.TopicAliasMaximum)
	}
	if cp.HasWildcardAvailable {
		dst = appendPropBool(dst, PropWildcardAvailable, cp.WildcardAvailable)
	}
	if cp.HasSubscriptionIDAvailable {
		dst = appendPropBool(dst, PropSubscriptionIDsAllowed, cp.SubscriptionIDAvailable)
	}
	if cp.HasSharedAvailable {
		dst = appendPropBool(dst, PropSharedAvailable, cp.SharedAvailable)
	}
	if cp.HasServerKeepAlive {
		dst = appendProp16(dst, PropServerKeepAlive, cp.ServerKeepAlive)
	}
	return dst
}

func (cp *ConnackProps) appendStrings(dst []byte) []byte {
	if cp.HasAssignedClientID {
		dst = appendPropString(dst, PropAssignedClientID, cp.AssignedClientID)
	}
	if cp.HasReasonString {
		dst = appendPropString(dst, PropReasonString, cp.ReasonString)
	}
	if cp.HasResponseInfo {
		dst = appendPropString(dst, PropResponseInfo, cp.ResponseInfo)
	}
	if cp.HasServerReference {
		dst = appendPropString(dst, PropServerReference, cp.ServerReference)
	}
	if cp.HasAuthMethod {
		dst = appendPropString(dst, PropAuthMethod, cp.AuthMethod)
	}
	if cp.HasAuthData {
		dst = appendPropString(dst, PropAuthData, cp.AuthData)
	}
	return cp.User.appendTo(dst)
}
