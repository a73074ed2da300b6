package conformance

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// Options of a SUBSCRIBE.
const (
	noLocal           = 1 << 2
	retainAsPublished = 1 << 3
	retainIfNew       = 1 << 4
	retainNever       = 2 << 4
)

// Proves 5.0 [MQTT-3.3.1-5] [MQTT-3.3.1-8] [MQTT-3.3.1-9]; 3.1.1 [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8] [MQTT-3.3.1-12].
func TestRetain_MQTT_3_3_1_5_StoredAndReplaced(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			topic := name(t)
			p := shared(t).connect(t, v, name(t))
			subscribed := func(payload string, qos byte) {
				t.Helper()
				s := shared(t).connect(t, v, name(t), home...)
				s.mustSubscribe(topic, 2)
				if payload != "" {
					if m := s.expect(topic, payload); !m.Retain || m.QoS != qos || m.Dup {
						t.Fatalf("got %s", describe(m))
					}
				}
				s.quiet()
			}
			subscribed("", 0)
			for qos := range byte(3) {
				payload := fmt.Sprint("retained ", qos)
				p.publish(retained(topic, qos, payload))
				subscribed(payload, qos)
				p.publish(message(topic, 1, "passing")) // leaves it alone
				p.publish(message(topic, 0, ""))        // so does an empty one
				subscribed(payload, qos)
			}
			p.publish(retained(topic, 0, "zero")) // QoS 0 replaces QoS 2
			subscribed("zero", 0)
		})
	})
}

// Proves 5.0 [MQTT-3.3.1-6] [MQTT-3.3.1-7]; 3.1.1 [MQTT-3.3.1-10] [MQTT-3.3.1-11].
func TestRetain_MQTT_3_3_1_6_Cleared(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		topic := name(t)
		p, s := shared(t).connect(t, v, name(t)), shared(t).connect(t, v, name(t))
		for qos := range byte(3) {
			p.publish(retained(topic, 1, "kept"))
			s.mustSubscribe(topic, 2)
			s.expect(topic, "kept")
			p.publish(retained(topic, qos, "")) // processed as normal, too
			if m := s.expect(topic, ""); m.Retain || m.QoS != qos {
				t.Fatalf("got %s", describe(m))
			}
			s.mustSubscribe(topic, 2)
			s.quiet()
			p.publish(retained(topic, qos, "")) // and an empty one is not stored
			s.expect(topic, "")
			s.mustSubscribe(topic, 2)
			s.quiet()
			s.unsubscribe(topic)
		}
	})
}

// Proves 5.0 [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-4].
func TestRetain_MQTT_3_3_1_10_Handling(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		topic := name(t)
		p, s := shared(t).connect(t, packets.V5, name(t)), shared(t).connect(t, packets.V5, name(t), home...)
		p.publish(retained(topic, 1, "kept"))
		for range 2 {
			s.mustSubscribe(topic, 1|retainNever)
			s.quiet()
			s.mustSubscribe(topic, 1|retainIfNew) // it exists
			s.quiet()
			s.mustSubscribe(topic, 1)
			s.expect(topic, "kept")
			s.mustSubscribe(topic, 1)
			s.expect(topic, "kept")
			s.unsubscribe(topic)
			s.mustSubscribe(topic, 1|retainIfNew)
			s.expect(topic, "kept")
			s.mustSubscribe(topic, 1|retainIfNew)
			s.quiet()
			s.unsubscribe(topic)
		}
		s.mustSubscribe(topic+"/#", 1) // another filter is another subscription
		s.expect(topic, "kept")
		s.mustSubscribe(topic, 1|retainIfNew)
		s.expect(topic, "kept")
	})
}

// A stored session's subscription exists, also on the next connection.
//
// Proves 5.0 [MQTT-3.3.1-10].
func TestRetain_MQTT_3_3_1_10_StoredSession(t *testing.T) {
	t.Parallel()
	topic, id := name(t), name(t)
	p := shared(t).connect(t, packets.V5, name(t))
	p.publish(retained(topic, 1, "kept"))
	s := shared(t).connect(t, packets.V5, id, resume(300))
	s.mustSubscribe(topic, 1|retainIfNew)
	s.expect(topic, "kept")
	s.bye(0)
	s = shared(t).connect(t, packets.V5, id, resume(300))
	s.mustSubscribe(topic, 1|retainIfNew)
	s.quiet()
	s.bye(0)
	s = shared(t).connect(t, packets.V5, id, fresh(300))
	s.mustSubscribe(topic, 1|retainIfNew)
	s.expect(topic, "kept")
}

// A subscription in the midst of retained messages loses none and gets none
// twice.
//
// Proves 5.0 [MQTT-3.8.4-4] [MQTT-3.3.1-9]; 3.1.1 [MQTT-3.3.1-6] [MQTT-3.8.4-3].
func TestRetain_MQTT_3_8_4_4_AmongMessages(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			for qos := range byte(3) {
				topic := name(t)
				p, s := shared(t).connect(t, v, name(t)), shared(t).connect(t, v, name(t), home...)
				const n = 200
				var b []byte
				for i := range n {
					m := retained(topic, qos, strconv.Itoa(i))
					if qos > 0 {
						m.PacketID = uint16(i + 1)
					}
					b = m.AppendTo(b, v)
				}
				p.write(b[:len(b)/2])
				s.send(&packets.Subscribe{PacketID: 1, Filters: []packets.Subscription{{Filter: []byte(topic), Options: qos}}})
				p.write(b[len(b)/2:])
				s.suback(1)
				last := -1
				for last < n-1 {
					m := s.take()
					i, err := strconv.Atoi(string(m.Payload))
					if err != nil {
						t.Fatal(err)
					}
					if last >= 0 && (i != last+1 || m.Retain) { // only the first may be a retained one
						t.Fatalf("got %s after %d", describe(m), last)
					}
					last = i
				}
				s.quiet()
			}
		})
	})
}

// A retained message does not come after a later message of its publisher.
//
// Proves 5.0 [MQTT-4.6.0-5]; 3.1.1 [MQTT-4.6.0-6].
func TestRetain_MQTT_4_6_0_5_BeforeLaterOnes(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			topic := name(t)
			p, s := shared(t).connect(t, v, name(t)), shared(t).connect(t, v, name(t), home...)
			const rounds, chunk = 60, 20
			for round := range rounds {
				var b []byte
				for i := round * chunk; i < (round+1)*chunk; i++ {
					m := message(topic, 0, strconv.Itoa(i))
					m.Retain = i%chunk == 0
					b = m.AppendTo(b, v)
				}
				p.write(b)
				s.mustSubscribe(topic, 0) // meanwhile
				p.fence()
				s.fence()
				last := -1
				for _, q := range s.pending {
					m, ok := q.(*packets.Publish)
					if !ok {
						continue
					}
					i, err := strconv.Atoi(string(m.Payload))
					if err != nil {
						t.Fatal(err)
					}
					if i <= last {
						t.Fatalf("round %d: %d after %d", round, i, last)
					}
					last = i
				}
				s.pending = nil
				s.unsubscribe(topic)
				s.pending = nil
			}
		})
	})
}

// Proves 5.0 [MQTT-3.3.1-12] [MQTT-3.3.1-13]; 3.1.1 [MQTT-3.3.1-9].
func TestRetain_MQTT_3_3_1_12_AsPublished(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			topic := name(t)
			p := shared(t).connect(t, v, name(t))
			plain, asIs := shared(t).connect(t, v, name(t), home...), shared(t).connect(t, v, name(t), home...)
			plain.mustSubscribe(topic, 2)
			asIs.mustSubscribe(topic, 2)
			if v == packets.V5 {
				asIs.mustSubscribe(topic, 2|retainAsPublished)
			}
			for qos := range byte(3) {
				for _, retain := range []bool{true, false} {
					m := message(topic, qos, "x")
					m.Retain = retain
					p.publish(m)
					if m := plain.expect(topic, "x"); m.Retain {
						t.Fatalf("without retain as published: %s", describe(m))
					}
					if m := asIs.expect(topic, "x"); m.Retain != (retain && v == packets.V5) {
						t.Fatalf("with retain as published: published %v, got %s", retain, describe(m))
					}
				}
			}
			asIs.mustSubscribe(topic, 2) // replaced by a subscription without it
			asIs.expect(topic, "x")
			p.publish(retained(topic, 1, "y"))
			if m := asIs.expect(topic, "y"); m.Retain {
				t.Fatalf("after resubscribing: %s", describe(m))
			}
		})
	})
}

// Retained messages match like others, and $ topics are not for wildcards.
//
// Proves 5.0 [MQTT-4.7.2-1]; 3.1.1 [MQTT-4.7.2-1].
func TestRetain_MQTT_4_7_2_1_Matching(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	versions(t, func(t *testing.T, v packets.Version) {
		p := in.connect(t, v, name(t))
		root := "v" + v.String()
		for _, topic := range []string{"$" + root + "/x", root + "/a", root + "/a/b", root + "/a/b/c", root + "/", "/" + root} {
			p.publish(retained(topic, 1, topic))
		}
		for filter, want := range map[string][]string{
			root + "/a":         {root + "/a"},
			root + "/a/#":       {root + "/a", root + "/a/b", root + "/a/b/c"},
			root + "/+":         {root + "/", root + "/a"},
			root + "/+/#":       {root + "/", root + "/a", root + "/a/b", root + "/a/b/c"},
			"$" + root + "/+":   {"$" + root + "/x"},
			"$" + root + "/#":   {"$" + root + "/x"},
			"+/" + root:         {"/" + root},
			"+/x":               nil,
			root + "/+/b":       {root + "/a/b"},
			root + "/+/+/+":     {root + "/a/b/c"},
			root + "/a/b/c/+":   nil,
			root + "/a/b/c/#":   {root + "/a/b/c"},
			"$share/g/" + root:  nil,
			root + "/A":         nil,
			"$" + root + "/+/+": nil,
		} {
			s := in.connect(t, v, name(t))
			s.mustSubscribe(filter, 0)
			got := map[string]bool{}
			for range want {
				got[string(s.take().Topic)] = true
			}
			s.quiet()
			for _, topic := range want {
				if !got[topic] {
					t.Errorf("%s: %s is missing from %v", filter, topic, got)
				}
			}
		}
		p.publish(retained("$"+root+"/x", 1, ""))
	})
}

// Retained messages are no part of a session.
//
// Proves 5.0 [§4.1]; 3.1.1 [MQTT-3.1.2-7].
func TestRetain_NotPartOfSession(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		topic := name(t)
		p := shared(t).connect(t, v, topic)
		p.publish(retained(topic, 1, "kept"))
		p.bye(0)
		shared(t).connect(t, v, topic).bye(0) // a clean start of the publisher
		s := shared(t).connect(t, v, name(t))
		s.mustSubscribe(topic, 1)
		s.expect(topic, "kept")
	})
}

// Proves 5.0 [MQTT-3.3.2-5] [MQTT-3.3.2-6].
func TestExpiry_MQTT_3_3_2_5_Retained(t *testing.T) {
	t.Parallel()
	topic := name(t)
	p, s := shared(t).connect(t, packets.V5, name(t)), shared(t).connect(t, packets.V5, name(t))
	m := retained(topic, 1, "short")
	m.Props.HasExpiry, m.Props.Expiry = true, 2
	p.publish(m)
	s.mustSubscribe(topic, 1)
	if m := s.expect(topic, "short"); !m.Props.HasExpiry || m.Props.Expiry < 1 || m.Props.Expiry > 2 {
		t.Errorf("expiry %v %d", m.Props.HasExpiry, m.Props.Expiry)
	}
	<-time.After(2100 * time.Millisecond)
	s.mustSubscribe(topic, 1)
	s.quiet()
}

func expiring(m *packets.Publish, seconds uint32) *packets.Publish {
	m.Props.HasExpiry, m.Props.Expiry = true, seconds
	return m
}

// A message that waited too long is not delivered; one that waited goes out
// with what is left.
//
// Proves 5.0 [MQTT-3.3.2-5] [MQTT-3.3.2-6].
func TestExpiry_MQTT_3_3_2_6_WhileAway(t *testing.T) {
	t.Parallel()
	p, s, topic := pair(t, packets.V5, 2, resume(300))
	p.publish(expiring(message(topic, 1, "at once"), 77))
	if m := s.expect(topic, "at once"); m.Props.Expiry < 70 || m.Props.Expiry > 77 {
		t.Errorf("expiry %d, want 77 and hardly less", m.Props.Expiry)
	}
	s.bye(0)
	p.publish(expiring(message(topic, 1, "gone 1"), 1))
	p.publish(expiring(message(topic, 2, "later"), 100))
	p.publish(expiring(message(topic, 2, "gone 2"), 1))
	p.publish(message(topic, 1, "for ever"))
	<-time.After(2100 * time.Millisecond)
	s = shared(t).connect(t, packets.V5, topic+"-sub", resume(300))
	if m := s.expect(topic, "later"); m.Props.Expiry < 90 || m.Props.Expiry > 98 {
		t.Errorf("expiry %d, want 98 and hardly less", m.Props.Expiry)
	}
	if m := s.expect(topic, "for ever"); m.Props.HasExpiry {
		t.Error("an expiry was made up")
	}
	s.quiet()
}

// Messages held back by the receive maximum expire like others.
//
// Proves 5.0 [MQTT-3.3.2-5].
func TestExpiry_MQTT_3_3_2_5_BehindReceiveMaximum(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		p, s, topic := pair(t, packets.V5, 2, append(home, receiveMaximum(1))...)
		p.publish(message(topic, 2, "first"))
		first := s.see(topic, "first")
		p.publish(expiring(message(topic, 1, "gone"), 1))
		p.publish(expiring(message(topic, 2, "later"), 100))
		<-time.After(1100 * time.Millisecond)
		s.complete(first)
		if m := s.expect(topic, "later"); m.Props.Expiry < 90 || m.Props.Expiry > 99 {
			t.Errorf("expiry %d, want 99 and hardly less", m.Props.Expiry)
		}
		s.quiet()
	})
}

// What was sent once is sent again whatever its expiry, and completed.
//
// Proves 5.0 [MQTT-4.3.3-7] [MQTT-4.3.3-13].
func TestExpiry_MQTT_4_3_3_7_NotOnceSent(t *testing.T) {
	t.Parallel()
	p, s, topic := pair(t, packets.V5, 2, resume(300))
	p.publish(expiring(message(topic, 2, "sent"), 2))
	s.see(topic, "sent")
	m := expiring(message(topic, 2, "half received"), 2)
	m.PacketID = 500
	p.send(m)
	p.ack(packets.TypePubrec, 500)
	<-time.After(2100 * time.Millisecond)
	s.send(&packets.Ack{Type: packets.TypePubrec, PacketID: 1})
	s.ack(packets.TypePubrel, 1)
	s.send(&packets.Ack{Type: packets.TypePubcomp, PacketID: 1})
	p.send(&packets.Ack{Type: packets.TypePubrel, PacketID: 500}) // the receiver's side goes on as well
	must(t, "PUBCOMP", p.ack(packets.TypePubcomp, 500).Code, packets.CodeSuccess)
	s.expect(topic, "half received")
	s.quiet()
}

// While the server is down, time goes on.
//
// Proves 5.0 [MQTT-3.3.2-5] [MQTT-3.3.2-6].
func TestExpiry_MQTT_3_3_2_5_WhileDown(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	s := in.connect(t, packets.V5, "s", resume(100_000))
	s.mustSubscribe("t/+", 1)
	s.bye(0)
	p := in.connect(t, packets.V5, "p")
	p.publish(expiring(retained("t/short", 1, "x"), 1000))
	p.publish(expiring(retained("t/long", 1, "x"), 10_000))
	in.restart(t, 3000*time.Second)
	check := func(m *packets.Publish) {
		t.Helper()
		if e := m.Props.Expiry; e < 6900 || e > 7000 {
			t.Errorf("expiry %d, want about 7000", e)
		}
	}
	s = in.connect(t, packets.V5, "s", resume(100_000))
	check(s.expect("t/long", "x"))
	s.quiet()
	s.mustSubscribe("t/#", 1)
	check(s.expect("t/long", "x"))
	s.quiet()
}
