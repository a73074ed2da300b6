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

	ready []found // and not yet sent: from next on
	next  int
	at    uint64 // record that was applied last when they were found
	done  bool   // there are no more
}

// found is a retained message that a scan came by.
type found struct {
	message  core.Retained
	deadline int64 // log time ms, 0 = never
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
	sc.at = s.machine.Applied()
	sc.after, sc.done = s.machine.RetainedPage(sc.filter, sc.after, scanTopics, func(_ string, e retain.Entry) bool {
		if e.Message < sc.before && (e.Deadline == 0 || now < e.Deadline) {
			r := core.Retained{Ref: ref, SubID: sc.id, Message: e.Message, QoS: min(e.QoS, sc.qos)}
			sc.ready = append(sc.ready, found{r, e.Deadline})
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
		f := &sc.ready[sc.next]
		r, deadline, alive := &f.message, f.deadline, true
		if sc.at != s.machine.Applied() {
			_, deadline, alive = s.machine.Message(r.Message)
		}
		switch {
		case !alive: // replaced meanwhile
		case c.out.size() >= s.opts.Limits.OutboxBytes:
			c.out.stalled = true
			return false
		case r.QoS > 0 && !c.takesMore():
			return false // goes on with an acknowledgement
		case !s.sendRetained(c, r, deadline):
			ids := make([]uint64, 0, readAhead)
			for _, f := range sc.ready[sc.next:min(sc.next+readAhead, len(sc.ready))] {
				ids = append(ids, f.message.Message)
			}
			s.load(c, ids)
			return false
		}
		sc.next++
	}
}
