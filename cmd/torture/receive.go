package main

import (
	"fmt"
	"time"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// aliases are the topic aliases of one connection.
type aliases struct {
	in  map[uint16]string // broker → client
	out map[string]uint16 // client → broker
	max uint16            // the broker's Topic Alias Maximum
}

// receive takes bytes from the broker and handles every whole packet in them.
func (c *client) receive(chunk []byte, deadline *time.Timer) {
	if c.leaving {
		return // a client that has sent DISCONNECT listens no more
	}
	c.l.take(chunk)
	for {
		f, ok, err := c.l.next()
		if err == nil && ok {
			err = c.handle(f, deadline)
		}
		if err != nil {
			c.journal.Report(Finding{
				Rule: "protocol", Statement: "MQTT-4.8.0-1", Client: c.id,
				Text: fmt.Sprintf("%s: malformed packet from the broker: %v", c.id, err),
			})
			_ = c.l.conn.Close()
			return
		}
		if !ok {
			return
		}
	}
}

func (c *client) handle(f packets.Frame, deadline *time.Timer) error {
	v := c.version
	if f.Type() != packets.TypePublish && c.accepted || f.Type() == packets.TypeConnack {
		p, err := f.Decode(v)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Type(), err)
		}
		return c.other(p, deadline)
	}
	if !c.accepted {
		return fmt.Errorf("%s before CONNACK", f.Type())
	}
	if err := c.publish.Decode(v, f.Flags(), f.Body); err != nil {
		return fmt.Errorf("PUBLISH: %w", err)
	}
	return c.delivered(&c.publish)
}

// other handles every packet but PUBLISH.
func (c *client) other(p packets.Packet, deadline *time.Timer) error {
	switch p := p.(type) {
	case *packets.Connack:
		if c.accepted {
			return fmt.Errorf("second CONNACK")
		}
		deadline.Stop()
		c.connack(p)
	case *packets.Ack:
		c.ack(p)
	case *packets.Suback:
		return c.answered(p.PacketID, Suback, p.Codes)
	case *packets.Unsuback:
		return c.answered(p.PacketID, Unsuback, p.Codes)
	case *packets.Disconnect:
		if c.version != packets.V5 {
			return fmt.Errorf("DISCONNECT from the server before MQTT 5")
		}
		c.journal.Add(&Event{Client: c.id, Conn: c.conn, Kind: Disconnect, Code: byte(p.Code)})
	case *packets.Ping:
	default:
		return fmt.Errorf("unexpected %T", p)
	}
	return nil
}

// connack takes the session up where it was left: own publishes in flight and
// PUBRELs go again, in order [MQTT-4.4.0-1].
func (c *client) connack(p *packets.Connack) {
	code := byte(p.Code)
	if c.version != packets.V5 && code != 0 {
		code = 3 // the codec has translated it; only "not now" is expected
		if p.Code != packets.CodeServerUnavailable {
			code = byte(p.Code)
		}
	}
	if c.version == packets.V31 { // has no such flag: the client trusts its own memory
		p.SessionPresent = c.known && !c.clean
	}
	c.journal.Add(&Event{
		Client: c.id, Conn: c.conn, Kind: Connack, Code: code, Present: p.SessionPresent,
	})
	if p.Code != packets.CodeSuccess {
		_ = c.l.conn.Close()
		return
	}
	c.accepted, c.known, c.clean = true, true, false
	c.quota = c.window
	if p.Props.HasReceiveMaximum {
		c.quota = min(c.quota, int(p.Props.ReceiveMaximum))
	}
	c.aliases = aliases{in: map[uint16]string{}, out: map[string]uint16{}, max: p.Props.TopicAliasMaximum}
	switch {
	case !p.SessionPresent:
		c.renew()
	case c.doubt: // it may be a new one: ask for everything again
		for _, w := range c.wishes {
			w.settled = !w.on
		}
	}
	c.doubt = false
	for _, s := range c.out {
		c.send(s, true)
	}
	c.ask()
}

// renew begins a session that the broker does not know.
func (c *client) renew() {
	c.out = nil
	clear(c.ids)
	for _, w := range c.wishes {
		w.settled = !w.on
	}
}

// ack handles PUBACK, PUBREC, PUBREL and PUBCOMP.
func (c *client) ack(p *packets.Ack) {
	kind := map[packets.Type]Kind{
		packets.TypePuback: Puback, packets.TypePubrec: Pubrec,
		packets.TypePubrel: Pubrel, packets.TypePubcomp: Pubcomp,
	}[p.Type]
	c.journal.Add(&Event{Client: c.id, Conn: c.conn, Kind: kind, ID: p.PacketID, Code: byte(p.Code)})
	switch kind {
	case Pubrel:
		c.answers = append(c.answers, answer{Pubcomp, p.PacketID})
	case Pubrec:
		if p.Code < 0x80 {
			c.proceed(p.PacketID)
			return
		}
		c.complete(p.PacketID, 2, false)
	case Puback:
		c.complete(p.PacketID, 1, false)
	case Pubcomp:
		c.complete(p.PacketID, 2, true)
	}
}

// delivered takes a PUBLISH from the broker.
func (c *client) delivered(p *packets.Publish) error {
	topic := string(p.Topic)
	if a := p.Props.TopicAlias; a != 0 {
		if topic == "" {
			topic = c.aliases.in[a]
		}
		c.aliases.in[a] = topic
	}
	if len(p.Payload) == 0 {
		return fmt.Errorf("PUBLISH on %q without a payload", topic)
	}
	m, err := ParsePayload(p.Payload)
	if err != nil || m.Topic != topic {
		c.journal.Report(Finding{
			Rule: "payload", Statement: "MQTT-3.3.1", Client: c.id, Msg: m,
			Text: fmt.Sprintf("%s: payload of %d bytes on %q: names %q: %v", c.id, len(p.Payload), topic, m, err),
		})
		return nil
	}
	c.journal.Add(&Event{
		Client: c.id, Conn: c.conn, Kind: Publish, ID: p.PacketID, QoS: p.QoS,
		Dup: p.Dup, Retain: p.Retain, Msg: m,
	})
	switch p.QoS {
	case 1:
		c.answers = append(c.answers, answer{Puback, p.PacketID})
	case 2:
		c.answers = append(c.answers, answer{Pubrec, p.PacketID})
	}
	return nil
}

// answer sends what is owed to the broker, in order, except the newest keep.
func (c *client) answer(keep int) {
	n := max(0, len(c.answers)-keep)
	for _, a := range c.answers[:n] {
		t := packets.TypePuback
		switch a.kind {
		case Pubrec:
			t = packets.TypePubrec
		case Pubcomp:
			t = packets.TypePubcomp
		}
		c.journal.Add(&Event{Client: c.id, Conn: c.conn, Kind: a.kind, Sent: true, ID: a.id})
		c.l.out = packets.AppendAck(c.l.out, c.version, t, a.id, packets.CodeSuccess)
	}
	c.answers = append(c.answers[:0], c.answers[n:]...)
}
