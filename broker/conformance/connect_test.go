package conformance

import (
	"bytes"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/packets"
)

// Proves 5.0 [MQTT-3.1.4-5] [MQTT-3.2.0-1]; 3.1.1 [MQTT-3.1.4-4] [MQTT-3.2.0-1] [MQTT-7.0.0-2].
func TestConnect_MQTT_3_1_4_5_Accepted(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		c := shared(t).connect(t, v, name(t))
		c.quiet()
	})
	t.Run("v3.1", func(t *testing.T) {
		c := shared(t).connect(t, packets.V31, name(t))
		c.quiet()
	})
}

// Proves 5.0 [MQTT-3.1.0-1]; 3.1.1 [MQTT-3.1.0-1].
func TestConnect_MQTT_3_1_0_1_MustBeFirst(t *testing.T) {
	t.Parallel()
	for _, p := range []packets.Packet{
		&packets.Ping{Type: packets.TypePingreq}, message("a", 0, "x"), &packets.Disconnect{},
		&packets.Subscribe{PacketID: 1, Filters: []packets.Subscription{{Filter: []byte("a")}}},
		&packets.Ack{Type: packets.TypePubrel, PacketID: 1}, &packets.Connack{}, &packets.Auth{Code: packets.CodeReauthenticate},
	} {
		for _, v := range []packets.Version{packets.V311, packets.V5} {
			c := shared(t).dial(t)
			c.v = v
			c.send(p)
			c.closed()
		}
	}
}

// Proves 5.0 [MQTT-3.1.0-2]; 3.1.1 [MQTT-3.1.0-2].
func TestConnect_MQTT_3_1_0_2_OnlyOnce(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		id := name(t)
		c := shared(t).connect(t, v, id)
		c.send(&packets.Connect{CleanStart: true, ClientID: []byte(id)})
		c.rejected(packets.CodeProtocolError)
	})
}

// connectBytes builds a CONNECT by hand.
func connectBytes(protocol string, level, flags byte, rest ...[]byte) []byte {
	body := append([]byte{0, byte(len(protocol))}, protocol...)
	body = append(body, level, flags, 0, 0)
	for _, r := range rest {
		body = append(body, r...)
	}
	return packet(0x10, body)
}

// packet puts a fixed header before a body.
func packet(header byte, body []byte) []byte {
	b := []byte{header}
	n := len(body)
	for {
		d := byte(n & 0x7f)
		if n >>= 7; n > 0 {
			d |= 0x80
		}
		b = append(b, d)
		if n == 0 {
			return append(b, body...)
		}
	}
}

// str is a string field.
func str(s string) []byte { return append([]byte{byte(len(s) >> 8), byte(len(s))}, s...) }

// Proves 5.0 [MQTT-3.1.2-1]; 3.1.1 [MQTT-3.1.2-1].
func TestConnect_MQTT_3_1_2_1_ProtocolName(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"", "mqtt", "MQTT ", "MQTX", "MQIsdq", "MQTTMQTT"} {
		for _, level := range []byte{4, 5} {
			c := shared(t).dial(t)
			c.v = packets.Version(level)
			rest := [][]byte{str("x")}
			if level == 5 {
				rest = [][]byte{{0}, str("x")}
			}
			c.write(connectBytes(protocol, level, 2, rest...))
			refusedOrClosed(c, packets.CodeUnsupportedProtocolVersion)
		}
	}
}

// refusedOrClosed checks that a CONNECT is refused with a code, or without a
// CONNACK, and the connection closed.
func refusedOrClosed(c *client, code packets.Code) {
	c.t.Helper()
	p, err := c.read()
	if err != nil {
		c.pending = nil
		if !isGone(err) {
			c.t.Fatalf("the connection stays open: %v", err)
		}
		return
	}
	ack, ok := p.(*packets.Connack)
	if !ok || ack.Code != code {
		c.t.Fatalf("got %s, want a CONNACK with %s", describe(p), code)
	}
	c.closed()
}

// refused checks that a CONNECT is refused with a code and the connection
// closed.
func refused(c *client, code packets.Code) {
	c.t.Helper()
	ack := want[*packets.Connack](c)
	if ack.Code != code || ack.SessionPresent {
		c.t.Fatalf("CONNACK with %s (session present %v), want %s", ack.Code, ack.SessionPresent, code)
	}
	c.closed()
	c.blamed(code)
}

// Proves 5.0 [MQTT-3.1.2-2]; 3.1.1 [MQTT-3.1.2-2].
func TestConnect_MQTT_3_1_2_2_ProtocolLevel(t *testing.T) {
	t.Parallel()
	for _, level := range []byte{0, 1, 2, 3, 6, 7, 0x83, 0x84, 0xff} {
		c := shared(t).dial(t)
		c.v = packets.V311
		if level > 5 {
			c.v = packets.V5
		}
		c.write(connectBytes("MQTT", level, 2, []byte{0}, str("x")))
		refused(c, packets.CodeUnsupportedProtocolVersion)
	}
	for _, level := range []byte{2, 4, 5} {
		c := shared(t).dial(t)
		c.v = packets.V311
		if level == 5 {
			c.v = packets.V5
		}
		c.write(connectBytes("MQIsdp", level, 2, str("x")))
		refused(c, packets.CodeUnsupportedProtocolVersion)
	}
}

// malformedConnect sends a CONNECT that is not one: MQTT 5 names the fault,
// MQTT 3.1.1 closes without a CONNACK.
func malformedConnect(t *testing.T, v packets.Version, b []byte, codes ...packets.Code) {
	t.Helper()
	c := shared(t).dial(t)
	c.v = v
	c.write(b)
	if v != packets.V5 {
		c.closed()
		c.blamed(packets.CodeMalformedPacket, packets.CodeProtocolError, packets.CodeUnsupportedProtocolVersion)
		return
	}
	ack := want[*packets.Connack](c)
	ok := false
	for _, code := range codes {
		ok = ok || ack.Code == code
	}
	if !ok || ack.SessionPresent {
		t.Fatalf("% x: CONNACK with %s, want %v", b, ack.Code, codes)
	}
	c.closed()
	c.blamed(ack.Code)
}

// Proves 5.0 [MQTT-3.1.2-3]; 3.1.1 [MQTT-3.1.2-3].
func TestConnect_MQTT_3_1_2_3_ReservedFlag(t *testing.T) {
	t.Parallel()
	malformedConnect(t, packets.V311, connectBytes("MQTT", 4, 3, str("x")))
	malformedConnect(t, packets.V5, connectBytes("MQTT", 5, 3, []byte{0}, str("x")), packets.CodeMalformedPacket)
}

// Proves 5.0 [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13]; 3.1.1 [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-14] [MQTT-3.1.2-15].
func TestConnect_MQTT_3_1_2_11_WillFlags(t *testing.T) {
	t.Parallel()
	for _, flags := range []byte{0x08, 0x10, 0x18, 0x20, 0x28} { // without a will
		malformedConnect(t, packets.V311, connectBytes("MQTT", 4, 2|flags, str("x")))
		malformedConnect(t, packets.V5, connectBytes("MQTT", 5, 2|flags, []byte{0}, str("x")), packets.CodeMalformedPacket)
	}
	will := append(str("will"), str("gone")...)
	malformedConnect(t, packets.V311, connectBytes("MQTT", 4, 2|4|0x18, str("x"), will))
	malformedConnect(t, packets.V5, connectBytes("MQTT", 5, 2|4|0x18, []byte{0}, str("x"), []byte{0}, will), packets.CodeMalformedPacket)
}

// The fields that the connect flags announce must be there, and no others.
//
// Proves 5.0 [MQTT-3.1.2-9] [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.4-1]; 3.1.1 [MQTT-3.1.2-9] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.2-20] [MQTT-3.1.2-21] [MQTT-3.1.4-1].
func TestConnect_MQTT_3_1_2_16_FieldsAndFlags(t *testing.T) {
	t.Parallel()
	cases := []struct {
		what  string
		flags byte
		rest  []byte // after the client identifier
		will  bool
	}{
		{what: "user name without flag", flags: 2, rest: str("user")},
		{what: "user name missing", flags: 2 | 0x80},
		{what: "password without flag", flags: 2 | 0x80, rest: append(str("user"), str("secret")...)},
		{what: "password missing", flags: 2 | 0x80 | 0x40, rest: str("user")},
		{what: "will missing", flags: 2 | 4},
		{what: "will payload missing", flags: 2 | 4, rest: str("will"), will: true},
		{what: "will without flag", flags: 2, rest: append(str("will"), str("gone")...)},
		{what: "surplus byte", flags: 2, rest: []byte{0}},
	}
	for _, tc := range cases {
		t.Run(tc.what, func(t *testing.T) {
			malformedConnect(t, packets.V311, connectBytes("MQTT", 4, tc.flags, str("x"), tc.rest))
			rest := tc.rest
			if tc.will {
				rest = append([]byte{0}, rest...)
			}
			malformedConnect(t, packets.V5, connectBytes("MQTT", 5, tc.flags, []byte{0}, str("x"), rest), packets.CodeMalformedPacket)
		})
	}
}

// papers keeps what the broker has read of a CONNECT.
type papers struct {
	got chan string
}

func (p papers) Authenticate(c broker.ClientInfo, password []byte) bool {
	p.got <- c.ClientID + "," + c.Username + "," + string(password)
	return true
}

func (papers) Authorize(broker.ClientInfo, string, bool) bool { return true }

// Client identifier, will topic, will payload, user name and password are taken
// for what they are by their place.
//
// Proves 5.0 [MQTT-3.1.3-1]; 3.1.1 [MQTT-3.1.3-1].
func TestConnect_MQTT_3_1_3_1_Order(t *testing.T) {
	t.Parallel()
	p := papers{make(chan string, 1)}
	in := start(t, func(o *broker.Options) { o.Authenticator = p })
	s := in.connect(t, packets.V5, "sub")
	<-p.got
	s.mustSubscribe("third", 0)
	for _, v := range []packets.Version{packets.V311, packets.V5} {
		var none []byte // no properties
		if v == packets.V5 {
			none = []byte{0}
		}
		c := in.dial(t)
		c.v = v
		c.write(connectBytes("MQTT", byte(v), 2|4|0x40|0x80, none, str("second"), none, str("third"), str("fourth"), str("fifth"), str("sixth")))
		must(t, "CONNACK", c.welcome().Code, packets.CodeSuccess)
		if got := <-p.got; got != "second,fifth,sixth" {
			t.Fatalf("client identifier, user name, password: %s", got)
		}
		c.cut()
		s.expect("third", "fourth")
	}
}

// Proves 3.1.1 [MQTT-3.1.2-22].
func TestConnect_MQTT_3_1_2_22_PasswordWithoutUser(t *testing.T) {
	t.Parallel()
	malformedConnect(t, packets.V311, connectBytes("MQTT", 4, 2|0x40, str("x"), str("secret")))
	c := shared(t).dial(t) // MQTT 5 allows it (section 3.1.2.9)
	c.write(connectBytes("MQTT", 5, 2|0x40, []byte{0}, str(name(t)), str("secret")))
	must(t, "password without user name", c.welcome().Code, packets.CodeSuccess)
}

// Proves 5.0 [MQTT-3.1.3-3]; 3.1.1 [MQTT-3.1.3-3].
func TestConnect_MQTT_3_1_3_3_ClientIDPresent(t *testing.T) {
	t.Parallel()
	malformedConnect(t, packets.V311, connectBytes("MQTT", 4, 2))
	malformedConnect(t, packets.V5, connectBytes("MQTT", 5, 2, []byte{0}), packets.CodeMalformedPacket)
}

// Proves 5.0 [MQTT-3.1.3-5]; 3.1.1 [MQTT-3.1.3-5].
func TestConnect_MQTT_3_1_3_5_ClientIDs(t *testing.T) {
	t.Parallel()
	const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, v := range []packets.Version{packets.V31, packets.V311, packets.V5} {
		for n := 1; n <= 23; n++ {
			shared(t).connect(t, v, letters[62-n-int(v):62-int(v)])
		}
		for i := range letters {
			shared(t).connect(t, v, letters[i:i+1])
		}
		if v != packets.V31 {
			shared(t).connect(t, v, strings.Repeat("x", 1000)+"äöü 漢字 "+name(t)) // more than must be
		}
	}
}

// Proves 5.0 [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]; 3.1.1 [MQTT-3.1.3-6].
func TestConnect_MQTT_3_1_3_6_EmptyClientID(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		topic := name(t)
		a, b := shared(t).connect(t, v, ""), shared(t).connect(t, v, "")
		a.mustSubscribe(topic, 0) // both live: they were given different identifiers
		b.mustSubscribe(topic, 0)
		b.publish(message(topic, 0, "hello"))
		a.expect(topic, "hello")
		b.expect(topic, "hello")
	})
	a := shared(t).connect(t, packets.V5, "", fresh(60))
	b := shared(t).connect(t, packets.V5, "", resume(60))
	id := a.connack.Props.AssignedClientID
	if len(id) == 0 || bytes.Equal(id, b.connack.Props.AssignedClientID) {
		t.Fatalf("assigned %q and %q", id, b.connack.Props.AssignedClientID)
	}
	a.bye(0)
	again := shared(t).connect(t, packets.V5, string(id), resume(60))
	if !again.connack.SessionPresent {
		t.Error("the assigned identifier does not name the session")
	}
}

// A CONNECT may be as large as the broker's limit before authentication.
//
// Proves 5.0 [§3.2.2.2] [MQTT-3.1.4-1]; 3.1.1 [MQTT-3.2.2-6].
func TestConnect_TooLarge(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		sized := func(n int) []byte {
			p := &packets.Connect{CleanStart: true, ClientID: []byte(name(t)), HasUsername: true, HasPassword: true}
			p.Password = make([]byte, n-len(p.AppendTo(nil, v))-2) // the length grows by two bytes as well
			return p.AppendTo(nil, v)
		}
		c := shared(t).dial(t)
		c.v = v
		c.write(sized(64 << 10))
		must(t, "64 KiB", c.welcome().Code, packets.CodeSuccess)
		c = shared(t).dial(t)
		c.v = v
		c.write(sized(64<<10 + 1))
		if v != packets.V5 {
			c.closed()
			return
		}
		refused(c, packets.CodePacketTooLarge)
	})
}

// Proves 5.0 [MQTT-3.1.3-8]; 3.1.1 [MQTT-3.1.3-8] [MQTT-3.1.3-9] [MQTT-3.2.2-4] [MQTT-3.2.2-5].
func TestConnect_MQTT_3_1_3_8_EmptyClientIDRefused(t *testing.T) {
	t.Parallel()
	c := shared(t).dial(t)
	c.v = packets.V311
	c.write(connectBytes("MQTT", 4, 0, str("")))
	refused(c, packets.CodeClientIdentifierNotValid)
	c = shared(t).dial(t) // MQTT 3.1 has no empty identifier at all
	c.v = packets.V31
	c.write(connectBytes("MQIsdp", 3, 2, str("")))
	refused(c, packets.CodeClientIdentifierNotValid)
}

// Proves 5.0 [MQTT-3.1.4-3]; 3.1.1 [MQTT-3.1.4-2].
func TestConnect_MQTT_3_1_4_3_TakeOver(t *testing.T) {
	t.Parallel()
	kinds := map[string]with{"ephemeral": func(*packets.Connect) {}, "durable": resume(60), "durable clean": fresh(60)}
	for before, first := range kinds {
		for after, second := range kinds {
			t.Run(before+" then "+after, func(t *testing.T) {
				everyVersion(t, func(t *testing.T, v packets.Version) {
					id := name(t)
					old := shared(t).connect(t, v, id, first)
					old.mustSubscribe(id, 1)
					young := shared(t).connect(t, v, id, second)
					old.rejected(packets.CodeSessionTakenOver)
					if present := before != "ephemeral" && after == "durable"; v == packets.V5 && young.connack.SessionPresent != present {
						t.Errorf("session present %v", !present)
					}
					young.quiet()
				})
			})
		}
	}
}

// A connection that was taken over gets nothing after the DISCONNECT, though
// its client goes on acknowledging and messages wait for it.
//
// Proves 5.0 [MQTT-3.14.4-1] [MQTT-3.1.4-3]; 3.1.1 [MQTT-3.1.4-2].
func TestConnect_MQTT_3_14_4_1_TakeOverWhileBusy(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			for range 8 {
				id := name(t)
				if v == packets.V5 {
					home = append(home[:len(home):len(home)], receiveMaximum(4))
				}
				c := shared(t).connect(t, v, id, home...)
				c.mustSubscribe(id, 2)
				p := shared(t).connect(t, v, name(t))
				var b []byte
				for i := range 600 {
					m := message(id, byte(1+i%2), "x")
					m.PacketID = uint16(i + 1)
					b = m.AppendTo(b, v)
				}
				p.write(b)
				p.fence()
				young := shared(t).dial(t)
				hello := &packets.Connect{CleanStart: true, ClientID: []byte(id)}
				for _, h := range home {
					h(hello)
				}
				young.v = v
				young.send(hello)
				for { // strict refuses anything behind the DISCONNECT
					q, err := c.read()
					if err != nil {
						break
					}
					switch q := q.(type) {
					case *packets.Publish:
						a := &packets.Ack{Type: packets.TypePuback, PacketID: q.PacketID}
						if q.QoS == 2 {
							a.Type = packets.TypePubrec
						}
						c.try(a)
					case *packets.Ack:
						c.try(&packets.Ack{Type: packets.TypePubcomp, PacketID: q.PacketID})
					}
				}
				young.welcome()
			}
		})
	})
}

// Proves 5.0 [MQTT-3.1.4-6]; 3.1.1 [MQTT-3.1.4-5].
func TestConnect_MQTT_3_1_4_6_NothingAfterRefusal(t *testing.T) {
	t.Parallel()
	topic := name(t)
	watch := shared(t).connect(t, packets.V5, name(t))
	watch.mustSubscribe(topic, 2)
	for _, v := range []packets.Version{packets.V311, packets.V5} {
		c := shared(t).dial(t)
		c.v = v
		var b []byte
		if v == packets.V311 {
			b = connectBytes("MQTT", 4, 0, str(""))
		} else {
			b = connectBytes("MQTT", 5, 3, []byte{0}, str("x"))
		}
		for _, p := range []*packets.Publish{message(topic, 0, "zero"), retained(topic, 1, "one"), message(topic, 2, "two")} {
			p.PacketID = 7
			b = p.AppendTo(b, v)
		}
		if _, err := c.nc.Write(b); err != nil {
			t.Fatal(err)
		}
		c.strict.v = v
		p, err := c.read()
		if err == nil {
			if ack, ok := p.(*packets.Connack); !ok || ack.Code == 0 {
				t.Fatalf("got %s", describe(p))
			}
			c.closed()
		}
		watch.settled()
	}
}
