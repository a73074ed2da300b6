package broker

import (
	"slices"
	"sync/atomic"

	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session"
)

// outbound is the sending half of a connection, under conn.mu.
type outbound struct {
	buf      []byte // encoded packets not yet given to the socket
	writing  bool   // a flusher runs
	touched  bool   // somebody will start a flusher at the end of his round
	last     bool   // the connection closes once everything is written
	why      bool   // the last packet tells the client why: it must arrive
	hung     bool   // the sending half of the socket is closed, or the whole of it
	stalled  bool   // a delivery waits for the outbox to drain
	since    int64  // coarse time (s) at which the present write began, 0 = none
	inFlight int    // bytes that the flusher has taken and not yet written

	// Of the flusher.
	tryWrite func(fd uintptr) bool // conn.tryWrite, bound once
	taken    []byte                // what it is writing
	sent     int                   // how much of it is written
	writeErr error                 // result of tryWrite
	spare    []byte                // a buffer for the next turn

	aliases map[string]uint16 // topic aliases the client knows
	backlog []waiting         // deliveries that wait for their turn
	held    map[string]int    // messages in it, by topic
	inHeld  int               // all of held together

	// Of a client with a durable session: the QoS 2 deliveries that this
	// connection has sent, true once the PUBREL is sent; see acknowledge.
	twos map[uint16]bool

	// Of a client without a durable session:
	window session.Outbound[*memo]
	queued int     // bytes of queued messages
	memos  []*memo // for the next messages
}

const (
	outBufferSize = 4 << 10
	outBufferKeep = 256 << 10 // larger ones are left to the garbage collector
	flushRounds   = 4         // writes without a goroutine before one is started
	flushInline   = 4         // outboxes that are flushed by who has touched them
	flushChunk    = 16        // outboxes that one goroutine flushes
)

// begin claims the flusher; the caller starts it when begin reports true.
func (o *outbound) begin() bool {
	o.touched = false
	if o.writing {
		return false
	}
	o.writing = true
	return true
}

// size returns the bytes that wait for the socket.
func (o *outbound) size() int { return len(o.buf) + o.inFlight }

// flush writes the outbox until it is empty. One runs at a time, and none
// while there is nothing to write.
func (c *conn) flush() {
	for c.out.taken != nil || c.takeOut() {
		n, err := c.nc.Write(c.out.taken[c.out.sent:])
		c.out.sent += n
		c.written(err)
	}
}

// flushNow writes what the socket takes at once, and leaves the rest to a
// goroutine. The caller has begun.
func (c *conn) flushNow() {
	for range flushRounds {
		if !c.takeOut() {
			return
		}
		if err := c.raw.Write(c.out.tryWrite); err != nil && c.out.writeErr == nil {
			c.out.writeErr = err
		}
		if c.out.writeErr == nil && c.out.sent < len(c.out.taken) {
			break
		}
		c.written(c.out.writeErr)
	}
	go c.flush()
}

// takeOut gets the next bytes to write. It reports false, and ends the flusher,
// when there are none.
func (c *conn) takeOut() bool {
	s, o := c.srv, &c.out
	c.mu.Lock()
	if len(o.buf) == 0 && o.last && !o.hung {
		o.hung = true
		half := o.why
		c.mu.Unlock()
		c.hangUp(half)
		c.mu.Lock()
	}
	if len(o.buf) == 0 {
		o.writing = false
		empty, spare := o.buf, o.spare
		o.buf, o.spare = nil, nil
		c.idle.Broadcast()
		c.mu.Unlock()
		s.putBuffer(empty)
		s.putBuffer(spare)
		return false
	}
	o.taken, o.sent, o.writeErr = o.buf, 0, nil
	if o.buf, o.spare = o.spare, nil; o.buf == nil {
		o.buf = s.getBuffer()
	}
	o.inFlight, o.since = len(o.taken), s.coarse.Load()
	c.mu.Unlock()
	return true
}

// written accounts for what takeOut got, after it was written or could not be.
func (c *conn) written(err error) {
	s, o := c.srv, &c.out
	s.stats.bytesOut.Add(uint64(o.sent))
	data := o.taken
	o.taken = nil
	c.mu.Lock()
	o.inFlight, o.since = 0, 0
	if err != nil { // the reader sees the closed socket and ends the connection
		c.closed, o.last, o.why = true, true, false
		o.buf = o.buf[:0]
	}
	wake := o.stalled && len(o.buf) < s.opts.Limits.OutboxBytes/2 && !c.closed
	if wake {
		o.stalled = false
		if !c.durable {
			c.pumpMemory()
		}
	}
	if cap(data) <= outBufferKeep {
		o.spare = data[:0]
	}
	c.mu.Unlock()
	if wake {
		s.drained(c)
	}
}

// waitFlushed waits until nothing is left to write; flush closes the socket
// when the peer does not take it. It reports false when the socket is closed.
func (c *conn) waitFlushed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.out.writing {
		c.idle.Wait()
	}
	return !c.out.hung || c.out.why
}

func (s *Server) getBuffer() []byte {
	if p, _ := s.outBuffers.Get().(*[]byte); p != nil {
		return (*p)[:0]
	}
	return make([]byte, 0, outBufferSize)
}

func (s *Server) putBuffer(b []byte) {
	if cap(b) == 0 || cap(b) > outBufferKeep {
		return
	}
	b = b[:0]
	s.outBuffers.Put(&b)
}

// room makes sure that the outbox has a buffer. The caller holds mu.
func (c *conn) room() {
	if c.out.buf == nil {
		c.out.buf = c.srv.getBuffer()
	}
}

// touch is a list of the connections whose outboxes were appended to in a
// round.
type touch struct {
	conns []*conn
	sent  uint64 // messages appended by deliveries
}

// add notes a connection. The caller holds its mu.
func (t *touch) add(c *conn) {
	if !c.out.touched && !c.out.writing {
		c.out.touched = true
		t.conns = append(t.conns, c)
	}
}

// flush empties the outboxes: a few at once, for that is cheaper than to wake
// somebody, many on goroutines.
func (t *touch) flush(s *Server) {
	if t.sent > 0 {
		s.stats.messagesOut.Add(t.sent)
		t.sent = 0
	}
	begun := t.conns[:0]
	for _, c := range t.conns {
		c.mu.Lock()
		start := c.out.touched && c.out.begin()
		c.mu.Unlock()
		switch {
		case !start:
		case c.raw == nil:
			go c.flush()
		default:
			begun = append(begun, c)
		}
	}
	if len(begun) <= flushInline {
		flushAll(begun)
	} else {
		for rest := begun; len(rest) > 0; {
			n := min(len(rest), flushChunk)
			go flushAll(slices.Clone(rest[:n]))
			rest = rest[n:]
		}
	}
	clear(t.conns)
	t.conns = t.conns[:0]
}

func flushAll(conns []*conn) {
	for _, c := range conns {
		c.flushNow()
	}
}

// reply appends an acknowledgement to the outbox.
func (c *conn) reply(t packets.Type, pid uint16, code packets.Code, touched *touch) {
	c.mu.Lock()
	c.replyLocked(t, pid, code, touched)
	c.mu.Unlock()
}

func (c *conn) replyLocked(t packets.Type, pid uint16, code packets.Code, touched *touch) {
	if c.closed {
		return
	}
	c.room()
	c.out.buf = packets.AppendAck(c.out.buf, c.version, t, pid, code)
	touched.add(c)
}

// counter is an atomic counter.
type counter = atomic.Uint64
