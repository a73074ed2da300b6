package broker

import (
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"syscall"

	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// inbound is the receiving half of a connection. It belongs to the reader.
type inbound struct {
	*work     // buffers; nil while the connection is idle
	raw       syscall.RawConn
	tryRead   func(fd uintptr) bool // conn.tryRead, bound once
	readErr   error                 // result of tryRead
	readN     int                   // result of tryRead
	granted   int64                 // bytes of buf that count against Limits.InboundBytes
	more      bool                  // the last read filled the buffer
	atOnce    bool                  // a read does not wait, but fails with EAGAIN
	unflushed int                   // rounds whose outboxes wait for the next one

	accepted atomic.Bool // the state has taken the CONNECT
	connack  chan error  // the state's answer to the CONNECT

	aliases  []string            // topic aliases of the client, by number
	routes   map[string]*route   // cache of matches
	latest   *route              // the one of them that was used last
	seen     *sightings          // what else was published to, for the cache
	received map[uint16]struct{} // QoS 2 identifiers of a client without a durable session
	held     []held              // publishes that wait for room on the disk
	filters  filterSet           // subscribed to on this connection, for the limit
	turn     uint32              // round-robin in shared groups
}

// work is what a reader needs while it has something to do. It comes from a
// pool and goes back when nothing is buffered, so that an idle connection
// holds no buffer in either direction.
type work struct {
	buf     []byte          // read and not yet parsed
	batch   batch           // records of this round
	ack     record.Ack      // acknowledgements gathered in this round, of a durable session
	acks    []packets.Ack   // the same of any other client
	replies []byte          // answers of this round
	arrived uint64          // messages of this round
	packet  []byte          // the one in work, as received
	touched touch           // outboxes appended to in this round
	pub     packets.Publish // the rest is reused from packet to packet
	scratch []byte
	choices []record.Choice
	encoded []byte
	cache   []encoding
	found   route         // of a topic that is not in the cache
	matches topic.Matches // for found
}

const (
	readBufferSize = 16 << 10
	smallRead      = 64
	softRounds     = 4   // rounds in a row that leave what they have touched to the next one
	batchRecords   = 512 // records after which a round goes to the lane
	batchBytes     = 128 << 10
	largeProgress  = 1 << 10 // bytes in one read of a packet above readBufferSize that count as a sign of life
)

// readLoop reads and handles packets until the connection ends.
func (c *conn) readLoop() error {
	for {
		var err error
		if c.in.work == nil && len(c.in.held) > 0 {
			c.in.begin(c.srv)
		}
		if c.in.work != nil {
			err = c.round()
		}
		if err == nil {
			err = c.fillBuffer(int(c.srv.opts.Limits.MaxPacketSize))
		}
		if err != nil && !c.woken(err) {
			return err
		}
	}
}

// round handles what is buffered.
func (c *conn) round() error {
	err := c.unhold()
	if err == nil {
		err = c.parse()
	}
	if err == nil && c.in.more && c.in.raw != nil && c.in.unflushed < softRounds {
		c.in.unflushed++ // more is waiting in the socket: what it brings goes with this
		if !c.send() {
			err = errClosed
		}
		return err
	}
	if !c.endRound() && err == nil {
		err = errClosed
	}
	return err
}

// parse handles all whole packets in the buffer and moves the rest to its
// front.
func (c *conn) parse() error {
	b := c.in.buf
	for len(b) > 0 {
		f, n, _, err := packets.Next(b, int(c.srv.opts.Limits.MaxPacketSize))
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		c.in.packet = b[:n]
		if err := c.handle(f); err != nil {
			return err
		}
		b = b[n:]
		if c.in.batch.records >= batchRecords || len(c.in.batch.body) >= batchBytes {
			if !c.endRound() {
				return errClosed
			}
		}
	}
	if err := c.addAcks(); err != nil {
		return err
	}
	if len(b) < len(c.in.buf) { // it is packets that keep a connection alive, not bytes [MQTT-3.1.2-22]
		c.lastRead.Store(c.srv.clock() / 1000)
	}
	c.in.buf = c.in.buf[:copy(c.in.buf, b)]
	return nil
}

// endRound sends the round's records on their way and flushes the outboxes it
// touched. It reports false when the broker is closing.
func (c *conn) endRound() bool {
	ok := c.send()
	c.in.flush(c.srv)
	return ok
}

// send sends the round's records on their way.
func (c *conn) send() bool {
	if err := c.addAcks(); err != nil {
		c.log(slog.LevelDebug, "acknowledgement after a violation", "error", err)
	}
	c.addReplies() // first, for the apply loop answers the records
	if c.in.arrived > 0 {
		c.srv.stats.messagesIn.Add(c.in.arrived)
		c.in.arrived = 0
	}
	return len(c.in.batch.items) == 0 || c.srv.lane.put(&c.in.batch, false)
}

// flush flushes the outboxes that were touched since the last time.
func (in *inbound) flush(s *Server) {
	in.unflushed = 0
	in.touched.flush(s)
}

// fillBuffer reads at least one byte more. While nothing is buffered it waits
// without a buffer where the socket allows it.
func (c *conn) fillBuffer(limit int) error {
	if c.in.work != nil {
		if len(c.in.buf) == 0 {
			if c.in.unflushed == 0 {
				c.in.rest(c.srv)
			}
		} else if err := c.makeRoom(limit); err != nil {
			return err
		}
	}
	n, err := c.read()
	if n > 0 {
		c.in.buf = c.in.buf[:len(c.in.buf)+n]
		c.in.more = len(c.in.buf) == cap(c.in.buf)
		c.srv.stats.bytesIn.Add(uint64(n))
		if cap(c.in.buf) > readBufferSize && n >= largeProgress {
			c.lastRead.Store(c.srv.clock() / 1000)
		}
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// rest gives the buffers back, unless more is likely waiting inside a TLS or
// WebSocket layer.
func (in *inbound) rest(s *Server) {
	if !in.more || in.raw != nil {
		in.release(s)
	}
}

// release gives the buffers back. One that grew for a large packet is left to
// the garbage collector.
func (in *inbound) release(s *Server) {
	w := in.work
	if w == nil {
		return
	}
	in.flush(s)
	s.inBudget.release(in.granted)
	in.work, in.granted = nil, 0
	if cap(w.buf) != readBufferSize {
		w.buf = make([]byte, 0, readBufferSize)
	}
	w.buf = w.buf[:0]
	if cap(w.encoded) > readBufferSize {
		w.encoded = nil
	}
	if cap(w.replies) > readBufferSize {
		w.replies = nil
	}
	if cap(w.batch.body) > batchBytes {
		w.batch = batch{}
	}
	w.found.forget()
	clear(w.matches.Groups)
	s.works.Put(w)
}

// begin takes the buffers.
func (in *inbound) begin(s *Server) {
	in.work, _ = s.works.Get().(*work)
	if in.work == nil {
		in.work = &work{buf: make([]byte, 0, readBufferSize)}
	}
}

// makeRoom grows the buffer to the packet in work, within the budget of all
// connections together.
func (c *conn) makeRoom(limit int) error {
	in := &c.in
	_, _, need, err := packets.Next(in.buf, limit)
	if err != nil {
		return err
	}
	if need <= cap(in.buf) {
		if len(in.buf) < cap(in.buf) {
			return nil
		}
		need = 2 * cap(in.buf)
	}
	if in.granted == 0 {
		in.flush(c.srv)
		if !c.srv.inBudget.acquire(int64(need), c.isClosed) {
			return errClosed
		}
		in.granted = int64(need)
	}
	bigger := make([]byte, len(in.buf), need)
	copy(bigger, in.buf)
	in.buf = bigger
	return nil
}

func (c *conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// read reads into the free part of the buffer, taking one when there is none.
func (c *conn) read() (int, error) {
	in := &c.in
	if in.raw == nil {
		if in.work == nil {
			return c.readSmall()
		}
		return c.nc.Read(in.buf[len(in.buf):cap(in.buf)])
	}
	in.readN, in.readErr = 0, nil
	if err := in.raw.Read(in.tryRead); err != nil {
		return 0, err
	}
	if in.readN == 0 && in.readErr == nil {
		return 0, io.EOF
	}
	return in.readN, in.readErr
}

// readSmall waits for the first bytes of a burst with a small buffer.
func (c *conn) readSmall() (int, error) {
	var small [smallRead]byte
	n, err := c.nc.Read(small[:])
	if n > 0 {
		c.in.begin(c.srv)
		copy(c.in.buf[:n], small[:n])
		return n, nil
	}
	return 0, err
}

// isEOF reports whether a read error is an ordinary end of the connection.
func isEOF(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, errClosed)
}
