package broker

import (
	"github.com/wind-c/comqtt/v3/broker/failpoint"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// handle takes one packet of a connected client. An error ends the
// connection.
func (c *conn) handle(f packets.Frame) error {
	t := f.Type()
	if t != packets.TypePuback && t != packets.TypePubcomp && t != packets.TypePubrec {
		if err := c.addAcks(); err != nil { // acknowledgements keep their place among the records
			return err
		}
	}
	switch t {
	case packets.TypePublish:
		return c.publish(f)
	case packets.TypePuback, packets.TypePubrec, packets.TypePubrel, packets.TypePubcomp:
		a := packets.Ack{Type: t}
		if err := a.Decode(c.version, f.Flags(), f.Body); err != nil {
			return err
		}
		return c.acknowledge(&a)
	case packets.TypeSubscribe:
		return c.subscribe(f)
	case packets.TypeUnsubscribe:
		return c.unsubscribe(f)
	case packets.TypePingreq:
		if err := packets.CheckPing(f.Flags(), f.Body); err != nil {
			return err
		}
		c.in.replies = append(c.in.replies, byte(packets.TypePingresp)<<4, 0) // [MQTT-3.12.4-1]
		return nil
	case packets.TypeDisconnect:
		return c.disconnected(f)
	case packets.TypeConnect:
		return violation(packets.CodeProtocolError, "MQTT-3.1.0-2", "a second CONNECT")
	case packets.TypeAuth:
		if c.version != packets.V5 {
			return violation(packets.CodeMalformedPacket, "3.1.1:2.2.1", "reserved packet type 15")
		}
		return violation(packets.CodeProtocolError, "MQTT-4.12.0-7", "AUTH without an authentication method")
	}
	return violation(packets.CodeProtocolError, "2.1.2", "a packet that only a server sends")
}

// disconnected takes the DISCONNECT of the client.
func (c *conn) disconnected(f packets.Frame) error {
	var d packets.Disconnect
	if err := d.Decode(c.version, f.Flags(), f.Body); err != nil {
		return err
	}
	if err := d.CheckFromClient(); err != nil {
		return err
	}
	if d.Props.HasSessionExpiry {
		if c.expiry == 0 && d.Props.SessionExpiry != 0 {
			return violation(packets.CodeProtocolError, "3.14.2.2.2", "session expiry was 0 in the CONNECT")
		}
		c.expiry, c.newExpiry = d.Props.SessionExpiry, true
	}
	c.mu.Lock()
	c.dropWill = d.Code == packets.CodeSuccess // [MQTT-3.14.4-3]
	c.mu.Unlock()
	return errClosed
}

// checkTopic checks what the codec leaves open about a topic name.
func (c *conn) checkTopic(name []byte) error {
	if err := topic.ValidateName(name); err != nil {
		return invalidTopic(packets.CodeTopicNameInvalid, err)
	}
	if most := c.srv.opts.Limits.MaxTopicLevels; topic.Levels(name) > most {
		return refuse(packets.CodeTopicNameInvalid, "too many topic levels")
	}
	return nil
}

// publish takes a PUBLISH: into the log when it can change durable state,
// else straight to its subscribers.
func (c *conn) publish(f packets.Frame) error {
	p := &c.in.pub
	if err := p.Decode(c.version, f.Flags(), f.Body); err != nil {
		return err
	}
	if err := p.CheckFromClient(); err != nil {
		return err
	}
	name := p.Topic
	if p.Props.TopicAlias != 0 {
		var err error
		if name, err = c.alias(p); err != nil {
			return err
		}
	}
	s := c.srv
	if len(c.in.held) > 0 && p.QoS > 0 { // keeps its place behind those
		return c.pushBack(p, f)
	}
	c.in.arrived++
	if p.QoS > 0 {
		if err := c.owe(p.QoS, p.PacketID); err != nil {
			return err
		}
	}
	r, err := c.route(name)
	if err != nil {
		if p.QoS > 0 && c.version == packets.V5 { // correctly formed, and not accepted here (section 3.4.2.1)
			return c.answer(p, packets.CodeTopicNameInvalid)
		}
		return err
	}
	if r.denied {
		return c.denyPublish(p)
	}
	if (p.QoS > 0 || p.Retain) && s.pushback.Load() {
		return c.pushBack(p, f)
	}
	if p.Retain || p.QoS > 0 && r.durable || p.QoS == 2 && c.durable {
		return c.logPublish(p, name, r)
	}
	return c.bypass(p, name, r)
}

// owe counts a QoS 1 or 2 publish without a final answer against the receive
// maximum (MQTT 5 section 3.3.4).
func (c *conn) owe(qos byte, pid uint16) error {
	if qos == 2 && !c.durable {
		if _, again := c.in.received[pid]; again {
			return nil
		}
	}
	owed := c.owed.Add(1)
	if c.version == packets.V5 && int(owed) > int(c.srv.opts.Limits.ReceiveMaximum) { // [MQTT-3.3.4-7]
		return violation(packets.CodeReceiveMaximumExceeded, "MQTT-3.3.4-7", "more publishes in flight than the receive maximum")
	}
	return nil
}

// alias resolves a topic alias (MQTT 5 section 3.3.2.3.4).
func (c *conn) alias(p *packets.Publish) ([]byte, error) {
	n := int(p.Props.TopicAlias)
	if n > int(c.srv.opts.Limits.TopicAliasMaximum) {
		return nil, violation(packets.CodeTopicAliasInvalid, "MQTT-3.3.2-9", "topic alias above the maximum")
	}
	for len(c.in.aliases) < n {
		c.in.aliases = append(c.in.aliases, "")
	}
	if len(p.Topic) > 0 {
		if c.in.aliases[n-1] != string(p.Topic) {
			c.in.aliases[n-1] = string(p.Topic)
		}
		return p.Topic, nil
	}
	if c.in.aliases[n-1] == "" {
		return nil, violation(packets.CodeProtocolError, "3.3.2.3.4", "topic alias that was never set")
	}
	c.in.scratch = append(c.in.scratch[:0], c.in.aliases[n-1]...)
	return c.in.scratch, nil
}

// denyPublish answers a publish that is not allowed.
func (c *conn) denyPublish(p *packets.Publish) error {
	c.srv.stats.denied.Add(1)
	if p.QoS == 0 {
		return nil
	}
	if c.version != packets.V5 {
		return refuse(packets.CodeNotAuthorized, "not allowed to publish")
	}
	return c.answer(p, packets.CodeNotAuthorized)
}

// answer sends the failing PUBACK or PUBREC of a publish, in its order.
func (c *conn) answer(p *packets.Publish, code packets.Code) error {
	if err := c.settle(p.QoS); err != nil {
		return err
	}
	t := packets.TypePuback
	if p.QoS == 2 {
		t = packets.TypePubrec
	}
	c.answeredFinally()
	c.replyHere(t, p.PacketID, code)
	return nil
}

// settle lets a bypass packet keep its order: what the connection has in the
// log's pipeline goes first.
func (c *conn) settle(qos byte) error {
	if !c.outstanding(qos) {
		return nil
	}
	if !c.endRound() {
		return errClosed
	}
	return c.waitOrder(qos)
}

// logPublish makes a record of a publish. The acknowledgement follows its
// commit.
func (c *conn) logPublish(p *packets.Publish, name []byte, r *route) error {
	in := &c.in
	rec := record.Publish{
		Epoch: c.epoch, PacketID: p.PacketID, QoS: p.QoS, Retain: p.Retain,
		HasExpiry: p.Props.HasExpiry, Expiry: p.Props.Expiry,
	}
	if c.durable {
		rec.Session = c.session
	}
	if p.QoS == 2 && !c.durable {
		again, err := c.receive(p.PacketID)
		if again || err != nil {
			return err
		}
	}
	if c.planted(p) {
		return nil
	}
	if p.QoS > 0 && len(r.groups) > 0 {
		in.choices = choose(in.choices[:0], r, &in.turn)
		rec.Choices = in.choices
	}
	c.logged(p.QoS)
	in.encoded = rec.AppendHeader(in.encoded[:0])
	in.encoded = p.AppendMessage(in.encoded, name)
	in.batch.addRecord(item{conn: c, qos: p.QoS}, in.encoded)
	in.batch.lazy = false
	return nil
}

// receive takes a QoS 2 identifier of a client without a durable session; a
// repeated one is answered again, in its order [MQTT-4.3.3-10].
func (c *conn) receive(pid uint16) (again bool, err error) {
	if _, again = c.in.received[pid]; again {
		if err := c.settle(2); err != nil {
			return true, err
		}
		c.replyHere(packets.TypePubrec, pid, packets.CodeSuccess)
		return true, nil
	}
	if c.in.received == nil {
		c.in.received = make(map[uint16]struct{})
	}
	c.in.received[pid] = struct{}{}
	return false, nil
}

// bypass delivers a publish that concerns nothing durable, on the reader.
func (c *conn) bypass(p *packets.Publish, name []byte, r *route) error {
	if err := c.settle(p.QoS); err != nil {
		return err
	}
	if p.QoS == 2 {
		again, err := c.receive(p.PacketID)
		if again || err != nil {
			return err
		}
	}
	if c.outdated(r) { // a SUBSCRIBE of this client was applied meanwhile
		var err error
		if r, err = c.route(name); err != nil {
			return err
		}
		if p.QoS > 0 && r.durable {
			return c.logAfter(p, name, r)
		}
	}
	n := c.deliverAll(p, name, r)
	if p.QoS == 0 {
		return nil
	}
	code := packets.CodeSuccess
	if n == 0 {
		code = packets.CodeNoMatchingSubscribers
	}
	t := packets.TypePubrec
	if p.QoS == 1 {
		t = packets.TypePuback
		c.answeredFinally()
	}
	c.replyHere(t, p.PacketID, code)
	return nil
}

// logAfter is logPublish for a publish whose identifier bypass has taken.
func (c *conn) logAfter(p *packets.Publish, name []byte, r *route) error {
	if p.QoS == 2 && !c.durable {
		delete(c.in.received, p.PacketID)
	}
	return c.logPublish(p, name, r)
}

// acknowledge takes PUBACK, PUBREC, PUBREL and PUBCOMP.
func (c *conn) acknowledge(a *packets.Ack) error {
	if a.Type == packets.TypePubrel {
		return c.release(a)
	}
	if !c.durable {
		if c.in.acks = append(c.in.acks, *a); len(c.in.acks) >= batchRecords {
			return c.addAcks()
		}
		return nil
	}
	if fits, err := c.fits(a); err != nil || !fits {
		return err
	}
	if a.Type == packets.TypePubrec {
		if err := c.addAcks(); err != nil {
			return err
		}
		if failpoint.Fault(failpoint.FaultEarlyPubrel) {
			c.mu.Lock()
			c.replyLocked(packets.TypePubrel, a.PacketID, packets.CodeSuccess, &c.in.touched)
			c.noteTwo(a.PacketID, true)
			c.mu.Unlock()
		}
		r := record.Rec{Session: c.session, Epoch: c.epoch, PacketID: a.PacketID, Code: byte(a.Code)}
		c.in.encoded = r.AppendTo(c.in.encoded[:0])
		c.in.batch.addRecord(item{conn: c, refused: a.Code.IsError()}, c.in.encoded)
		c.in.batch.lazy = false
		return nil
	}
	c.in.ack.Add(a.PacketID)
	return nil
}

// noteTwo notes that this connection has sent a QoS 2 PUBLISH, or its PUBREL.
// The caller holds mu.
func (c *conn) noteTwo(pid uint16, released bool) {
	if c.out.twos == nil {
		c.out.twos = make(map[uint16]bool)
	}
	c.out.twos[pid] = released
	c.twos.Store(int32(len(c.out.twos)))
}

// fits checks an acknowledgement by a client with a durable session against
// what this connection has sent, for the log does not tell PUBACK and PUBCOMP
// apart: a PUBACK is for QoS 1, a PUBCOMP for a PUBREL. A PUBCOMP for anything
// else ends nothing.
func (c *conn) fits(a *packets.Ack) (bool, error) {
	if c.twos.Load() == 0 { // QoS 1 alone is in flight
		return a.Type != packets.TypePubcomp, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	released, two := c.out.twos[a.PacketID]
	switch {
	case !two:
		return a.Type != packets.TypePubcomp, nil
	case a.Type == packets.TypePubrec && !a.Code.IsError():
		return true, nil
	case a.Type != packets.TypePubrec:
		if err := misfit(a.Type, released); err != nil {
			return false, err
		}
	}
	delete(c.out.twos, a.PacketID)
	c.twos.Store(int32(len(c.out.twos)))
	return true, nil
}

// misfit is the error for a PUBACK or PUBCOMP that answers a QoS 2 delivery
// out of turn.
func misfit(t packets.Type, released bool) error {
	switch {
	case t == packets.TypePuback:
		return violation(packets.CodeProtocolError, "MQTT-4.3.3-8", "PUBACK for a QoS 2 delivery")
	case !released:
		return violation(packets.CodeProtocolError, "MQTT-4.3.3-11", "PUBCOMP without a PUBREL")
	}
	return nil
}

// replyHere acknowledges a packet that the reader answers itself. The answers
// of a round go into the outbox together, before its records go to the lane.
func (c *conn) replyHere(t packets.Type, pid uint16, code packets.Code) {
	c.in.replies = packets.AppendAck(c.in.replies, c.version, t, pid, code)
}

// addReplies puts the gathered answers into the outbox.
func (c *conn) addReplies() {
	if len(c.in.replies) == 0 {
		return
	}
	c.mu.Lock()
	if !c.closed {
		c.room()
		c.out.buf = append(c.out.buf, c.in.replies...)
		c.in.touched.add(c)
	}
	c.mu.Unlock()
	c.in.replies = c.in.replies[:0]
}

// addAcks takes the acknowledgements gathered: they make one record, or are
// carried out at once for a client without a durable session.
func (c *conn) addAcks() error {
	var err error
	if len(c.in.acks) > 0 {
		err = c.acknowledgeMemory(c.in.acks)
		clear(c.in.acks)
		c.in.acks = c.in.acks[:0]
	}
	a := &c.in.ack
	if len(a.Runs) == 0 {
		return err
	}
	a.Session, a.Epoch = c.session, c.epoch
	c.in.encoded = a.AppendTo(c.in.encoded[:0])
	a.Runs = a.Runs[:0]
	if len(c.in.batch.items) == 0 {
		c.in.batch.lazy = !c.eager.Load()
	} else if c.in.batch.lazy && c.eager.Load() {
		c.in.batch.lazy = false
	}
	c.in.batch.addRecord(item{conn: c}, c.in.encoded)
	return err
}

// release takes the PUBREL of a QoS 2 publish.
func (c *conn) release(a *packets.Ack) error {
	if c.durable {
		if failpoint.Fault(failpoint.FaultEarlyPubcomp) {
			c.reply(packets.TypePubcomp, a.PacketID, packets.CodeSuccess, &c.in.touched)
		}
		r := record.PubRel{Session: c.session, Epoch: c.epoch, PacketID: a.PacketID}
		c.in.encoded = r.AppendTo(c.in.encoded[:0])
		c.in.batch.addRecord(item{conn: c}, c.in.encoded)
		c.in.batch.lazy = false
		return nil
	}
	if err := c.settle(2); err != nil { // the PUBREC must have left [MQTT-4.6.0-4]
		return err
	}
	code := packets.CodeSuccess
	if _, known := c.in.received[a.PacketID]; !known {
		code = packets.CodePacketIdentifierNotFound
	}
	delete(c.in.received, a.PacketID)
	if code == packets.CodeSuccess {
		c.answeredFinally()
	}
	c.replyHere(packets.TypePubcomp, a.PacketID, code)
	return nil
}
