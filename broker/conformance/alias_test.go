package conformance

import (
	"fmt"
	"testing"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

func aliased(topic string, alias uint16, qos byte, payload string) *packets.Publish {
	m := message(topic, qos, payload)
	m.Props.TopicAlias = alias
	return m
}

// Proves 5.0 [MQTT-3.3.2-12] [§3.3.2.3.4].
func TestAlias_MQTT_3_3_2_12_FromClient(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		topic := name(t)
		s := shared(t).connect(t, packets.V5, name(t), home...)
		s.mustSubscribe(topic+"/+", 2)
		p := shared(t).connect(t, packets.V5, name(t), home...)
		most := p.connack.Props.TopicAliasMaximum
		if most == 0 {
			t.Fatal("no topic aliases")
		}
		for a := uint16(1); a <= most; a++ {
			p.publish(aliased(fmt.Sprint(topic, "/", a), a, byte(a%3), "set"))
			s.expect(fmt.Sprint(topic, "/", a), "set")
		}
		for a := uint16(1); a <= most; a++ {
			p.publish(aliased("", a, byte((a+1)%3), "use"))
			if m := s.expect(fmt.Sprint(topic, "/", a), "use"); m.Props.TopicAlias != 0 {
				t.Fatal("the alias was passed on")
			}
		}
		p.publish(aliased(topic+"/new", 1, 1, "set anew")) // replaces the mapping
		s.expect(topic+"/new", "set anew")
		p.publish(aliased("", 1, 2, "use"))
		s.expect(topic+"/new", "use")
		p.publish(aliased("", most, 0, "use"))
		s.expect(fmt.Sprint(topic, "/", most), "use")
	})
}

// Proves 5.0 [MQTT-3.3.2-8] [MQTT-3.3.2-9] [MQTT-3.2.2-17] [MQTT-3.3.2-7] [§3.3.4].
func TestAlias_MQTT_3_3_2_9_Invalid(t *testing.T) {
	t.Parallel()
	most := shared(t).connect(t, packets.V5, name(t)).connack.Props.TopicAliasMaximum
	for _, a := range []uint16{most + 1, 65535} {
		c := shared(t).connect(t, packets.V5, name(t))
		c.send(aliased("a", a, 0, "x"))
		c.rejected(packets.CodeTopicAliasInvalid)
	}
	c := shared(t).connect(t, packets.V5, name(t))
	c.write(packet(0x30, append(str("a"), 3, packets.PropTopicAlias, 0, 0, 'x')))
	c.rejected(packets.CodeTopicAliasInvalid)
	c = shared(t).connect(t, packets.V5, name(t))
	c.send(aliased("", 1, 0, "x")) // never set
	c.rejected(packets.CodeProtocolError, packets.CodeTopicAliasInvalid)
	// Forgotten with the connection, though the session goes on.
	id := name(t)
	c = shared(t).connect(t, packets.V5, id, resume(300))
	c.publish(aliased("a", 1, 1, "x"))
	c.bye(0)
	c = shared(t).connect(t, packets.V5, id, resume(300))
	c.send(aliased("", 1, 0, "x"))
	c.rejected(packets.CodeProtocolError, packets.CodeTopicAliasInvalid)
}

// Aliases are never used towards a client that does not want any, and never
// above its maximum; the client of these tests resolves and checks them.
//
// Proves 5.0 [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-11] [MQTT-3.3.2-7].
func TestAlias_MQTT_3_1_2_26_ToClient(t *testing.T) {
	t.Parallel()
	kinds(t, packets.V5, func(t *testing.T, home ...with) {
		for _, most := range []uint16{0, 1, 3, 1000} {
			topic := name(t)
			id := topic + "-sub"
			p := shared(t).connect(t, packets.V5, name(t))
			s := shared(t).connect(t, packets.V5, id, append(home, topicAliasMaximum(most))...)
			s.mustSubscribe(topic+"/#", 2)
			for round := range 3 {
				for i := range 6 {
					for qos := range byte(3) {
						p.publish(message(fmt.Sprint(topic, "/", i), qos, "x"))
						m := s.expect(fmt.Sprint(topic, "/", i), "x")
						if most == 0 && m.Props.TopicAlias != 0 {
							t.Fatal("an alias though none are wanted")
						}
					}
				}
				if round == 1 && home != nil { // and forgotten with the connection
					s.bye(0)
					p.publish(message(topic+"/1", 1, "away"))
					s = shared(t).connect(t, packets.V5, id, append(home, topicAliasMaximum(most))...)
					s.expect(topic+"/1", "away")
				}
			}
		}
	})
}

// Messages sent again bring their topic along.
//
// Proves 5.0 [MQTT-3.3.2-7].
func TestAlias_MQTT_3_3_2_7_Resent(t *testing.T) {
	t.Parallel()
	p, s, topic := pair(t, packets.V5, 2, resume(300), topicAliasMaximum(10))
	for i := range 5 {
		p.publish(message(topic, byte(1+i%2), fmt.Sprint(i)))
		s.see(topic, fmt.Sprint(i))
	}
	s.cut()
	s = shared(t).connect(t, packets.V5, topic+"-sub", resume(300), topicAliasMaximum(1))
	for i := range 5 {
		s.see(topic, fmt.Sprint(i))
	}
	s.cut()
	s = shared(t).connect(t, packets.V5, topic+"-sub", resume(300))
	for i := range 5 {
		s.expect(topic, fmt.Sprint(i))
	}
}
