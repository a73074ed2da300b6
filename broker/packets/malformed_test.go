package packets

import (
	"fmt"
	"testing"
)

// refusal is a packet that breaks the protocol, with the statement it breaks
// and the code to answer with.
type refusal struct {
	name      string
	version   Version
	wire      string
	code      Code
	statement string
}

func TestRefusals(t *testing.T) {
	for _, table := range [][]refusal{
		connectRefusals(), connectPropertyRefusals(), connackRefusals(), publishRefusals(),
		ackRefusals(), subscribeRefusals(), endRefusals(),
	} {
		for _, c := range table {
			t.Run(c.statement+" "+c.name, func(t *testing.T) {
				p, err := decodeWhole(c.version, wire(c.wire))
				if err == nil {
					t.Fatalf("accepted: %s", describe(p))
				}
				wantError(t, err, c.code, c.statement)
			})
		}
	}
}

const (
	bad = CodeMalformedPacket
	pe  = CodeProtocolError
)

func connectRefusals() []refusal {
	mqtt, isdp := str("MQTT"), str("MQIsdp")
	short := "MQTT-4.13.1-1"
	return []refusal{
		{"flags", 0, "11" + sec(mqtt+"04 02 003c 0000"), bad, "MQTT-2.1.3-1"},
		{"empty", 0, "10 00", bad, short},
		{"no level", 0, "10" + sec(mqtt), bad, short},
		{"other protocol", 0, "10" + sec(str("HTTP")+"04 02 003c 0000"), CodeUnsupportedProtocolVersion, "MQTT-3.1.2-1"},
		{"lower case", 0, "10" + sec(str("mqtt")+"04 02 003c 0000"), CodeUnsupportedProtocolVersion, "MQTT-3.1.2-1"},
		{"level 6", 0, "10" + sec(mqtt+"06 02 003c 00 0000"), CodeUnsupportedProtocolVersion, "MQTT-3.1.2-2"},
		{"level 3 of MQTT", 0, "10" + sec(mqtt+"03 02 003c 0000"), CodeUnsupportedProtocolVersion, "MQTT-3.1.2-2"},
		{"level 4 of MQIsdp", 0, "10" + sec(isdp+"04 02 003c 0000"), CodeUnsupportedProtocolVersion, "MQTT-3.1.2-2"},
		{"bridge bit of the level", 0, "10" + sec(mqtt+"84 02 003c 0000"), CodeUnsupportedProtocolVersion, "MQTT-3.1.2-2"},
		{"reserved flag v3", 0, "10" + sec(mqtt+"04 03 003c 0000"), bad, "MQTT-3.1.2-3"},
		{"reserved flag v5", 0, "10" + sec(mqtt+"05 03 003c 00 0000"), bad, "MQTT-3.1.2-3"},
		{"will QoS without will", 0, "10" + sec(mqtt+"04 0a 003c 0000"), bad, "MQTT-3.1.2-11"},
		{"will QoS 3", 0, "10" + sec(mqtt+"04 1e 003c 0000"+str("w")+"0000"), bad, "MQTT-3.1.2-12"},
		{"will QoS 3 v3.1", 0, "10" + sec(isdp+"03 1e 003c"+str("c")+str("w")+"0000"), bad, "MQTT-3.1.2-12"},
		{"will retain without will", 0, "10" + sec(mqtt+"05 22 003c 00 0000"), bad, "MQTT-3.1.2-13"},
		{"password alone v3.1.1", 0, "10" + sec(mqtt+"04 42 003c 0000"+str("p")), bad, "3.1.1:MQTT-3.1.2-22"},
		{"password alone v3.1", 0, "10" + sec(isdp+"03 42 003c"+str("c")+str("p")), bad, "3.1.1:MQTT-3.1.2-22"},
		{"no keep alive", 0, "10" + sec(mqtt+"04 02 00"), bad, short},
		{"no client identifier", 0, "10" + sec(mqtt+"04 02 003c"), bad, short},
		{"client identifier cut", 0, "10" + sec(mqtt+"04 02 003c 0002 'c'"), bad, short},
		{"announced user name is missing", 0, "10" + sec(mqtt+"04 82 003c"+str("c")), bad, short},
		{"announced password is missing", 0, "10" + sec(mqtt+"04 c2 003c"+str("c")+str("u")), bad, short},
		{"password not announced", 0, "10" + sec(mqtt+"04 82 003c"+str("c")+str("u")+str("p")), bad, short},
		{"empty will topic", 0, "10" + sec(mqtt+"04 06 003c"+str("c")+"0000 0000"), CodeTopicNameInvalid, "MQTT-4.7.3-1"},
		{"wildcard in will topic", 0, "10" + sec(mqtt+"04 06 003c"+str("c")+str("a/+")+"0000"), CodeTopicNameInvalid, "MQTT-4.7.1-1"},
		{"will payload cut", 0, "10" + sec(mqtt+"04 06 003c"+str("c")+str("a")+"0002 00"), bad, short},
	}
}

func connectPropertyRefusals() []refusal {
	connect := func(props string) string { return "10" + sec(str("MQTT")+"05 02 003c"+sec(props)+str("c")) }
	will := func(props string) string {
		return "10" + sec(str("MQTT")+"05 06 003c 00"+str("c")+sec(props)+str("w")+"0000")
	}
	sect, place := "3.1.2.11", "2.2.2.2"
	return []refusal{
		{"session expiry twice", 5, connect("11 00000000 11 00000000"), pe, sect},
		{"receive maximum twice", 5, connect("21 0001 21 0001"), pe, sect},
		{"receive maximum 0", 5, connect("21 0000"), pe, sect},
		{"maximum packet size 0", 5, connect("27 00000000"), pe, sect},
		{"maximum packet size twice", 5, connect("27 00000001 27 00000001"), pe, sect},
		{"topic alias maximum twice", 5, connect("22 0000 22 0000"), pe, sect},
		{"request response information 2", 5, connect("19 02"), pe, sect},
		{"request problem information 2", 5, connect("17 02"), pe, sect},
		{"authentication method twice", 5, connect("15" + str("m") + "15" + str("m")), pe, sect},
		{"authentication data alone", 5, connect("16" + str("d")), pe, "3.1.2.11.10"},
		{"property of another packet", 5, connect("01 00"), bad, place},
		{"unknown property 0", 5, connect("00"), bad, place},
		{"unknown property 43", 5, connect("2b 00"), bad, place},
		{"identifier of two bytes", 5, connect("91 00 00000000"), bad, place},
		{"property cut", 5, connect("11 000000"), bad, "MQTT-4.13.1-1"},
		{"user property without value", 5, connect("26" + str("k")), bad, "MQTT-4.13.1-1"},
		{"property length beyond the packet", 5, "10" + sec(str("MQTT")+"05 02 003c 05"+str("c")), bad, "MQTT-4.13.1-1"},
		{"property length not minimal", 5, "10" + sec(str("MQTT")+"05 02 003c 8000"+str("c")), bad, "MQTT-1.5.5-1"},
		{"property length of five bytes", 5, "10" + sec(str("MQTT")+"05 02 003c 8080808001"+str("c")), bad, "1.5.5"},
		{"no property length", 5, "10" + sec(str("MQTT")+"05 02 003c"), bad, "MQTT-4.13.1-1"},
		{"will: delay twice", 5, will("18 00000000 18 00000000"), pe, "3.1.3.2"},
		{"will: payload format 2", 5, will("01 02"), pe, "3.1.3.2"},
		{"will: topic alias", 5, will("23 0001"), bad, place},
		{"will: subscription identifier", 5, will("0b 01"), bad, place},
		{"will: wildcard in response topic", 5, will("08" + str("#")), CodeTopicNameInvalid, "MQTT-3.3.2-14"},
		{"delay outside a will", 5, connect("18 00000000"), bad, place},
	}
}

func connackRefusals() []refusal {
	connack := func(props string) string { return "20" + sec("00 00"+sec(props)) }
	return []refusal{
		{"empty", 4, "20 00", bad, "MQTT-4.13.1-1"},
		{"no code", 4, "20 01 00", bad, "MQTT-4.13.1-1"},
		{"no properties", 5, "20 02 00 00", bad, "MQTT-4.13.1-1"},
		{"reserved flags", 4, "20 02 02 00", bad, "MQTT-3.2.2-1"},
		{"session present in 3.1", 3, "20 02 01 00", bad, "MQTT-3.2.2-1"},
		{"return code 6", 4, "20 02 00 06", pe, "MQTT-3.2.2-8"},
		{"reason code 1", 5, "20 03 00 01 00", pe, "MQTT-3.2.2-8"},
		{"session present with refusal", 5, "20 03 01 87 00", pe, "MQTT-3.2.2-6"},
		{"session present with refusal", 4, "20 02 01 05", pe, "MQTT-3.2.2-6"},
		{"receive maximum 0", 5, connack("21 0000"), pe, "3.2.2.3"},
		{"maximum QoS 2", 5, connack("24 02"), pe, "3.2.2.3"},
		{"retain available 2", 5, connack("25 02"), pe, "3.2.2.3"},
		{"maximum packet size 0", 5, connack("27 00000000"), pe, "3.2.2.3"},
		{"wildcard available 2", 5, connack("28 02"), pe, "3.2.2.3"},
		{"identifiers available 2", 5, connack("29 02"), pe, "3.2.2.3"},
		{"shared available 2", 5, connack("2a 02"), pe, "3.2.2.3"},
		{"server keep alive twice", 5, connack("13 0000 13 0000"), pe, "3.2.2.3"},
		{"request problem information", 5, connack("17 01"), bad, "2.2.2.2"},
	}
}

func publishRefusals() []refusal {
	publish := func(props string) string { return "30" + sec(str("a")+sec(props)) }
	sect := "3.3.2.3"
	return []refusal{
		{"QoS 3", 4, "36" + sec(str("a")+"0001"), bad, "MQTT-3.3.1-4"},
		{"QoS 3", 5, "36" + sec(str("a")+"0001 00"), bad, "MQTT-3.3.1-4"},
		{"DUP with QoS 0", 4, "38" + sec(str("a")), bad, "MQTT-3.3.1-2"},
		{"empty", 4, "30 00", bad, "MQTT-4.13.1-1"},
		{"topic cut", 4, "30 03 0002 'a'", bad, "MQTT-4.13.1-1"},
		{"no packet identifier", 4, "32 04 0001 'a' 00", bad, "MQTT-4.13.1-1"},
		{"packet identifier 0", 4, "32" + sec(str("a")+"0000"), pe, "MQTT-2.2.1-3"},
		{"wildcard +", 4, "30" + sec(str("a/+")), CodeTopicNameInvalid, "MQTT-3.3.2-2"},
		{"wildcard # in a long topic", 5, "30" + sec(str("0123456789/#abcdef")+"00"), CodeTopicNameInvalid, "MQTT-3.3.2-2"},
		{"wildcard behind a multibyte character", 5, "30" + sec(str("é#")+"00"), CodeTopicNameInvalid, "MQTT-3.3.2-2"},
		{"empty topic", 3, "30 02 0000", CodeTopicNameInvalid, "MQTT-4.7.3-1"},
		{"empty topic", 4, "30 02 0000", CodeTopicNameInvalid, "MQTT-4.7.3-1"},
		{"empty topic without alias", 5, "30 03 0000 00", pe, "3.3.2.1"},
		{"no property length", 5, "30" + sec(str("a")), bad, "MQTT-4.13.1-1"},
		{"topic alias 0", 5, publish("23 0000"), CodeTopicAliasInvalid, "MQTT-3.3.2-8"},
		{"topic alias twice", 5, publish("23 0001 23 0001"), pe, sect},
		{"payload format 2", 5, publish("01 02"), pe, sect},
		{"payload format twice", 5, publish("01 00 01 00"), pe, sect},
		{"expiry twice", 5, publish("02 00000000 02 00000000"), pe, sect},
		{"content type twice", 5, publish("03 0000 03 0000"), pe, sect},
		{"response topic twice", 5, publish("08" + str("a") + "08" + str("a")), pe, sect},
		{"wildcard in response topic", 5, publish("08" + str("a/+")), CodeTopicNameInvalid, "MQTT-3.3.2-14"},
		{"correlation data twice", 5, publish("09 0000 09 0000"), pe, sect},
		{"subscription identifier 0", 5, publish("0b 00"), pe, sect},
		{"subscription identifier not minimal", 5, publish("0b 8100"), bad, "MQTT-1.5.5-1"},
		{"subscription identifier of five bytes", 5, publish("0b 8080808001"), bad, "1.5.5"},
		{"session expiry", 5, publish("11 00000000"), bad, "2.2.2.2"},
		{"will delay", 5, publish("18 00000000"), bad, "2.2.2.2"},
	}
}

func ackRefusals() []refusal {
	var list []refusal
	for i, header := range []string{"40", "50", "62", "70"} {
		statement := []string{"MQTT-3.4.2-1", "MQTT-3.5.2-1", "MQTT-3.6.2-1", "MQTT-3.7.2-1"}[i]
		section := []string{"3.4.2.2", "3.5.2.2", "3.6.2.2", "3.7.2.2"}[i]
		list = append(list,
			refusal{header + " empty", 4, header + "00", bad, "MQTT-4.13.1-1"},
			refusal{header + " half an identifier", 4, header + "01 00", bad, "MQTT-4.13.1-1"},
			refusal{header + " identifier 0", 4, header + "02 0000", pe, "MQTT-2.2.1-5"},
			refusal{header + " code in v3", 4, header + "03 0001 00", bad, "MQTT-4.13.1-1"},
			refusal{header + " reason code", 5, header + "03 0001 01", pe, statement},
			refusal{header + " property", 5, header + "06 0001 00 02 01 00", bad, "2.2.2.2"},
			refusal{header + " reason string twice", 5, header + sec("0001 00"+sec("1f 0000 1f 0000")), pe, section},
			refusal{header + " property length short of the packet", 5, header + "05 0001 00 00 00", bad, "MQTT-4.13.1-1"})
	}
	return append(list,
		refusal{"PUBREL flags 0", 4, "60 02 0001", bad, "MQTT-3.6.1-1"},
		refusal{"PUBREL with DUP after 3.1", 4, "6a 02 0001", bad, "MQTT-3.6.1-1"},
		refusal{"PUBACK not found", 5, "40 03 0001 92", pe, "MQTT-3.4.2-1"},
		refusal{"PUBREL quota", 5, "62 03 0001 97", pe, "MQTT-3.6.2-1"})
}

func subscribeRefusals() []refusal {
	subscribe := func(props, filters string) string { return "82" + sec("0001"+sec(props)+filters) }
	return []refusal{
		{"SUBSCRIBE flags", 4, "80" + sec("0001"+str("a")+"00"), bad, "MQTT-3.8.1-1"},
		{"SUBSCRIBE DUP after 3.1", 4, "8a" + sec("0001"+str("a")+"00"), bad, "MQTT-3.8.1-1"},
		{"SUBSCRIBE identifier 0", 4, "82" + sec("0000"+str("a")+"00"), pe, "MQTT-2.2.1-3"},
		{"SUBSCRIBE without filter", 4, "82 02 0001", pe, "MQTT-3.8.3-2"},
		{"SUBSCRIBE without filter", 5, "82 03 0001 00", pe, "MQTT-3.8.3-2"},
		{"SUBSCRIBE empty filter", 4, "82" + sec("0001 0000 00"), CodeTopicFilterInvalid, "MQTT-4.7.3-1"},
		{"SUBSCRIBE without options", 4, "82" + sec("0001"+str("a")), bad, "MQTT-4.13.1-1"},
		{"SUBSCRIBE QoS 3", 4, "82" + sec("0001"+str("a")+"03"), bad, "3.1.1:MQTT-3-8.3-4"},
		{"SUBSCRIBE options in v3", 4, "82" + sec("0001"+str("a")+"04"), bad, "3.1.1:MQTT-3-8.3-4"},
		{"SUBSCRIBE QoS 3", 5, subscribe("", str("a")+"03"), pe, "3.8.3.1"},
		{"SUBSCRIBE retain handling 3", 5, subscribe("", str("a")+"30"), pe, "3.8.3.1"},
		{"SUBSCRIBE reserved bit 6", 5, subscribe("", str("a")+"40"), bad, "MQTT-3.8.3-5"},
		{"SUBSCRIBE reserved bit 7", 5, subscribe("", str("a")+"80"), bad, "MQTT-3.8.3-5"},
		{"SUBSCRIBE no local shared", 5, subscribe("", str("$share/g/a")+"04"), pe, "MQTT-3.8.3-4"},
		{"SUBSCRIBE subscription identifier 0", 5, subscribe("0b 00", str("a")+"00"), pe, "3.8.2.1"},
		{"SUBSCRIBE subscription identifier twice", 5, subscribe("0b 01 0b 02", str("a")+"00"), pe, "3.8.2.1.2"},
		{"SUBSCRIBE property", 5, subscribe("1f 0000", str("a")+"00"), bad, "2.2.2.2"},
		{"SUBACK identifier 0", 4, "90 03 0000 00", pe, "MQTT-2.2.1-6"},
		{"SUBACK code 3", 4, "90 03 0001 03", pe, "MQTT-3.9.3-2"},
		{"SUBACK code of v5 in v3", 4, "90 03 0001 87", pe, "MQTT-3.9.3-2"},
		{"SUBACK code", 5, "90 04 0001 00 11", pe, "MQTT-3.9.3-2"},
		{"SUBACK without code", 4, "90 02 0001", pe, "MQTT-3.9.3-1"},
		{"UNSUBSCRIBE flags", 4, "a0" + sec("0001"+str("a")), bad, "MQTT-3.10.1-1"},
		{"UNSUBSCRIBE without filter", 4, "a2 02 0001", pe, "MQTT-3.10.3-2"},
		{"UNSUBSCRIBE empty filter", 4, "a2 04 0001 0000", CodeTopicFilterInvalid, "MQTT-4.7.3-1"},
		{"UNSUBSCRIBE identifier 0", 4, "a2" + sec("0000"+str("a")), pe, "MQTT-2.2.1-3"},
		{"UNSUBSCRIBE property", 5, "a2" + sec("0001"+sec("0b 01")+str("a")), bad, "2.2.2.2"},
		{"UNSUBACK code in v3", 4, "b0 03 0001 00", bad, "MQTT-4.13.1-1"},
		{"UNSUBACK code", 5, "b0 04 0001 00 01", pe, "MQTT-3.11.3-2"},
		{"UNSUBACK without code", 5, "b0 03 0001 00", pe, "MQTT-3.11.3-1"},
	}
}

func endRefusals() []refusal {
	return []refusal{
		{"PINGREQ with body", 4, "c0 01 00", bad, "MQTT-4.13.1-1"},
		{"PINGRESP flags", 4, "d1 00", bad, "MQTT-2.1.3-1"},
		{"DISCONNECT flags", 4, "e1 00", bad, "MQTT-3.14.1-1"},
		{"DISCONNECT code in v3", 4, "e0 01 00", bad, "MQTT-4.13.1-1"},
		{"DISCONNECT code", 5, "e0 01 01", pe, "MQTT-3.14.2-1"},
		{"DISCONNECT session expiry twice", 5, "e0" + sec("00"+sec("11 00000000 11 00000000")), pe, "3.14.2.2"},
		{"DISCONNECT property", 5, "e0" + sec("00"+sec("21 0001")), bad, "2.2.2.2"},
		{"AUTH in v3", 4, "f0 00", bad, "3.1.1:2.2.1"},
		{"AUTH flags", 5, "f1 00", bad, "MQTT-3.15.1-1"},
		{"AUTH code", 5, "f0" + sec("87"+sec("15"+str("m"))), pe, "MQTT-3.15.2-1"},
		{"AUTH code alone", 5, "f0 01 18", bad, "MQTT-4.13.1-1"},
		{"AUTH without method", 5, "f0" + sec("18"+sec("16"+str("d"))), pe, "3.15.2.2.2"},
		{"AUTH method twice", 5, "f0" + sec("18"+sec("15"+str("m")+"15"+str("m"))), pe, "3.15.2.2"},
	}
}

// textFields is a packet for every string field there is, with the field s.
func textFields(s string) map[string]string {
	connect := func(props string) string { return "10" + sec(str("MQTT")+"05 02 003c"+sec(props)+str("c")) }
	fields := map[string]string{
		"client identifier":       "10" + sec(str("MQTT")+"04 02 003c "+s),
		"client identifier 3.1":   "10" + sec(str("MQIsdp")+"03 02 003c "+s),
		"protocol name":           "10" + sec(s+" 04 02 003c"+str("c")),
		"user name":               "10" + sec(str("MQTT")+"04 82 003c 0000 "+s),
		"will topic":              "10" + sec(str("MQTT")+"04 06 003c 0000 "+s+" 0000"),
		"authentication method":   connect("15 " + s),
		"CONNECT user name":       connect("26 " + s + str("v")),
		"CONNECT user value":      connect("26" + str("k") + s),
		"PUBLISH topic":           "30" + sec(s+" 00"),
		"SUBSCRIBE filter":        "82" + sec("0001 00 "+s+" 00"),
		"SUBSCRIBE user property": "82" + sec("0001"+sec("26 "+s+str("v"))+str("a")+"00"),
		"UNSUBSCRIBE filter":      "a2" + sec("0001 00 "+s),
		"UNSUBSCRIBE user":        "a2" + sec("0001"+sec("26"+str("k")+s)+str("a")),
		"SUBACK reason string":    "90" + sec("0001"+sec("1f "+s)+"00"),
		"UNSUBACK reason string":  "b0" + sec("0001"+sec("1f "+s)+"00"),
		"AUTH method":             "f0" + sec("18"+sec("15 "+s)),
		"AUTH reason string":      "f0" + sec("18"+sec("15"+str("m")+"1f "+s)),
	}
	for _, id := range []string{"12", "1f", "1a", "1c", "15"} {
		fields["CONNACK property "+id] = "20" + sec("00 00"+sec(id+s))
	}
	for _, id := range []string{"03", "08"} {
		fields["PUBLISH property "+id] = "30" + sec(str("a")+sec(id+s))
		fields["will property "+id] = "10" + sec(str("MQTT")+"05 06 003c 00 0000"+sec(id+s)+str("w")+"0000")
	}
	for _, id := range []string{"1f", "1c"} {
		fields["DISCONNECT property "+id] = "e0" + sec("00"+sec(id+s))
	}
	for _, header := range []string{"40", "50", "62", "70"} {
		fields["reason string "+header] = header + sec("0001 00"+sec("1f "+s))
	}
	return fields
}

func TestText_MQTT_1_5_4_1_And_2(t *testing.T) {
	statements := map[string]string{
		"eda080":                "MQTT-1.5.4-1", // U+D800
		"edbfbf":                "MQTT-1.5.4-1", // U+DFFF
		"c0af":                  "MQTT-1.5.4-1", // overlong slash
		"c080":                  "MQTT-1.5.4-1", // overlong NUL
		"80":                    "MQTT-1.5.4-1", // continuation alone
		"e282":                  "MQTT-1.5.4-1", // cut
		"f4908080":              "MQTT-1.5.4-1", // above U+10FFFF
		"'0123456789abcdef' ff": "MQTT-1.5.4-1",
		"00":                    "MQTT-1.5.4-2",
		"'0123456' 00 '89'":     "MQTT-1.5.4-2",
		"'01234567' 00":         "MQTT-1.5.4-2",
		"'é' 00":                "MQTT-1.5.4-2",
	}
	field := func(text string) string { return fmt.Sprintf(" %04x %s ", len(wire(text)), text) }
	version := func(name string) Version {
		switch name {
		case "client identifier", "user name", "will topic", "protocol name":
			return V311
		case "client identifier 3.1":
			return V31
		}
		return V5
	}
	// A byte order mark is text like any other [MQTT-1.5.4-3].
	for name, packet := range textFields(field("efbbbf 'é€😀'")) {
		if _, err := decodeWhole(version(name), wire(packet)); err != nil && name != "protocol name" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for text, statement := range statements {
		for name, packet := range textFields(field(text)) {
			t.Run(name+" "+text, func(t *testing.T) {
				_, err := decodeWhole(version(name), wire(packet))
				wantError(t, err, CodeMalformedPacket, statement)
			})
		}
	}
}
