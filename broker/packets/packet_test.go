package packets

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A PUBLISH from a client has no Subscription Identifier [MQTT-3.3.4-6].
func TestPublishCheckFromClient_MQTT_3_3_4_6(t *testing.T) {
	var p Publish
	if err := p.Decode(V5, 0, wire(str("a")+sec("0b 01")+"'x'")); err != nil {
		t.Fatal(err)
	}
	wantError(t, p.CheckFromClient(), CodeProtocolError, "MQTT-3.3.4-6")
	if err := p.Decode(V5, 0, wire(str("a")+"00 'x'")); err != nil || p.CheckFromClient() != nil {
		t.Errorf("reused struct: %v, %v", err, p.CheckFromClient())
	}
}

// Who may send which DISCONNECT: the table of section 3.14.2.1
// [MQTT-3.14.2-1], [MQTT-3.14.2-2].
func TestDisconnectDirections_MQTT_3_14_2_1(t *testing.T) {
	both := []Code{0x00, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99}
	client := append(slices.Clone(both), 0x04)
	server := append(slices.Clone(both), 0x87, 0x89, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2)
	for i := range 256 {
		c := Code(i)
		var d Disconnect
		err := d.Decode(V5, 0, []byte{byte(c)})
		known := slices.Contains(client, c) || slices.Contains(server, c)
		if (err == nil) != known {
			t.Errorf("%#x: Decode: %v", i, err)
		}
		if got := d.CheckFromClient() == nil; got != slices.Contains(client, c) {
			t.Errorf("%#x: client may send it: %v", i, got)
		}
		if got := d.CheckFromServer() == nil; got != slices.Contains(server, c) {
			t.Errorf("%#x: server may send it: %v", i, got)
		}
	}
	expiry := Disconnect{Props: DisconnectProps{HasSessionExpiry: true}}
	wantError(t, expiry.CheckFromServer(), CodeProtocolError, "MQTT-3.14.2-2")
	reference := Disconnect{Props: DisconnectProps{HasServerReference: true}}
	wantError(t, reference.CheckFromClient(), CodeProtocolError, "3.14.2.2.5")
	if expiry.CheckFromClient() != nil || reference.CheckFromServer() != nil {
		t.Error("refused in the right direction")
	}
}

// Who may send which AUTH [MQTT-3.15.2-1].
func TestAuthDirections_MQTT_3_15_2_1(t *testing.T) {
	for code, from := range map[Code][2]bool{
		CodeSuccess: {false, true}, CodeContinueAuthentication: {true, true}, CodeReauthenticate: {true, false},
	} {
		a := Auth{Code: code}
		if got := [2]bool{a.CheckFromClient() == nil, a.CheckFromServer() == nil}; got != from {
			t.Errorf("%v: client, server = %v, want %v", code, got, from)
		}
	}
}

// The version is known after a failure, so that the refusal can be encoded
// [MQTT-3.1.2-2].
func TestConnectVersionOfRefusal_MQTT_3_1_2_2(t *testing.T) {
	for body, want := range map[string]Version{
		str("MQTT") + "06":                             V5,
		str("MQTT") + "03 02 0000 0000":                V311,
		str("MQTT") + "05 03 0000 00 0000":             V5,
		str("MQTT") + "04 03 0000 0000":                V311,
		str("MQIsdp") + "03 1e 0000" + str("c") + "00": V31,
	} {
		c := Connect{Version: 99}
		if err := c.Decode(0, wire(body)); err == nil || c.Version != want {
			t.Errorf("%s: version %v, %v; want %v", body, c.Version, err, want)
		}
	}
}

// A struct that held a packet with everything in it holds nothing of it after
// the next Decode.
func TestDecodeResets(t *testing.T) {
	full := map[Type][]byte{}
	for _, c := range allCases() {
		f, _, _, _ := Next(wire(c.wire), 0)
		if c.version == V5 && len(f.Body) > len(full[f.Type()]) {
			full[f.Type()] = f.Body
		}
	}
	for _, c := range allCases() {
		f, _, _, _ := Next(wire(c.wire), 0)
		p, flags := Packet(nil), f.Header&0x0f
		before := Frame{Header: f.Header, Body: full[f.Type()]}
		if f.Type() == TypePublish {
			before.Header = 0x3d
		}
		p, err := before.Decode(V5)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		switch p := p.(type) {
		case *Connect:
			err = p.Decode(flags, f.Body)
		case interface {
			Decode(v Version, flags byte, body []byte) error
		}:
			err = p.Decode(c.version, flags, f.Body)
		}
		if err != nil || describe(p) != describe(c.packet) {
			t.Errorf("%s: reused struct decodes to\n %s (%v), want\n %s", c.name, describe(p), err, describe(c.packet))
		}
	}
}

// MQTT 3 answers with what it has: a failed subscription is 0x80, and a
// CONNACK has five refusals [MQTT-3.2.2-8].
func TestAppendTranslatesCodesForV3(t *testing.T) {
	s := Suback{PacketID: 1, Codes: []Code{1, CodeNotAuthorized, CodeTopicFilterInvalid}}
	if got, want := fmt.Sprintf("%x", s.AppendTo(nil, V311)), "90050001018080"; got != want {
		t.Errorf("SUBACK %s, want %s", got, want)
	}
	for code := CodeUnspecifiedError; code <= CodeWildcardSubscriptionsNotSupported; code++ {
		b, ok := code.ConnackV3()
		back, known := connackFromV3(b)
		if b < 1 || b > 5 || !known || !back.IsError() {
			t.Errorf("%v becomes %d, back %v", code, b, back)
		}
		if again, ok2 := back.ConnackV3(); ok && (again != b || !ok2) {
			t.Errorf("%v becomes %d, then %d", code, b, again)
		}
	}
	if _, ok := CodeMalformedPacket.ConnackV3(); ok {
		t.Error("MQTT 3 has no code for a malformed packet")
	}
}

func TestCodeNamesAreDistinct(t *testing.T) {
	seen := map[string]int{}
	for i := range 256 {
		s := Code(i).String()
		if other, ok := seen[s]; ok {
			t.Errorf("%#x and %#x are both %q", i, other, s)
		}
		seen[s] = i
	}
	for c, want := range map[Code]string{
		0: "success", 0x19: "re-authenticate", 0x80: "unspecified error", 0x8f: "topic filter invalid",
		0x9b: "QoS not supported", 0xa2: "wildcard subscriptions not supported", 0xa3: "Code(0xa3)", 0x03: "Code(0x3)",
	} {
		if c.String() != want {
			t.Errorf("%#x is %q, want %q", byte(c), c, want)
		}
	}
}

func TestNames(t *testing.T) {
	got := fmt.Sprint(V31, V311, V5, Version(9))
	if want := "3.1 3.1.1 5.0 Version(9)"; got != want {
		t.Errorf("versions %q, want %q", got, want)
	}
	var names []string
	for i := range Type(16) {
		names = append(names, i.String())
	}
	want := "Type(0) CONNECT CONNACK PUBLISH PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK UNSUBSCRIBE UNSUBACK PINGREQ PINGRESP DISCONNECT AUTH"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("types %q, want %q", got, want)
	}
}

func TestErrorText(t *testing.T) {
	_, err := Frame{Header: 0x36}.Decode(V5)
	want := "packets: malformed packet: QoS 3 [MQTT-3.3.1-4]"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	var e *Error
	if _, err := (Frame{}).Decode(V5); !errors.As(err, &e) {
		t.Errorf("type 0: %v", err)
	}
}

func TestUserProperties(t *testing.T) {
	u := user("a", "1", "b", "", "a", "2")
	var got []string
	for name, value := range u.All() {
		got = append(got, string(name)+"="+string(value))
	}
	if want := []string{"a=1", "b=", "a=2"}; !slices.Equal(got, want) || u.Count() != 3 {
		t.Errorf("%q, count %d", got, u.Count())
	}
	for range u.All() {
		break // a loop may end early
	}
	// Bytes that are no properties end the list; they never panic.
	for i := range u {
		for range u[:i].All() {
			continue
		}
		if out := u[:i].appendTo(nil); len(out) != u[:i].size() {
			t.Errorf("cut to %d: %d bytes, size %d", i, len(out), u[:i].size())
		}
	}
	for _, garbage := range []string{"00", "0b ff ff ff ff", "7f 00", "26 ffff 00"} {
		if n := UserProperties(wire(garbage)).Count(); n != 0 {
			t.Errorf("%s has %d pairs", garbage, n)
		}
	}
	// Decoded ones have no room that Append could write into.
	body := wire("0001" + sec("26"+str("k")+str("v")) + str("filter"))
	var s Unsubscribe
	if err := s.Decode(V5, 2, body); err != nil {
		t.Fatal(err)
	}
	if more := s.User.Append("k2", "v2"); more.Count() != 2 || string(s.Filters[0]) != "filter" {
		t.Errorf("Append wrote over the packet: %q", s.Filters[0])
	}
}
