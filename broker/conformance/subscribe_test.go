package conformance

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/packets"
)

// Proves 5.0 [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2] [MQTT-2.2.1-6]; 3.1.1 [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-4] [MQTT-3.8.4-5] [MQTT-3.9.3-1] [MQTT-3.9.3-2] [MQTT-2.3.1-7].
func TestSubscribe_MQTT_3_8_4_6_CodesInOrder(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			topic := name(t)
			c := shared(t).connect(t, v, name(t), home...)
			filters := []string{topic + "/a", topic + "/#/b", topic + "/+", "$share//x", topic + "/b+", topic + "/c"}
			options := []byte{2, 1, 0, 1, 2, 1}
			invalid := packets.CodeTopicFilterInvalid
			if v != packets.V5 {
				invalid = packets.CodeUnspecifiedError
			}
			wantCodes := []packets.Code{2, invalid, 0, invalid, invalid, 1}
			for _, pid := range []uint16{1, 500, 65535} {
				p := &packets.Subscribe{PacketID: pid}
				for i, f := range filters {
					p.Filters = append(p.Filters, packets.Subscription{Filter: []byte(f), Options: options[i]})
				}
				c.send(p)
				if got := c.suback(pid).Codes; !slices.Equal(got, wantCodes) {
					t.Fatalf("got %v, want %v", got, wantCodes)
				}
			}
			shared(t).connect(t, v, name(t)).publish(message(topic+"/c", 2, "x"))
			if m := c.expect(topic+"/c", "x"); m.QoS != 1 {
				t.Errorf("got %s", describe(m))
			}
		})
	})
}

// MQTT 3.1 has no failure in its SUBACK: who may not subscribe is granted the
// QoS and gets nothing, and an invalid filter ends the connection.
//
// Proves 3.1.1 [§3.9.3].
func TestSubscribe_V31Failures(t *testing.T) {
	t.Parallel()
	in := start(t, func(o *broker.Options) { o.Authenticator = gate{} })
	c := in.connect(t, packets.V31, "bob", user("bob", "secret"))
	must(t, "not authorized", c.subscribe("eve/#", 1), 1)
	eve := in.connect(t, packets.V31, "eve", user("eve", "secret"))
	eve.publish(message("eve/x", 2, "x"))
	c.quiet()
	c.send(&packets.Subscribe{PacketID: 5, Filters: []packets.Subscription{{Filter: []byte("bob/#/x"), Options: 1}}})
	c.closed()
}

// Proves 5.0 [MQTT-3.8.1-1]; 3.1.1 [MQTT-3.8.1-1].
func TestSubscribe_MQTT_3_8_1_1_Flags(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		for flags := range byte(16) {
			if flags == 2 {
				continue
			}
			c := shared(t).connect(t, v, name(t))
			b := (&packets.Subscribe{PacketID: 1, Filters: []packets.Subscription{{Filter: []byte("a")}}}).AppendTo(nil, v)
			b[0] = 0x80 | flags
			c.write(b)
			c.rejected(packets.CodeMalformedPacket)
		}
	})
}

// Proves 5.0 [MQTT-3.8.3-2]; 3.1.1 [MQTT-3.8.3-3].
func TestSubscribe_MQTT_3_8_3_2_NoFilter(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		c := shared(t).connect(t, v, name(t))
		body := []byte{0, 1}
		if v == packets.V5 {
			body = append(body, 0)
		}
		c.write(packet(0x82, body))
		c.rejected(packets.CodeProtocolError)
	})
}

// Proves 5.0 [MQTT-3.8.3-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-3.10.3-1]; 3.1.1 [MQTT-3.8.3-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-3.10.3-1].
func TestSubscribe_MQTT_3_8_3_1_FilterText(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		for _, f := range []string{"", "\x00", "a/\x00/b", "\xff", "a\xed\xa0\x80", "\xc1\x81", "\xf5\x80\x80\x80", "\xe2\x82"} {
			code := packets.CodeMalformedPacket
			if f == "" {
				code = packets.CodeTopicFilterInvalid
			}
			c := shared(t).connect(t, v, name(t))
			c.send(&packets.Subscribe{PacketID: 1, Filters: []packets.Subscription{{Filter: []byte(f)}}})
			c.rejected(code, packets.CodeProtocolError)
			c = shared(t).connect(t, v, name(t))
			c.send(&packets.Unsubscribe{PacketID: 1, Filters: [][]byte{[]byte(f)}})
			c.rejected(code, packets.CodeProtocolError)
		}
	})
}

// Proves 5.0 [MQTT-3.8.3-5] [§3.8.3.1]; 3.1.1 [MQTT-3-8.3-4].
func TestSubscribe_MQTT_3_8_3_5_Options(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		options byte
		code    packets.Code
	}{
		{0x40, packets.CodeMalformedPacket},
		{0x80, packets.CodeMalformedPacket},
		{0xc1, packets.CodeMalformedPacket},
		{0x03, packets.CodeProtocolError},
		{0x30, packets.CodeProtocolError},
		{0x31, packets.CodeProtocolError},
	} {
		c := shared(t).connect(t, packets.V5, name(t))
		c.send(&packets.Subscribe{PacketID: 1, Filters: []packets.Subscription{{Filter: []byte("a"), Options: tc.options}}})
		c.rejected(tc.code)
	}
	for options := 3; options < 256; options++ {
		if options > 8 && options%16 != 0 {
			continue
		}
		c := shared(t).connect(t, packets.V311, name(t))
		c.write(packet(0x82, append(append([]byte{0, 1}, str("a")...), byte(options))))
		c.closed()
	}
}

// Proves 5.0 [MQTT-3.8.3-3].
func TestSubscribe_MQTT_3_8_3_3_NoLocal(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		topic := name(t)
		other := shared(t).connect(t, packets.V5, name(t))
		c := shared(t).connect(t, packets.V5, name(t), home...)
		c.mustSubscribe(topic, 2|noLocal)
		for qos := range byte(3) {
			c.publish(message(topic, qos, "mine"))
			c.quiet()
			other.publish(message(topic, qos, "yours"))
			c.expect(topic, "yours")
		}
		c.publish(retained(topic, 1, "mine"))
		c.quiet()
		// An overlapping subscription without it gets the message, at its own QoS.
		c.mustSubscribe(topic+"/#", 1|retainNever)
		c.publish(message(topic, 2, "mine"))
		if m := c.expect(topic, "mine"); m.QoS != 1 {
			t.Errorf("got %s", describe(m))
		}
		c.unsubscribe(topic + "/#")
		// Subscribing anew replaces the option both ways.
		c.mustSubscribe(topic, 2|retainNever)
		c.publish(message(topic, 2, "mine"))
		c.expect(topic, "mine")
		c.mustSubscribe(topic, 2|noLocal|retainNever)
		c.publish(message(topic, 2, "mine"))
		c.quiet()
	})
}

// It is the client identifier that counts, not the connection.
//
// Proves 5.0 [MQTT-3.8.3-3].
func TestSubscribe_MQTT_3_8_3_3_NoLocalByClientID(t *testing.T) {
	t.Parallel()
	topic := name(t)
	id := name(t)
	will := func(c *packets.Connect) {
		c.HasWill, c.Will.Topic, c.Will.Payload, c.Will.QoS = true, []byte(topic), []byte("my will"), 1
	}
	watch := shared(t).connect(t, packets.V5, name(t))
	watch.mustSubscribe(topic, 1)
	c := shared(t).connect(t, packets.V5, id, resume(300), will)
	c.mustSubscribe(topic, 1|noLocal)
	c.mustSubscribe(topic+"/else", 1|noLocal)
	c.bye(packets.CodeDisconnectWithWill)
	watch.expect(topic, "my will")
	c = shared(t).connect(t, packets.V5, id, resume(300), will)
	c.quiet()
	// Taken over: the will of the old connection is not for the new one.
	c = shared(t).connect(t, packets.V5, id, resume(300))
	watch.expect(topic, "my will")
	c.quiet()
}

// Proves 5.0 [MQTT-3.8.3-4].
func TestSubscribe_MQTT_3_8_3_4_NoLocalShared(t *testing.T) {
	t.Parallel()
	c := shared(t).connect(t, packets.V5, name(t))
	c.send(&packets.Subscribe{PacketID: 1, Filters: []packets.Subscription{{Filter: []byte("$share/g/a"), Options: 1 | noLocal}}})
	c.rejected(packets.CodeProtocolError)
}

// A second subscription to the same filter replaces the first: QoS, options
// and identifier, and no message is lost over it.
//
// Proves 5.0 [MQTT-3.8.4-3] [MQTT-3.8.4-4]; 3.1.1 [MQTT-3.8.4-3].
func TestSubscribe_MQTT_3_8_4_3_Replaces(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			topic := name(t)
			p, s := shared(t).connect(t, v, name(t)), shared(t).connect(t, v, name(t), home...)
			for i, qos := range []byte{0, 2, 1, 2, 0} {
				if code := s.subscribeID(topic, qos, uint32(i)); code != packets.Code(qos) {
					t.Fatal(code)
				}
				p.publish(message(topic, 2, "x"))
				m := s.expect(topic, "x")
				if m.QoS != qos {
					t.Fatalf("got %s", describe(m))
				}
				if ids := m.Props.SubscriptionIDs; v == packets.V5 && (i == 0) != (len(ids) == 0) || len(ids) > 1 || len(ids) == 1 && ids[0] != uint32(i) {
					t.Fatalf("subscription identifiers %v, want %d", ids, i)
				}
				s.quiet()
			}
			// Half way through a delivery.
			s.mustSubscribe(topic, 2)
			p.publish(message(topic, 2, "started"))
			m := s.see(topic, "started")
			s.mustSubscribe(topic, 0)
			s.complete(m)
			// Among a stream of messages.
			var b []byte
			const n = 100
			for i := range n {
				m := message(topic, 1, fmt.Sprint(i))
				m.PacketID = uint16(i + 100)
				b = m.AppendTo(b, v)
			}
			p.write(b)
			for i := range 10 {
				s.send(&packets.Subscribe{PacketID: uint16(1000 + i), Filters: []packets.Subscription{{Filter: []byte(topic), Options: byte(i % 3)}}})
			}
			next := 0
			for next < n {
				switch q := s.next().(type) {
				case *packets.Publish:
					if string(q.Payload) != fmt.Sprint(next) {
						t.Fatalf("got %s, want %d", describe(q), next)
					}
					next++
					s.complete(q)
				case *packets.Suback:
				default:
					t.Fatalf("got %s", describe(q))
				}
			}
		})
	})
}

// A message that several subscriptions of one client match comes once, with
// the greatest QoS and all their identifiers.
//
// Proves 5.0 [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]; 3.1.1 [MQTT-3.3.5-1].
func TestSubscribe_MQTT_3_3_4_2_Overlap(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			topic := name(t)
			p := shared(t).connect(t, v, name(t))
			id := name(t)
			s := shared(t).connect(t, v, id, home...)
			for i, f := range []string{topic + "/+", topic + "/#", topic + "/a", topic + "/a/#"} {
				if code := s.subscribeID(f, []byte{1, 0, 2, 1}[i], []uint32{1, 0, 268435455, 1000}[i]); code.IsError() {
					t.Fatal(code)
				}
			}
			check := func(m *packets.Publish, qos byte) {
				t.Helper()
				if m.QoS != qos {
					t.Errorf("got %s, want QoS %d", describe(m), qos)
				}
				ids := slices.Clone(m.Props.SubscriptionIDs)
				slices.Sort(ids)
				if v == packets.V5 && !slices.Equal(ids, []uint32{1, 1000, 268435455}) {
					t.Errorf("subscription identifiers %v", ids)
				}
			}
			for qos := range byte(3) {
				p.publish(message(topic+"/a", qos, "x"))
				check(s.expect(topic+"/a", "x"), qos)
				s.quiet()
			}
			if home != nil {
				s.bye(0)
				p.publish(message(topic+"/a", 2, "queued"))
				s = shared(t).connect(t, v, id, home...)
				check(s.expect(topic+"/a", "queued"), 2)
			}
			s.quiet()
		})
	})
}

// Retained messages carry the identifier of the subscription that brings them.
//
// Proves 5.0 [MQTT-3.3.4-3] [§3.8.4].
func TestSubscribe_MQTT_3_3_4_3_RetainedIdentifier(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		topic := name(t)
		p := shared(t).connect(t, packets.V5, name(t))
		for qos := range byte(3) {
			p.publish(retained(topic, qos, "x"))
			s := shared(t).connect(t, packets.V5, name(t), home...)
			s.subscribeID(topic+"/#", 2, 5)
			s.expect(topic, "x")
			s.subscribeID(topic, 2, 128)
			if m := s.expect(topic, "x"); !slices.Equal(m.Props.SubscriptionIDs, []uint32{128}) {
				t.Errorf("subscription identifiers %v", m.Props.SubscriptionIDs)
			}
		}
	})
}

// Proves 5.0 [§3.8.2.1.2].
func TestSubscribe_IdentifierInvalid(t *testing.T) {
	t.Parallel()
	for what, props := range map[string][]byte{
		"zero":     {packets.PropSubscriptionID, 0},
		"twice":    {packets.PropSubscriptionID, 1, packets.PropSubscriptionID, 1},
		"too long": {packets.PropSubscriptionID, 0x80, 0x80, 0x80, 0x80, 1},
	} {
		c := shared(t).connect(t, packets.V5, name(t))
		body := append([]byte{0, 1, byte(len(props))}, props...)
		c.write(packet(0x82, append(append(body, str("a")...), 0)))
		if what == "too long" {
			c.rejected(packets.CodeMalformedPacket)
		} else {
			c.rejected(packets.CodeProtocolError)
		}
	}
}

// Proves 5.0 [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2] [MQTT-2.2.1-6]; 3.1.1 [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-2.3.1-7].
func TestUnsubscribe_MQTT_3_10_4_1_Exactly(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			topic := name(t)
			p, s := shared(t).connect(t, v, name(t)), shared(t).connect(t, v, name(t), home...)
			s.mustSubscribe(topic+"/+", 1)
			s.mustSubscribe(topic+"/b", 0)
			u := s.unsubscribe(topic+"/a", topic+"/#", topic+"/b", topic+"/B", topic+"/b", topic, "a#", "+")
			if v == packets.V5 {
				want := []packets.Code{0x11, 0x11, 0, 0x11, 0x11, 0x11, 0x11, 0x11}
				if !slices.Equal(u.Codes, want) {
					t.Errorf("got %v, want %v", u.Codes, want)
				}
			}
			p.publish(message(topic+"/b", 2, "x"))
			if m := s.expect(topic+"/b", "x"); m.QoS != 1 {
				t.Errorf("got %s", describe(m))
			}
			s.unsubscribe(topic + "/+")
			p.publish(message(topic+"/b", 2, "x"))
			p.publish(message(topic+"/b", 0, "x"))
			s.quiet()
		})
	})
}

// Proves 5.0 [MQTT-3.10.1-1]; 3.1.1 [MQTT-3.10.1-1].
func TestUnsubscribe_MQTT_3_10_1_1_Flags(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		for flags := range byte(16) {
			if flags == 2 {
				continue
			}
			c := shared(t).connect(t, v, name(t))
			b := (&packets.Unsubscribe{PacketID: 1, Filters: [][]byte{[]byte("a")}}).AppendTo(nil, v)
			b[0] = 0xa0 | flags
			c.write(b)
			c.rejected(packets.CodeMalformedPacket)
		}
	})
}

// Proves 5.0 [MQTT-3.10.3-2]; 3.1.1 [MQTT-3.10.3-2].
func TestUnsubscribe_MQTT_3_10_3_2_NoFilter(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		c := shared(t).connect(t, v, name(t))
		body := []byte{0, 1}
		if v == packets.V5 {
			body = append(body, 0)
		}
		c.write(packet(0xa2, body))
		c.rejected(packets.CodeProtocolError)
	})
}

// Proves 5.0 [MQTT-3.10.4-3]; 3.1.1 [MQTT-3.10.4-3].
func TestUnsubscribe_MQTT_3_10_4_3_CompletesDelivery(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			p, s, topic := pair(t, v, 2, home...)
			p.publish(message(topic, 1, "one"))
			one := s.see(topic, "one")
			p.publish(message(topic, 2, "two"))
			two := s.see(topic, "two")
			s.unsubscribe(topic)
			s.complete(two)
			if home != nil { // also on the next connection
				s.fence()
				s.cut()
				s = shared(t).connect(t, v, topic+"-sub", home...)
				if again := s.see(topic, "one"); again.PacketID != one.PacketID || !again.Dup {
					t.Fatalf("got %s", describe(again))
				}
			}
			s.complete(one)
			p.publish(message(topic, 1, "more"))
			s.quiet()
		})
	})
}

// Every filter against every topic that the specification gives as examples.
//
// Proves 5.0 [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.2-1] [MQTT-4.7.3-4] [MQTT-3.3.2-3]; 3.1.1 [MQTT-3.8.3-2] [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.2-1] [MQTT-4.7.3-4] [MQTT-3.3.2-3].
func TestTopics_MQTT_4_7_1_1_Matching(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	const yes, no = true, false
	cases := []struct {
		filter string
		topics map[string]bool
	}{
		{"sport/tennis/player1/#", map[string]bool{"sport/tennis/player1": yes, "sport/tennis/player1/ranking": yes, "sport/tennis/player1/score/wimbledon": yes, "sport/tennis/player12": no}},
		{"sport/#", map[string]bool{"sport": yes, "sport/": yes, "sports": no}},
		{"#", map[string]bool{"a": yes, "/": yes, "a/b/c": yes, "$SYS/x": no, "$": no, "$x": no}},
		{"+/monitor/Clients", map[string]bool{"x/monitor/Clients": yes, "$SYS/monitor/Clients": no}},
		{"$SYS/#", map[string]bool{"$SYS/x/y": yes, "$SYS": yes, "SYS/x": no}},
		{"$SYS/monitor/+", map[string]bool{"$SYS/monitor/Clients": yes, "$SYS/monitor": no}},
		{"sport/tennis/+", map[string]bool{"sport/tennis/player1": yes, "sport/tennis/": yes, "sport/tennis": no, "sport/tennis/player1/ranking": no}},
		{"sport/+", map[string]bool{"sport/": yes, "sport": no, "sport/x/y": no}},
		{"+", map[string]bool{"a": yes, "/a": no, "a/": no}},
		{"+/+", map[string]bool{"/finance": yes, "a/b": yes, "a": no, "$a/b": no}},
		{"/+", map[string]bool{"/finance": yes, "/": yes, "a/b": no}},
		{"a/+/#", map[string]bool{"a/b": yes, "a/": yes, "a/b/c/d": yes, "a": no}},
		{"+/+/#", map[string]bool{"a/b": yes, "a": no, "a/b/c": yes}},
		{"Accounts", map[string]bool{"Accounts": yes, "ACCOUNTS": no, "Accounts ": no, "Accounts/": no}},
		{"Accounts payable", map[string]bool{"Accounts payable": yes, "Accountspayable": no, "Accounts  payable": no}},
		{"a//b", map[string]bool{"a//b": yes, "a/b": no, "a/+/b": no}},
		{"é", map[string]bool{"é": yes, "e\u0301": no}}, // no normalization
		{"\ufeffbom", map[string]bool{"\ufeffbom": yes, "bom": no}},
		{"a/\uffff", map[string]bool{"a/\uffff": yes}},
		{"%2F", map[string]bool{"%2F": yes, "/": no}},
		{"x/$y/+", map[string]bool{"x/$y/z": yes}},
		{"x/+/z", map[string]bool{"x/$y/z": yes}},
	}
	versions(t, func(t *testing.T, v packets.Version) {
		p := in.connect(t, v, name(t))
		for _, tc := range cases {
			s := in.connect(t, v, name(t))
			s.mustSubscribe(tc.filter, 0)
			for topic, match := range tc.topics {
				if strings.ContainsAny(topic, "+#") {
					continue
				}
				for qos := range byte(2) {
					p.publish(message(topic, qos, v.String()))
					if match {
						m := s.take()
						for string(m.Payload) != v.String() { // of the other version's run
							m = s.take()
						}
						if string(m.Topic) != topic {
							t.Errorf("%s: got %s, want %s", tc.filter, m.Topic, topic)
						}
						continue
					}
					s.fence()
					for _, q := range s.pending {
						if m, ok := q.(*packets.Publish); ok && string(m.Topic) == topic {
							t.Errorf("%s matches %s", tc.filter, topic)
						}
					}
					s.pending = nil
				}
			}
			s.bye(0)
		}
	})
}

// Proves 5.0 [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.8.2-1] [MQTT-4.8.2-2]; 3.1.1 [MQTT-4.7.1-2] [MQTT-4.7.1-3].
func TestTopics_MQTT_4_7_1_2_InvalidFilters(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		c := shared(t).connect(t, v, name(t))
		for _, f := range []string{
			"a#", "a/b#", "a/#/b", "#/", "##", "#/#", "a+", "+a", "a/+b/c", "a/b+", "++", "+#", "a/#b",
			"$share/g/a#", "$share/g/a+", "$share//a", "$share/g", "$share/g/", "$share/", "$share/+/a", "$share/#/a", "$share/g+/a", "$share/a#/b",
		} {
			want := packets.CodeTopicFilterInvalid
			if v != packets.V5 {
				want = packets.CodeUnspecifiedError
			}
			must(t, f, c.subscribe(f, 1), want)
		}
		for _, f := range []string{"#", "+", "+/+/#", "/", "//", "$share", "a/$share/b", "$", "$share/g/#", "$share/g/+/x/#", "$share/g//", " ", "a b"} {
			if strings.HasPrefix(f, "$share/") && v != packets.V5 {
				continue
			}
			must(t, f, c.subscribe(f, 0), 0)
			c.unsubscribe(f)
			c.pending = nil
		}
	})
}

// A topic with more levels than the broker takes is refused, and nothing else
// is: neither of the specifications has a limit of its own.
//
// Proves 5.0 [§3.4.2.1] [§3.5.2.1] [MQTT-3.8.4-7]; 3.1.1 [MQTT-3.8.4-5].
func TestTopics_Levels(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		most, more := name(t)+strings.Repeat("/", 127), name(t)+strings.Repeat("/", 128)
		p, s := shared(t).connect(t, v, name(t)), shared(t).connect(t, v, name(t))
		s.mustSubscribe(most, 2)
		code := packets.CodeTopicFilterInvalid
		if v != packets.V5 {
			code = packets.CodeUnspecifiedError
		}
		must(t, "subscribe", s.subscribe(more, 2), code)
		for qos := range byte(3) {
			p.publish(message(most, qos, "x"))
			s.expect(most, "x")
		}
		for qos := byte(1); qos <= 2 && v == packets.V5; qos++ {
			must(t, "publish", p.publish(message(more, qos, "x")), packets.CodeTopicNameInvalid)
		}
		p.send(message(more, 0, "x"))
		p.rejected(packets.CodeTopicNameInvalid)
	})
}

// Proves 5.0 [MQTT-4.7.3-3]; 3.1.1 [MQTT-4.7.3-3].
func TestTopics_MQTT_4_7_3_3_Longest(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		topic := name(t) + strings.Repeat("x", 65536)
		topic = topic[:65535]
		p, s := shared(t).connect(t, v, name(t)), shared(t).connect(t, v, name(t))
		s.mustSubscribe(topic, 1)
		for qos := range byte(3) {
			p.publish(message(topic, qos, "x"))
			s.expect(topic, "x")
		}
		p.publish(retained(topic, 1, "x"))
		s.expect(topic, "x")
		s.mustSubscribe(topic, 1)
		s.expect(topic, "x")
		p.publish(retained(topic, 1, ""))
		s.expect(topic, "")
	})
}
