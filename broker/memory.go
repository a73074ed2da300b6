package broker

import (
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// ownership is what a client without a durable session owes to a shared
// group for a message it was given. Without a key it owes nothing.
type ownership struct {
	key     *core.GroupKey
	message uint64 // id, when the group has durable state; else 0
}

// memo is a message kept in memory for a client without a durable session.
type memo struct {
	body     []byte // stored form; nil when only own is needed
	deadline int64  // log time ms, 0 = never
	own      ownership
	hasLife  bool
	qos      byte // as published
	retain   bool // as published
	small    bool // of type smallMemo, and referred to from one entry only
}

// smallMemo is a memo with a short body, in one allocation.
type smallMemo struct {
	memo
	data [128]byte
}

func newMemo(size int) *memo {
	if size > len(smallMemo{}.data) {
		return &memo{body: make([]byte, 0, size)}
	}
	m := &smallMemo{}
	m.body = m.data[:0]
	return &m.memo
}

// memosMax bounds the memos that a connection keeps for its next messages.
const memosMax = 256

// takeMemo is newMemo for a message that one client alone gets. The caller
// holds mu.
func (o *outbound) takeMemo(size int) *memo {
	n := len(o.memos)
	if n == 0 || size > len(smallMemo{}.data) {
		m := newMemo(size)
		m.small = size <= len(smallMemo{}.data)
		return m
	}
	m := o.memos[n-1]
	o.memos[n-1], o.memos = nil, o.memos[:n-1]
	return m
}

// putMemo takes a memo back that no entry refers to any more. The caller holds
// mu.
func (o *outbound) putMemo(m *memo) {
	if m == nil || !m.small {
		return
	}
	if len(o.memos) < memosMax && o.window.Queued() > 0 {
		*m = memo{body: m.body[:0], small: true}
		o.memos = append(o.memos, m)
	}
}

// delivery is one message on its way to any number of clients without the
// log: those without a durable session, and QoS 0.
type delivery struct {
	srv       *Server
	qos       byte
	retain    bool
	hasExpiry bool
	expiry    uint32          // seconds left
	msg       packets.Message // valid during the delivery
	kept      *memo           // copy of it for those who queue it
	touched   *touch
	cache     []encoding
	paced     bool // sent from a backlog, which waits for room: not dropped for want of it
	single    bool // for one client: not worth caching

	packet  []byte // as received, when clients of the same version get it unchanged at QoS 0
	version packets.Version
}

// encoding is the message as one kind of subscriber gets it at QoS 0.
type encoding struct {
	version packets.Version
	retain  bool
	bytes   []byte
}

// parse takes the message from its stored form.
func (d *delivery) parse(body []byte) bool {
	var err error
	d.msg, err = packets.ParseMessage(body)
	return err == nil
}

// keep returns the message in memory that outlives the delivery.
func (d *delivery) keep(own ownership) *memo {
	if d.kept != nil && d.kept.own == own {
		return d.kept
	}
	var m *memo
	if d.kept != nil {
		m = &memo{body: d.kept.body}
		m.own, m.qos, m.retain = own, d.qos, d.retain
		m.hasLife, m.deadline = d.kept.hasLife, d.kept.deadline
	} else {
		m = d.fill(newMemo(d.msg.Size()), own)
	}
	if own.key == nil {
		d.kept = m
	}
	return m
}

// fill puts the message into an empty memo.
func (d *delivery) fill(m *memo, own ownership) *memo {
	m.body = d.msg.AppendTo(m.body)
	m.own, m.qos, m.retain = own, d.qos, d.retain
	if d.hasExpiry {
		m.hasLife, m.deadline = true, d.srv.clock()+int64(d.expiry)*1000
	}
	return m
}

// to delivers to one client with at most its granted QoS.
func (d *delivery) to(c *conn, granted byte, retain bool, ids []uint32, own ownership) {
	qos := min(d.qos, granted)
	c.mu.Lock()
	switch {
	case c.closed:
	case len(c.out.backlog) > 0 && (qos > 0 || c.mustHold(d.msg.Topic)):
		d.hold(c, qos, retain, ids, own)
	default:
		d.send(c, qos, retain, ids, own)
	}
	c.mu.Unlock()
}

// send is to for a connection whose backlog is empty or that sends from it.
// The caller holds c.mu.
func (d *delivery) send(c *conn, qos byte, retain bool, ids []uint32, own ownership) {
	if qos == 0 {
		d.qos0(c, retain, ids)
		return
	}
	o := &c.out
	if o.window.Queued() == 0 && len(o.window.Inflight()) < c.windowSize() && o.size() < d.srv.opts.Limits.OutboxBytes {
		e := o.window.Deliver(session.Entry[*memo]{Msg: d.owed(own), QoS: qos, Retain: retain}, ids, "")
		o.window.Sent()
		if !c.encode(&d.msg, qos, e.PID, false, retain, ids, d.hasExpiry, d.expiry) { // as if it had been sent [MQTT-3.1.2-25]
			o.window.Remove(e.PID)
			c.letGo(own, record.AckTooLarge)
			d.srv.dropped(c, core.DropTooLarge)
			return
		}
		d.touched.add(c)
		d.touched.sent++
		return
	}
	size := d.msg.Size()
	if o.queued+size > d.srv.opts.Limits.EphemeralQueueBytes {
		c.letGo(own, record.AckDenied)
		d.srv.dropped(c, core.DropQueueFull)
		return
	}
	m := d.kept
	if m == nil && d.single {
		m = d.fill(o.takeMemo(size), own)
	} else {
		m = d.keep(own)
	}
	o.window.Push(session.Entry[*memo]{Msg: m, QoS: qos, Retain: retain}, ids, "")
	o.queued += size
	if len(o.window.Inflight()) < c.windowSize() {
		o.stalled = true
	}
}

// owed returns what is kept of a message that is sent at once: nothing, unless
// the client owes it to a group. Of a group without durable state another
// member gets it if this one leaves.
func (d *delivery) owed(own ownership) *memo {
	switch {
	case own.key == nil:
		return nil
	case own.message != 0:
		return &memo{own: own}
	}
	return d.keep(own)
}

// windowSize is how many identifiers may be in use towards the client.
func (c *conn) windowSize() int { return int(min(c.receiveMax, c.srv.opts.Limits.MaxInflight)) }

// qos0 delivers without an identifier; beyond the outbox cap the message is
// dropped and counted. The caller holds c.mu.
func (d *delivery) qos0(c *conn, retain bool, ids []uint32) {
	if size := c.out.size(); !d.paced && size > 0 && size+d.msg.Size() > d.srv.opts.Limits.OutboxBytes {
		d.srv.dropped(c, core.DropOutboxFull)
		return
	}
	if len(ids) > 0 || c.aliasMax > 0 || c.maxPacket > 0 {
		if !c.encode(&d.msg, 0, 0, false, retain, ids, d.hasExpiry, d.expiry) {
			d.srv.dropped(c, core.DropTooLarge)
			return
		}
		d.touched.add(c)
		d.touched.sent++
		return
	}
	d.touched.add(c)
	d.touched.sent++
	c.room()
	if !retain && d.packet != nil && d.version == c.version {
		c.out.buf = append(c.out.buf, d.packet...)
		return
	}
	for i := range d.cache {
		if e := &d.cache[i]; e.version == c.version && e.retain == retain {
			c.out.buf = append(c.out.buf, e.bytes...)
			return
		}
	}
	start := len(c.out.buf)
	c.encode(&d.msg, 0, 0, false, retain, nil, d.hasExpiry, d.expiry)
	if d.single {
		return
	}
	if len(d.cache) < cap(d.cache) {
		d.cache = d.cache[:len(d.cache)+1]
	} else {
		d.cache = append(d.cache, encoding{})
	}
	e := &d.cache[len(d.cache)-1]
	e.version, e.retain = c.version, retain
	e.bytes = append(e.bytes[:0], c.out.buf[start:]...)
}

// encode appends a PUBLISH to the outbox. It reports false, and appends
// nothing, when the packet is larger than the client takes. The caller holds
// c.mu.
func (c *conn) encode(m *packets.Message, qos byte, pid uint16, dup, retain bool, ids []uint32, hasExpiry bool, expiry uint32) bool {
	d := packets.Delivery{
		Version: c.version, QoS: qos, Dup: dup, Retain: retain, PacketID: pid,
		HasExpiry: hasExpiry, Expiry: expiry, SubscriptionIDs: ids,
	}
	if c.aliasMax > 0 {
		c.giveAlias(&d, m)
	}
	if c.maxPacket > 0 && d.Size(m) > int(c.maxPacket) { // [MQTT-3.1.2-24]
		return false
	}
	c.room()
	c.out.buf = d.AppendTo(c.out.buf, m)
	return true
}

// giveAlias uses or sets a topic alias towards the client (MQTT 5 section
// 3.3.2.3.4). Aliases are given to the first topics and kept.
func (c *conn) giveAlias(d *packets.Delivery, m *packets.Message) {
	if n, known := c.out.aliases[string(m.Topic)]; known {
		d.TopicAlias, d.OmitTopic = n, true
		return
	}
	if len(c.out.aliases) >= int(c.aliasMax) {
		return
	}
	d.TopicAlias = uint16(len(c.out.aliases) + 1)
	if c.maxPacket > 0 && d.Size(m) > int(c.maxPacket) {
		d.TopicAlias = 0
		return
	}
	if c.out.aliases == nil {
		c.out.aliases = make(map[string]uint16)
	}
	c.out.aliases[string(m.Topic)] = d.TopicAlias
}

// pumpMemory sends queued messages of a client without a durable session
// while its window and its outbox have room. The caller holds mu.
func (c *conn) pumpMemory() {
	o := &c.out
	limit := c.srv.opts.Limits.OutboxBytes
	for o.window.Queued() > 0 && len(o.window.Inflight()) < c.windowSize() {
		if o.size() >= limit {
			o.stalled = true
			return
		}
		head, _ := o.window.Head()
		m := head.Msg
		left, expired := m.left(c.srv.clock())
		o.queued -= len(m.body)
		if expired {
			c.letGo(o.window.DropHead().Msg.own, record.AckExpired)
			c.srv.dropped(c, core.DropExpired)
			continue
		}
		ids := o.window.SubIDs[head.Seq]
		if ids == nil && head.SubID != 0 {
			ids = []uint32{head.SubID}
		}
		e := o.window.Assign()
		mine := m.own.key == nil
		if mine {
			e.Msg = nil
		}
		msg, err := packets.ParseMessage(m.body)
		if err == nil && c.encode(&msg, e.QoS, e.PID, false, e.Retain, ids, m.hasLife, left) {
			o.window.Sent()
			c.srv.stats.messagesOut.Add(1)
			if mine {
				o.putMemo(m)
			}
			continue
		}
		o.window.Remove(e.PID)
		c.letGo(m.own, record.AckTooLarge)
		c.srv.dropped(c, core.DropTooLarge)
	}
}

// left returns the seconds of a message's lifetime that are left.
func (m *memo) left(now int64) (seconds uint32, expired bool) {
	if !m.hasLife {
		return 0, false
	}
	if now >= m.deadline {
		return 0, true
	}
	return uint32((m.deadline - now + 999) / 1000), false
}

// acknowledgeMemory takes the PUBACK, PUBREC and PUBCOMP of a client without a
// durable session that the reader has gathered, all under one lock.
func (c *conn) acknowledgeMemory(acks []packets.Ack) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed { // nothing is sent any more, and the session is at its end
		return nil
	}
	o := &c.out
	done := 0
	for i := range acks {
		n, err := c.acknowledgedMemory(&acks[i])
		if err != nil {
			return err
		}
		done += n
	}
	if done == 0 {
		return nil
	}
	if o.window.Queued() > 0 {
		c.pumpMemory()
		if len(o.buf) > 0 {
			c.in.touched.add(c)
		} else if o.stalled && o.size() == 0 { // all of it was dropped: no flusher goes on
			o.stalled = false
			c.srv.drained(c)
		}
	}
	if len(o.backlog) > 0 && o.window.Queued() <= aheadOfWindow/2 && !o.stalled {
		c.srv.drained(c)
	}
	return nil
}

// acknowledgedMemory takes one of them and returns how many deliveries it
// ends. The caller holds mu.
func (c *conn) acknowledgedMemory(a *packets.Ack) (int, error) {
	e := c.out.window.Find(a.PacketID)
	switch {
	case a.Type == packets.TypePubrec:
		return c.receivedMemory(a, e), nil
	case e == nil:
		return 0, nil
	case e.QoS == 2:
		if err := misfit(a.Type, e.Phase == session.PhaseRelease); err != nil {
			return 0, err
		}
	case a.Type == packets.TypePubcomp:
		return 0, nil
	}
	return c.endMemory(e), nil
}

// receivedMemory takes a PUBREC for e, nil if there is no such delivery.
func (c *conn) receivedMemory(a *packets.Ack, e *session.Entry[*memo]) int {
	known := e != nil && e.QoS == 2
	switch {
	case known && a.Code.IsError():
		return c.endMemory(e)
	case a.Code.IsError(): // no PUBREL answers a failure [MQTT-4.3.3-4]
	case known:
		c.out.window.Released(e)
		if e.Msg != nil && e.Msg.own.message != 0 {
			e.Msg.body = nil
		} else {
			e.Msg = nil // started: it stays with this client [MQTT-4.8.2-5]
		}
		c.replyHere(packets.TypePubrel, a.PacketID, packets.CodeSuccess)
	default:
		c.replyHere(packets.TypePubrel, a.PacketID, packets.CodePacketIdentifierNotFound)
	}
	return 0
}

// endMemory ends a delivery. The caller holds mu.
func (c *conn) endMemory(e *session.Entry[*memo]) int {
	if gone, ok := c.out.window.Remove(e.PID); ok && gone.Msg != nil {
		c.letGo(gone.Msg.own, record.AckClient)
	}
	return 1
}

// letGo ends a message that the client had of a group with durable state.
func (c *conn) letGo(own ownership, why record.AckReason) {
	if own.message == 0 {
		return
	}
	a := record.Ack{
		Epoch: c.epoch, Reason: why, Share: []byte(own.key.Share), Filter: []byte(own.key.Filter), Message: own.message,
	}
	var b batch
	b.addRecord(item{}, a.AppendTo(nil))
	b.lazy = true
	c.srv.lane.put(&b, true)
}
