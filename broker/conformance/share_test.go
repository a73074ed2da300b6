package conformance

import (
	"fmt"
	"testing"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// takeAny returns the next PUBLISH of several clients, each having settled.
func takeAny(t *testing.T, clients ...*client) (who int, m *packets.Publish) {
	t.Helper()
	for i, c := range clients {
		c.fence()
		for k, p := range c.pending {
			if m, ok := p.(*packets.Publish); ok {
				c.pending = append(c.pending[:k:k], c.pending[k+1:]...)
				return i, m
			}
		}
	}
	t.Fatal("nobody got the message")
	return 0, nil
}

// Each message goes to one member of each group, and to others as ever.
//
// Proves 5.0 [§4.8.2] [MQTT-4.8.2-3].
func TestShare_MQTT_4_8_2_3_OneMember(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		topic := name(t)
		var members []*client
		for qos := range byte(3) {
			c := shared(t).connect(t, packets.V5, name(t), home...)
			if code := c.subscribeID("$share/g/"+topic, qos, uint32(qos)+1); code != packets.Code(qos) {
				t.Fatal(code)
			}
			members = append(members, c)
		}
		other := shared(t).connect(t, packets.V5, name(t), home...)
		other.mustSubscribe("$share/h/"+topic, 2)
		plain := shared(t).connect(t, packets.V5, name(t), home...)
		plain.mustSubscribe(topic, 2)
		p := shared(t).connect(t, packets.V5, name(t))
		count := make([]int, len(members))
		for i := range 60 {
			payload := fmt.Sprint(i)
			p.publish(message(topic, byte(i%3), payload))
			plain.expect(topic, payload)
			other.expect(topic, payload)
			who, m := takeAny(t, members...)
			if string(m.Payload) != payload || m.QoS != min(byte(i%3), byte(who)) { // the granted QoS of this very member
				t.Fatalf("member %d got %s", who, describe(m))
			}
			if ids := m.Props.SubscriptionIDs; len(ids) != 1 || ids[0] != uint32(who)+1 {
				t.Fatalf("subscription identifiers %v of member %d", ids, who)
			}
			members[who].complete(m)
			count[who]++
			for _, c := range members {
				c.quiet()
			}
		}
		for who, n := range count {
			if n == 0 {
				t.Errorf("member %d got nothing", who)
			}
		}
		p.publish(retained(topic, 1, "kept"))
		plain.expect(topic, "kept")
		other.expect(topic, "kept")
		who, m := takeAny(t, members...)
		members[who].complete(m)
		other.mustSubscribe("$share/h/"+topic, 2) // no retained messages for shared subscriptions
		other.quiet()
		p.publish(retained(topic, 1, ""))
	})
}

// A member that leaves hands on what it has not acknowledged, but for QoS 2
// deliveries that have begun.
//
// Proves 5.0 [MQTT-4.8.2-5] [§4.8.2].
func TestShare_MQTT_4_8_2_5_MemberLeaves(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		for _, others := range [][]with{nil, {resume(300)}} {
			topic, id := name(t), name(t)
			b := shared(t).connect(t, packets.V5, id, others...)
			if others != nil { // a member, but away
				b.mustSubscribe("$share/g/"+topic, 2)
				b.bye(0)
			}
			a := shared(t).connect(t, packets.V5, name(t), append(home, receiveMaximum(3))...)
			a.mustSubscribe("$share/g/"+topic, 2)
			p := shared(t).connect(t, packets.V5, name(t))
			for i := range 6 {
				p.publish(message(topic, byte(1+i%2), fmt.Sprint(i)))
			}
			for i := range 3 { // 0 and 2 are QoS 1, 1 is QoS 2; 3, 4, 5 wait
				a.see(topic, fmt.Sprint(i))
			}
			if others != nil {
				b = shared(t).connect(t, packets.V5, id, others...)
			} else {
				b.mustSubscribe("$share/g/"+topic, 2)
			}
			b.settled()
			d := &packets.Disconnect{}
			if home != nil {
				d.Props.HasSessionExpiry = true // and ends the session
			}
			a.send(d)
			a.gone()
			got := map[string]bool{}
			for range 5 {
				m := b.take()
				if m.Dup {
					t.Errorf("got %s", describe(m))
				}
				got[string(m.Payload)] = true
			}
			if got["1"] || len(got) != 5 {
				t.Errorf("handed on: %v; want all but 1", got)
			}
			b.quiet()
		}
	})
}

// What is handed on comes at the next member's own QoS and options, not at
// those of the member that left.
//
// Proves 5.0 [MQTT-4.8.2-3].
func TestShare_MQTT_4_8_2_3_HandedOn(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		topic := name(t)
		a := shared(t).connect(t, packets.V5, name(t), append(home, receiveMaximum(1))...)
		a.subscribeID("$share/g/"+topic, 1, 1)
		p := shared(t).connect(t, packets.V5, name(t))
		m := retained(topic, 2, "one")
		m.Props = properties()
		p.publish(m)
		p.publish(retained(topic, 2, "two"))
		a.see(topic, "one")
		b := shared(t).connect(t, packets.V5, name(t))
		b.subscribeID("$share/g/"+topic, 2|retainAsPublished, 2)
		b.settled()
		d := &packets.Disconnect{}
		d.Props.HasSessionExpiry = home != nil
		a.send(d)
		a.gone()
		for _, payload := range []string{"one", "two"} {
			got := b.expect(topic, payload)
			if got.QoS != 2 || !got.Retain || len(got.Props.SubscriptionIDs) != 1 || got.Props.SubscriptionIDs[0] != 2 {
				t.Errorf("got %s, subscription identifiers %v", describe(got), got.Props.SubscriptionIDs)
			}
			if payload == "one" {
				sameProperties(t, &got.Props)
			}
		}
	})
}

// What a member leaves behind that is in memory alone never gets in the way of
// the deliveries of a member with a durable session.
//
// Proves 5.0 [MQTT-2.2.1-4] [MQTT-4.3.2-3].
func TestShare_MQTT_2_2_1_4_MemoryAndLog(t *testing.T) {
	t.Parallel()
	topic := name(t)
	a := shared(t).connect(t, packets.V5, name(t))
	a.mustSubscribe("$share/g/"+topic, 1)
	p := shared(t).connect(t, packets.V5, name(t))
	p.publish(message(topic, 1, "in memory"))
	a.see(topic, "in memory")
	b := shared(t).connect(t, packets.V5, name(t), resume(300))
	b.mustSubscribe("$share/g/"+topic, 1)
	b.mustSubscribe(topic+"/own", 1)
	p.publish(message(topic+"/own", 1, "in the log"))
	open := b.see(topic+"/own", "in the log") // keeps its identifier
	a.cut()
	p.settled()
	p.publish(message(topic, 1, "next"))
	for string(b.take().Payload) != "next" { // whatever comes is checked
	}
	b.complete(open)
	b.quiet()
}

// A QoS 2 delivery that has begun is completed with the client it began with.
//
// Proves 5.0 [MQTT-4.8.2-4].
func TestShare_MQTT_4_8_2_4_CompletedOnReconnect(t *testing.T) {
	t.Parallel()
	topic := name(t)
	id := name(t)
	a := shared(t).connect(t, packets.V5, id, resume(300))
	a.mustSubscribe("$share/g/"+topic, 2)
	p := shared(t).connect(t, packets.V5, name(t))
	p.publish(message(topic, 2, "one"))
	one := a.see(topic, "one")
	p.publish(message(topic, 2, "two"))
	two := a.see(topic, "two")
	a.send(&packets.Ack{Type: packets.TypePubrec, PacketID: two.PacketID})
	a.ack(packets.TypePubrel, two.PacketID)
	a.cut()
	b := shared(t).connect(t, packets.V5, name(t))
	b.mustSubscribe("$share/g/"+topic, 2)
	b.settled()
	a = shared(t).connect(t, packets.V5, id, resume(300))
	if m := a.expect(topic, "one"); !m.Dup || m.PacketID != one.PacketID {
		t.Errorf("got %s", describe(m))
	}
	a.pending = nil
	a.send(&packets.Ack{Type: packets.TypePubcomp, PacketID: two.PacketID})
	a.quiet()
	b.settled()
}

// A refusal by one member is not an occasion to try another.
//
// Proves 5.0 [MQTT-4.8.2-6].
func TestShare_MQTT_4_8_2_6_ErrorDiscards(t *testing.T) {
	t.Parallel()
	for _, homes := range [][2][]with{{nil, nil}, {{resume(300)}, nil}, {nil, {resume(300)}}, {{resume(300)}, {resume(300)}}} {
		topic := name(t)
		a, b := shared(t).connect(t, packets.V5, name(t), homes[0]...), shared(t).connect(t, packets.V5, name(t), homes[1]...)
		a.mustSubscribe("$share/g/"+topic, 2)
		b.mustSubscribe("$share/g/"+topic, 2)
		p := shared(t).connect(t, packets.V5, name(t))
		for i := range 8 {
			p.publish(message(topic, byte(1+i%2), fmt.Sprint(i)))
			who, m := takeAny(t, a, b)
			c := []*client{a, b}[who]
			ack := &packets.Ack{Type: packets.TypePuback, PacketID: m.PacketID, Code: packets.CodeUnspecifiedError}
			if m.QoS == 2 {
				ack.Type = packets.TypePubrec
			}
			c.send(ack)
			a.settled()
			b.settled()
		}
		a.bye(0)
		b.settled()
	}
}

// Messages wait while no member is connected, and go to the first that is.
//
// Proves 5.0 [§4.8.2] [MQTT-4.5.0-1].
func TestShare_AllAway(t *testing.T) {
	t.Parallel()
	topic, ids := name(t), []string{name(t), name(t)}
	for _, id := range ids {
		c := shared(t).connect(t, packets.V5, id, resume(300))
		c.mustSubscribe("$share/g/"+topic, 1)
		c.bye(0)
	}
	p := shared(t).connect(t, packets.V5, name(t))
	for i := range 10 {
		p.publish(message(topic, 1, fmt.Sprint(i)))
	}
	c := shared(t).connect(t, packets.V5, ids[1], resume(300))
	for i := range 10 {
		c.expect(topic, fmt.Sprint(i))
	}
	c.quiet()
}

// Shared filters are matched like others.
//
// Proves 5.0 [MQTT-4.7.2-1] [MQTT-4.7.1-1].
func TestShare_MQTT_4_7_2_1_Matching(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	for _, home := range [][]with{nil, {resume(300)}} {
		c := in.connect(t, packets.V5, name(t), home...)
		for i, f := range []string{"#", "+/x", "$s/+", "a/+/#"} {
			c.subscribeID("$share/g/"+f, 1, uint32(i)+1)
		}
		p := in.connect(t, packets.V5, name(t))
		for topic, ids := range map[string][]uint32{"$s/x": {3}, "a/x": {1, 2, 4}, "$s": nil, "b": {1}} {
			p.publish(message(topic, 1, "x"))
			got := map[uint32]bool{}
			for range ids {
				got[c.expect(topic, "x").Props.SubscriptionIDs[0]] = true
			}
			c.quiet()
			for _, id := range ids {
				if !got[id] {
					t.Errorf("%s: %v, want %v", topic, got, ids)
				}
			}
		}
		c.bye(0)
		in.connect(t, packets.V5, string(c.strict.connect.ClientID)).bye(0) // ends the session
	}
}

// A member is chosen among those that are connected.
//
// Proves 5.0 [§4.8.2].
func TestShare_ConnectedFirst(t *testing.T) {
	t.Parallel()
	topic := name(t)
	away := shared(t).connect(t, packets.V5, name(t), resume(300))
	away.mustSubscribe("$share/g/"+topic, 2)
	away.bye(0)
	here := shared(t).connect(t, packets.V5, name(t))
	here.mustSubscribe("$share/g/"+topic, 2)
	p := shared(t).connect(t, packets.V5, name(t))
	for i := range 9 {
		p.publish(message(topic, byte(i%3), fmt.Sprint(i)))
		here.expect(topic, fmt.Sprint(i))
	}
}

// A shared and a plain subscription of one client are two, and unsubscribing
// from one leaves the other.
//
// Proves 5.0 [§4.8.2] [MQTT-3.10.4-1] [MQTT-3.3.4-5].
func TestShare_MQTT_3_3_4_5_BesidePlain(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		topic := name(t)
		c := shared(t).connect(t, packets.V5, name(t), home...)
		c.subscribeID(topic, 1, 11)
		c.subscribeID("$share/g/"+topic, 1, 22)
		p := shared(t).connect(t, packets.V5, name(t))
		for qos := range byte(3) { // two copies, each with its own identifier
			p.publish(message(topic, qos, "x"))
			a, b := c.expect(topic, "x").Props.SubscriptionIDs, c.expect(topic, "x").Props.SubscriptionIDs
			if len(a) != 1 || len(b) != 1 || a[0]+b[0] != 33 {
				t.Errorf("QoS %d: subscription identifiers %v and %v", qos, a, b)
			}
			c.quiet()
		}
		c.unsubscribe(topic)
		p.publish(message(topic, 1, "y"))
		c.expect(topic, "y")
		c.quiet()
		c.unsubscribe("$share/g/" + topic)
		p.publish(message(topic, 1, "z"))
		c.quiet()
	})
}

// Proves 5.0 [MQTT-3.1.2-25] [§4.8.2].
func TestShare_TooLargeForOne(t *testing.T) {
	t.Parallel()
	for _, home := range [][]with{nil, {resume(300)}} {
		topic := name(t)
		c := shared(t).connect(t, packets.V5, name(t), append(home, maximumPacketSize(100), receiveMaximum(1))...)
		c.mustSubscribe("$share/g/"+topic, 2)
		p := shared(t).connect(t, packets.V5, name(t))
		for qos := range byte(3) {
			for range 3 {
				p.publish(message(topic, qos, string(make([]byte, 200))))
			}
			p.publish(message(topic, qos, "small"))
			c.expect(topic, "small")
			c.quiet()
		}
	}
}
