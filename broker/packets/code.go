package packets

import "strconv"

// Code is a reason code (MQTT 5.0 section 2.4). Values of 0x80 and above are
// failures. MQTT 3 CONNACK return codes are translated to reason codes when
// decoded, and back when encoded (Code.ConnackV3).
type Code byte

// The reason codes of MQTT 5.0. Three names share the value zero.
const (
	CodeSuccess                             Code = 0x00
	CodeNormalDisconnection                 Code = 0x00
	CodeGrantedQoS0                         Code = 0x00
	CodeGrantedQoS1                         Code = 0x01
	CodeGrantedQoS2                         Code = 0x02
	CodeDisconnectWithWill                  Code = 0x04
	CodeNoMatchingSubscribers               Code = 0x10
	CodeNoSubscriptionExisted               Code = 0x11
	CodeContinueAuthentication              Code = 0x18
	CodeReauthenticate                      Code = 0x19
	CodeUnspecifiedError                    Code = 0x80
	CodeMalformedPacket                     Code = 0x81
	CodeProtocolError                       Code = 0x82
	CodeImplementationSpecificError         Code = 0x83
	CodeUnsupportedProtocolVersion          Code = 0x84
	CodeClientIdentifierNotValid            Code = 0x85
	CodeBadUserNameOrPassword               Code = 0x86
	CodeNotAuthorized                       Code = 0x87
	CodeServerUnavailable                   Code = 0x88
	CodeServerBusy                          Code = 0x89
	CodeBanned                              Code = 0x8a
	CodeServerShuttingDown                  Code = 0x8b
	CodeBadAuthenticationMethod             Code = 0x8c
	CodeKeepAliveTimeout                    Code = 0x8d
	CodeSessionTakenOver                    Code = 0x8e
	CodeTopicFilterInvalid                  Code = 0x8f
	CodeTopicNameInvalid                    Code = 0x90
	CodePacketIdentifierInUse               Code = 0x91
	CodePacketIdentifierNotFound            Code = 0x92
	CodeReceiveMaximumExceeded              Code = 0x93
	CodeTopicAliasInvalid                   Code = 0x94
	CodePacketTooLarge                      Code = 0x95
	CodeMessageRateTooHigh                  Code = 0x96
	CodeQuotaExceeded                       Code = 0x97
	CodeAdministrativeAction                Code = 0x98
	CodePayloadFormatInvalid                Code = 0x99
	CodeRetainNotSupported                  Code = 0x9a
	CodeQoSNotSupported                     Code = 0x9b
	CodeUseAnotherServer                    Code = 0x9c
	CodeServerMoved                         Code = 0x9d
	CodeSharedSubscriptionsNotSupported     Code = 0x9e
	CodeConnectionRateExceeded              Code = 0x9f
	CodeMaximumConnectTime                  Code = 0xa0
	CodeSubscriptionIdentifiersNotSupported Code = 0xa1
	CodeWildcardSubscriptionsNotSupported   Code = 0xa2
)

// IsError reports whether c stands for a failure (0x80 and above).
func (c Code) IsError() bool { return c >= 0x80 }

// String returns the specification's name of the code in lower case, such as
// "topic alias invalid". The zero value reads "success".
func (c Code) String() string {
	if c.IsError() {
		return c.failure()
	}
	switch c {
	case CodeSuccess:
		return "success"
	case CodeGrantedQoS1:
		return "granted QoS 1"
	case CodeGrantedQoS2:
		return "granted QoS 2"
	case CodeDisconnectWithWill:
		return "disconnect with will message"
	case CodeNoMatchingSubscribers:
		return "no matching subscribers"
	case CodeNoSubscriptionExisted:
		return "no subscription existed"
	case CodeContinueAuthentication:
		return "continue authentication"
	case CodeReauthenticate:
		return "re-authenticate"
	}
	return c.number()
}

func (c Code) number() string { return "Code(0x" + strconv.FormatUint(uint64(c), 16) + ")" }

// failure names the codes from 0x80 on; they are dense, so a table will do.
func (c Code) failure() string {
	names := [...]string{
		"unspecified error",
		"malformed packet",
		"protocol error",
		"implementation specific error",
		"unsupported protocol version",
		"client identifier not valid",
		"bad user name or password",
		"not authorized",
		"server unavailable",
		"server busy",
		"banned",
		"server shutting down",
		"bad authentication method",
		"keep alive timeout",
		"session taken over",
		"topic filter invalid",
		"topic name invalid",
		"packet identifier in use",
		"packet identifier not found",
		"receive maximum exceeded",
		"topic alias invalid",
		"packet too large",
		"message rate too high",
		"quota exceeded",
		"administrative action",
		"payload format invalid",
		"retain not supported",
		"QoS not supported",
		"use another server",
		"server moved",
		"shared subscriptions not supported",
		"connection rate exceeded",
		"maximum connect time",
		"subscription identifiers not supported",
		"wildcard subscriptions not supported",
	}
	if i := int(c - CodeUnspecifiedError); i < len(names) {
		return names[i]
	}
	return c.number()
}

// ConnackV3 returns the MQTT 3 CONNACK return code, 0 to 5, that says what c
// says. It returns false, with 3 (server unavailable), if MQTT 3 has no such
// code: then the server closes the connection without a CONNACK
// (MQTT 3.1.1 [MQTT-3.2.2-6]).
func (c Code) ConnackV3() (returnCode byte, ok bool) {
	switch c {
	case CodeSuccess:
		return 0, true
	case CodeUnsupportedProtocolVersion:
		return 1, true
	case CodeClientIdentifierNotValid:
		return 2, true
	case CodeServerUnavailable, CodeServerBusy, CodeServerShuttingDown, CodeQuotaExceeded,
		CodeUseAnotherServer, CodeServerMoved, CodeConnectionRateExceeded:
		return 3, true
	case CodeBadUserNameOrPassword:
		return 4, true
	case CodeNotAuthorized, CodeBanned, CodeBadAuthenticationMethod:
		return 5, true
	}
	return 3, false
}

// connackFromV3 is the inverse of ConnackV3; false for a reserved value.
func connackFromV3(returnCode byte) (Code, bool) {
	switch returnCode {
	case 0:
		return CodeSuccess, true
	case 1:
		return CodeUnsupportedProtocolVersion, true
	case 2:
		return CodeClientIdentifierNotValid, true
	case 3:
		return CodeServerUnavailable, true
	case 4:
		return CodeBadUserNameOrPassword, true
	case 5:
		return CodeNotAuthorized, true
	}
	return 0, false
}
