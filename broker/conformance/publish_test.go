package conformance

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// pair connects a publisher and a subscriber to one topic.
func pair(t *testing.T, v packets.Version, qos byte, changes ...with) (pub, sub *client, topic string) {
	t.Helper()
	topic = name(t)
	sub = shared(t).connect(t, v, topic+"-sub", changes...)
	sub.mustSubscribe(topic, qos)
	return shared(t).connect(t, v, topic+"-pub"), sub, topic
}

// Every combination of the publisher's QoS, the subscriber's, and whether the
// subscriber has a durable session.
//
// Proves 5.0 [MQTT-3.8.4-8] [MQTT-3.3.4-1] [MQTT-4.3.1-1] [MQTT-4.3.2-1] [MQTT-4.3.2-2] [MQTT-4.3.2-4] [MQTT-4.3.3-1] [MQTT-4.3.3-2] [MQTT-4.3.3-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11] [MQTT-2.2.1-2] [MQTT-2.2.1-4] [MQTT-2.2.1-5]; 3.1.1 [MQTT-3.8.4-6] [MQTT-3.3.4-1] [MQTT-4.3.1-1] [MQTT-4.3.2-1] [MQTT-4.3.2-2] [MQTT-4.3.3-1] [MQTT-4.3.3-2] [MQTT-2.3.1-4] [MQTT-2.3.1-5] [MQTT-2.3.1-6].
func TestPublish_MQTT_3_8_4_8_QoS(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		for _, long := range []bool{false, true} {
			var changes []with
			if long {
				changes = append(changes, durable(v))
			}
			for granted := range byte(3) {
				p, s, topic := pair(t, v, granted, changes...)
				for qos := range byte(3) {
					for i := range 5 {
						payload := fmt.Sprint(qos, i)
						p.publish(message(topic, qos, payload))
						m := s.expect(topic, payload)
						if want := min(qos, granted); m.QoS != want || m.Dup || m.Retain {
							t.Fatalf("published at %d, granted %d: got %s", qos, granted, describe(m))
						}
					}
				}
				s.quiet()
			}
		}
	})
}

// Proves 5.0 [MQTT-3.3.1-4]; 3.1.1 [MQTT-3.3.1-4].
func TestPublish_MQTT_3_3_1_4_QoS3(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		for _, flags := range []byte{6, 7, 14, 15} {
			c := shared(t).connect(t, v, name(t))
			body := append(str("a"), 0, 1)
			if v == packets.V5 {
				body = append(body, 0)
			}
			c.write(packet(0x30|flags, append(body, 'x')))
			c.rejected(packets.CodeMalformedPacket)
		}
	})
}

// Proves 5.0 [MQTT-3.3.1-2]; 3.1.1 [MQTT-3.3.1-2].
func TestPublish_MQTT_3_3_1_2_DupWithQoS0(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		c := shared(t).connect(t, v, name(t))
		c.write((&packets.Publish{Topic: []byte("a"), Payload: []byte("x"), Dup: true}).AppendTo(nil, v))
		c.rejected(packets.CodeMalformedPacket)
	})
}

// Proves 5.0 [MQTT-3.3.1-3]; 3.1.1 [MQTT-3.3.1-3].
func TestPublish_MQTT_3_3_1_3_DupNotPropagated(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		for _, changes := range [][]with{nil, {durable(v)}} {
			p, s, topic := pair(t, v, 2, changes...)
			for qos := byte(1); qos <= 2; qos++ {
				m := message(topic, qos, "x")
				m.Dup = true
				p.publish(m)
				if got := s.expect(topic, "x"); got.Dup {
					t.Errorf("QoS %d: DUP was passed on", qos)
				}
			}
		}
	})
}

// Proves 5.0 [MQTT-3.3.2-1] [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2]; 3.1.1 [MQTT-3.3.2-1] [MQTT-3.3.2-2] [MQTT-4.7.1-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2].
func TestPublish_MQTT_3_3_2_2_TopicName(t *testing.T) {
	t.Parallel()
	cases := []struct {
		topic string
		code  packets.Code
	}{
		{"a/+", packets.CodeTopicNameInvalid},
		{"#", packets.CodeTopicNameInvalid},
		{"a+b", packets.CodeTopicNameInvalid},
		{"long enough to be read in words/#", packets.CodeTopicNameInvalid},
		{"+", packets.CodeTopicNameInvalid},
		{"", packets.CodeProtocolError},
		{"a\x00b", packets.CodeMalformedPacket},
		{"\x00", packets.CodeMalformedPacket},
		{"\xff", packets.CodeMalformedPacket},
		{"a\xc0\x80", packets.CodeMalformedPacket},
		{"\xed\xa0\x80", packets.CodeMalformedPacket},
	}
	everyVersion(t, func(t *testing.T, v packets.Version) {
		for _, tc := range cases {
			for qos := range byte(3) {
				c := shared(t).connect(t, v, name(t))
				m := message(tc.topic, qos, "x")
				if qos > 0 {
					m.PacketID = 1
				}
				c.send(m)
				c.rejected(tc.code)
			}
		}
	})
}

// Proves 5.0 [MQTT-2.2.1-3]; 3.1.1 [MQTT-2.3.1-1].
func TestPublish_MQTT_2_2_1_3_IdentifierZero(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		for qos := byte(1); qos <= 2; qos++ {
			c := shared(t).connect(t, v, name(t))
			c.send(message("a", qos, "x"))
			c.rejected(packets.CodeProtocolError, packets.CodeMalformedPacket)
		}
		c := shared(t).connect(t, v, name(t))
		c.send(&packets.Subscribe{Filters: []packets.Subscription{{Filter: []byte("a")}}})
		c.rejected(packets.CodeProtocolError, packets.CodeMalformedPacket)
		c = shared(t).connect(t, v, name(t))
		c.send(&packets.Unsubscribe{Filters: [][]byte{[]byte("a")}})
		c.rejected(packets.CodeProtocolError, packets.CodeMalformedPacket)
	})
}

// What was sent before a DISCONNECT, or before the client went, counts.
//
// Proves 5.0 [MQTT-3.3.4-1] [MQTT-4.5.0-1]; 3.1.1 [MQTT-3.3.4-1] [MQTT-4.5.0-1].
func TestPublish_MQTT_4_5_0_1_ThenGone(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			for _, polite := range []bool{true, false} {
				_, s, topic := pair(t, v, 2, home...)
				p := shared(t).connect(t, v, name(t), home...)
				var b []byte
				for i := range 6 {
					m := message(topic, byte(i%3), fmt.Sprint(i))
					if m.Retain = i >= 3; m.QoS > 0 {
						m.PacketID = uint16(i)
					}
					b = m.AppendTo(b, v)
				}
				if polite {
					b = (&packets.Disconnect{}).AppendTo(b, v)
				}
				p.write(b)
				if !polite {
					p.nc.(*net.TCPConn).CloseWrite()
				}
				p.gone()
				got := map[string]bool{}
				for range 6 {
					got[string(s.take().Payload)] = true
				}
				if len(got) != 6 {
					t.Errorf("arrived: %v", got)
				}
				s.quiet()
			}
		})
	})
}

// Payloads of any size and content pass unaltered, the empty one among them.
//
// Proves 5.0 [§3.3.3]; 3.1.1 [§3.3.3].
func TestPublish_Payloads(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		p, s, topic := pair(t, v, 2)
		binary := make([]byte, 256)
		for i := range binary {
			binary[i] = byte(i)
		}
		for _, n := range []int{0, 1, 100, 127, 128, 16000, 16384, 70000, 300000} {
			payload := string(bytes.Repeat(binary, n/256+1)[:n])
			for qos := range byte(3) {
				p.publish(message(topic, qos, payload))
				s.expect(topic, payload)
			}
		}
	})
}

// properties is what a publisher may say about a message, all of it.
func properties() packets.PublishProps {
	var p packets.PublishProps
	p.HasPayloadFormat, p.PayloadFormat = true, 1
	p.HasContentType, p.ContentType = true, []byte("text/plain; ünïcode")
	p.HasResponseTopic, p.ResponseTopic = true, []byte("answers/to/me")
	p.HasCorrelationData, p.CorrelationData = true, []byte{0, 1, 2, 0xff, 0, 0xfe}
	p.User = p.User.Append("a", "1").Append("b", "2").Append("a", "3").Append("", "").Append("z", "漢字").Append("a", "1")
	return p
}

// sameProperties checks that a message arrived with what properties says.
func sameProperties(t *testing.T, got *packets.PublishProps) {
	t.Helper()
	p := properties()
	if got.HasPayloadFormat != p.HasPayloadFormat || got.PayloadFormat != p.PayloadFormat {
		t.Errorf("payload format %v %d", got.HasPayloadFormat, got.PayloadFormat)
	}
	if !got.HasContentType || !bytes.Equal(got.ContentType, p.ContentType) {
		t.Errorf("content type %q", got.ContentType)
	}
	if !got.HasResponseTopic || !bytes.Equal(got.ResponseTopic, p.ResponseTopic) {
		t.Errorf("response topic %q", got.ResponseTopic)
	}
	if !got.HasCorrelationData || !bytes.Equal(got.CorrelationData, p.CorrelationData) {
		t.Errorf("correlation data % x", got.CorrelationData)
	}
	if g, w := users(got.User), users(p.User); g != w {
		t.Errorf("user properties %s, want %s", g, w)
	}
}

func users(u packets.UserProperties) string {
	var s strings.Builder
	for k, v := range u.All() {
		fmt.Fprintf(&s, "%q=%q ", k, v)
	}
	return s.String()
}

// Properties pass through every way a message can take: directly, through the
// log, a queue, and the retained store.
//
// Proves 5.0 [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20] [MQTT-1.5.7-1].
func TestPublish_MQTT_3_3_2_17_PropertiesUnaltered(t *testing.T) {
	t.Parallel()
	for _, changes := range [][]with{nil, {resume(300)}} {
		p, s, topic := pair(t, packets.V5, 2, changes...)
		for qos := range byte(3) {
			m := message(topic, qos, "x")
			m.Props = properties()
			p.publish(m)
			got := s.expect(topic, "x")
			sameProperties(t, &got.Props)
		}
		m := retained(topic, 1, "kept")
		m.Props = properties()
		p.publish(m)
		got := s.expect(topic, "kept")
		sameProperties(t, &got.Props)
		s.mustSubscribe(topic, 2)
		got = s.expect(topic, "kept")
		sameProperties(t, &got.Props)
		if changes == nil {
			continue
		}
		s.bye(0)
		m = message(topic, 2, "queued")
		m.Props = properties()
		p.publish(m)
		s = shared(t).connect(t, packets.V5, topic+"-sub", resume(300))
		got = s.expect(topic, "queued")
		sameProperties(t, &got.Props)
	}
}

// An MQTT 3 subscriber gets the message without properties, and an MQTT 5 one
// gets MQTT 3 messages without any.
//
// Proves 5.0 [§3.3.2.3]; 3.1.1 [§3.3].
func TestPublish_BetweenVersions(t *testing.T) {
	t.Parallel()
	topic := name(t)
	old, young := shared(t).connect(t, packets.V311, name(t)), shared(t).connect(t, packets.V5, name(t))
	old.mustSubscribe(topic, 2)
	young.mustSubscribe(topic, 2)
	m := message(topic, 1, "from 5")
	m.Props = properties()
	shared(t).connect(t, packets.V5, name(t)).publish(m)
	old.expect(topic, "from 5")
	got := young.expect(topic, "from 5")
	sameProperties(t, &got.Props)
	shared(t).connect(t, packets.V311, name(t)).publish(message(topic, 2, "from 3"))
	old.expect(topic, "from 3")
	if got := young.expect(topic, "from 3"); len(got.Props.Raw) != 0 {
		t.Errorf("properties % x", got.Props.Raw)
	}
}

// Proves 5.0 [MQTT-3.3.2-13] [MQTT-3.3.2-14] [MQTT-3.3.2-19].
func TestPublish_MQTT_3_3_2_14_ResponseTopic(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"a/+", "#", "answers/of/a/certain/length/#"} {
		c := shared(t).connect(t, packets.V5, name(t))
		m := message("a", 0, "x")
		m.Props.HasResponseTopic, m.Props.ResponseTopic = true, []byte(text)
		c.send(m)
		c.rejected(packets.CodeProtocolError, packets.CodeTopicNameInvalid)
	}
	for _, text := range []string{"\x00", "a\xff", "\xed\xbf\xbf"} {
		for _, set := range []func(p *packets.PublishProps){
			func(p *packets.PublishProps) { p.HasResponseTopic, p.ResponseTopic = true, []byte(text) },
			func(p *packets.PublishProps) { p.HasContentType, p.ContentType = true, []byte(text) },
			func(p *packets.PublishProps) { p.User = p.User.Append(text, "v") },
			func(p *packets.PublishProps) { p.User = p.User.Append("k", text) },
		} {
			c := shared(t).connect(t, packets.V5, name(t))
			m := message("a", 0, "x")
			set(&m.Props)
			c.send(m)
			c.rejected(packets.CodeMalformedPacket)
		}
	}
}

// Proves 5.0 [MQTT-3.3.4-6].
func TestPublish_MQTT_3_3_4_6_SubscriptionIdentifier(t *testing.T) {
	t.Parallel()
	c := shared(t).connect(t, packets.V5, name(t))
	m := message("a", 0, "x")
	m.Props.SubscriptionIDs = []uint32{5}
	c.send(m)
	c.rejected(packets.CodeProtocolError)
}

// Proves 5.0 [§3.4.2.1] [§3.5.2.1].
func TestPublish_NoMatchingSubscribers(t *testing.T) {
	t.Parallel()
	topic := name(t)
	p, s := shared(t).connect(t, packets.V5, name(t)), shared(t).connect(t, packets.V5, name(t))
	for qos := byte(1); qos <= 2; qos++ {
		if code := p.publish(message(topic, qos, "x")); code != packets.CodeNoMatchingSubscribers && code != packets.CodeSuccess {
			t.Errorf("without subscribers: %s", code)
		}
	}
	s.mustSubscribe(topic, 0)
	for qos := byte(1); qos <= 2; qos++ {
		must(t, "with a subscriber", p.publish(message(topic, qos, "x")), packets.CodeSuccess)
	}
}
