package packets

import (
	"bytes"
	"testing"
)

func TestNextSplitsABuffer(t *testing.T) {
	b := wire("c000" + "30" + sec(str("a")+"'x'") + "40 02 0001" + "e0")
	types := []Type{TypePingreq, TypePublish, TypePuback}
	for i, want := range types {
		f, n, need, err := Next(b, 0)
		if err != nil || n == 0 || need != n {
			t.Fatalf("packet %d: n %d, need %d, %v", i, n, need, err)
		}
		if f.Type() != want || f.Flags() != 0 || len(f.Body) != n-2 {
			t.Fatalf("packet %d: %v flags %x body %x", i, f.Type(), f.Flags(), f.Body)
		}
		if cap(f.Body) != len(f.Body) {
			t.Error("the body can grow into the next packet")
		}
		b = b[n:]
	}
	if _, n, need, err := Next(b, 0); n != 0 || need != 0 || err != nil {
		t.Fatalf("rest: %d, %d, %v", n, need, err)
	}
	if _, n, need, err := Next(nil, 0); n != 0 || need != 0 || err != nil {
		t.Fatalf("nothing: %d, %d, %v", n, need, err)
	}
}

func TestNextLengths(t *testing.T) {
	for _, c := range []struct {
		head string
		body int
	}{
		{"30 00", 0},
		{"30 7f", 127},
		{"30 8001", 128},
		{"30 ff7f", 16_383},
		{"30 808001", 16_384},
		{"30 ffff7f", 2_097_151},
		{"30 80808001", 2_097_152},
		{"30 ffffff7f", MaxRemaining},
	} {
		head := wire(c.head)
		for i := range head {
			if _, n, need, err := Next(head[:i], 0); n != 0 || need != 0 || err != nil {
				t.Errorf("%s cut to %d: %d, %d, %v", c.head, i, n, need, err)
			}
		}
		total := len(head) + c.body
		if c.body > 0 {
			if _, n, need, err := Next(head, 0); n != 0 || need != total || err != nil {
				t.Errorf("%s: n %d, need %d, %v; want need %d", c.head, n, need, err, total)
			}
		}
		if c.body > 1<<22 {
			continue
		}
		b := append(head, make([]byte, c.body+1)...)
		if f, n, _, err := Next(b, total); n != total || len(f.Body) != c.body || err != nil {
			t.Errorf("%s: n %d, body %d, %v", c.head, n, len(f.Body), err)
		}
	}
}

func TestNextRefuses(t *testing.T) {
	for _, c := range []struct {
		wire      string
		max       int
		code      Code
		statement string
	}{
		{"00", 0, bad, "2.1.2"},
		{"0f 00", 0, bad, "2.1.2"},
		{"30 80 00", 0, bad, "MQTT-1.5.5-1"},
		{"30 81 80 80 00", 0, bad, "MQTT-1.5.5-1"},
		{"30 80 80 80 80", 0, bad, "1.5.5"},
		{"30 ff ff ff ff 7f", 0, bad, "1.5.5"},
		{"30 7f", 128, CodePacketTooLarge, "MQTT-3.2.2-15"},
		{"30 ff ff ff 7f", 32 << 20, CodePacketTooLarge, "MQTT-3.2.2-15"},
	} {
		_, n, _, err := Next(wire(c.wire), c.max)
		if n != 0 {
			t.Errorf("%s: n = %d", c.wire, n)
		}
		wantError(t, err, c.code, c.statement)
	}
	// Exactly the limit is not above it.
	if _, _, need, err := Next(wire("30 7f"), 129); need != 129 || err != nil {
		t.Errorf("at the limit: need %d, %v", need, err)
	}
}

// Packets whose lengths take two and three bytes, so that end moves them.
func TestAppendLongPackets(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 60_000)
	for _, n := range []int{100, 120, 127, 128, 300, 16_380, 16_384, 60_000} {
		field := long[:n]
		for _, p := range []Packet{
			&Connect{ClientID: field, HasPassword: true, Password: field, Props: ConnectProps{HasAuthMethod: true, AuthMethod: field}},
			&Connack{Props: ConnackProps{HasReasonString: true, ReasonString: field, User: user("k", string(field))}},
			&Publish{Topic: field, QoS: 1, PacketID: 1, Payload: field, Props: PublishProps{HasContentType: true, ContentType: field}},
			&Ack{Type: TypePubrec, PacketID: 3, Props: ReasonProps{HasReasonString: true, ReasonString: field}},
			&Subscribe{PacketID: 1, Props: SubscribeProps{User: user(string(field), "")}, Filters: []Subscription{{field, 1}, {field, 2}}},
			&Suback{PacketID: 1, Props: ReasonProps{User: user(string(field), "")}, Codes: make([]Code, n)},
			&Unsubscribe{PacketID: 1, User: user(string(field), ""), Filters: [][]byte{field, field}},
			&Unsuback{PacketID: 1, Props: ReasonProps{User: user(string(field), "")}, Codes: make([]Code, n)},
			&Disconnect{Code: CodeServerMoved, Props: DisconnectProps{HasServerReference: true, ServerReference: field}},
			&Auth{Code: CodeReauthenticate, Props: AuthProps{HasMethod: true, Method: []byte("m"), HasData: true, Data: field}},
		} {
			b := p.AppendTo(make([]byte, 1), V5)[1:]
			got, err := decodeWhole(V5, b)
			if err != nil {
				t.Errorf("%T with fields of %d bytes: %v", p, n, err)
			} else if describe(got) != describe(p) {
				t.Errorf("%T with fields of %d bytes does not come back", p, n)
			}
		}
	}
}

// What does not fit its length prefix must not be written cut off.
func TestAppendPanicsOnOversizedField(t *testing.T) {
	tooLong := make([]byte, MaxString+1)
	for name, f := range map[string]func(){
		"topic":         func() { (&Publish{Topic: tooLong}).AppendTo(nil, V5) },
		"client id":     func() { (&Connect{ClientID: tooLong}).AppendTo(nil, V311) },
		"filter":        func() { (&Unsubscribe{Filters: [][]byte{tooLong}}).AppendTo(nil, V311) },
		"user property": func() { UserProperties(nil).Append(string(tooLong), "") },
		"stored topic":  func() { (&Publish{}).AppendMessage(nil, tooLong) },
		"subscription":  func() { (&Subscribe{Props: SubscribeProps{SubscriptionID: MaxRemaining + 1}}).AppendTo(nil, V5) },
		"delivery":      func() { (&Delivery{}).AppendTo(nil, &Message{Payload: make([]byte, MaxRemaining)}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

// The size of a packet that cannot be is still a size, above every limit.
func TestDeliverySizeOfTheImpossible(t *testing.T) {
	m := Message{Topic: []byte("t"), Payload: make([]byte, MaxRemaining-4)}
	d := Delivery{Version: V311}
	if got := d.Size(&m); got != MaxPacket-1 {
		t.Errorf("size %d, want %d", got, MaxPacket-1)
	}
	d = Delivery{Version: V5, HasExpiry: true}
	if got := d.Size(&m); got <= MaxPacket {
		t.Errorf("size %d is not above %d", got, MaxPacket)
	}
}
