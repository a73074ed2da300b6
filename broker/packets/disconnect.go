package packets

// Disconnect is a DISCONNECT packet (section 3.14). Before MQTT 5 only a
// client sends it, and it is empty.
type Disconnect struct {
	Code  Code
	Props DisconnectProps
}

// DisconnectProps are the properties of a DISCONNECT (section 3.14.2.2).
type DisconnectProps struct {
	HasSessionExpiry   bool // only from a client [MQTT-3.14.2-2]
	HasReasonString    bool
	HasServerReference bool   // only from a server
	SessionExpiry      uint32 // seconds; 0xFFFFFFFF: never
	ReasonString       []byte
	ServerReference    []byte
	User               UserProperties
}

// Decode decodes the body of a DISCONNECT packet. Errors are of type *Error.
// Reason codes and properties of both directions are accepted: see
// CheckFromClient and CheckFromServer.
func (d *Disconnect) Decode(v Version, flags byte, body []byte) error {
	*d = Disconnect{}
	r := reader{b: body}
	r.flags(flags, 0, "MQTT-3.14.1-1")
	if v >= V5 && len(r.b) > 0 {
		d.Code = Code(r.byte("reason code"))
		if !clientDisconnectCode(d.Code) && !serverDisconnectCode(d.Code) {
			r.fail(CodeProtocolError, "reason code not valid for this packet type", "MQTT-3.14.2-1")
		}
		if len(r.b) > 0 {
			d.Props.decode(&r)
		}
	}
	return r.end()
}

func (dp *DisconnectProps) decode(r *reader) {
	p := r.properties("3.14.2.2", disconnectSet)
	for p.next() {
		switch p.id {
		case PropSessionExpiry:
			dp.SessionExpiry, dp.HasSessionExpiry = p.uint32("session expiry interval"), true
		case PropReasonString:
			dp.ReasonString, dp.HasReasonString = p.text("reason string"), true
		case PropServerReference:
			dp.ServerReference, dp.HasServerReference = p.text("server reference"), true
		case PropUser:
			p.user()
		}
	}
	dp.User = p.close(r)
}

// CheckFromClient checks that a client may send this packet.
func (d *Disconnect) CheckFromClient() error {
	switch {
	case !clientDisconnectCode(d.Code):
		return protocolError("reason code is for servers only", "MQTT-3.14.2-1")
	case d.Props.HasServerReference:
		return protocolError("server reference from a client", "3.14.2.2.5")
	}
	return nil
}

// CheckFromServer checks that a server may send this packet.
func (d *Disconnect) CheckFromServer() error {
	switch {
	case !serverDisconnectCode(d.Code):
		return protocolError("reason code is for clients only", "MQTT-3.14.2-1")
	case d.Props.HasSessionExpiry:
		return protocolError("session expiry interval from a server", "MQTT-3.14.2-2")
	}
	return nil
}

// clientDisconnectCode: the lines "Client" and "Client or Server" of the
// table in section 3.14.2.1.
func clientDisconnectCode(c Code) bool {
	switch c {
	case CodeNormalDisconnection, CodeDisconnectWithWill, CodeUnspecifiedError, CodeMalformedPacket,
		CodeProtocolError, CodeImplementationSpecificError, CodeTopicNameInvalid,
		CodeReceiveMaximumExceeded, CodeTopicAliasInvalid, CodePacketTooLarge, CodeMessageRateTooHigh,
		CodeQuotaExceeded, CodeAdministrativeAction, CodePayloadFormatInvalid:
		return true
	}
	return false
}

// serverDisconnectCode: the other side of the table; 0x8C stands in the table
// of section 2.4 only.
func serverDisconnectCode(c Code) bool {
	switch c {
	case CodeNotAuthorized, CodeServerBusy, CodeServerShuttingDown, CodeBadAuthenticationMethod,
		CodeKeepAliveTimeout, CodeSessionTakenOver, CodeTopicFilterInvalid, CodeRetainNotSupported,
		CodeQoSNotSupported, CodeUseAnotherServer, CodeServerMoved, CodeSharedSubscriptionsNotSupported,
		CodeConnectionRateExceeded, CodeMaximumConnectTime, CodeSubscriptionIdentifiersNotSupported,
		CodeWildcardSubscriptionsNotSupported:
		return true
	case CodeDisconnectWithWill:
		return false
	}
	return clientDisconnectCode(c)
}

// AppendTo appends the whole packet in its shortest form.
func (d *Disconnect) AppendTo(dst []byte, v Version) []byte {
	dst, at := begin(dst, TypeDisconnect, 0)
	if v < V5 {
		return dst
	}
	p := &d.Props
	bare := !p.HasSessionExpiry && !p.HasReasonString && !p.HasServerReference && len(p.User) == 0
	if bare && d.Code == CodeNormalDisconnection {
		return dst
	}
	dst = append(dst, byte(d.Code))
	if bare {
		return end(dst, at)
	}
	dst = append(dst, 0)
	props := len(dst)
	if p.HasSessionExpiry {
		dst = appendProp32(dst, PropSessionExpiry, p.SessionExpiry)
	}
	if p.HasReasonString {
		dst = appendPropString(dst, PropReasonString, p.ReasonString)
	}
	if p.HasServerReference {
		dst = appendPropString(dst, PropServerReference, p.ServerReference)
	}
	return end(end(p.User.appendTo(dst), props), at)
}
