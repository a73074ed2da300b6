package conformance

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// kinds are the two homes that a session can have: memory, for clients whose
// session ends with the connection, and the log.
func kinds(t *testing.T, v packets.Version, test func(t *testing.T, home ...with)) {
	t.Run("ephemeral", func(t *testing.T) { t.Parallel(); test(t) })
	t.Run("durable", func(t *testing.T) { t.Parallel(); test(t, durable(v)) })
}

// A QoS 2 PUBLISH repeated before PUBREL is answered and not delivered again,
// whether it comes on the same connection or on the next.
//
// Proves 5.0 [MQTT-4.3.3-10] [MQTT-4.3.3-12]; 3.1.1 [MQTT-4.3.3-2].
func TestQoS2_MQTT_4_3_3_10_NoDuplicates(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			for _, subHome := range [][]with{nil, {durable(v)}} {
				_, s, topic := pair(t, v, 2, subHome...)
				id := name(t)
				p := shared(t).connect(t, v, id, home...)
				m := message(topic, 2, "once")
				m.PacketID = 10
				for range 3 {
					p.send(m)
					must(t, "PUBREC", p.ack(packets.TypePubrec, 10).Code, packets.CodeSuccess)
					m.Dup = true
				}
				s.expect(topic, "once")
				if home != nil {
					p.cut()
					p = shared(t).connect(t, v, id, home...)
					p.send(m)
					must(t, "PUBREC", p.ack(packets.TypePubrec, 10).Code, packets.CodeSuccess)
				}
				p.send(&packets.Ack{Type: packets.TypePubrel, PacketID: 10})
				must(t, "PUBCOMP", p.ack(packets.TypePubcomp, 10).Code, packets.CodeSuccess)
				s.quiet()
				p.send(m) // a new message now, whatever DUP says
				must(t, "PUBREC", p.ack(packets.TypePubrec, 10).Code, packets.CodeSuccess)
				p.send(&packets.Ack{Type: packets.TypePubrel, PacketID: 10})
				p.ack(packets.TypePubcomp, 10)
				s.expect(topic, "once")
				s.quiet()
			}
		})
	})
}

// PUBRELs follow the order of the PUBRECs, whatever the order of the messages.
//
// Proves 5.0 [MQTT-4.6.0-4]; 3.1.1 [MQTT-4.6.0-4].
func TestQoS2_MQTT_4_6_0_4_PubrelOrder(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			p, s, topic := pair(t, v, 2, home...)
			var b []byte
			var open []*packets.Publish
			for i := range 20 {
				p.publish(message(topic, 2, fmt.Sprint(i)))
				open = append(open, s.see(topic, fmt.Sprint(i)))
			}
			for i := range 20 {
				b = packets.AppendAck(b, v, packets.TypePubrec, open[(i*7)%20].PacketID, 0)
			}
			s.write(b)
			for i := range 20 {
				if a := want[*packets.Ack](s); a.Type != packets.TypePubrel || a.PacketID != open[(i*7)%20].PacketID {
					t.Fatalf("got %s as answer %d", describe(a), i)
				}
			}
		})
	})
}

// Several open QoS 2 publishes are told apart, and released in any order.
//
// Proves 5.0 [MQTT-4.3.3-10] [MQTT-4.3.3-11]; 3.1.1 [MQTT-4.3.3-2].
func TestQoS2_MQTT_4_3_3_11_Interleaved(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			_, s, topic := pair(t, v, 2)
			p := shared(t).connect(t, v, name(t), home...)
			for pid := uint16(1); pid <= 5; pid++ {
				m := message(topic, 2, fmt.Sprint(pid))
				m.PacketID = pid
				p.send(m)
			}
			for pid := uint16(1); pid <= 5; pid++ {
				if a := want[*packets.Ack](p); a.Type != packets.TypePubrec || a.PacketID != pid {
					t.Fatalf("got %s, want PUBREC %d", describe(a), pid)
				}
			}
			for _, pid := range []uint16{3, 1, 5, 2, 4} {
				p.send(&packets.Ack{Type: packets.TypePubrel, PacketID: pid})
				p.ack(packets.TypePubcomp, pid)
			}
			for pid := 1; pid <= 5; pid++ {
				s.expect(topic, fmt.Sprint(pid))
			}
			s.quiet()
		})
	})
}

// After PUBACK the identifier stands for a new message.
//
// Proves 5.0 [MQTT-4.3.2-5]; 3.1.1 [MQTT-4.3.2-2].
func TestQoS1_MQTT_4_3_2_5_IdentifierAgain(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			p, s, topic := pair(t, v, 1, home...)
			for i := range 4 {
				m := message(topic, 1, fmt.Sprint(i))
				m.PacketID, m.Dup = 7, i%2 == 1
				p.send(m)
				p.ack(packets.TypePuback, 7)
				s.expect(topic, fmt.Sprint(i))
			}
		})
	})
}

// An unknown PUBREL is answered all the same; MQTT 5 says that the identifier
// is not known.
//
// Proves 5.0 [MQTT-4.3.3-11] [§3.7.2.1] [§3.6.2.1]; 3.1.1 [MQTT-4.3.3-2].
func TestQoS2_UnknownIdentifiers(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			want := packets.CodePacketIdentifierNotFound
			if v != packets.V5 {
				want = packets.CodeSuccess
			}
			c := shared(t).connect(t, v, name(t), home...)
			c.send(&packets.Ack{Type: packets.TypePubrel, PacketID: 99})
			must(t, "PUBCOMP", c.ack(packets.TypePubcomp, 99).Code, want)
			c.send(&packets.Ack{Type: packets.TypePubrec, PacketID: 98})
			must(t, "PUBREL", c.ack(packets.TypePubrel, 98).Code, want)
			topic := name(t) // a PUBREC that comes again is answered again
			c.mustSubscribe(topic, 2)
			c.publish(message(topic, 2, "x"))
			m := c.see(topic, "x")
			for range 3 {
				c.send(&packets.Ack{Type: packets.TypePubrec, PacketID: m.PacketID})
				must(t, "PUBREL", c.ack(packets.TypePubrel, m.PacketID).Code, packets.CodeSuccess)
			}
			c.send(&packets.Ack{Type: packets.TypePubcomp, PacketID: m.PacketID})
			c.send(&packets.Ack{Type: packets.TypePuback, PacketID: 97})
			c.send(&packets.Ack{Type: packets.TypePubcomp, PacketID: 96})
			c.quiet()
		})
	})
}

// What was not acknowledged is sent again on the next connection, in the order
// it was first sent, marked as a duplicate and with its identifiers; after
// PUBREC only the PUBREL is.
//
// Proves 5.0 [MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-4.6.0-1] [MQTT-4.3.2-3] [MQTT-4.3.3-3] [MQTT-4.3.3-5] [MQTT-4.3.3-6]; 3.1.1 [MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-4.6.0-1] [MQTT-2.3.1-3] [MQTT-4.3.2-1] [MQTT-4.3.3-1].
func TestRedelivery_MQTT_4_4_0_1_OrderAndIdentifiers(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		p, s, topic := pair(t, v, 2, durable(v))
		const n = 12
		var sent []*packets.Publish
		for i := range n {
			p.publish(message(topic, byte(1+i%2), fmt.Sprint(i)))
			m := s.see(topic, fmt.Sprint(i))
			if m.Dup {
				t.Fatalf("first sent as %s", describe(m))
			}
			sent = append(sent, m)
		}
		// 3 and 7 (QoS 2) are half way; 4 (QoS 1) is done, 9 (QoS 2) as well.
		for _, i := range []int{3, 7} {
			s.send(&packets.Ack{Type: packets.TypePubrec, PacketID: sent[i].PacketID})
			s.ack(packets.TypePubrel, sent[i].PacketID)
		}
		s.complete(sent[4])
		s.complete(sent[9])
		s.fence()
		for range 3 { // it stays that way however often the connection breaks
			s.cut()
			s = shared(t).connect(t, v, topic+"-sub", durable(v))
			for i := range n {
				switch i {
				case 4, 9:
				case 3, 7:
					if a := want[*packets.Ack](s); a.Type != packets.TypePubrel || a.PacketID != sent[i].PacketID {
						t.Fatalf("got %s, want PUBREL %d", describe(a), sent[i].PacketID)
					}
				default:
					m := s.see(topic, fmt.Sprint(i))
					if !m.Dup || m.PacketID != sent[i].PacketID || m.QoS != sent[i].QoS {
						t.Fatalf("sent as %s, again as %s", describe(sent[i]), describe(m))
					}
				}
			}
			s.quiet()
		}
		p.publish(message(topic, 2, "new"))
		if m := s.see(topic, "new"); m.Dup {
			t.Fatalf("new message sent as %s", describe(m))
		}
	})
}

// Messages that waited while the client was away were never sent: not marked
// as duplicates.
//
// Proves 5.0 [MQTT-3.3.1-1] [MQTT-4.3.2-2] [MQTT-4.3.3-2]; 3.1.1 [MQTT-3.3.1-1].
func TestRedelivery_MQTT_3_3_1_1_QueuedIsNotDup(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		p, s, topic := pair(t, v, 2, durable(v))
		p.publish(message(topic, 1, "sent"))
		s.see(topic, "sent")
		s.bye(0)
		p.publish(message(topic, 1, "queued 1"))
		p.publish(message(topic, 2, "queued 2"))
		s = shared(t).connect(t, v, topic+"-sub", durable(v))
		for i, payload := range []string{"sent", "queued 1", "queued 2"} {
			if m := s.see(topic, payload); m.Dup != (i == 0) {
				t.Fatalf("got %s", describe(m))
			}
		}
	})
}

// Nothing is sent again while the connection lasts.
//
// Proves 5.0 [MQTT-4.4.0-1].
func TestRedelivery_MQTT_4_4_0_1_OnlyOnReconnect(t *testing.T) {
	t.Parallel()
	p, s, topic := pair(t, packets.V5, 2, resume(300))
	p.publish(message(topic, 1, "one"))
	s.see(topic, "one")
	p.publish(message(topic, 2, "two"))
	two := s.see(topic, "two")
	s.send(&packets.Ack{Type: packets.TypePubrec, PacketID: two.PacketID})
	s.ack(packets.TypePubrel, two.PacketID)
	for range 5 {
		s.send(&packets.Ping{Type: packets.TypePingreq})
		want[*packets.Ping](s)
		s.quiet()
	}
}

// A PUBACK or PUBREC with an error ends the delivery and frees its place.
//
// Proves 5.0 [MQTT-4.4.0-2] [§4.9].
func TestRedelivery_MQTT_4_4_0_2_ErrorsEndIt(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		p, s, topic := pair(t, packets.V5, 2, append(home, receiveMaximum(1))...)
		for i := range 6 {
			p.publish(message(topic, byte(1+i%2), fmt.Sprint(i)))
		}
		for i := range 6 {
			m := s.see(topic, fmt.Sprint(i))
			a := &packets.Ack{Type: packets.TypePuback, PacketID: m.PacketID, Code: packets.CodeUnspecifiedError}
			if m.QoS == 2 {
				a.Type, a.Code = packets.TypePubrec, packets.CodeQuotaExceeded
			}
			s.send(a)
		}
		s.quiet()
		if home == nil {
			return
		}
		s.cut()
		s = shared(t).connect(t, packets.V5, topic+"-sub", resume(300))
		s.quiet()
	})
}

// Messages of one publisher on one topic arrive in order, per QoS, whatever
// the subscriber's session is and however many come at once.
//
// Proves 5.0 [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-4.6.0-2] [MQTT-4.6.0-3]; 3.1.1 [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-4.6.0-2] [MQTT-4.6.0-3].
func TestOrder_MQTT_4_6_0_5_PerTopicAndQoS(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			p, s, topic := pair(t, v, 2, home...)
			const n = 300
			var b []byte
			for i := range n {
				m := message(topic, byte(i%3), fmt.Sprint(i))
				if m.QoS > 0 {
					m.PacketID = uint16(i + 1)
				}
				b = m.AppendTo(b, v)
			}
			p.write(b) // all in one write
			seen := [3]int{-1, -1, -1}
			for range n {
				m := s.take()
				var i int
				if _, err := fmt.Sscan(string(m.Payload), &i); err != nil {
					t.Fatal(err)
				}
				if i <= seen[m.QoS] || int(m.QoS) != i%3 {
					t.Fatalf("QoS %d: %d after %d", m.QoS, i, seen[m.QoS])
				}
				seen[m.QoS] = i
			}
			s.quiet()
			// Acknowledgements come in order, too.
			last := map[packets.Type]uint16{}
			for range n * 2 / 3 {
				a := want[*packets.Ack](p)
				if a.PacketID <= last[a.Type] {
					t.Fatalf("%s out of order", describe(a))
				}
				last[a.Type] = a.PacketID
			}
		})
	})
}

// Retained and other messages of QoS 0, which the broker keeps apart, arrive
// in one order all the same, with every kind of subscriber.
//
// Proves 5.0 [MQTT-4.6.0-5]; 3.1.1 [MQTT-4.6.0-6].
func TestOrder_MQTT_4_6_0_5_MixedWays(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			topic := name(t)
			p := shared(t).connect(t, v, name(t), home...)
			var subs []*client
			for qos := range byte(3) {
				for _, h := range [][]with{nil, {durable(v)}} {
					s := shared(t).connect(t, v, name(t), h...)
					s.mustSubscribe(topic, qos)
					subs = append(subs, s)
				}
			}
			const n = 120
			for round := range 3 { // in one write, and by halves
				var b []byte
				for i := range n {
					m := message(topic, byte(i/3%3), fmt.Sprint(round*n+i))
					m.Retain = i%2 == 0
					if m.QoS > 0 {
						m.PacketID = uint16(i + 1)
					}
					b = m.AppendTo(b, v)
				}
				p.write(b[:len(b)/(round+1)])
				p.write(b[len(b)/(round+1):])
				for _, s := range subs {
					last := [3]int{-1, -1, -1}
					for range n {
						m := s.take()
						i, err := strconv.Atoi(string(m.Payload))
						if err != nil {
							t.Fatal(err)
						}
						qos := i % n / 3 % 3 // as published
						if i <= last[qos] {
							t.Fatalf("QoS %d: %d after %d", qos, i, last[qos])
						}
						last[qos] = i
					}
				}
				for range 2 * 39 { // the PUBACKs and PUBRECs
					if a := want[*packets.Ack](p); a.Type == packets.TypePubrec {
						p.send(&packets.Ack{Type: packets.TypePubrel, PacketID: a.PacketID})
						p.ack(packets.TypePubcomp, a.PacketID)
					}
				}
			}
			for _, s := range subs {
				s.quiet()
			}
		})
	})
}

// A connection that is taken over leaves its open deliveries to the new one.
//
// Proves 5.0 [MQTT-4.4.0-1] [MQTT-3.1.4-3]; 3.1.1 [MQTT-4.4.0-1] [MQTT-3.1.4-2].
func TestRedelivery_MQTT_4_4_0_1_TakeOver(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		p, s, topic := pair(t, v, 2, durable(v))
		p.publish(message(topic, 1, "one"))
		one := s.see(topic, "one")
		p.publish(message(topic, 2, "two"))
		two := s.see(topic, "two")
		young := shared(t).connect(t, v, topic+"-sub", durable(v))
		s.rejected(packets.CodeSessionTakenOver)
		for _, old := range []*packets.Publish{one, two} {
			m := young.see(topic, string(old.Payload))
			if !m.Dup || m.PacketID != old.PacketID {
				t.Fatalf("sent as %s, again as %s", describe(old), describe(m))
			}
			young.complete(m)
		}
		young.quiet()
	})
}

// Identifiers of the two directions have nothing to do with each other.
//
// Proves 5.0 [§2.2.1]; 3.1.1 [§2.3.1].
func TestQoS_IdentifiersPerDirection(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			topic := name(t)
			c := shared(t).connect(t, v, name(t), home...)
			c.mustSubscribe(topic, 2)
			p := shared(t).connect(t, v, name(t))
			p.publish(message(topic, 2, "to you"))
			got := c.see(topic, "to you")
			// The client uses the same identifier for its own message.
			mine := message(topic+"/else", 2, "from me")
			mine.PacketID = got.PacketID
			c.send(mine)
			c.ack(packets.TypePubrec, mine.PacketID)
			sub := &packets.Subscribe{PacketID: got.PacketID, Filters: []packets.Subscription{{Filter: []byte(topic + "/x"), Options: 1}}}
			c.send(sub)
			if code := c.suback(got.PacketID).Codes[0]; code != packets.CodeGrantedQoS1 {
				t.Fatal(code)
			}
			c.complete(got)
			c.send(&packets.Ack{Type: packets.TypePubrel, PacketID: mine.PacketID})
			must(t, "PUBCOMP", c.ack(packets.TypePubcomp, mine.PacketID).Code, packets.CodeSuccess)
			p.publish(message(topic, 1, "again"))
			c.expect(topic, "again")
		})
	})
}

// Identifiers are used anew only when free, also after all 65535 went round.
//
// Proves 5.0 [MQTT-2.2.1-4] [MQTT-4.3.2-1]; 3.1.1 [MQTT-2.3.1-4] [MQTT-2.3.1-2].
func TestQoS_MQTT_2_2_1_4_IdentifiersWrap(t *testing.T) {
	t.Parallel()
	v := packets.V5
	p, s, topic := pair(t, v, 1)
	p.publish(message(topic, 1, "held")) // keeps its identifier all the while
	held := s.see(topic, "held")
	const n, batch = 65600, 200
	for i := 0; i < n; i += batch {
		var b []byte
		for k := range batch {
			m := message(topic, 1, "x")
			m.PacketID = uint16(k + 1)
			b = m.AppendTo(b, v)
		}
		p.write(b)
		b = b[:0]
		for range batch {
			m := want[*packets.Publish](s)
			if m.PacketID == held.PacketID || m.PacketID == 0 {
				t.Fatalf("identifier %d", m.PacketID)
			}
			b = packets.AppendAck(b, v, packets.TypePuback, m.PacketID, 0)
		}
		s.write(b)
		for range batch {
			want[*packets.Ack](p)
		}
	}
}
