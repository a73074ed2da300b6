package conformance

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/packets"
)

// body builds the body of a packet for a version: the parts, with an empty
// property section in the place of nil for MQTT 5 and of nothing otherwise.
func body(v packets.Version, parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		switch {
		case p != nil:
			b = append(b, p...)
		case v == packets.V5:
			b = append(b, 0)
		}
	}
	return b
}

// samples returns a well-formed packet of each kind that a client sends after
// its CONNECT.
func samples(v packets.Version) map[packets.Type][]byte {
	one := []byte{0, 1}
	m := map[packets.Type][]byte{
		packets.TypePublish:     packet(0x32, body(v, str("a"), one, nil, []byte("x"))),
		packets.TypePuback:      packet(0x40, one),
		packets.TypePubrec:      packet(0x50, one),
		packets.TypePubrel:      packet(0x62, one),
		packets.TypePubcomp:     packet(0x70, one),
		packets.TypeSubscribe:   packet(0x82, body(v, one, nil, str("a"), []byte{0})),
		packets.TypeUnsubscribe: packet(0xa2, body(v, one, nil, str("a"))),
		packets.TypePingreq:     packet(0xc0, nil),
		packets.TypeDisconnect:  packet(0xe0, nil),
	}
	return m
}

// Reserved flags of every packet type.
//
// Proves 5.0 [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.14.1-1]; 3.1.1 [MQTT-2.2.2-1] [MQTT-2.2.2-2] [MQTT-3.6.1-1] [MQTT-3.14.1-1].
func TestMalformed_MQTT_2_1_3_1_ReservedFlags(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		for typ, good := range samples(v) {
			if typ == packets.TypePublish {
				continue
			}
			for flags := range byte(16) {
				if good[0]&15 == flags {
					continue
				}
				c := shared(t).connect(t, v, name(t))
				b := bytes.Clone(good)
				b[0] = b[0]&0xf0 | flags
				c.write(b)
				c.rejected(packets.CodeMalformedPacket)
			}
		}
		for flags := byte(1); flags < 16; flags++ { // of a CONNECT, before there is anything to disconnect
			c := shared(t).dial(t)
			b := (&packets.Connect{CleanStart: true, ClientID: []byte("x")}).AppendTo(nil, v)
			b[0] |= flags
			c.v = v
			c.write(b)
			refusedOrClosed(c, packets.CodeMalformedPacket)
		}
	})
}

// Packets that only a server sends, and packet types that do not exist.
//
// Proves 5.0 [MQTT-4.13.1-1] [§2.1.2]; 3.1.1 [MQTT-4.8.0-1].
func TestMalformed_ServerPackets(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		for _, p := range []packets.Packet{
			&packets.Connack{}, &packets.Suback{PacketID: 1, Codes: []packets.Code{0}},
			&packets.Unsuback{PacketID: 1, Codes: []packets.Code{0}}, &packets.Ping{Type: packets.TypePingresp},
		} {
			c := shared(t).connect(t, v, name(t))
			b := p.AppendTo(nil, v)
			if _, err := c.nc.Write(b); err != nil {
				t.Fatal(err)
			}
			c.rejected(packets.CodeProtocolError)
		}
		for _, first := range []byte{0x00, 0x0f} {
			c := shared(t).connect(t, v, name(t))
			c.raw(first, 0)
			c.rejected(packets.CodeMalformedPacket)
		}
		c := shared(t).connect(t, v, name(t))
		c.raw(0xf0, 0) // AUTH: in MQTT 3 no type at all
		c.rejected(packets.CodeProtocolError)
	})
}

// Packets cut short and packets with bytes too many.
//
// Proves 5.0 [MQTT-4.13.1-1] [MQTT-2.2.1-5]; 3.1.1 [MQTT-4.8.0-1].
func TestMalformed_LengthsThatDoNotFit(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		for typ, good := range samples(v) {
			full := good[2:]
			for n := range full {
				if typ == packets.TypePublish && n >= len(full)-1 {
					continue // a shorter payload
				}
				c := shared(t).connect(t, v, name(t))
				c.write(packet(good[0], full[:n]))
				c.rejected(packets.CodeMalformedPacket, packets.CodeProtocolError, packets.CodeTopicFilterInvalid)
			}
			if typ == packets.TypePublish {
				continue
			}
			for _, surplus := range [][]byte{{0}, {0xff}, {0, 0, 0}} {
				if v == packets.V5 && (typ >= packets.TypePuback && typ <= packets.TypePubcomp || typ == packets.TypeDisconnect) && surplus[0] == 0 {
					if len(surplus) == 1 {
						continue // a reason code
					}
				}
				c := shared(t).connect(t, v, name(t))
				c.write(packet(good[0], append(bytes.Clone(full), surplus...)))
				if typ == packets.TypeDisconnect && v == packets.V5 { // 00 00 00: code, no properties, surplus
					c.rejected(packets.CodeMalformedPacket, packets.CodeProtocolError)
					continue
				}
				c.rejected(packets.CodeMalformedPacket, packets.CodeProtocolError, packets.CodeTopicFilterInvalid)
			}
		}
	})
}

// Proves 5.0 [MQTT-1.5.5-1] [§2.1.4]; 3.1.1 [§2.2.3].
func TestMalformed_MQTT_1_5_5_1_RemainingLength(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		for _, b := range [][]byte{
			{0xc0, 0x80, 0x00},
			{0xc0, 0x80, 0x80, 0x00},
			{0xc0, 0x80, 0x80, 0x80, 0x00},
			{0xc0, 0xff, 0xff, 0xff, 0xff},
			{0xc0, 0x80, 0x80, 0x80, 0x80, 0x00},
			{0x30, 0x80, 0x80, 0x80, 0x80, 0x01},
		} {
			c := shared(t).connect(t, v, name(t))
			c.write(b)
			c.rejected(packets.CodeMalformedPacket)
		}
	})
	for _, b := range [][]byte{ // the property length is such an integer, too
		packet(0x30, append(str("a"), 0x80, 0x00)),
		packet(0x30, append(str("a"), 0xff, 0xff, 0xff, 0xff, 0x01)),
		packet(0x82, append([]byte{0, 1, 0x80, 0x00}, append(str("a"), 0)...)),
	} {
		c := shared(t).connect(t, packets.V5, name(t))
		c.write(b)
		c.rejected(packets.CodeMalformedPacket)
	}
}

// prop is one well-formed property and where the specification lets it stand.
type prop struct {
	id     byte
	value  []byte
	where  string // the letters of places: C W P a s u D A
	repeat bool
}

// Places: C CONNECT, W will, P PUBLISH, a PUBACK, r PUBREC, l PUBREL, c PUBCOMP,
// s SUBSCRIBE, u UNSUBSCRIBE, D DISCONNECT, A AUTH, - only the server.
var allProps = []prop{
	{packets.PropPayloadFormat, []byte{0}, "WP", false},
	{packets.PropMessageExpiry, []byte{0, 0, 0, 9}, "WP", false},
	{packets.PropContentType, str("x"), "WP", false},
	{packets.PropResponseTopic, str("x"), "WP", false},
	{packets.PropCorrelationData, str("x"), "WP", false},
	{packets.PropSubscriptionID, []byte{1}, "s", false},
	{packets.PropSessionExpiry, []byte{0, 0, 0, 9}, "CD", false},
	{packets.PropAssignedClientID, str("x"), "", false},
	{packets.PropServerKeepAlive, []byte{0, 9}, "", false},
	{packets.PropAuthMethod, str("x"), "CA", false},
	{packets.PropAuthData, str("x"), "CA", false},
	{packets.PropRequestProblemInfo, []byte{1}, "C", false},
	{packets.PropWillDelay, []byte{0, 0, 0, 9}, "W", false},
	{packets.PropRequestResponseInfo, []byte{1}, "C", false},
	{packets.PropResponseInfo, str("x"), "", false},
	{packets.PropServerReference, str("x"), "", false},
	{packets.PropReasonString, str("x"), "arlcDA", false},
	{packets.PropReceiveMaximum, []byte{0, 9}, "C", false},
	{packets.PropTopicAliasMaximum, []byte{0, 9}, "C", false},
	{packets.PropTopicAlias, []byte{0, 1}, "P", false},
	{packets.PropMaximumQoS, []byte{1}, "", false},
	{packets.PropRetainAvailable, []byte{1}, "", false},
	{packets.PropUser, append(str("k"), str("v")...), "CWParlcsuDA", true},
	{packets.PropMaximumPacketSize, []byte{0, 1, 0, 0}, "C", false},
	{packets.PropWildcardAvailable, []byte{1}, "", false},
	{packets.PropSubscriptionIDsAllowed, []byte{1}, "", false},
	{packets.PropSharedAvailable, []byte{1}, "", false},
	{0, []byte{0}, "", false},
	{4, []byte{0}, "", false},
	{10, []byte{0}, "", false},
	{20, []byte{0}, "", false},
	{43, []byte{0}, "", false},
	{127, []byte{0}, "", false},
	{0x80, []byte{1, 0}, "", false},
	{0xff, []byte{0}, "", false},
}

func section(list ...prop) []byte {
	var b []byte
	for _, p := range list {
		b = append(append(b, p.id), p.value...)
	}
	return append([]byte{byte(len(b))}, b...)
}

// within puts a property section into a packet of a place.
func within(t *testing.T, place byte, props []byte) []byte {
	one := []byte{0, 1}
	switch place {
	case 'C':
		return connectBytes("MQTT", 5, 2, props, str(name(t)))
	case 'W':
		return connectBytes("MQTT", 5, 2|4, []byte{0}, str(name(t)), props, str("will"), str("gone"))
	case 'P':
		return packet(0x30, append(append(str("a"), props...), 'x'))
	case 'a', 'r', 'l', 'c':
		header := map[byte]byte{'a': 0x40, 'r': 0x50, 'l': 0x62, 'c': 0x70}[place]
		return packet(header, append(append(one, 0), props...))
	case 's':
		return packet(0x82, append(append(append(one, props...), str("a")...), 0))
	case 'u':
		return packet(0xa2, append(append(one, props...), str("a")...))
	case 'D':
		return packet(0xe0, append([]byte{0}, props...))
	}
	return packet(0xf0, append([]byte{0x18}, props...))
}

// Every property in every place: accepted where it may stand, refused where it
// may not, and refused twice.
//
// Proves 5.0 [MQTT-4.13.1-1] [§2.2.2.2] [§3.1.2.11] [§3.3.2.3] [§3.14.2.2] [MQTT-2.2.2-1].
func TestMalformed_Properties(t *testing.T) {
	t.Parallel()
	for _, place := range []byte("CWParlcsuDA") {
		t.Run(string(place), func(t *testing.T) {
			t.Parallel()
			for _, p := range allProps {
				allowed := bytes.IndexByte([]byte(p.where), place) >= 0
				probe(t, place, section(p), allowed, packets.CodeMalformedPacket, packets.CodeProtocolError)
				if allowed {
					probe(t, place, section(p, p), p.repeat, packets.CodeProtocolError)
					cut := section(p)
					cut = append([]byte{byte(len(cut) - 2)}, cut[1:len(cut)-1]...) // its last byte is missing
					probe(t, place, cut, false, packets.CodeMalformedPacket)
				}
			}
			probe(t, place, []byte{200}, false, packets.CodeMalformedPacket) // longer than the packet
		})
	}
}

// probe sends one packet with a property section and checks whether it is
// taken.
func probe(t *testing.T, place byte, props []byte, ok bool, codes ...packets.Code) {
	t.Helper()
	b := within(t, place, props)
	if place == 'C' || place == 'W' {
		c := shared(t).dial(t)
		c.write(b)
		ack := want[*packets.Connack](c)
		switch {
		case ack.Code == packets.CodeBadAuthenticationMethod && ok:
		case ack.Code == packets.CodeProtocolError && len(props) > 1 && props[1] == packets.PropAuthData:
		case ok != (ack.Code == 0):
			t.Errorf("%c % x: CONNACK with %s", place, props, ack.Code)
		case !ok && !oneOf(ack.Code, codes):
			t.Errorf("%c % x: CONNACK with %s, want %v", place, props, ack.Code, codes)
		}
		return
	}
	c := shared(t).connect(t, packets.V5, name(t), fresh(300))
	c.write(b)
	switch {
	case place == 'A':
		c.rejected(packets.CodeProtocolError, packets.CodeMalformedPacket)
	case !ok:
		c.rejected(codes...)
	case place == 'D':
		c.closed()
	default:
		c.alive()
	}
}

func oneOf(code packets.Code, codes []packets.Code) bool {
	for _, c := range codes {
		if c == code {
			return true
		}
	}
	return false
}

// Values that a property must not have.
//
// Proves 5.0 [§3.1.2.11.3] [§3.1.2.11.4] [§3.1.2.11.6] [§3.1.2.11.7] [§3.1.2.11.10] [§3.3.2.3.2].
func TestMalformed_PropertyValues(t *testing.T) {
	t.Parallel()
	for _, p := range []prop{
		{id: packets.PropReceiveMaximum, value: []byte{0, 0}},
		{id: packets.PropMaximumPacketSize, value: []byte{0, 0, 0, 0}},
		{id: packets.PropRequestProblemInfo, value: []byte{2}},
		{id: packets.PropRequestResponseInfo, value: []byte{0xff}},
		{id: packets.PropAuthData, value: str("without a method")},
	} {
		probe(t, 'C', section(p), false, packets.CodeProtocolError)
	}
	probe(t, 'W', section(prop{id: packets.PropPayloadFormat, value: []byte{2}}), false, packets.CodeProtocolError)
	probe(t, 'P', section(prop{id: packets.PropPayloadFormat, value: []byte{2}}), false, packets.CodeProtocolError)
}

// ill lists strings that are no UTF-8 of MQTT.
var ill = []string{"\xff", "a\xc0\xaf", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf4\x90\x80\x80", "\xe2\x82", "\x80", "a\x00b", "\x00", "\xfe\xff"}

// Every string field of every packet.
//
// Proves 5.0 [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.7-1] [MQTT-3.1.3-4] [MQTT-3.1.3-12] [MQTT-3.1.3-11]; 3.1.1 [MQTT-1.5.3-1] [MQTT-1.5.3-2] [MQTT-3.1.3-4] [MQTT-3.1.3-10] [MQTT-3.1.3-11].
func TestMalformed_MQTT_1_5_4_1_Text(t *testing.T) {
	t.Parallel()
	for _, text := range ill {
		for _, v := range []packets.Version{packets.V311, packets.V5} {
			for _, p := range []*packets.Connect{
				{ClientID: []byte(text)},
				{ClientID: []byte("x"), HasUsername: true, Username: []byte(text)},
				{ClientID: []byte("x"), HasWill: true, Will: packets.Will{Topic: []byte(text)}},
			} {
				p.CleanStart = true
				malformedConnect(t, v, p.AppendTo(nil, v), packets.CodeMalformedPacket)
			}
		}
		for place, ids := range map[byte][]byte{
			'C': {packets.PropAuthMethod}, 'W': {packets.PropContentType, packets.PropResponseTopic},
			'P': {packets.PropContentType, packets.PropResponseTopic}, 'a': {packets.PropReasonString}, 'r': {packets.PropReasonString},
			'l': {packets.PropReasonString}, 'c': {packets.PropReasonString}, 'D': {packets.PropReasonString},
		} {
			for _, id := range ids {
				probe(t, place, section(prop{id: id, value: str(text)}), false, packets.CodeMalformedPacket)
			}
		}
		for _, place := range []byte("CWParlcsuD") {
			probe(t, place, section(prop{id: packets.PropUser, value: append(str(text), str("v")...)}), false, packets.CodeMalformedPacket)
			probe(t, place, section(prop{id: packets.PropUser, value: append(str("k"), str(text)...)}), false, packets.CodeMalformedPacket)
		}
	}
}

// A byte order mark is a character like others, and so are the codes that
// Unicode calls non-characters.
//
// Proves 5.0 [MQTT-1.5.4-3]; 3.1.1 [MQTT-1.5.3-3].
func TestMalformed_MQTT_1_5_4_3_ByteOrderMark(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		topic := name(t)
		for _, odd := range []string{"\ufeff" + topic, topic + "\ufeff", topic + "/\ufeff/x", topic + "\uffff", topic + "\u0001\u007f", topic + "\U0010ffff"} {
			p, s := shared(t).connect(t, v, name(t)), shared(t).connect(t, v, name(t))
			s.mustSubscribe(odd, 1)
			p.publish(message(odd, 1, "x"))
			s.expect(odd, "x")
			p.publish(message(topic, 1, "x"))
			s.quiet()
		}
		a := shared(t).connect(t, v, topic)
		shared(t).connect(t, v, "\ufeff"+topic) // another client
		a.quiet()
	})
}

// A user name and a password may be anything of their types.
//
// Proves 5.0 [§3.1.3.5] [§3.1.3.6]; 3.1.1 [§3.1.3.4] [§3.1.3.5].
func TestConnect_Credentials(t *testing.T) {
	t.Parallel()
	for _, v := range []packets.Version{packets.V31, packets.V311, packets.V5} {
		for _, n := range []int{0, 1, 1000, 20000} {
			shared(t).connect(t, v, name(t), func(c *packets.Connect) {
				c.HasUsername, c.HasPassword = true, true
				c.Username, c.Password = bytes.Repeat([]byte("u"), n), bytes.Repeat([]byte{0, 0xff}, n)
			})
		}
	}
}

// The stream may be cut anywhere: a packet in single bytes, and a thousand
// packets in one write.
//
// Proves 5.0 [MQTT-4.2.0-1]; 3.1.1 [MQTT-7.1.1-1].
func TestStream_MQTT_4_2_0_1_AnyPieces(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		topic := name(t)
		c := shared(t).dial(t)
		c.v = v
		b := (&packets.Connect{CleanStart: true, ClientID: []byte(name(t))}).AppendTo(nil, v)
		b = (&packets.Subscribe{PacketID: 1, Filters: []packets.Subscription{{Filter: []byte(topic), Options: 2}}}).AppendTo(b, v)
		for i := range 3 {
			m := message(topic, byte(i), fmt.Sprint(i))
			if i > 0 {
				m.PacketID = uint16(i + 10)
			}
			b = m.AppendTo(b, v)
		}
		b = append(b, packets.Pingreq...)
		c.strict.v = v
		c.strict.sent(b)
		for i := range b {
			if _, err := c.nc.Write(b[i : i+1]); err != nil {
				t.Fatal(err)
			}
		}
		must(t, "CONNACK", c.welcome().Code, 0)
		c.suback(1)
		c.ack(packets.TypePuback, 11)
		c.ack(packets.TypePubrec, 12)
		c.await(func(p packets.Packet) bool { _, ok := p.(*packets.Ping); return ok })
		for i := range 3 {
			c.see(topic, fmt.Sprint(i))
		}
	})
	versions(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			p, s, topic := pair(t, v, 1, home...)
			const n = 1000
			var b []byte
			for i := range n {
				m := message(topic, 1, fmt.Sprint(i))
				m.PacketID = uint16(i + 1)
				b = m.AppendTo(b, v)
			}
			p.write(b)
			for i := range n {
				s.expect(topic, fmt.Sprint(i))
			}
			for i := range n {
				if a := want[*packets.Ack](p); a.Type != packets.TypePuback || a.PacketID != uint16(i+1) {
					t.Fatalf("got %s", describe(a))
				}
			}
		})
	})
}

// Who does not send a CONNECT in reasonable time is closed.
//
// Proves 5.0 [§3.1.4]; 3.1.1 [§3.1.4].
func TestConnect_Timeout(t *testing.T) {
	t.Parallel()
	in := start(t, func(o *broker.Options) { o.Limits.ConnectTimeout = 300 * time.Millisecond })
	for _, first := range [][]byte{nil, {0x10}, {0x10, 0x40, 0, 4, 'M', 'Q'}} {
		began := time.Now()
		c := in.dial(t)
		if len(first) > 0 {
			c.write(first)
		}
		c.closed()
		if d := time.Since(began); d < 300*time.Millisecond || d > 10*time.Second {
			t.Errorf("closed after %v", d)
		}
	}
	c := in.connect(t, packets.V5, name(t))
	<-time.After(500 * time.Millisecond)
	c.quiet()
}
