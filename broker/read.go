package broker

import (
	"errors"
	"io"
	"sync/atomic"
	"syscall"

	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// inbound is the receiving half of a connection. It belongs to the reader.
type inbound struct {
	raw     syscall.RawConn
	tryRead func(fd uintptr) bool // conn.tryRead, bound once

	buf     []byte // read and not yet parsed; nil while idle
	granted int64  // bytes of buf that count against Limits.InboundBytes
	readN   int    // result of tryRead
	readErr error
	more    bool // the last read filled the buffer

	accepted atomic.Bool // the state has taken the CONNECT
	connack  chan error  // the state's answer to the CONNECT

	aliases  []string            // topic aliases of the client, by number
	routes   map[string]*route   // cache of matches
	received map[uint16]struct{} // QoS 2 identifiers of a client without a durable session
	batch    batch               // records of this round
	ack      record.Ack          // acknowledgements gathered in this round
	touched  touch               // outboxes appended to in this round
	pub      packets.Publish     // reused
	scratch  []byte              // reused
	choices  []record.Choice     // reused
	held     []held              // publishes that wait for room on the disk
	filters  map[string]struct{} // subscribed to on this connection, for the limit
	encoded  []byte              // reused for records
	turn     uint32              // round-robin in shared groups
	cache    []encoding          // reused by deliverAll
}

const (
	readBufferSize = 16 << 10
	smallRead      = 64
	batchRecords   = 512 // records after which a round goes to the lane
	batchBytes     = 128 << 10
)

// readLoop reads and handles packets until the connection ends.
func (c *conn) readLoop() error {
	for {
		err := c.unhold()
		if err == nil {
			err = c.parse()
		}
		if !c.endRound() && err == nil {
			err = errClosed
		}
		if err == nil {
			err = c.fillBuffer(int(c.srv.opts.Limits.MaxPacketSize))
		}
		if err != nil && !c.woken(err) {
			return err
		}
	}
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
	c.in.buf = c.in.buf[:copy(c.in.buf, b)]
	return nil
}

// endRound sends the round's records on their way and starts the flushers of
// the outboxes it touched. It reports false when the broker is closing.
func (c *conn) endRound() bool {
	c.addAcks()
	ok := true
	if len(c.in.batch.items) > 0 {
		ok = c.srv.lane.put(&c.in.batch, false)
	}
	c.in.touched.flush()
	return ok
}

// fillBuffer reads at least one byte more. While nothing is buffered it waits
// without a buffer where the socket allows it.
func (c *conn) fillBuffer(limit int) error {
	if len(c.in.buf) == 0 {
		c.in.idle(c.srv)
	} else if err := c.makeRoom(limit); err != nil {
		return err
	}
	n, err := c.read()
	if n > 0 {
		c.in.buf = c.in.buf[:len(c.in.buf)+n]
		c.in.more = len(c.in.buf) == cap(c.in.buf)
		c.srv.stats.bytesIn.Add(uint64(n))
		c.lastRead.Store(c.srv.coarse.Load())
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// idle gives the buffer back.
func (in *inbound) idle(s *Server) {
	if in.buf == nil || in.more && in.raw == nil {
		return // more is likely waiting inside a TLS or WebSocket layer
	}
	in.release(s)
	if in.batch.body != nil && cap(in.batch.body) > 4<<10 {
		in.batch.body, in.batch.items = nil, nil
	}
}

func (in *inbound) release(s *Server) {
	if cap(in.buf) == readBufferSize {
		b := in.buf[:0]
		s.inBuffers.Put(&b)
	}
	s.inBudget.release(in.granted)
	in.buf, in.granted = nil, 0
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
	need = max(need, readBufferSize)
	if in.granted == 0 {
		if !c.srv.inBudget.acquire(int64(need), c.isClosed) {
			return errClosed
		}
		in.granted = int64(need)
	}
	bigger := make([]byte, len(in.buf), need)
	copy(bigger, in.buf)
	if cap(in.buf) == readBufferSize {
		old := in.buf[:0]
		c.srv.inBuffers.Put(&old)
	}
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
		if in.buf == nil {
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

// tryRead is called when the socket may be readable; false = wait on.
func (c *conn) tryRead(fd uintptr) bool {
	in := &c.in
	taken := in.buf == nil
	if taken {
		in.buf = c.srv.readBuffer()
	}
	for {
		n, err := syscall.Read(int(fd), in.buf[len(in.buf):cap(in.buf)])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			if taken {
				in.release(c.srv)
			}
			return false
		}
		in.readN, in.readErr = max(n, 0), err
		return true
	}
}

// readSmall waits for the first bytes of a burst with a small buffer.
func (c *conn) readSmall() (int, error) {
	var small [smallRead]byte
	n, err := c.nc.Read(small[:])
	if n > 0 {
		c.in.buf = c.srv.readBuffer()
		copy(c.in.buf[:n], small[:n])
		return n, nil
	}
	return 0, err
}

func (s *Server) readBuffer() []byte {
	if p, _ := s.inBuffers.Get().(*[]byte); p != nil {
		return (*p)[:0]
	}
	return make([]byte, 0, readBufferSize)
}

// isEOF reports whether a read error is an ordinary end of the connection.
func isEOF(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, errClosed)
}
