package broker

import (
	"fmt"
	"slices"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// waiting is a delivery that has to wait for its turn: a retained message for
// a new subscription whose body is not in memory or for which the outbox has
// no room yet, or a message that came after one of these and must not
// overtake it [MQTT-4.6.0-6].
type waiting struct {
	scan     *scan         // retained messages still to be found, or
	retained core.Retained // a retained message, or
	memo     *memo
	qos      byte
	retain   bool
	ids      []uint32
	own      ownership
}

// hold queues a message behind the backlog. The caller holds c.mu.
func (d *delivery) hold(c *conn, qos byte, retain bool, ids []uint32, own ownership) {
	size := d.msg.Size()
	if c.out.queued+size > d.srv.opts.Limits.EphemeralQueueBytes {
		c.letGo(own, record.AckDenied)
		d.srv.dropped(c, core.DropQueueFull)
		return
	}
	c.out.queued += size
	if c.out.held == nil {
		c.out.held = make(map[string]int)
	}
	c.out.held[string(d.msg.Topic)]++
	c.out.inHeld++
	c.out.backlog = append(c.out.backlog, waiting{memo: d.keep(own), qos: qos, retain: retain, ids: slices.Clone(ids), own: own})
}

// mustHold reports whether a message of QoS 0 has to wait for the backlog: it
// would overtake an older message of its topic. Others must not wait, for the
// backlog may stand still until the client acknowledges something. The caller
// holds c.mu.
func (c *conn) mustHold(name []byte) bool {
	if c.out.held[string(name)] > 0 {
		return true
	}
	rest := len(c.out.backlog) - c.out.inHeld
	for i := 0; rest > 0; i++ {
		w := &c.out.backlog[i]
		if w.memo != nil {
			continue
		}
		if w.scan == nil || topic.Match(w.scan.filter, string(name)) { // without a scan, a message of who knows what topic
			return true
		}
		rest--
	}
	return false
}

// release takes a message out of the count of those held. The caller holds
// c.mu.
func (o *outbound) release(name []byte) {
	o.inHeld--
	if n := o.held[string(name)]; n > 1 {
		o.held[string(name)] = n - 1
	} else {
		delete(o.held, string(name))
	}
}

// holdRetained puts the retained messages of new subscriptions into the
// backlogs of their connections. It runs in one step with the subscription's
// entry into the index, so that no message that comes after them is sent before
// them.
func (s *Server) holdRetained(list []core.Retained) {
	for len(list) > 0 {
		n := sameRef(list)
		if c := s.clients.at(list[0].Ref); c != nil {
			c.mu.Lock()
			for _, r := range list[:n] {
				c.out.backlog = append(c.out.backlog, waiting{retained: r})
			}
			c.mu.Unlock()
		}
		list = list[n:]
	}
}

// sendHeld sends what can be sent of what holdRetained has put back.
func (s *Server) sendHeld(list []core.Retained) {
	for len(list) > 0 {
		if c := s.clients.at(list[0].Ref); c != nil {
			s.pumpBacklog(c)
		}
		list = list[sameRef(list):]
	}
}

// sameRef returns how many at the beginning of list are for one client.
func sameRef(list []core.Retained) int {
	n := 1
	for n < len(list) && list[n].Ref == list[0].Ref {
		n++
	}
	return n
}

// pumpBacklog sends the backlog in its order, as far as bodies are in memory
// and outbox and window have room. The apply loop runs it.
func (s *Server) pumpBacklog(c *conn) {
	if c.asked {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out.backlog) > 0 && !c.closed {
		if !c.takesMore() { // goes on with an acknowledgement
			return
		}
		if c.out.size() >= s.opts.Limits.OutboxBytes {
			c.out.stalled = true
			return
		}
		switch w := &c.out.backlog[0]; {
		case w.memo != nil:
			s.sendWaiting(c, w)
		case w.scan != nil:
			if !s.sendScan(c, w.scan) {
				return
			}
		default:
			_, deadline, alive := s.machine.Message(w.retained.Message)
			if alive && !s.sendRetained(c, &w.retained, deadline) { // else it was replaced meanwhile
				s.load(c, retainedAhead(c.out.backlog))
				return
			}
		}
		c.out.backlog[0] = waiting{}
		c.out.backlog = c.out.backlog[1:]
	}
	c.out.backlog, c.out.held, c.out.inHeld = nil, nil, 0
}

// aheadOfWindow is how many messages of a backlog may wait for the window. It is
// more than 0 so that what needs no identifier gets past them.
const aheadOfWindow = 1024

// takesMore reports whether the backlog may go on although messages wait for
// the window. The caller holds c.mu.
func (c *conn) takesMore() bool {
	return c.out.window.Queued() < aheadOfWindow && c.out.queued <= c.srv.opts.Limits.EphemeralQueueBytes/2
}

// sendWaiting sends a message that waited behind retained ones.
func (s *Server) sendWaiting(c *conn, w *waiting) {
	c.out.queued -= len(w.memo.body)
	d := delivery{
		srv: s, qos: w.qos, retain: w.retain, hasExpiry: w.memo.hasLife,
		kept: w.memo, touched: &s.touched, paced: true, single: true,
	}
	if !d.parse(w.memo.body) {
		return // we have written it
	}
	c.out.release(d.msg.Topic)
	left, expired := w.memo.left(s.clock())
	if expired {
		c.letGo(w.own, record.AckExpired)
		s.dropped(c, core.DropExpired)
		return
	}
	d.expiry = left
	d.send(c, w.qos, w.retain, w.ids, w.own)
}

// sendRetained sends one retained message; it reports false when the body is
// not in memory. One that has expired meanwhile is skipped.
func (s *Server) sendRetained(c *conn, r *core.Retained, deadline int64) bool {
	life := memo{hasLife: deadline != 0, deadline: deadline}
	left, expired := life.left(s.machine.Now())
	if expired {
		return true
	}
	body, ok := s.bodies.Cached(r.Message)
	if !ok {
		return false
	}
	d := delivery{srv: s, qos: r.QoS, retain: true, hasExpiry: life.hasLife, expiry: left, touched: &s.touched, paced: true, single: true}
	if !d.parse(body) {
		s.fail(fmt.Errorf("broker: retained message %d: %w", r.Message, packets.ErrMessage))
		return true
	}
	var ids []uint32
	if r.SubID != 0 {
		ids = []uint32{r.SubID}
	}
	d.send(c, r.QoS, true, ids, ownership{})
	return true
}

// retainedAhead lists the next messages whose bodies the backlog needs.
func retainedAhead(list []waiting) []uint64 {
	ids := make([]uint64, 0, readAhead)
	for i := range list {
		if len(ids) == readAhead {
			break
		}
		if list[i].memo == nil && list[i].scan == nil {
			ids = append(ids, list[i].retained.Message)
		}
	}
	return ids
}
