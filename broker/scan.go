package broker

import (
	"slices"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/retain"
)

// scan is what a new subscription of a client without a durable session still
// has to get of the retained messages. It is read as the client takes it: a
// list of a hundred thousand would cost more than to send them.
type scan struct {
	filter string
	after  string // topic to go on behind
	before uint64 // messages from this one on came after the subscription, and were delivered
	qos    byte
	id     uint32 // subscription identifier

	ready []core.Retained // found and not yet sent: from next on
	next  int
	done  bool // there are no more
}

const (
	scanTopics = core.RetainedAtOnce // looked at in one step
	scanReady  = 128                 // found in one step
	scanSteps  = 64                  // in one turn of the apply loop
)

// holdScan puts a scan into the backlog of its connection, in one step with the
// subscription's entry into the index: see holdRetained.
func (c *conn) holdScan(sc *scan) {
	c.mu.Lock()
	c.out.backlog = append(c.out.backlog, waiting{scan: sc})
	c.mu.Unlock()
}

// dropScans ends the scans for a subscription that is gone [MQTT-3.10.4-2].
func (c *conn) dropScans(filter []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.backlog = slices.DeleteFunc(c.out.backlog, func(w waiting) bool {
		return w.scan != nil && w.scan.filter == string(filter)
	})
}

// step finds the next messages.
func (sc *scan) step(s *Server, ref uint32) {
	sc.ready, sc.next = sc.ready[:0], 0
	now := s.machine.Now()
	sc.after, sc.done = s.machine.RetainedPage(sc.filter, sc.after, scanTopics, func(_ string, e retain.Entry) bool {
		if e.Message < sc.before && (e.Deadline == 0 || now < e.Deadline) {
			sc.ready = append(sc.ready, core.Retained{Ref: ref, SubID: sc.id, Message: e.Message, QoS: min(e.QoS, sc.qos)})
		}
		return len(sc.ready) < scanReady
	})
}

// sendScan sends messages of a scan as far as outbox and window have room. It
// reports false when there is more: the pump is called again. The caller holds
// c.mu.
func (s *Server) sendScan(c *conn, sc *scan) bool {
	for steps := 0; ; {
		if sc.next == len(sc.ready) {
			switch {
			case sc.done:
				return true
			case steps == scanSteps:
				s.drained(c)
				return false
			}
			steps++
			sc.step(s, c.ref)
			continue
		}
		r := &sc.ready[sc.next]
		switch {
		case c.out.size() >= s.opts.Limits.OutboxBytes:
			c.out.stalled = true
			return false
		case r.QoS > 0 && len(c.out.window.Inflight()) >= c.windowSize():
			return false // goes on with an acknowledgement
		case !s.sendRetained(c, r):
			ids := make([]uint64, 0, readAhead)
			for _, r := range sc.ready[sc.next:min(sc.next+readAhead, len(sc.ready))] {
				ids = append(ids, r.Message)
			}
			s.load(c, ids)
			return false
		}
		sc.next++
	}
}
