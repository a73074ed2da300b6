package packets

// Auth is an AUTH packet (section 3.15). Only MQTT 5 has it.
type Auth struct {
	Code  Code // CodeSuccess, CodeContinueAuthentication or CodeReauthenticate
	Props AuthProps
}

// AuthProps are the properties of an AUTH (section 3.15.2.2).
type AuthProps struct {
	HasMethod       bool
	HasData         bool
	HasReasonString bool
	Method          []byte // Authentication Method
	Data            []byte // Authentication Data
	ReasonString    []byte
	User            UserProperties
}

// Decode decodes the body of an AUTH packet. Errors are of type *Error; before
// MQTT 5 the packet type itself is one. An empty body means CodeSuccess
// without properties (section 3.15.2.1); otherwise the method must be there.
// Reason codes of both directions are accepted: see CheckFromClient and
// CheckFromServer.
func (a *Auth) Decode(v Version, flags byte, body []byte) error {
	*a = Auth{}
	r := reader{b: body}
	if v < V5 {
		r.fail(CodeMalformedPacket, "packet type 15 before MQTT 5", "3.1.1:2.2.1")
		return r.err
	}
	r.flags(flags, 0, "MQTT-3.15.1-1")
	if len(r.b) == 0 {
		return r.err
	}
	switch a.Code = Code(r.byte("reason code")); a.Code {
	case CodeSuccess, CodeContinueAuthentication, CodeReauthenticate:
	default:
		r.fail(CodeProtocolError, "reason code not valid for this packet type", "MQTT-3.15.2-1")
	}
	a.Props.decode(&r)
	if r.err == nil && !a.Props.HasMethod {
		r.fail(CodeProtocolError, "no authentication method", "3.15.2.2.2")
	}
	return r.end()
}

func (ap *AuthProps) decode(r *reader) {
	p := r.properties("3.15.2.2", authSet)
	for p.next() {
		switch p.id {
		case PropAuthMethod:
			ap.Method, ap.HasMethod = p.text("authentication method"), true
		case PropAuthData:
			ap.Data, ap.HasData = p.binary("authentication data"), true
		case PropReasonString:
			ap.ReasonString, ap.HasReasonString = p.text("reason string"), true
		case PropUser:
			p.user()
		}
	}
	ap.User = p.close(r)
}

// CheckFromClient checks that a client may send this packet: only the server
// says that authentication has succeeded [MQTT-3.15.2-1].
func (a *Auth) CheckFromClient() error {
	if a.Code == CodeSuccess {
		return protocolError("reason code is for servers only", "MQTT-3.15.2-1")
	}
	return nil
}

// CheckFromServer checks that a server may send this packet: only the client
// asks for re-authentication [MQTT-3.15.2-1].
func (a *Auth) CheckFromServer() error {
	if a.Code == CodeReauthenticate {
		return protocolError("reason code is for clients only", "MQTT-3.15.2-1")
	}
	return nil
}

// AppendTo appends the whole packet, whatever v is.
func (a *Auth) AppendTo(dst []byte, _ Version) []byte {
	dst, at := begin(dst, TypeAuth, 0)
	p := &a.Props
	if a.Code == CodeSuccess && !p.HasMethod && !p.HasData && !p.HasReasonString && len(p.User) == 0 {
		return dst
	}
	dst = append(dst, byte(a.Code), 0)
	props := len(dst)
	if p.HasMethod {
		dst = appendPropString(dst, PropAuthMethod, p.Method)
	}
	if p.HasData {
		dst = appendPropString(dst, PropAuthData, p.Data)
	}
	if p.HasReasonString {
		dst = appendPropString(dst, PropReasonString, p.ReasonString)
	}
	return end(end(p.User.appendTo(dst), props), at)
}
