package packets

// Error is a packet that breaks the protocol. Callers take it out with
// errors.As and answer with Code: in a CONNACK before the connection is
// accepted, in a DISCONNECT after it (MQTT 5.0 section 4.13), never at all
// with MQTT 3.
type Error struct {
	// Code is the reason code the specification names for the fault:
	// CodeMalformedPacket if the bytes cannot be parsed, CodeProtocolError if
	// they can but say what is not allowed, or a more exact one.
	Code Code
	// Reason says what is wrong, for a log line or a Reason String.
	Reason string
	// Statement is the normative statement of MQTT 5.0 that was broken, such
	// as "MQTT-3.3.1-4"; the bare section, such as "3.8.3.1", where the
	// specification gives the rule no number; and "3.1.1:MQTT-3.1.2-22" or
	// "3.1:3.1" if only the older specification has the rule.
	Statement string
}

// Error returns the code's name, the reason and the statement in one line.
func (e *Error) Error() string {
	return "packets: " + e.Code.String() + ": " + e.Reason + " [" + e.Statement + "]"
}

func malformed(reason, statement string) error {
	return &Error{Code: CodeMalformedPacket, Reason: reason, Statement: statement}
}

func protocolError(reason, statement string) error {
	return &Error{Code: CodeProtocolError, Reason: reason, Statement: statement}
}
