package packets

import (
	"bytes"
	"errors"
	"testing"
)

// transport is a property section in which those that are stored and those of
// the transmission take turns, in no canonical order.
var transport = "26" + str("a") + str("1") + "23 0005" + "03" + str("ct") + "02 0000003c" + "0b 07" + "26" + str("a") + str("2") + "01 01"

var stored = "26" + str("a") + str("1") + "03" + str("ct") + "26" + str("a") + str("2") + "01 01"

// The stored form drops what belongs to one transmission and keeps the rest in
// order [MQTT-3.3.2-17], [MQTT-3.3.2-18].
func TestAppendMessage_MQTT_3_3_2_18_KeepsOrder(t *testing.T) {
	for _, c := range []struct {
		name    string
		version Version
		body    string
		topic   string
		want    string
	}{
		{"v3", V311, str("a/b") + "'hi'", "", str("a/b") + "00 'hi'"},
		{"v5 bare", V5, str("a/b") + "00 'hi'", "", str("a/b") + "00 'hi'"},
		{"v5 nothing to drop", V5, str("a/b") + sec(stored) + "'hi'", "", str("a/b") + sec(stored) + "'hi'"},
		{"v5 with transport properties", V5, str("a/b") + sec(transport) + "'hi'", "", str("a/b") + sec(stored) + "'hi'"},
		{"v5 resolved alias", V5, "0000" + sec("23 0001"), "long/topic", str("long/topic") + "00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p Publish
			if err := p.Decode(c.version, 0, wire(c.body)); err != nil {
				t.Fatal(err)
			}
			var topic []byte
			if c.topic != "" {
				topic = []byte(c.topic)
			}
			got := p.AppendMessage([]byte("#"), topic)
			if want := append([]byte("#"), wire(c.want)...); !bytes.Equal(got, want) {
				t.Fatalf("stored\n %x, want\n %x", got, want)
			}
			m, err := ParseMessage(got[1:])
			if err != nil {
				t.Fatal(err)
			}
			if again := m.AppendTo(nil); !bytes.Equal(again, got[1:]) || m.Size() != len(again) {
				t.Errorf("comes back as %x, size %d", again, m.Size())
			}
			// It is the body of an MQTT 5 PUBLISH of QoS 0.
			if err := p.Decode(V5, 0, got[1:]); err != nil {
				t.Errorf("not a PUBLISH body: %v", err)
			}
		})
	}
}

// Without Raw the stored form is made from the fields.
func TestAppendMessageFromFields(t *testing.T) {
	p := Publish{Topic: []byte("t"), Payload: []byte("p"), Props: PublishProps{
		TopicAlias: 3, HasExpiry: true, Expiry: 9, SubscriptionIDs: []uint32{4},
		HasContentType: true, ContentType: []byte("ct"), User: user("k", "v"),
	}}
	want := wire(str("t") + sec("03"+str("ct")+"26"+str("k")+str("v")) + "'p'")
	if got := p.AppendMessage(nil, nil); !bytes.Equal(got, want) {
		t.Errorf("stored %x, want %x", got, want)
	}
}

func TestAppendMessageLongProperties(t *testing.T) {
	p := Publish{Topic: []byte("t"), Payload: []byte("payload"), Props: PublishProps{
		HasExpiry: true, HasCorrelationData: true, CorrelationData: bytes.Repeat([]byte("c"), 20_000),
	}}
	var q Publish
	f, _, _, _ := Next(p.AppendTo(nil, V5), 0)
	if err := q.Decode(V5, f.Flags(), f.Body); err != nil {
		t.Fatal(err)
	}
	m, err := ParseMessage(q.AppendMessage(nil, nil))
	if err != nil || len(m.Props) != 20_003 || string(m.Payload) != "payload" || string(m.Topic) != "t" {
		t.Errorf("topic %q, %d bytes of properties, payload %q, %v", m.Topic, len(m.Props), m.Payload, err)
	}
}

// A will's stored form has neither delay nor expiry (DESIGN: the deadline is
// counted from the moment it is published, section 3.1.3.2.4).
func TestWillAppendMessage(t *testing.T) {
	var c Connect
	body := str("MQTT") + "05 2e 0000 00" + str("c") + sec("18 00000005"+stored+"02 00000009") + str("w/t") + str("bye")
	if err := c.Decode(0, wire(body)); err != nil {
		t.Fatal(err)
	}
	w := &c.Will
	if w.Delay != 5 || !w.Props.HasExpiry || w.Props.Expiry != 9 || w.QoS != 1 || !w.Retain {
		t.Errorf("will %+v", w)
	}
	want := wire(str("w/t") + sec(stored) + "'bye'")
	if got := w.AppendMessage(nil); !bytes.Equal(got, want) {
		t.Errorf("stored %x, want %x", got, want)
	}
	// MQTT 3: no properties.
	if err := c.Decode(0, wire(str("MQTT")+"04 06 0000"+str("c")+str("w")+str("x"))); err != nil {
		t.Fatal(err)
	}
	if got, want := c.Will.AppendMessage(nil), wire(str("w")+"00 'x'"); !bytes.Equal(got, want) {
		t.Errorf("stored %x, want %x", got, want)
	}
}

func TestParseMessageIsBoundsChecked(t *testing.T) {
	whole := wire(str("topic") + sec(stored))
	for i := range whole {
		if _, err := ParseMessage(whole[:i:i]); !errors.Is(err, ErrMessage) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	if _, err := ParseMessage(wire("0001 'a' ff ff ff ff 01")); !errors.Is(err, ErrMessage) {
		t.Errorf("length of five bytes: %v", err)
	}
	if m, err := ParseMessage(whole); err != nil || len(m.Payload) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestPublishPropsParse(t *testing.T) {
	var pp PublishProps
	if err := pp.Parse(wire(stored)); err != nil {
		t.Fatal(err)
	}
	if pp.PayloadFormat != 1 || string(pp.ContentType) != "ct" || pp.User.Count() != 2 {
		t.Errorf("%+v", pp)
	}
	wantError(t, pp.Parse(wire("01 02")), CodeProtocolError, "3.3.2.3")
	if err := pp.Parse(nil); err != nil || pp.HasContentType || pp.User.Count() != 0 {
		t.Errorf("%+v, %v", pp, err)
	}
}

// What Delivery writes decodes to what it says, for every combination of its
// fields.
func TestDelivery(t *testing.T) {
	messages := map[string]Message{
		"bare":              {Topic: []byte("a/b"), Payload: []byte("hi")},
		"properties":        {Topic: []byte("a/b"), Props: wire(stored), Payload: []byte("hi")},
		"long":              {Topic: []byte("a/b"), Props: wire("09 00fa" + "'" + string(bytes.Repeat([]byte("c"), 250)) + "'"), Payload: make([]byte, 200)},
		"three-byte length": {Topic: []byte("a/b"), Payload: make([]byte, 16_400)},
	}
	for name, m := range messages {
		step := 1 + len(m.Payload)/1000 // describe is slow on long payloads
		for bits := 0; bits < 1<<7; bits += step {
			for qos := range byte(3) {
				for _, v := range all {
					d := Delivery{Version: v, QoS: qos, Dup: bits&1 != 0, Retain: bits&2 != 0, PacketID: 0x1234}
					d.OmitTopic, d.HasExpiry, d.Expiry = bits&4 != 0, bits&8 != 0, 77
					if bits&16 != 0 || d.OmitTopic {
						d.TopicAlias = 9
					}
					if bits&32 != 0 {
						d.SubscriptionIDs = append(d.SubscriptionIDs, 1)
					}
					if bits&64 != 0 {
						d.SubscriptionIDs = append(d.SubscriptionIDs, 300, 268_435_455)
					}
					checkDelivery(t, name, &d, &m)
				}
			}
		}
	}
}

func checkDelivery(t *testing.T, name string, d *Delivery, m *Message) {
	t.Helper()
	b := d.AppendTo([]byte("#"), m)[1:]
	if d.Size(m) != len(b) {
		t.Fatalf("%s %+v: Size %d, appended %d", name, d, d.Size(m), len(b))
	}
	want := Publish{Dup: d.Dup && d.QoS > 0, Retain: d.Retain, QoS: d.QoS, Topic: m.Topic, Payload: m.Payload}
	if d.QoS > 0 {
		want.PacketID = d.PacketID
	}
	if d.Version == V5 {
		if err := want.Props.Parse(m.Props); err != nil {
			t.Fatal(err)
		}
		want.Props.TopicAlias, want.Props.SubscriptionIDs = d.TopicAlias, d.SubscriptionIDs
		if d.HasExpiry {
			want.Props.HasExpiry, want.Props.Expiry = true, d.Expiry
		}
		if d.OmitTopic {
			want.Topic = nil
		}
	}
	got, err := decodeWhole(d.Version, b)
	if err != nil {
		t.Fatalf("%s %+v: %v", name, d, err)
	}
	if g, w := describe(got), describe(&want); g != w {
		t.Fatalf("%s %+v: decodes to\n %s, want\n %s", name, d, g, w)
	}
	at := d.PacketIDOffset(m)
	if d.QoS == 0 {
		if at != 0 {
			t.Fatalf("packet identifier at %d in QoS 0", at)
		}
		return
	}
	for _, dup := range []bool{true, false} {
		PatchPublish(b, at, 0xabcd, dup)
		patched := *d
		patched.PacketID, patched.Dup = 0xabcd, dup
		if want := patched.AppendTo(nil, m); !bytes.Equal(b, want) {
			t.Fatalf("%s %+v: patched\n %x, want\n %x", name, d, b, want)
		}
	}
}
