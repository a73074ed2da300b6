package conformance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/packets"
)

// Proves 5.0 [MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.9.0-3] [MQTT-3.3.4-10].
func TestFlow_MQTT_3_3_4_9_ReceiveMaximumOfClient(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		for _, most := range []uint16{1, 3} {
			p, s, topic := pair(t, packets.V5, 2, append(home, receiveMaximum(most))...)
			for i := range 10 {
				p.publish(message(topic, byte(1+i%2), fmt.Sprint(i)))
			}
			var open []*packets.Publish
			for i := range int(most) {
				open = append(open, s.see(topic, fmt.Sprint(i)))
			}
			s.quiet() // quota used up: no more, but other packets flow
			s.send(&packets.Ping{Type: packets.TypePingreq})
			want[*packets.Ping](s)
			p.publish(message(topic, 0, "zero")) // QoS 0 is not counted
			if m := want[*packets.Publish](s); m.QoS != 0 {
				t.Fatalf("got %s", describe(m))
			}
			for i := int(most); i < 10; i++ { // one out, one in; PUBREC alone frees nothing
				m := open[0]
				open = open[1:]
				if m.QoS == 2 {
					s.send(&packets.Ack{Type: packets.TypePubrec, PacketID: m.PacketID})
					s.ack(packets.TypePubrel, m.PacketID)
					s.quiet()
					s.send(&packets.Ack{Type: packets.TypePubcomp, PacketID: m.PacketID})
				} else {
					s.complete(m)
				}
				open = append(open, s.see(topic, fmt.Sprint(i)))
				s.quiet()
			}
		}
	})
}

// A Receive Maximum lowered on reconnect holds for what is sent again, too.
//
// Proves 5.0 [MQTT-3.3.4-9] [MQTT-4.9.0-1].
func TestFlow_MQTT_4_9_0_1_LoweredOnReconnect(t *testing.T) {
	t.Parallel()
	p, s, topic := pair(t, packets.V5, 2, resume(300))
	const n = 8
	var sent []*packets.Publish
	for i := range n {
		p.publish(message(topic, byte(1+i%2), fmt.Sprint(i)))
		sent = append(sent, s.see(topic, fmt.Sprint(i)))
	}
	s.send(&packets.Ack{Type: packets.TypePubrec, PacketID: sent[1].PacketID})
	s.ack(packets.TypePubrel, sent[1].PacketID)
	s.bye(0)
	p.publish(message(topic, 1, "8"))
	s = shared(t).connect(t, packets.V5, topic+"-sub", resume(300), receiveMaximum(2))
	// The PUBREL is not counted; two messages may follow.
	first := s.see(topic, "0")
	if a := want[*packets.Ack](s); a.Type != packets.TypePubrel || a.PacketID != sent[1].PacketID {
		t.Fatalf("got %s", describe(a))
	}
	open := []*packets.Publish{first, s.see(topic, "2")}
	s.quiet()
	s.send(&packets.Ack{Type: packets.TypePubcomp, PacketID: sent[1].PacketID})
	s.quiet()
	for i := 3; i <= n; i++ {
		s.complete(open[0])
		m := s.see(topic, fmt.Sprint(i))
		if i < n && (!m.Dup || m.PacketID != sent[i].PacketID) || i == n && m.Dup {
			t.Fatalf("message %d came as %s", i, describe(m))
		}
		open = append(open[1:], m)
		s.quiet()
	}
}

// A client that sends more than the server's Receive Maximum is told so.
//
// Proves 5.0 [MQTT-3.3.4-7] [§3.3.4].
func TestFlow_MQTT_3_3_4_7_ReceiveMaximumOfServer(t *testing.T) {
	t.Parallel()
	in := start(t, func(o *broker.Options) { o.Limits.ReceiveMaximum = 5 })
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		for _, topic := range []string{"nobody", "kept"} {
			keeper := in.connect(t, packets.V5, name(t), resume(300))
			keeper.mustSubscribe("kept", 2)
			c := in.connect(t, packets.V5, name(t), home...)
			if got := c.connack.Props.ReceiveMaximum; got != 5 {
				t.Fatalf("CONNACK says %d", got)
			}
			send := func(pid uint16) {
				m := message(topic, 2, "x")
				m.PacketID = pid
				c.send(m)
			}
			for round := range 3 { // five at a time are fine, again and again
				for pid := uint16(1); pid <= 5; pid++ {
					send(pid)
					c.ack(packets.TypePubrec, pid)
				}
				if round == 2 {
					break
				}
				for pid := uint16(1); pid <= 5; pid++ {
					c.send(&packets.Ack{Type: packets.TypePubrel, PacketID: pid})
					c.ack(packets.TypePubcomp, pid)
				}
			}
			c.send(&packets.Ack{Type: packets.TypePubrel, PacketID: 77}) // gives nothing back
			c.ack(packets.TypePubcomp, 77)
			send(6)
			c.rejected(packets.CodeReceiveMaximumExceeded)
		}
	})
}

// Proves 5.0 [MQTT-3.1.2-24] [MQTT-3.1.2-25].
func TestFlow_MQTT_3_1_2_24_MaximumPacketSizeOfClient(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		big := strings.Repeat("x", 200)
		p, s, topic := pair(t, packets.V5, 2, append(home, maximumPacketSize(150), receiveMaximum(1))...)
		for qos := range byte(3) {
			for range 3 { // more than the window: too large a message takes no place in it
				p.publish(message(topic, qos, big))
			}
			p.publish(message(topic, qos, "small"))
			s.expect(topic, "small")
			s.quiet()
		}
		if home == nil {
			return
		}
		s.bye(0) // queued ones are judged by the limit of the next connection
		p.publish(message(topic, 1, big))
		p.publish(message(topic, 2, big+big))
		p.publish(message(topic, 2, "small"))
		s = shared(t).connect(t, packets.V5, topic+"-sub", resume(300), maximumPacketSize(350))
		s.expect(topic, big)
		s.expect(topic, "small")
		s.quiet()
	})
}

// The limit counts to the byte.
//
// Proves 5.0 [MQTT-3.1.2-24].
func TestFlow_MQTT_3_1_2_24_ToTheByte(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		for qos := range byte(3) {
			topic := name(t)
			p := shared(t).connect(t, packets.V5, name(t))
			m := message(topic, qos, strings.Repeat("y", 70))
			if m.PacketID = 1; qos == 0 {
				m.PacketID = 0
			}
			size := len(m.AppendTo(nil, packets.V5))
			for limit := size - 2; limit <= size+2; limit++ {
				s := shared(t).connect(t, packets.V5, topic+fmt.Sprint(qos, limit), append(home, maximumPacketSize(uint32(limit)))...)
				s.mustSubscribe(topic, qos)
				p.publish(message(topic, qos, strings.Repeat("y", 70)))
				if limit >= size {
					s.expect(topic, strings.Repeat("y", 70))
				}
				s.quiet()
				s.bye(0)
			}
		}
	})
}

// A retained message that is too large is left out as well.
//
// Proves 5.0 [MQTT-3.1.2-25].
func TestFlow_MQTT_3_1_2_25_Retained(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		topic := name(t)
		p := shared(t).connect(t, packets.V5, name(t))
		for qos := range byte(3) {
			p.publish(retained(fmt.Sprint(topic, "/", qos, "/a"), qos, strings.Repeat("x", 200)))
			p.publish(retained(fmt.Sprint(topic, "/", qos, "/b"), qos, "small"))
		}
		s := shared(t).connect(t, packets.V5, name(t), append(home, maximumPacketSize(150), receiveMaximum(1))...)
		s.mustSubscribe(topic+"/#", 2)
		for range 3 {
			if m := s.take(); string(m.Payload) != "small" {
				t.Fatalf("got %s", describe(m))
			}
		}
		s.quiet()
	})
}

// No packet of the server exceeds what the client takes, answers included.
//
// Proves 5.0 [MQTT-3.1.2-24] [MQTT-3.2.2-19].
func TestFlow_MQTT_3_1_2_24_Answers(t *testing.T) {
	t.Parallel()
	for limit := uint32(1); limit <= 40; limit++ {
		c := shared(t).dial(t)
		p := &packets.Connect{CleanStart: true, ClientID: []byte(name(t))}
		maximumPacketSize(limit)(p)
		c.send(p)
		q, err := c.read() // the size is checked there
		if err != nil {
			continue // closed without a word: nothing fits
		}
		if ack := q.(*packets.Connack); ack.Code != 0 {
			c.closed()
			continue
		}
		c.quiet()
		c.send(&packets.Ping{Type: packets.TypePingreq})
		want[*packets.Ping](c)
		sub := &packets.Subscribe{PacketID: 1}
		for i := range 60 {
			sub.Filters = append(sub.Filters, packets.Subscription{Filter: fmt.Append(nil, "f/", i)})
		}
		c.send(sub) // the SUBACK does not fit
		c.gone()
	}
	for limit := uint32(1); limit <= 60; limit++ { // refusals
		c := shared(t).dial(t)
		p := &packets.Connect{CleanStart: true, ClientID: []byte(name(t))}
		maximumPacketSize(limit)(p)
		p.Props.HasAuthMethod, p.Props.AuthMethod = true, []byte("X")
		c.send(p)
		if q, err := c.read(); err == nil {
			must(t, "CONNACK", q.(*packets.Connack).Code, packets.CodeBadAuthenticationMethod)
			c.closed()
		} else if limit >= 5 {
			t.Errorf("limit %d: refused without a CONNACK", limit)
		}
	}
}

// Proves 5.0 [MQTT-3.2.2-15] [§3.2.2.3.6]; 3.1.1 [MQTT-4.8.0-1].
func TestFlow_MQTT_3_2_2_15_MaximumPacketSizeOfServer(t *testing.T) {
	t.Parallel()
	in := start(t, func(o *broker.Options) { o.Limits.MaxPacketSize = 1000 })
	versions(t, func(t *testing.T, v packets.Version) {
		c := in.connect(t, v, name(t))
		if v == packets.V5 && c.connack.Props.MaximumPacketSize != 1000 {
			t.Fatalf("CONNACK says %d", c.connack.Props.MaximumPacketSize)
		}
		fit := func(total int) *packets.Publish {
			m := message("t", 0, "")
			for len(m.AppendTo(nil, v)) < total {
				m.Payload = append(m.Payload, 'x')
			}
			return m
		}
		c.publish(fit(999))
		c.publish(fit(1000))
		c.send(fit(1001))
		c.rejected(packets.CodePacketTooLarge)
		// It is enough to announce it.
		c = in.connect(t, v, name(t))
		c.raw(0x30, 0xff, 0xff, 0xff, 0x7f)
		c.rejected(packets.CodePacketTooLarge)
	})
}

// Proves 5.0 [MQTT-3.2.2-15].
func TestFlow_LargePackets(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		p, s, topic := pair(t, v, 2)
		payload := strings.Repeat("0123456789abcdef", 5<<16) // 5 MiB
		for qos := range byte(3) {
			p.publish(message(topic, qos, payload))
			if m := s.take(); string(m.Payload) != payload {
				t.Fatalf("QoS %d: %d bytes arrived", qos, len(m.Payload))
			}
		}
	})
}
