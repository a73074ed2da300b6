package conformance

import (
	"fmt"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/packets"
)

// will adds a will to a CONNECT.
func will(topic string, qos byte, retain bool, payload string) with {
	return func(c *packets.Connect) {
		c.HasWill = true
		c.Will.Topic, c.Will.QoS, c.Will.Retain, c.Will.Payload = []byte(topic), qos, retain, []byte(payload)
	}
}

func willDelay(seconds uint32) with { return func(c *packets.Connect) { c.Will.Delay = seconds } }

// Whatever ends the connection without a DISCONNECT 0x00 publishes the will,
// at its QoS.
//
// Proves 5.0 [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.2-14] [§3.14.4]; 3.1.1 [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.2-16].
func TestWill_MQTT_3_1_2_8_Published(t *testing.T) {
	t.Parallel()
	ends := map[string]func(c *client){
		"network":        func(c *client) { c.cut() },
		"malformed":      func(c *client) { c.raw(0x36, 0); c.gone() },
		"second CONNECT": func(c *client) { c.send(&packets.Connect{CleanStart: true, ClientID: []byte("x")}); c.gone() },
		"server packet":  func(c *client) { c.send(&packets.Suback{PacketID: 1, Codes: []packets.Code{0}}); c.gone() },
		"0x04":           func(c *client) { c.bye(packets.CodeDisconnectWithWill) },
		"0x80":           func(c *client) { c.bye(packets.CodeUnspecifiedError) },
		"0x97":           func(c *client) { c.bye(packets.CodeQuotaExceeded) },
	}
	everyVersion(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			for what, end := range ends {
				if v != packets.V5 && what[:2] == "0x" {
					continue
				}
				t.Run(what, func(t *testing.T) {
					topic := name(t)
					watch := shared(t).connect(t, packets.V5, name(t))
					watch.mustSubscribe(topic, 2|retainAsPublished)
					for qos := range byte(3) {
						c := shared(t).connect(t, v, topic, append(home, will(topic, qos, false, "gone"))...)
						watch.quiet()
						end(c)
						if m := watch.expect(topic, "gone"); m.QoS != qos || m.Retain {
							t.Fatalf("got %s", describe(m))
						}
						watch.settled() // once
						c = shared(t).connect(t, v, topic, home...)
						c.cut() // and forgotten: this connection has none
						shared(t).connect(t, v, topic, home...)
						watch.settled()
					}
				})
			}
		})
	})
}

// Proves 5.0 [MQTT-3.14.4-3] [MQTT-3.1.2-10]; 3.1.1 [MQTT-3.14.4-3] [MQTT-3.1.2-10] [MQTT-3.1.2-12].
func TestWill_MQTT_3_14_4_3_Discarded(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			topic := name(t)
			watch := shared(t).connect(t, packets.V5, name(t))
			watch.mustSubscribe(topic, 2)
			for qos := range byte(3) {
				c := shared(t).connect(t, v, topic, append(home, will(topic, qos, qos == 1, "gone"))...)
				c.bye(0)
				watch.settled()
				c = shared(t).connect(t, v, topic, home...)
				c.cut()
				shared(t).connect(t, v, topic, home...).bye(0)
				watch.settled()
			}
			watch.mustSubscribe(topic, 2)
			watch.settled() // none was retained either
		})
	})
}

// Proves 5.0 [MQTT-3.1.2-15] [MQTT-3.1.2-14]; 3.1.1 [MQTT-3.1.2-17] [MQTT-3.1.2-16].
func TestWill_MQTT_3_1_2_15_Retained(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			for qos := range byte(3) {
				topic := name(t)
				watch := shared(t).connect(t, packets.V5, name(t))
				watch.mustSubscribe(topic, 2)
				shared(t).connect(t, v, topic, append(home, will(topic, qos, true, "kept"))...).cut()
				watch.expect(topic, "kept")
				watch.mustSubscribe(topic, 2)
				if m := watch.expect(topic, "kept"); !m.Retain || m.QoS != qos {
					t.Fatalf("got %s", describe(m))
				}
				shared(t).connect(t, v, topic, append(home, will(topic, qos, false, "passing"))...).cut()
				watch.expect(topic, "passing")
				watch.mustSubscribe(topic, 2)
				watch.expect(topic, "kept")
				// A retained will without payload clears the topic.
				shared(t).connect(t, v, topic, append(home, will(topic, qos, true, ""))...).cut()
				watch.expect(topic, "")
				watch.mustSubscribe(topic, 2)
				watch.quiet()
			}
		})
	})
}

// Properties of the will come with it.
//
// Proves 5.0 [MQTT-3.1.3-10] [§3.1.3.2].
func TestWill_MQTT_3_1_3_10_Properties(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		for qos := range byte(3) {
			topic := name(t)
			watch := shared(t).connect(t, packets.V5, name(t))
			watch.mustSubscribe(topic, 2)
			c := shared(t).connect(t, packets.V5, topic, append(home, will(topic, qos, true, "gone"), func(c *packets.Connect) {
				c.Will.Props = properties()
				c.Will.Props.HasExpiry, c.Will.Props.Expiry = true, 500
			})...)
			c.cut()
			check := func(m *packets.Publish) {
				t.Helper()
				sameProperties(t, &m.Props)
				if !m.Props.HasExpiry || m.Props.Expiry < 490 || m.Props.Expiry > 500 {
					t.Errorf("expiry %v %d", m.Props.HasExpiry, m.Props.Expiry)
				}
			}
			check(watch.expect(topic, "gone"))
			watch.mustSubscribe(topic, 2)
			check(watch.expect(topic, "gone"))
		}
	})
}

// A will waits for its delay, and for the session's end at most; a new
// connection to the session in time cancels it.
//
// Proves 5.0 [MQTT-3.1.3-9] [MQTT-3.1.2-8] [§3.1.3.2.2].
func TestWill_MQTT_3_1_3_9_Delay(t *testing.T) {
	t.Parallel()
	connect := func(t *testing.T, expiry, delay uint32) (c, watch *client, topic string) {
		topic = name(t)
		watch = shared(t).connect(t, packets.V5, name(t))
		watch.mustSubscribe(topic, 1)
		c = shared(t).connect(t, packets.V5, topic, resume(expiry), will(topic, 1, false, "gone"), willDelay(delay))
		return c, watch, topic
	}
	cut := func(t *testing.T, c, watch *client, topic string, least, most time.Duration) {
		t.Helper()
		began := time.Now()
		c.cut()
		watch.expect(topic, "gone")
		if d := time.Since(began); d < least || d > most {
			t.Errorf("published after %v, want %v to %v", d, least, most)
		}
	}
	t.Run("passes", func(t *testing.T) {
		t.Parallel()
		c, watch, topic := connect(t, 300, 1)
		cut(t, c, watch, topic, 900*time.Millisecond, 10*time.Second)
	})
	t.Run("session ends first", func(t *testing.T) {
		t.Parallel()
		c, watch, topic := connect(t, 1, 1000)
		cut(t, c, watch, topic, 900*time.Millisecond, 10*time.Second)
	})
	t.Run("expiry 0", func(t *testing.T) {
		t.Parallel()
		c, watch, topic := connect(t, 0, 1000)
		cut(t, c, watch, topic, 0, 10*time.Second)
	})
	t.Run("clean start ends the session", func(t *testing.T) {
		t.Parallel()
		c, watch, topic := connect(t, 300, 1000)
		c.bye(packets.CodeDisconnectWithWill)
		watch.settled()
		shared(t).connect(t, packets.V5, topic, fresh(300))
		watch.expect(topic, "gone")
		watch.settled()
	})
	t.Run("clean start without a session", func(t *testing.T) {
		t.Parallel()
		c, watch, topic := connect(t, 300, 1000)
		c.bye(packets.CodeDisconnectWithWill)
		watch.settled()
		shared(t).connect(t, packets.V5, topic)
		watch.expect(topic, "gone")
		watch.settled()
	})
	t.Run("return in time", func(t *testing.T) {
		t.Parallel()
		c, watch, topic := connect(t, 300, 1)
		c.bye(packets.CodeDisconnectWithWill)
		c = shared(t).connect(t, packets.V5, topic, resume(300))
		<-time.After(1300 * time.Millisecond)
		watch.settled()
		c.cut() // the new connection has no will
		shared(t).connect(t, packets.V5, topic, resume(300))
		watch.settled()
	})
	t.Run("ended by the DISCONNECT", func(t *testing.T) {
		t.Parallel()
		c, watch, topic := connect(t, 300, 1000)
		d := &packets.Disconnect{Code: packets.CodeDisconnectWithWill}
		d.Props.HasSessionExpiry = true // 0: the session ends now
		c.send(d)
		c.gone()
		watch.expect(topic, "gone")
	})
}

// A connection that is taken over publishes its will, unless the delay lets
// the new one forestall it.
//
// Proves 5.0 [MQTT-3.1.2-8] [MQTT-3.1.3-9] [§3.1.4]; 3.1.1 [MQTT-3.1.2-8].
func TestWill_MQTT_3_1_3_9_TakeOver(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		for _, first := range [][]with{nil, {durable(v)}} {
			for _, second := range [][]with{nil, {durable(v)}, {durable(v), func(c *packets.Connect) { c.CleanStart = true }}} {
				for qos := range byte(2) {
					topic := name(t)
					watch := shared(t).connect(t, packets.V5, name(t))
					watch.mustSubscribe(topic, 1)
					c := shared(t).connect(t, v, topic, append(first, will(topic, qos, false, "taken over"))...)
					shared(t).connect(t, v, topic, append(second, will(topic, qos, false, "of the second"))...)
					c.gone()
					watch.expect(topic, "taken over")
					watch.settled()
				}
			}
		}
	})
	topic := name(t)
	watch := shared(t).connect(t, packets.V5, name(t))
	watch.mustSubscribe(topic, 1)
	c := shared(t).connect(t, packets.V5, topic, resume(300), will(topic, 1, false, "forestalled"), willDelay(1))
	young := shared(t).connect(t, packets.V5, topic, resume(300))
	c.gone()
	<-time.After(1200 * time.Millisecond)
	watch.settled()
	young.quiet()
}

// Keep alive that runs out is an end like others.
//
// Proves 5.0 [MQTT-3.1.2-22] [MQTT-3.1.2-8]; 3.1.1 [MQTT-3.1.2-24] [MQTT-3.1.2-8].
func TestKeepAlive_MQTT_3_1_2_22_ClosesAndPublishesWill(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v packets.Version) {
		kinds(t, v, func(t *testing.T, home ...with) {
			topic := name(t)
			watch := shared(t).connect(t, packets.V5, name(t))
			watch.mustSubscribe(topic, 1)
			began := time.Now()
			c := shared(t).connect(t, v, topic, append(home, keepAlive(1), will(topic, 1, false, "silent"))...)
			c.rejected(packets.CodeKeepAliveTimeout)
			if d := time.Since(began); d < 1400*time.Millisecond || d > 10*time.Second {
				t.Errorf("closed after %v", d)
			}
			watch.expect(topic, "silent")
		})
	})
}

// Any packet keeps the connection alive; bytes that are no packet do not.
//
// Proves 5.0 [MQTT-3.1.2-22] [MQTT-3.12.4-1] [MQTT-3.2.2-22]; 3.1.1 [MQTT-3.1.2-24] [MQTT-3.12.4-1].
func TestKeepAlive_MQTT_3_1_2_22_Packets(t *testing.T) {
	t.Parallel()
	t.Run("kept", func(t *testing.T) {
		t.Parallel()
		c := shared(t).connect(t, packets.V5, name(t), keepAlive(1))
		off := shared(t).connect(t, packets.V5, name(t)) // 0: never
		tick := time.NewTicker(900 * time.Millisecond)
		defer tick.Stop()
		for i := range 5 {
			<-tick.C
			switch i % 3 {
			case 0:
				c.send(&packets.Ping{Type: packets.TypePingreq})
				want[*packets.Ping](c)
			case 1:
				c.send(message("a/b/c", 0, "x"))
			case 2:
				c.send(&packets.Ack{Type: packets.TypePuback, PacketID: 9})
			}
		}
		c.quiet()
		off.quiet()
	})
	t.Run("drip", func(t *testing.T) {
		t.Parallel()
		c := shared(t).connect(t, packets.V5, name(t), keepAlive(1))
		b := message("a", 0, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx").AppendTo(nil, packets.V5)
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			tick := time.NewTicker(400 * time.Millisecond)
			defer tick.Stop()
			for _, x := range b {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				if _, err := c.nc.Write([]byte{x}); err != nil {
					return
				}
			}
		}()
		c.rejected(packets.CodeKeepAliveTimeout)
		close(stop)
		<-done
	})
}

// Proves 5.0 [§3.2.2.3.14] [MQTT-3.1.2-22].
func TestKeepAlive_ServerKeepAlive(t *testing.T) {
	t.Parallel()
	in := start(t, func(o *broker.Options) { o.Limits.MaxKeepAlive = 1 })
	for _, asked := range []uint16{0, 1000} {
		c := in.connect(t, packets.V5, name(t), keepAlive(asked))
		if p := c.connack.Props; !p.HasServerKeepAlive || p.ServerKeepAlive != 1 {
			t.Errorf("asked for %d: server keep alive %v %d", asked, p.HasServerKeepAlive, p.ServerKeepAlive)
		}
		c.rejected(packets.CodeKeepAliveTimeout)
	}
}

// The wills of clients that a crash of the server cut off, or that were
// delayed, are published after its restart.
//
// Proves 5.0 [MQTT-3.1.2-7] [MQTT-3.1.2-8]; 3.1.1 [MQTT-3.1.2-8].
func TestWill_MQTT_3_1_2_8_AfterRestart(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	watch := in.connect(t, packets.V5, "watch", resume(0xffffffff))
	watch.mustSubscribe("wills/#", 1)
	watch.bye(0)
	c := in.connect(t, packets.V5, "a", resume(300), will("wills/a", 1, false, "delayed"), willDelay(5), func(c *packets.Connect) {
		c.Will.Props = properties()
	})
	c.bye(packets.CodeDisconnectWithWill)
	in.restart(t, 10*time.Second)
	watch = in.connect(t, packets.V5, "watch", resume(0xffffffff))
	m := watch.expect("wills/a", "delayed")
	sameProperties(t, &m.Props)
	watch.settled()
}

// A server that shuts down closes its connections, and their wills are due:
// the next start publishes them.
//
// Proves 5.0 [MQTT-3.1.2-8]; 3.1.1 [MQTT-3.1.2-8].
func TestWill_MQTT_3_1_2_8_AtShutdown(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	watch := in.connect(t, packets.V5, "watch", resume(0xffffffff))
	watch.mustSubscribe("wills/#", 2)
	watch.bye(0)
	for _, v := range []packets.Version{packets.V311, packets.V5} {
		in.connect(t, v, "ephemeral"+v.String(), will("wills/ephemeral"+v.String(), 1, false, "x"))
		in.connect(t, v, "durable"+v.String(), durable(v), will("wills/durable"+v.String(), 2, true, "x"))
	}
	in.restart(t, 0)
	watch = in.connect(t, packets.V5, "watch", resume(0xffffffff))
	seen := map[string]bool{}
	for range 4 {
		seen[string(watch.take().Topic)] = true
	}
	watch.settled()
	if len(seen) != 4 {
		t.Errorf("published: %v", seen)
	}
	watch.mustSubscribe("wills/#", 2)
	for range 2 {
		watch.take()
	}
	watch.quiet()
}

// A will that may not be is refused with the CONNECT.
//
// Proves 5.0 [MQTT-3.1.3-11] [§3.1.3.3]; 3.1.1 [MQTT-3.1.3-10].
func TestWill_MQTT_3_1_3_11_Topic(t *testing.T) {
	t.Parallel()
	for topic, code := range map[string]packets.Code{
		"a\xff": packets.CodeMalformedPacket, "\x00": packets.CodeMalformedPacket, "\xed\xa0\x80": packets.CodeMalformedPacket,
		"a/+": packets.CodeTopicNameInvalid, "#": packets.CodeTopicNameInvalid, "": packets.CodeTopicNameInvalid,
	} {
		for _, v := range []packets.Version{packets.V311, packets.V5} {
			p := &packets.Connect{CleanStart: true, ClientID: []byte("x")}
			will(topic, 1, false, "gone")(p)
			malformedConnect(t, v, p.AppendTo(nil, v), code, packets.CodeProtocolError)
		}
	}
}

// Wills reach shared subscriptions and queues like other messages.
//
// Proves 5.0 [§3.1.2.5] [MQTT-4.5.0-1]; 3.1.1 [MQTT-4.5.0-1].
func TestWill_ToQueuesAndGroups(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		for qos := range byte(3) {
			topic := name(t)
			group := shared(t).connect(t, packets.V5, name(t), home...)
			group.mustSubscribe("$share/g/"+topic, 2)
			id := name(t)
			away := shared(t).connect(t, packets.V5, id, resume(300))
			away.mustSubscribe(topic, 2)
			away.bye(0)
			shared(t).connect(t, packets.V311, topic, will(topic, qos, false, fmt.Sprint(qos))).cut()
			if m := group.expect(topic, fmt.Sprint(qos)); m.QoS != qos {
				t.Fatalf("got %s", describe(m))
			}
			away = shared(t).connect(t, packets.V5, id, resume(300))
			if qos > 0 {
				away.expect(topic, fmt.Sprint(qos))
			}
			away.quiet()
		}
	})
}
