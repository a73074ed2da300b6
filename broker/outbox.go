package broker

import (
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
	stalled  bool   // a delivery waits for the outbox to drain
	since    int64  // coarse time (s) at which the present write began, 0 = none
	inFlight int    // bytes that the flusher has taken and not yet written

	aliases map[string]uint16 // topic aliases the client knows
	backlog []waiting         // deliveries that wait for their turn

	// Of a client without a durable session:
	window session.Outbound[*memo]
	queued int // bytes of queued messages
	owned  map[uint64]ownership
}

// memo is a message kept in memory for a client without a durable session.
type memo struct {
	body     []byte // stored form
	deadline int64  // log time ms, 0 = never
	hasLife  bool
	qos      byte // as published
	retain   bool // as published
}

const (
	outBufferSize = 4 << 10
	outBufferKeep = 256 << 10 // larger ones are left to the garbage collector
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
	s := c.srv
	var spare []byte
	for {
		c.mu.Lock()
		if len(c.out.buf) == 0 {
			c.out.writing = false
			last := c.out.last
			s.putBuffer(c.out.buf)
			c.out.buf = nil
			c.idle.Broadcast()
			c.mu.Unlock()
			s.putBuffer(spare)
			if last {
				c.nc.Close()
			}
			return
		}
		data := c.out.buf
		c.out.buf, spare = spare[:0], nil
		if c.out.buf == nil {
			c.out.buf = s.getBuffer()
		}
		c.out.inFlight, c.out.since = len(data), s.coarse.Load()
		c.mu.Unlock()

		n, err := c.nc.Write(data)
		s.stats.bytesOut.Add(uint64(n))

		c.mu.Lock()
		c.out.inFlight, c.out.since = 0, 0
		if err != nil { // the reader sees the closed socket and ends the connection
			c.closed, c.out.last = true, true
			c.out.buf = c.out.buf[:0]
		}
		wake := c.out.stalled && len(c.out.buf) < s.opts.Limits.OutboxBytes/2 && !c.closed
		if wake {
			c.out.stalled = false
			if !c.durable {
				c.pumpMemory()
			}
		}
		c.mu.Unlock()
		if wake {
			s.drained(c)
		}
		if cap(data) <= outBufferKeep {
			spare = data
		}
	}
}

// waitFlushed waits until nothing is left to write; flush closes the socket
// when the peer does not take it.
func (c *conn) waitFlushed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.out.writing {
		c.idle.Wait()
	}
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
// round; flush starts a flusher for each.
type touch struct {
	conns []*conn
}

// add notes a connection. The caller holds its mu.
func (t *touch) add(c *conn) {
	if !c.out.touched && !c.out.writing {
		c.out.touched = true
		t.conns = append(t.conns, c)
	}
}

// flush starts the flushers.
func (t *touch) flush() {
	for i, c := range t.conns {
		c.mu.Lock()
		start := c.out.touched && c.out.begin()
		c.mu.Unlock()
		if start {
			go c.flush()
		}
		t.conns[i] = nil
	}
	t.conns = t.conns[:0]
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
