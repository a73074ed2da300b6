package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/wind-c/comqtt/v3/broker/failpoint"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// readAhead is how many bodies a delivery that runs into a missing one asks
// the loader for at once.
const readAhead = 64

// pump sends what a durable session has in flight and this connection has
// not sent: first what is sent again, then what is new, in one order. It
// stops at the client's receive maximum, at the outbox cap, and at a body
// that is not in memory.
func (s *Server) pump(c *conn) {
	if c.sess == nil || c.asked {
		return
	}
	o := &c.sess.Out
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	if failpoint.Enabled {
		s.plantOrder(c)
	}
	before := len(c.out.buf)
	for e := o.Next(); e != nil; e = o.Next() {
		if c.out.size() >= s.opts.Limits.OutboxBytes {
			c.out.stalled = true
			break
		}
		if e.Phase == session.PhaseRelease { // [MQTT-4.4.0-1]
			c.room()
			c.out.buf = packets.AppendAck(c.out.buf, c.version, packets.TypePubrel, e.PID, packets.CodeSuccess)
			c.noteTwo(e.PID, true)
			o.Sent()
			continue
		}
		if len(o.Inflight()) > int(c.receiveMax) && used(o) >= int(c.receiveMax) {
			break // the rest follows as acknowledgements come in
		}
		body, ok := s.bodies.Cached(e.Msg)
		if !ok {
			s.load(c, ahead(o))
			break
		}
		s.sendInflight(c, e, body)
		o.Sent()
	}
	if len(c.out.buf) > before {
		s.touched.add(c)
	}
	c.eager.Store(o.Queued() > 0 || 2*len(o.Inflight()) > c.sess.Window(s.opts.Limits.MaxInflight))
}

// used counts what this connection has sent against the receive maximum: a
// PUBREL sent again does not count.
func used(o *session.Outbound[uint64]) int {
	n := 0
	sent := o.Inflight()[:len(o.Inflight())-o.Unsent()]
	for i := range sent {
		if !sent[i].Resend {
			n++
		}
	}
	return n
}

// ahead lists the next messages that will be sent.
func ahead(o *session.Outbound[uint64]) []uint64 {
	unsent := o.Inflight()[len(o.Inflight())-o.Unsent():]
	ids := make([]uint64, 0, readAhead)
	for i := range unsent {
		if len(ids) == readAhead {
			return ids
		}
		ids = append(ids, unsent[i].Msg)
	}
	return o.Upcoming(ids, readAhead)
}

// sendInflight encodes one in-flight message. One that expired before its
// first send, or that the client cannot take, ends by a logged Ack with the
// reason. The caller holds c.mu.
func (s *Server) sendInflight(c *conn, e *session.Entry[uint64], body []byte) {
	m, err := packets.ParseMessage(body)
	if err != nil {
		s.fail(fmt.Errorf("broker: message %d: %w", e.Msg, err))
		return
	}
	_, deadline, _ := s.machine.Message(e.Msg)
	life := memo{hasLife: deadline != 0, deadline: deadline}
	left, expired := life.left(s.machine.Now())
	if expired && !e.Resend {
		s.giveUp(c, e.PID, record.AckExpired)
		return
	}
	ids := c.sess.Out.SubIDs[e.Seq]
	if ids == nil && e.SubID != 0 {
		c.one[0] = e.SubID
		ids = c.one[:]
	}
	pid := e.PID
	if e.Resend && failpoint.Fault(failpoint.FaultNewIdentifiers) {
		pid ^= 0x2000
	}
	if !c.encode(&m, e.QoS, pid, e.Resend, e.Retain, ids, life.hasLife, left) {
		s.giveUp(c, e.PID, record.AckTooLarge)
		return
	}
	if e.QoS == 2 {
		c.noteTwo(pid, false)
	}
	e.Resend = false // counts against this connection's receive maximum
	s.stats.messagesOut.Add(1)
}

// giveUp ends a delivery that is not sent.
func (s *Server) giveUp(c *conn, pid uint16, why record.AckReason) {
	a := record.Ack{Session: c.session, Epoch: c.epoch, Reason: why}
	a.Add(pid)
	var b batch
	b.addRecord(item{conn: c}, a.AppendTo(nil))
	s.lane.put(&b, true)
}

// drained is called by a flusher when an outbox that held a delivery back
// has room again.
func (s *Server) drained(c *conn) {
	s.task(func() {
		s.pump(c)
		s.pumpBacklog(c)
	})
}

// task runs fn on the apply loop, in order with everything else. It leaves
// the subscription index alone.
func (s *Server) task(fn func()) {
	b := batch{items: []item{{command: fn, light: true}}}
	s.lane.put(&b, true)
}

// A loader reads bodies that are not in memory, so that the apply loop never
// waits for the disk.
type loader struct {
	mu     sync.Mutex
	ready  sync.Cond
	jobs   []loadJob
	closed bool
}

// loadJob asks for bodies; then runs on the apply loop afterwards. got, if not
// nil, is called for each body on the loader's goroutine.
type loadJob struct {
	ids  []uint64
	got  func(body []byte)
	then func()
}

func newLoader() *loader {
	l := &loader{}
	l.ready.L = &l.mu
	return l
}

func (l *loader) put(j loadJob) {
	l.mu.Lock()
	l.jobs = append(l.jobs, j)
	l.ready.Signal()
	l.mu.Unlock()
}

func (l *loader) take() (loadJob, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.jobs) == 0 && !l.closed {
		l.ready.Wait()
	}
	if l.closed {
		return loadJob{}, false
	}
	j := l.jobs[0]
	l.jobs = l.jobs[1:]
	return j, true
}

func (l *loader) close() {
	l.mu.Lock()
	l.closed = true
	l.ready.Broadcast()
	l.mu.Unlock()
}

// load orders bodies for a connection, once at a time, and goes on with it.
func (s *Server) load(c *conn, ids []uint64) {
	c.asked = true
	s.loader.put(loadJob{ids: ids, then: func() {
		c.asked = false
		s.pump(c)
		s.pumpBacklog(c)
	}})
}

// loadLoop is the loader's goroutine.
func (s *Server) loadLoop() {
	defer s.loops.Done()
	for {
		j, ok := s.loader.take()
		if !ok {
			return
		}
		err := s.bodies.Load(s.ctx, j.ids, func(_ int, body []byte) error {
			if j.got != nil {
				j.got(body)
			}
			return nil
		})
		if err != nil && s.ctx.Err() == nil && !errors.Is(err, recovery.ErrNoBody) {
			s.fail(fmt.Errorf("broker: load message bodies: %w", err))
			return
		}
		missing := errors.Is(err, recovery.ErrNoBody)
		s.task(func() {
			if missing {
				s.checkAlive(j.ids)
			}
			j.then()
		})
	}
}

// checkAlive stops the broker when a body is gone although the state refers
// to it: that is damage, and serving on would drop the message silently.
func (s *Server) checkAlive(ids []uint64) {
	for _, id := range ids {
		if _, _, alive := s.machine.Message(id); !alive {
			continue
		}
		err := s.bodies.Load(context.Background(), []uint64{id}, func(int, []byte) error { return nil })
		if err != nil {
			s.fail(fmt.Errorf("broker: message %d is referred to and has no body: %w", id, err))
			return
		}
	}
}

// withBody calls fn on the apply loop with the body of a message, at once when
// it is in memory. A message that nothing refers to any more is left out.
func (s *Server) withBody(id uint64, fn func(body []byte)) {
	if body, ok := s.bodies.Cached(id); ok {
		fn(body)
		return
	}
	var body []byte
	s.loader.put(loadJob{
		ids: []uint64{id},
		got: func(b []byte) { body = slices.Clone(b) },
		then: func() {
			if body != nil {
				fn(body)
			}
		},
	})
}
