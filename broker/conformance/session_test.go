package conformance

import (
	"fmt"
	"testing"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// durable makes a CONNECT ask for a session that outlives the connection, in
// the way of its version: MQTT 3 has Clean Session 0 for it.
func durable(v packets.Version) with {
	if v == packets.V5 {
		return resume(300)
	}
	return func(c *packets.Connect) { c.CleanStart = false }
}

// Proves 5.0 [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.2.2-3] [MQTT-3.1.2-23]; 3.1.1 [MQTT-3.1.2-4] [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT-3.1.4-3].
func TestSession_MQTT_3_1_2_5_Resumed(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		id := name(t)
		c := shared(t).connect(t, v, id, durable(v))
		if c.connack.SessionPresent {
			t.Fatal("session present for a new client")
		}
		c.mustSubscribe(id, 1)
		c.bye(0)
		c = shared(t).connect(t, v, id, durable(v))
		if !c.connack.SessionPresent {
			t.Fatal("session not present")
		}
		p := shared(t).connect(t, v, name(t))
		p.publish(message(id, 1, "still subscribed"))
		c.expect(id, "still subscribed")
	})
}

// Proves 5.0 [MQTT-3.1.2-4] [MQTT-3.2.2-2] [MQTT-3.1.4-4]; 3.1.1 [MQTT-3.1.2-6] [MQTT-3.2.2-1].
func TestSession_MQTT_3_1_2_4_CleanStart(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		id := name(t)
		p := shared(t).connect(t, v, name(t))
		c := shared(t).connect(t, v, id, durable(v))
		c.mustSubscribe(id, 2)
		p.publish(message(id, 2, "in flight"))
		c.see(id, "in flight")
		c.bye(0)
		p.publish(message(id, 1, "queued"))
		clean := []with{nil}[:0]
		if v == packets.V5 {
			clean = append(clean, fresh(300))
		}
		c = shared(t).connect(t, v, id, clean...)
		if c.connack.SessionPresent {
			t.Fatal("session present after a clean start")
		}
		c.quiet()
		p.publish(message(id, 1, "not subscribed"))
		c.quiet()
		if v == packets.V311 { // it has ended with the connection, too
			c.bye(0)
			c = shared(t).connect(t, v, id, durable(v))
			if c.connack.SessionPresent {
				t.Fatal("state of a clean session was kept")
			}
		}
	})
}

// Proves 3.1.1 [MQTT-3.1.2-6] [MQTT-4.1.0-2].
func TestSession_MQTT_3_1_2_6_CleanSessionEnds(t *testing.T) {
	t.Parallel()
	id := name(t)
	c := shared(t).connect(t, packets.V311, id)
	c.mustSubscribe(id, 1)
	c.bye(0)
	c = shared(t).connect(t, packets.V311, id, durable(packets.V311))
	if c.connack.SessionPresent {
		t.Fatal("a clean session outlived its connection")
	}
	shared(t).connect(t, packets.V311, name(t)).publish(message(id, 1, "x"))
	c.quiet()
}

// A session with expiry 0 ends with the connection, however that ends.
//
// Proves 5.0 [MQTT-4.1.0-2] [§3.1.2.11.2].
func TestSession_MQTT_4_1_0_2_ExpiryZero(t *testing.T) {
	t.Parallel()
	for what, end := range map[string]func(c *client){
		"disconnect": func(c *client) { c.bye(0) },
		"with will":  func(c *client) { c.bye(packets.CodeDisconnectWithWill) },
		"malformed":  func(c *client) { c.raw(0x36, 0); c.gone() },
	} {
		for _, resumedFirst := range []bool{false, true} {
			t.Run(fmt.Sprint(what, resumedFirst), func(t *testing.T) {
				t.Parallel()
				id := name(t)
				if resumedFirst { // a stored session that is taken up with expiry 0
					c := shared(t).connect(t, packets.V5, id, resume(300))
					c.mustSubscribe(id, 1)
					c.bye(0)
				}
				c := shared(t).connect(t, packets.V5, id, resume(0))
				if c.connack.SessionPresent != resumedFirst {
					t.Fatalf("session present %v", !resumedFirst)
				}
				c.mustSubscribe(id, 1)
				end(c)
				c = shared(t).connect(t, packets.V5, id, resume(300))
				if c.connack.SessionPresent {
					t.Fatal("session present")
				}
				shared(t).connect(t, packets.V5, name(t)).publish(message(id, 1, "x"))
				c.quiet()
			})
		}
	}
}

// Proves 5.0 [MQTT-4.1.0-2].
func TestSession_MQTT_4_1_0_2_Expires(t *testing.T) {
	t.Parallel()
	id := name(t)
	watch := shared(t).connect(t, packets.V5, name(t))
	watch.mustSubscribe(id+"/will", 0)
	c := shared(t).connect(t, packets.V5, id, resume(1), func(c *packets.Connect) {
		c.HasWill, c.Will.Topic, c.Will.Payload, c.Will.Delay = true, []byte(id+"/will"), []byte("ended"), 1000
	})
	c.mustSubscribe(id, 1)
	c.cut()
	watch.expect(id+"/will", "ended") // at the session's end, a second later
	c = shared(t).connect(t, packets.V5, id, resume(1))
	if c.connack.SessionPresent {
		t.Fatal("the session outlived its expiry")
	}
	watch.publish(message(id, 1, "x"))
	c.quiet()
}

// Session Expiry Interval may be changed by the DISCONNECT, but not from 0.
//
// Proves 5.0 [§3.14.2.2.2].
func TestSession_DisconnectChangesExpiry(t *testing.T) {
	t.Parallel()
	leave := func(c *client, seconds uint32) {
		d := &packets.Disconnect{}
		d.Props.HasSessionExpiry, d.Props.SessionExpiry = true, seconds
		c.send(d)
	}
	id := name(t)
	c := shared(t).connect(t, packets.V5, id, resume(300))
	leave(c, 0)
	c.closed()
	c = shared(t).connect(t, packets.V5, id, resume(1))
	if c.connack.SessionPresent {
		t.Fatal("expiry 0 at the DISCONNECT kept the session")
	}
	leave(c, 300)
	c.closed()
	c = shared(t).connect(t, packets.V5, id, resume(1))
	if !c.connack.SessionPresent {
		t.Fatal("expiry 300 at the DISCONNECT did not keep the session")
	}
	for _, v := range []with{resume(0), func(*packets.Connect) {}} {
		c = shared(t).connect(t, packets.V5, id, v)
		leave(c, 5)
		c.rejected(packets.CodeProtocolError)
	}
	c = shared(t).connect(t, packets.V5, id, resume(0))
	leave(c, 0) // no change
	c.closed()
}

// Proves 5.0 [MQTT-3.1.2-23] [MQTT-4.5.0-1] [MQTT-4.1.0-1]; 3.1.1 [MQTT-3.1.2-5] [MQTT-4.1.0-1] [MQTT-4.5.0-1].
func TestSession_MQTT_3_1_2_23_QueuesWhileAway(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		id := name(t)
		p := shared(t).connect(t, v, name(t))
		c := shared(t).connect(t, v, id, durable(v))
		c.mustSubscribe(id+"/+", 2)
		c.bye(0)
		for i := range 20 {
			p.publish(message(id+"/a", byte(i%3), fmt.Sprint(i)))
		}
		c = shared(t).connect(t, v, id, durable(v))
		for i := range 20 {
			if i%3 == 0 {
				continue // QoS 0 is not stored
			}
			got := c.expect(id+"/a", fmt.Sprint(i))
			if got.Dup || got.QoS != byte(i%3) {
				t.Fatalf("message %d: dup %v, QoS %d", i, got.Dup, got.QoS)
			}
		}
		c.quiet()
	})
}

// Sessions, queues and retained messages survive a restart of the server.
//
// Proves 5.0 [MQTT-3.1.2-23] [MQTT-4.1.0-1]; 3.1.1 [MQTT-4.1.0-1] [MQTT-3.1.2-7].
func TestSession_MQTT_4_1_0_1_SurvivesRestart(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	for _, v := range []packets.Version{packets.V311, packets.V5} {
		id := name(t)
		p := in.connect(t, v, name(t))
		c := in.connect(t, v, id, durable(v))
		c.mustSubscribe(id+"/#", 2)
		p.publish(message(id+"/1", 1, "one"))
		first := c.see(id+"/1", "one")
		p.publish(message(id+"/2", 2, "two"))
		second := c.see(id+"/2", "two")
		c.send(&packets.Ack{Type: packets.TypePubrec, PacketID: second.PacketID})
		c.ack(packets.TypePubrel, second.PacketID)
		c.bye(0)
		p.publish(retained(id+"/3", 1, "three"))
		in.restart(t, 0)
		c = in.connect(t, v, id, durable(v))
		if !c.connack.SessionPresent {
			t.Fatal("session lost")
		}
		if again := c.see(id+"/1", "one"); !again.Dup || again.PacketID != first.PacketID {
			t.Fatalf("resent as %s", describe(again))
		} else {
			c.complete(again)
		}
		if rel := want[*packets.Ack](c); rel.Type != packets.TypePubrel || rel.PacketID != second.PacketID {
			t.Fatalf("resent %s", describe(rel))
		}
		c.send(&packets.Ack{Type: packets.TypePubcomp, PacketID: second.PacketID})
		if m := c.expect(id+"/3", "three"); m.Dup || m.Retain {
			t.Fatalf("queued as %s", describe(m))
		}
		c.quiet()
		c.mustSubscribe(id+"/3", 1)
		if m := c.expect(id+"/3", "three"); !m.Retain {
			t.Fatal("not retained")
		}
	}
}

// Everything that makes up a session is there after a reconnect and after a
// restart: options and identifiers of subscriptions, membership of groups,
// receipts of QoS 2, retained messages with their properties.
//
// Proves 5.0 [MQTT-4.1.0-1] [MQTT-4.3.3-10] [MQTT-3.8.3-3] [MQTT-3.3.1-13] [MQTT-3.3.4-3]; 3.1.1 [MQTT-4.1.0-1] [MQTT-4.3.3-2].
func TestSession_MQTT_4_1_0_1_AllOfIt(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	id := name(t)
	c := in.connect(t, packets.V5, id, resume(300))
	c.subscribeID("own", 2|noLocal|retainAsPublished, 7)
	c.subscribeID("$share/g/work", 1, 8)
	p := in.connect(t, packets.V5, "p", resume(300))
	m := retained("kept", 2, "kept")
	m.Props = properties()
	p.publish(m)
	half := message("own", 2, "half")
	half.PacketID = 77
	p.send(half)
	p.ack(packets.TypePubrec, 77)
	c.expect("own", "half")
	again := func() {
		c, p = in.connect(t, packets.V5, id, resume(300)), in.connect(t, packets.V5, "p", resume(300))
		half.Dup = true
		p.send(half)
		must(t, "PUBREC", p.ack(packets.TypePubrec, 77).Code, packets.CodeSuccess)
		c.quiet()
		c.publish(message("own", 2, "mine")) // No Local
		c.quiet()
		m := retained("own", 1, "published") // Retain As Published, and the identifier
		p.publish(m)
		if got := c.expect("own", "published"); !got.Retain || len(got.Props.SubscriptionIDs) != 1 || got.Props.SubscriptionIDs[0] != 7 {
			t.Fatalf("got %s, identifiers %v", describe(got), got.Props.SubscriptionIDs)
		}
		p.publish(message("work", 2, "work"))
		if got := c.expect("work", "work"); got.QoS != 1 || got.Props.SubscriptionIDs[0] != 8 {
			t.Fatalf("got %s", describe(got))
		}
		s := in.connect(t, packets.V5, "s")
		s.mustSubscribe("kept", 2)
		got := s.expect("kept", "kept")
		sameProperties(t, &got.Props)
		s.bye(0)
		c.bye(0)
		p.bye(0)
	}
	c.bye(0)
	p.bye(0)
	again()
	in.restart(t, 0)
	again()
	in.restart(t, 0)
	p = in.connect(t, packets.V5, "p", resume(300))
	p.send(&packets.Ack{Type: packets.TypePubrel, PacketID: 77})
	must(t, "PUBCOMP", p.ack(packets.TypePubcomp, 77).Code, packets.CodeSuccess)
}

// Sessions expire by the time that passed while the server was down.
//
// Proves 5.0 [MQTT-4.1.0-2].
func TestSession_MQTT_4_1_0_2_ExpiresWhileDown(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	a, b := name(t), name(t)
	in.connect(t, packets.V5, a, resume(3600)).bye(0)
	in.connect(t, packets.V5, b, resume(4*3600)).bye(0)
	in.connect(t, packets.V5, "forever", resume(0xffffffff)).bye(0)
	in.restart(t, 2*3600*1e9)
	if in.connect(t, packets.V5, a, resume(60)).connack.SessionPresent {
		t.Error("expired session is present")
	}
	if !in.connect(t, packets.V5, b, resume(60)).connack.SessionPresent {
		t.Error("session expired early")
	}
	if !in.connect(t, packets.V5, "forever", resume(60)).connack.SessionPresent {
		t.Error("session that never expires is gone")
	}
}

// Proves 5.0 [MQTT-3.1.3-2]; 3.1.1 [MQTT-3.1.3-2].
func TestSession_MQTT_3_1_3_2_ByClientID(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		id := name(t)
		shared(t).connect(t, v, id, durable(v)).bye(0)
		for other, present := range map[string]bool{id: true, id + "x": false, "X" + id: false, id + " ": false} {
			if c := shared(t).connect(t, v, other, durable(v)); c.connack.SessionPresent != present {
				t.Errorf("%q: session present %v", other, !present)
			}
		}
	})
}

// A session is one across versions of the protocol.
//
// Proves 5.0 [§3.1.2.11.2].
func TestSession_AcrossVersions(t *testing.T) {
	t.Parallel()
	id := name(t)
	p := shared(t).connect(t, packets.V5, name(t))
	c := shared(t).connect(t, packets.V5, id, resume(300))
	if code := c.subscribeID(id, 1, 9); code != 1 {
		t.Fatal(code)
	}
	c.bye(0)
	p.publish(message(id, 1, "a"))
	c = shared(t).connect(t, packets.V311, id, durable(packets.V311))
	if !c.connack.SessionPresent {
		t.Fatal("session not present")
	}
	c.expect(id, "a")
	c.bye(0)
	p.publish(message(id, 1, "b"))
	c = shared(t).connect(t, packets.V5, id, resume(300))
	if m := c.expect(id, "b"); len(m.Props.SubscriptionIDs) != 1 {
		t.Errorf("subscription identifiers %v", m.Props.SubscriptionIDs)
	}
}
