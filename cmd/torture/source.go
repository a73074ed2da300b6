package main

import (
	"math/rand/v2"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// A source is one stream that a client publishes. A retained source counts
// upwards on its topic; one in eight of its messages removes the value if
// clears is set.
type source struct {
	stream Stream
	next   uint32 // sequence number of the next message, from 1
	retain bool
	clears bool
}

// sent is a publish in flight.
type sent struct {
	id       uint16
	msg      Message
	size     int
	retain   bool
	clear    bool
	released bool // PUBREC came: only PUBREL may be sent
}

// pump publishes as much as burst, window and the broker's quota allow.
func (c *client) pump() {
	if len(c.sources) == 0 || c.journal.TotalOwed() > owedMax {
		return
	}
	for range c.rnd.IntN(c.habits.burst + 1) {
		if len(c.out) >= c.quota {
			return
		}
		src := c.sources[c.turn%len(c.sources)]
		c.turn++
		src.next++
		s := &sent{
			msg: Message{src.stream, src.next}, size: payloadSize(c.rnd),
			retain: src.retain, clear: src.clears && c.rnd.IntN(8) == 0,
		}
		if src.stream.QoS > 0 {
			s.id = c.newID(1)
			c.out = append(c.out, s)
		}
		c.send(s, false)
	}
}

// payloadSize draws from what telemetry, commands and the odd file look like;
// about 1.3 KiB on average, so that segments fill.
func payloadSize(rnd *rand.Rand) int {
	switch roll := rnd.IntN(1000); {
	case roll < 600:
		return 32 + rnd.IntN(200)
	case roll < 900:
		return 200 + rnd.IntN(1800)
	case roll < 990:
		return 2000 + rnd.IntN(6000)
	}
	return 20_000 + rnd.IntN(60_000)
}

// newID takes the lowest free identifier that is not below least. Publishes
// start at 1: their identifiers are reused as soon as they can be, which is when
// a broker that forgot to keep them is caught.
func (c *client) newID(least uint16) uint16 {
	for id := least; ; id++ {
		if _, used := c.ids[id]; !used {
			c.ids[id] = struct{}{}
			return id
		}
	}
}

// send sends a publish, or its PUBREL, for the first time or again.
func (c *client) send(s *sent, again bool) {
	if s.released {
		c.journal.Add(&Event{Client: c.id, Conn: c.conn, Kind: Pubrel, Sent: true, ID: s.id})
		c.l.out = packets.AppendAck(c.l.out, c.version, packets.TypePubrel, s.id, packets.CodeSuccess)
		return
	}
	p := packets.Publish{Dup: again, Retain: s.retain, QoS: s.msg.QoS, PacketID: s.id, Topic: []byte(s.msg.Topic)}
	if !s.clear {
		p.Payload = AppendPayload(nil, s.msg, s.size)
	}
	c.alias(&p, s.msg.Topic)
	c.journal.Add(&Event{
		Client: c.id, Conn: c.conn, Kind: Publish, Sent: true, ID: s.id, QoS: s.msg.QoS,
		Dup: again, Retain: s.retain, Clear: s.clear, Msg: s.msg,
	})
	c.l.out = p.AppendTo(c.l.out, c.version)
}

// alias gives the topic an alias, or uses the one it has on this connection.
func (c *client) alias(p *packets.Publish, topic string) {
	if c.version != packets.V5 || c.aliases.max == 0 {
		return
	}
	if a, ok := c.aliases.out[topic]; ok {
		p.Props.TopicAlias, p.Topic = a, nil
		return
	}
	if n := len(c.aliases.out); n < int(c.aliases.max) {
		c.aliases.out[topic] = uint16(n + 1)
		p.Props.TopicAlias = uint16(n + 1)
	}
}

// proceed answers PUBREC by PUBREL.
func (c *client) proceed(id uint16) {
	for _, s := range c.out {
		if s.id == id && s.msg.QoS == 2 && !s.released {
			s.released = true
			c.send(s, false)
			return
		}
	}
}

// complete ends a publish and frees its identifier. released says that only one
// whose PUBREL was sent can be meant.
func (c *client) complete(id uint16, qos byte, released bool) {
	for i, s := range c.out {
		if s.id == id && s.msg.QoS == qos && s.released == released {
			c.out = append(c.out[:i], c.out[i+1:]...)
			delete(c.ids, id)
			return
		}
	}
}
