package packets

import (
	"bytes"
	"errors"
	"testing"
	"unicode/utf8"
)

// fuzzDecode feeds bodies to the decoder of some packet types. What decodes
// must come back unchanged in meaning through its encoding, and that encoding
// must be a fixed point; what does not decode must say why.
func fuzzDecode(f *testing.F, types ...Type) {
	for _, c := range allCases() {
		frame, _, _, _ := Next(wire(c.wire), 0)
		for _, t := range types {
			if frame.Type() == t {
				f.Add(byte(c.version), frame.Header, frame.Body)
			}
		}
	}
	f.Fuzz(func(t *testing.T, version, header byte, body []byte) {
		v := V31 + Version(version)%3
		typ := types[int(header>>4)%len(types)]
		for _, t := range types {
			if Type(header>>4) == t {
				typ = t
			}
		}
		before := bytes.Clone(body)
		frame := Frame{Header: byte(typ)<<4 | header&0x0f, Body: body}
		p, err := frame.Decode(v)
		if !bytes.Equal(before, body) {
			t.Fatal("Decode wrote to the body")
		}
		if err != nil {
			checkError(t, err)
			return
		}
		if c, ok := p.(*Connect); ok {
			v = c.Version
		}
		checkRoundTrip(t, p, v)
		if pub, ok := p.(*Publish); ok {
			checkStored(t, pub, v)
		}
		if c, ok := p.(*Connect); ok && c.HasWill {
			if _, err := ParseMessage(c.Will.AppendMessage(nil)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func checkError(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || !e.Code.IsError() || e.Reason == "" || e.Statement == "" {
		t.Fatalf("error %#v", err)
	}
}

func checkRoundTrip(t *testing.T, p Packet, v Version) {
	t.Helper()
	first := p.AppendTo(nil, v)
	again, err := decodeWhole(v, first)
	if err != nil {
		t.Fatalf("%s\n encodes to %x\n which does not decode: %v", describe(p), first, err)
	}
	if g, w := describe(again), describe(p); g != w {
		t.Fatalf("comes back as\n %s, was\n %s", g, w)
	}
	if second := again.AppendTo(nil, v); !bytes.Equal(first, second) {
		t.Fatalf("encodes to\n %x, then to\n %x", first, second)
	}
	if pub, ok := p.(*Publish); ok && pub.Size(v) != len(first) {
		t.Fatalf("Size %d, appended %d", pub.Size(v), len(first))
	}
}

// checkStored takes a PUBLISH through its stored form to a delivery that
// repeats the transmission, which must say what the PUBLISH said.
func checkStored(t *testing.T, p *Publish, v Version) {
	t.Helper()
	m, err := ParseMessage(p.AppendMessage(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	d := Delivery{
		Version: v, QoS: p.QoS, Dup: p.Dup, Retain: p.Retain, PacketID: p.PacketID, TopicAlias: p.Props.TopicAlias,
		HasExpiry: p.Props.HasExpiry, Expiry: p.Props.Expiry, SubscriptionIDs: p.Props.SubscriptionIDs,
	}
	out := d.AppendTo(nil, &m)
	if d.Size(&m) != len(out) {
		t.Fatalf("Size %d, appended %d", d.Size(&m), len(out))
	}
	got, err := decodeWhole(v, out)
	if err != nil {
		t.Fatalf("delivery does not decode: %v", err)
	}
	if g, w := describe(got), describe(p); g != w {
		t.Fatalf("delivered as\n %s, was\n %s", g, w)
	}
}

func FuzzDecodeConnect(f *testing.F)     { fuzzDecode(f, TypeConnect) }
func FuzzDecodeConnack(f *testing.F)     { fuzzDecode(f, TypeConnack) }
func FuzzDecodePublish(f *testing.F)     { fuzzDecode(f, TypePublish) }
func FuzzDecodeSubscribe(f *testing.F)   { fuzzDecode(f, TypeSubscribe) }
func FuzzDecodeSuback(f *testing.F)      { fuzzDecode(f, TypeSuback) }
func FuzzDecodeUnsubscribe(f *testing.F) { fuzzDecode(f, TypeUnsubscribe) }
func FuzzDecodeUnsuback(f *testing.F)    { fuzzDecode(f, TypeUnsuback) }
func FuzzDecodeDisconnect(f *testing.F)  { fuzzDecode(f, TypeDisconnect) }
func FuzzDecodeAuth(f *testing.F)        { fuzzDecode(f, TypeAuth) }

func FuzzDecodeAck(f *testing.F) {
	fuzzDecode(f, TypePuback, TypePubrec, TypePubrel, TypePubcomp)
}

// A stream split anywhere gives the same packets as the whole.
func FuzzNext(f *testing.F) {
	var stream []byte
	for _, c := range allCases() {
		b := wire(c.wire)
		f.Add(b, 1, 0)
		stream = append(stream, b...)
	}
	f.Add(stream, 7, 1000)
	f.Fuzz(func(t *testing.T, b []byte, split, maxPacket int) {
		rest := b
		for {
			frame, n, need, err := Next(rest, maxPacket)
			checkNext(t, rest, frame, n, need, maxPacket, err)
			if split = min(max(split, 0), len(rest)); split < len(rest) {
				early, m, need2, err2 := Next(rest[:split], maxPacket)
				checkNext(t, rest[:split], early, m, need2, maxPacket, err2)
				switch {
				case err2 != nil && err == nil:
					t.Fatalf("split gives %v, the whole nothing", err2)
				case m != 0 && (m != n || !bytes.Equal(early.Body, frame.Body)):
					t.Fatalf("split takes %d bytes, the whole %d", m, n)
				case need2 != 0 && need != need2:
					t.Fatalf("split needs %d bytes, the whole %d", need2, need)
				}
			}
			if n == 0 {
				return
			}
			rest = rest[n:]
		}
	})
}

func checkNext(t *testing.T, b []byte, f Frame, n, need, maxPacket int, err error) {
	t.Helper()
	switch {
	case err != nil:
		checkError(t, err)
		if n != 0 {
			t.Fatalf("n = %d with an error", n)
		}
	case n == 0:
		if need != 0 && need <= len(b) {
			t.Fatalf("needs %d bytes, has %d", need, len(b))
		}
	case n > len(b) || n != need || maxPacket > 0 && n > maxPacket:
		t.Fatalf("n = %d, need = %d of %d bytes, limit %d", n, need, len(b), maxPacket)
	case !bytes.Equal(frame(f.Header, f.Body), b[:n]):
		t.Fatalf("frame %x %x is not %x", f.Header, f.Body, b[:n])
	}
}

// ParseMessage accepts anything in bounds, and what it finds comes back.
func FuzzParseMessage(f *testing.F) {
	for _, s := range []string{str("a/b") + sec(stored) + "'x'", "0000 00", "0001 'a' 8101"} {
		f.Add(wire(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b)
		if err != nil {
			if !errors.Is(err, ErrMessage) {
				t.Fatal(err)
			}
			return
		}
		if got := m.AppendTo(nil); !bytes.Equal(got, b) || m.Size() != len(b) {
			t.Fatalf("%x comes back as %x, size %d", b, got, m.Size())
		}
	})
}

// The eight-bytes-at-a-time checks agree with the obvious ones.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "a", "0123456\x00", "01234567\x01\x00", "é", "\x80", "01234+67", "#23456789", "\x7f\x01\x22\x24\x2a\x2c"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > MaxString {
			return
		}
		valid := utf8.Valid(b) && bytes.IndexByte(b, 0) < 0
		r := reader{b: appendString(nil, b)}
		if got := r.text("text"); (r.err == nil) != valid || valid && !bytes.Equal(got, b) {
			t.Fatalf("%q: %v, valid %v", b, r.err, valid)
		}
		valid = valid && !bytes.ContainsAny(b, "+#")
		r = reader{b: appendString(nil, b)}
		if r.topicName("topic", "MQTT-3.3.2-2"); (r.err == nil) != valid {
			t.Fatalf("%q as a topic: %v, valid %v", b, r.err, valid)
		}
	})
}
