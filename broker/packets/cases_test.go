package packets

import (
	"bytes"
	"testing"
)

// packetCase is one packet, written as bytes and as a struct. The bytes decode
// to the struct; the struct encodes to the bytes unless decodeOnly, when they
// are another spelling of what the struct encodes to.
type packetCase struct {
	name       string
	version    Version
	wire       string
	packet     Packet
	decodeOnly bool
}

var all = []Version{V31, V311, V5}

func allCases() []packetCase {
	var cases []packetCase
	for _, table := range [][]packetCase{
		connectCases(), connackCases(), publishCases(), ackCases(), subscribeCases(), endCases(),
	} {
		cases = append(cases, table...)
	}
	return cases
}

func TestPacketsDecodeAndEncode(t *testing.T) {
	for _, c := range allCases() {
		t.Run(c.version.String()+" "+c.name, func(t *testing.T) {
			b := wire(c.wire)
			got, err := decodeWhole(c.version, b)
			if err != nil {
				t.Fatal(err)
			}
			if g, w := describe(got), describe(c.packet); g != w {
				t.Errorf("decoded\n %s, want\n %s", g, w)
			}
			out := c.packet.AppendTo([]byte("before"), c.version)
			if !bytes.HasPrefix(out, []byte("before")) {
				t.Fatalf("AppendTo changed what was there: %q", out)
			}
			if out = out[6:]; !c.decodeOnly && !bytes.Equal(out, b) {
				t.Errorf("encoded\n %x, want\n %x", out, b)
			}
			if again := got.AppendTo(nil, c.version); !bytes.Equal(again, out) {
				t.Errorf("decoded packet encodes to\n %x, want\n %x", again, out)
			}
		})
	}
}

// Every proper prefix of a packet is incomplete, and a body cut short never
// decodes to the same packet [MQTT-4.13.1-1].
func TestPacketsCutShort(t *testing.T) {
	for _, c := range allCases() {
		b := wire(c.wire)
		for i := range b {
			if _, n, need, err := Next(b[:i], 0); n != 0 || err != nil || need != 0 && need != len(b) {
				t.Errorf("%s: Next of %d of %d bytes = %d, %d, %v", c.name, i, len(b), n, need, err)
			}
		}
		f, _, _, _ := Next(b, 0)
		for i := range f.Body {
			p, err := Frame{f.Header, f.Body[:i]}.Decode(c.version)
			if err == nil && describe(p) == describe(c.packet) && !c.decodeOnly {
				t.Errorf("%s: body cut to %d bytes decodes to the same packet", c.name, i)
			}
		}
	}
}

// Bytes behind the last field are malformed [MQTT-4.13.1-1]. Packets that end
// in a payload or a list have no such place.
func TestPacketsSurplusBytes(t *testing.T) {
	for _, c := range allCases() {
		f, _, _, _ := Next(wire(c.wire), 0)
		switch f.Type() {
		case TypePublish, TypeSubscribe, TypeUnsubscribe, TypeSuback, TypeUnsuback:
			continue
		}
		p, err := Frame{f.Header, append(f.Body, 0xff, 0xff)}.Decode(c.version)
		if err == nil {
			t.Errorf("%s: accepted with surplus bytes: %s", c.name, describe(p))
		}
	}
}

// Reserved flags of the fixed header [MQTT-2.1.3-1].
func TestPackets_MQTT_2_1_3_1_ReservedFlags(t *testing.T) {
	for _, c := range allCases() {
		f, _, _, _ := Next(wire(c.wire), 0)
		if f.Type() == TypePublish {
			continue
		}
		for flags := byte(0); flags < 16; flags++ {
			_, err := Frame{f.Header&0xf0 | flags, f.Body}.Decode(c.version)
			lenient := c.version == V31 && f.Flags() == 2 && flags == 0x0a // DUP of MQTT 3.1
			switch {
			case flags == f.Flags() || lenient:
				if err != nil {
					t.Errorf("%s: flags %x: %v", c.name, flags, err)
				}
			case err == nil:
				t.Errorf("%s: flags %x accepted", c.name, flags)
			}
		}
	}
}

func connectCases() []packetCase {
	mqtt, isdp := str("MQTT"), str("MQIsdp")
	return []packetCase{
		{
			"CONNECT minimal", V31, "10" + sec(isdp+"03 02 003c"+str("c")),
			&Connect{CleanStart: true, KeepAlive: 60, ClientID: []byte("c")}, false,
		},
		{
			"CONNECT announced user name is missing", V31, "10" + sec(isdp+"03 c2 003c"+str("c")),
			&Connect{CleanStart: true, KeepAlive: 60, ClientID: []byte("c")}, true,
		},
		{
			"CONNECT announced password is missing", V31, "10" + sec(isdp+"03 c2 003c"+str("c")+str("u")),
			&Connect{CleanStart: true, KeepAlive: 60, ClientID: []byte("c"), HasUsername: true, Username: []byte("u")}, true,
		},
		{
			"CONNECT unused bits", V31, "10" + sec(isdp+"03 3b 003c"+str("c")),
			&Connect{CleanStart: true, KeepAlive: 60, ClientID: []byte("c")}, true,
		},
		{
			"CONNECT empty client identifier", V311, "10" + sec(mqtt+"04 02 0000 0000"),
			&Connect{CleanStart: true}, false,
		},
		{
			"CONNECT everything", V311, "10" + sec(mqtt+"04 ec 0001"+str("cid")+str("w/t")+"0001 00"+str("us")+"0002 ff00"),
			&Connect{
				KeepAlive: 1, ClientID: []byte("cid"),
				HasWill: true, Will: Will{QoS: 1, Retain: true, Topic: []byte("w/t"), Payload: []byte{0}},
				HasUsername: true, Username: []byte("us"), HasPassword: true, Password: []byte{0xff, 0},
			}, false,
		},
		{
			"CONNECT minimal", V5, "10" + sec(mqtt+"05 00 ffff 00"+str("c")),
			&Connect{KeepAlive: 65535, ClientID: []byte("c")}, false,
		},
		{
			"CONNECT password without user name", V5, "10" + sec(mqtt+"05 40 0000 00 0000"+str("p")),
			&Connect{HasPassword: true, Password: []byte("p")}, false,
		},
		{
			"CONNECT all properties", V5, "10" + sec(mqtt+"05 02 000a"+sec("11 00000e10 21 0014 27 00010000 22 0040 19 01 17 00"+
				"15"+str("m")+"16"+str("d")+"26"+str("k")+str("v"))+str("c")),
			&Connect{CleanStart: true, KeepAlive: 10, ClientID: []byte("c"), Props: ConnectProps{
				HasSessionExpiry: true, SessionExpiry: 3600, HasReceiveMaximum: true, ReceiveMaximum: 20,
				HasMaximumPacketSize: true, MaximumPacketSize: 65536, HasTopicAliasMaximum: true, TopicAliasMaximum: 64,
				HasRequestResponseInfo: true, RequestResponseInfo: true, HasRequestProblemInfo: true,
				HasAuthMethod: true, AuthMethod: []byte("m"), HasAuthData: true, AuthData: []byte("d"), User: user("k", "v"),
			}}, false,
		},
		{
			"CONNECT will with all properties", V5, "10" + sec(mqtt+"05 16 0000 00"+str("c")+
				sec("18 00000005 01 01 02 00000000 03"+str("ct")+"08"+str("r/t")+"09 0002 0001"+"26"+str("a")+str("1")+"26"+str("a")+str("2"))+
				str("w/t")+str("bye")),
			&Connect{
				CleanStart: true, ClientID: []byte("c"), HasWill: true,
				Will: Will{QoS: 2, Delay: 5, Topic: []byte("w/t"), Payload: []byte("bye"), Props: PublishProps{
					HasPayloadFormat: true, PayloadFormat: 1, HasExpiry: true, HasContentType: true, ContentType: []byte("ct"),
					HasResponseTopic: true, ResponseTopic: []byte("r/t"), HasCorrelationData: true, CorrelationData: []byte{0, 1},
					User: user("a", "1", "a", "2"),
				}},
			}, false,
		},
	}
}

func connackCases() []packetCase {
	return []packetCase{
		{"CONNACK accepted", V31, "20 02 00 00", &Connack{}, false},
		{"CONNACK session present", V311, "20 02 01 00", &Connack{SessionPresent: true}, false},
		{"CONNACK version", V311, "20 02 00 01", &Connack{Code: CodeUnsupportedProtocolVersion}, false},
		{"CONNACK identifier", V311, "20 02 00 02", &Connack{Code: CodeClientIdentifierNotValid}, false},
		{"CONNACK unavailable", V311, "20 02 00 03", &Connack{Code: CodeServerUnavailable}, false},
		{"CONNACK user name", V311, "20 02 00 04", &Connack{Code: CodeBadUserNameOrPassword}, false},
		{"CONNACK not authorized", V31, "20 02 00 05", &Connack{Code: CodeNotAuthorized}, false},
		{"CONNACK session present", V5, "20 03 01 00 00", &Connack{SessionPresent: true}, false},
		{"CONNACK refused", V5, "20 03 00 87 00", &Connack{Code: CodeNotAuthorized}, false},
		{
			"CONNACK all properties", V5, "20" + sec("00 00"+sec("11 00000001 21 0400 24 01 25 01 27 02000000 22 0040 28 01 29 00 2a 01 13 003c"+
				"12"+str("auto")+"1f"+str("why")+"1a"+str("ri")+"1c"+str("ref")+"15"+str("m")+"16"+str("d")+"26"+str("k")+str("v"))),
			&Connack{Props: ConnackProps{
				HasSessionExpiry: true, SessionExpiry: 1, HasReceiveMaximum: true, ReceiveMaximum: 1024,
				HasMaximumQoS: true, MaximumQoS: 1, HasRetainAvailable: true, RetainAvailable: true,
				HasMaximumPacketSize: true, MaximumPacketSize: 32 << 20, HasTopicAliasMaximum: true, TopicAliasMaximum: 64,
				HasWildcardAvailable: true, WildcardAvailable: true, HasSubscriptionIDAvailable: true,
				HasSharedAvailable: true, SharedAvailable: true, HasServerKeepAlive: true, ServerKeepAlive: 60,
				HasAssignedClientID: true, AssignedClientID: []byte("auto"), HasReasonString: true, ReasonString: []byte("why"),
				HasResponseInfo: true, ResponseInfo: []byte("ri"), HasServerReference: true, ServerReference: []byte("ref"),
				HasAuthMethod: true, AuthMethod: []byte("m"), HasAuthData: true, AuthData: []byte("d"), User: user("k", "v"),
			}}, false,
		},
	}
}

func publishCases() []packetCase {
	var cases []packetCase
	for _, v := range []Version{V31, V311} {
		cases = append(cases,
			packetCase{
				"PUBLISH QoS 0", v, "30" + sec(str("a/b")+"'load'"),
				&Publish{Topic: []byte("a/b"), Payload: []byte("load")}, false,
			},
			packetCase{
				"PUBLISH QoS 1 DUP RETAIN, no payload", v, "3b" + sec(str("a/b")+"0007"),
				&Publish{Dup: true, Retain: true, QoS: 1, PacketID: 7, Topic: []byte("a/b")}, false,
			},
			packetCase{
				"PUBLISH QoS 2, multibyte topic", v, "34" + sec(str("€/日")+"ffff 00"),
				&Publish{QoS: 2, PacketID: 65535, Topic: []byte("€/日"), Payload: []byte{0}}, false,
			})
	}
	return append(cases,
		packetCase{
			"PUBLISH QoS 0", V5, "30" + sec(str("a/b")+"00 'hi'"),
			&Publish{Topic: []byte("a/b"), Payload: []byte("hi")}, false,
		},
		packetCase{
			"PUBLISH alias only", V5, "32" + sec("0000 0001"+sec("23 0005")+"'x'"),
			&Publish{QoS: 1, PacketID: 1, Props: PublishProps{TopicAlias: 5}, Payload: []byte("x")}, false,
		},
		packetCase{
			"PUBLISH all properties", V5, "3d" + sec(str("a")+"0009"+sec("01 01 02 0000003c 23 0001 0b 01 0b 8001"+
				"03"+str("t")+"08"+str("r")+"09"+str("c")+"26"+str("k")+str("v")+"26"+str("k")+"0000")+"'p'"),
			&Publish{Dup: true, Retain: true, QoS: 2, PacketID: 9, Topic: []byte("a"), Payload: []byte("p"), Props: PublishProps{
				HasPayloadFormat: true, PayloadFormat: 1, HasExpiry: true, Expiry: 60, TopicAlias: 1,
				SubscriptionIDs: []uint32{1, 128}, HasContentType: true, ContentType: []byte("t"),
				HasResponseTopic: true, ResponseTopic: []byte("r"), HasCorrelationData: true, CorrelationData: []byte("c"),
				User: user("k", "v", "k", ""),
			}}, false,
		},
		packetCase{
			"PUBLISH user properties among others", V5, "30" + sec(str("a")+
				sec("26"+str("a")+str("1")+"02 00000001"+"26"+str("b")+str("2")+"01 00"+"26"+str("a")+str("3"))+"'x'"),
			&Publish{Topic: []byte("a"), Payload: []byte("x"), Props: PublishProps{
				HasPayloadFormat: true, HasExpiry: true, Expiry: 1, User: user("a", "1", "b", "2", "a", "3"),
			}}, true,
		})
}

func ackCases() []packetCase {
	var cases []packetCase
	for i, t := range []Type{TypePuback, TypePubrec, TypePubrel, TypePubcomp} {
		header := []string{"40", "50", "62", "70"}[i]
		failure := []Code{CodeQuotaExceeded, CodeNoMatchingSubscribers, CodePacketIdentifierNotFound, CodePacketIdentifierNotFound}[i]
		code := string([]byte{"0123456789abcdef"[failure>>4], "0123456789abcdef"[failure&15]})
		for _, v := range all {
			cases = append(cases, packetCase{t.String(), v, header + "02 0102", &Ack{Type: t, PacketID: 0x102}, false})
		}
		cases = append(cases,
			packetCase{t.String() + " with code", V5, header + "03 0001" + code, &Ack{Type: t, PacketID: 1, Code: failure}, false},
			packetCase{t.String() + " success spelled out", V5, header + "03 0001 00", &Ack{Type: t, PacketID: 1}, true},
			packetCase{t.String() + " no properties spelled out", V5, header + "04 0001 00 00", &Ack{Type: t, PacketID: 1}, true},
			packetCase{
				t.String() + " with properties", V5, header + sec("0001"+code+sec("1f"+str("why")+"26"+str("k")+str("v"))),
				&Ack{Type: t, PacketID: 1, Code: failure, Props: ReasonProps{HasReasonString: true, ReasonString: []byte("why"), User: user("k", "v")}}, false,
			})
	}
	return cases
}

func subscribeCases() []packetCase {
	var cases []packetCase
	for _, v := range []Version{V31, V311} {
		cases = append(cases,
			packetCase{
				"SUBSCRIBE two filters", v, "82" + sec("0001"+str("a/+")+"00"+str("b/#")+"02"),
				&Subscribe{PacketID: 1, Filters: []Subscription{{[]byte("a/+"), 0}, {[]byte("b/#"), 2}}}, false,
			},
			packetCase{
				"SUBACK", v, "90" + sec("0001 00 01 02 80"),
				&Suback{PacketID: 1, Codes: []Code{0, 1, 2, 0x80}}, false,
			},
			packetCase{
				"UNSUBSCRIBE", v, "a2" + sec("0001"+str("a/+")+str("b")),
				&Unsubscribe{PacketID: 1, Filters: [][]byte{[]byte("a/+"), []byte("b")}}, false,
			},
			packetCase{"UNSUBACK", v, "b0 02 0001", &Unsuback{PacketID: 1}, false})
	}
	return append(cases,
		packetCase{
			"SUBSCRIBE all options", V5, "82" + sec("0001"+sec("0b ffffff7f 26"+str("k")+str("v"))+str("a")+"2e"+str("$share/g/b")+"19"),
			&Subscribe{
				PacketID: 1, Props: SubscribeProps{SubscriptionID: 268_435_455, User: user("k", "v")},
				Filters: []Subscription{{[]byte("a"), 0x2e}, {[]byte("$share/g/b"), 0x19}},
			}, false,
		},
		packetCase{
			"SUBACK", V5, "90" + sec("0001"+sec("1f"+str("why")+"26"+str("k")+str("v"))+"00 01 02 80 83 87 8f 91 97 9e a1 a2"),
			&Suback{
				PacketID: 1, Props: ReasonProps{HasReasonString: true, ReasonString: []byte("why"), User: user("k", "v")},
				Codes: []Code{0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2},
			}, false,
		},
		packetCase{
			"UNSUBSCRIBE", V5, "a2" + sec("0001"+sec("26"+str("k")+str("v"))+str("a/+")),
			&Unsubscribe{PacketID: 1, User: user("k", "v"), Filters: [][]byte{[]byte("a/+")}}, false,
		},
		packetCase{
			"UNSUBACK", V5, "b0" + sec("0001"+sec("1f"+str("why"))+"00 11 80 83 87 8f 91"),
			&Unsuback{
				PacketID: 1, Props: ReasonProps{HasReasonString: true, ReasonString: []byte("why")},
				Codes: []Code{0, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91},
			}, false,
		})
}

// endCases are PINGREQ, PINGRESP, DISCONNECT and AUTH.
func endCases() []packetCase {
	var cases []packetCase
	for _, v := range all {
		cases = append(cases,
			packetCase{"PINGREQ", v, "c000", &Ping{Type: TypePingreq}, false},
			packetCase{"PINGRESP", v, "d000", &Ping{Type: TypePingresp}, false},
			packetCase{"DISCONNECT", v, "e000", &Disconnect{}, false})
	}
	return append(cases,
		packetCase{"DISCONNECT normal spelled out", V5, "e0 01 00", &Disconnect{}, true},
		packetCase{"DISCONNECT with code", V5, "e0 01 8e", &Disconnect{Code: CodeSessionTakenOver}, false},
		packetCase{"DISCONNECT no properties spelled out", V5, "e0 02 04 00", &Disconnect{Code: CodeDisconnectWithWill}, true},
		packetCase{
			"DISCONNECT all properties", V5, "e0" + sec("9c"+sec("11 ffffffff 1f"+str("why")+"1c"+str("ref")+"26"+str("k")+str("v"))),
			&Disconnect{Code: CodeUseAnotherServer, Props: DisconnectProps{
				HasSessionExpiry: true, SessionExpiry: 0xffffffff, HasReasonString: true, ReasonString: []byte("why"),
				HasServerReference: true, ServerReference: []byte("ref"), User: user("k", "v"),
			}}, false,
		},
		packetCase{"AUTH empty", V5, "f0 00", &Auth{}, false},
		packetCase{
			"AUTH all properties", V5, "f0" + sec("18"+sec("15"+str("m")+"16"+str("data")+"1f"+str("why")+"26"+str("k")+str("v"))),
			&Auth{Code: CodeContinueAuthentication, Props: AuthProps{
				HasMethod: true, Method: []byte("m"), HasData: true, Data: []byte("data"),
				HasReasonString: true, ReasonString: []byte("why"), User: user("k", "v"),
			}}, false,
		})
}
