package main

import (
	"fmt"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// A wish is a subscription that a client wants to have, or not to have. It asks
// until the broker has acknowledged.
type wish struct {
	filter   string
	qos      byte
	on       bool // wanted
	settled  bool // acknowledged
	asked    bool // sent on this connection
	refused  bool // the last answer was "not now"
	optional bool // the client may change its mind
}

// retainHandlingNever asks for no retained messages (MQTT 5.0 section 3.8.3.1).
const retainHandlingNever = 2 << 4

// ask sends one SUBSCRIBE and one UNSUBSCRIBE for all that is not settled.
func (c *client) ask() {
	var subscribe packets.Subscribe
	var unsubscribe packets.Unsubscribe
	var on, off []*wish
	for _, w := range c.wishes {
		switch {
		case w.settled || w.asked || w.refused && c.rnd.IntN(20) > 0:
		case w.on:
			opts := w.qos
			if c.version == packets.V5 {
				opts |= retainHandlingNever
			}
			subscribe.Filters = append(subscribe.Filters, packets.Subscription{Filter: []byte(w.filter), Options: opts})
			on = append(on, w)
		default:
			unsubscribe.Filters = append(unsubscribe.Filters, []byte(w.filter))
			off = append(off, w)
		}
	}
	if len(on) > 0 {
		subscribe.PacketID = c.note(Subscribe, on)
		c.l.out = subscribe.AppendTo(c.l.out, c.version)
	}
	if len(off) > 0 {
		unsubscribe.PacketID = c.note(Unsubscribe, off)
		c.l.out = unsubscribe.AppendTo(c.l.out, c.version)
	}
}

func (c *client) note(kind Kind, wishes []*wish) uint16 {
	id := c.newID(1 + uint16(c.rnd.IntN(30)))
	c.asked[id] = wishes
	for _, w := range wishes {
		w.asked = true
		c.journal.Add(&Event{
			Client: c.id, Conn: c.conn, Kind: kind, Sent: true, ID: id, QoS: w.qos, Filter: w.filter,
		})
	}
	return id
}

// answered takes SUBACK and UNSUBACK.
func (c *client) answered(id uint16, kind Kind, codes []packets.Code) error {
	wishes := c.asked[id]
	if wishes == nil {
		c.journal.Report(Finding{
			Rule: "acknowledgement", Statement: "MQTT-3.8.4-2", Client: c.id,
			Text: fmt.Sprintf("%s: %s for identifier %d, which is not in use", c.id, kind, id),
		})
		return nil
	}
	if len(codes) != len(wishes) && (kind == Suback || c.version == packets.V5) {
		return fmt.Errorf("%s with %d codes for %d filters [MQTT-3.8.4-5]", kind, len(codes), len(wishes))
	}
	delete(c.asked, id)
	delete(c.ids, id)
	for i, w := range wishes {
		code := packets.CodeSuccess
		if i < len(codes) {
			code = codes[i]
		}
		w.asked = false
		w.settled, w.refused = code < 0x80, code >= 0x80
		c.journal.Add(&Event{Client: c.id, Conn: c.conn, Kind: kind, ID: id, Code: byte(code), Filter: w.filter})
	}
	return nil
}

// rethink turns one optional subscription round.
func (c *client) rethink() {
	for range len(c.wishes) {
		if w := c.wishes[c.rnd.IntN(len(c.wishes))]; w.optional && w.settled {
			w.on, w.settled = !w.on, false
			return
		}
	}
}
