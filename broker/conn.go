package broker

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// conn is one network connection and, for a client without a durable session,
// its session.
type conn struct {
	srv      *Server
	nc       net.Conn
	raw      syscall.RawConn // nil when the socket cannot be waited for without a buffer
	epoch    record.Epoch
	listener string

	// Set by the CONNECT, before anybody else sees the connection.
	version    packets.Version
	clientID   string
	user       string
	assigned   bool   // the broker made up the client identifier
	durable    bool   // has a session in the state machine
	session    uint64 // id of it
	ref        uint32 // slot in the subscription index
	receiveMax uint16 // of the client
	maxPacket  uint32 // of the client, 0 = no limit
	aliasMax   uint16 // aliases the client accepts
	problems   bool   // the client wants reason strings
	keepAlive  uint16 // seconds, 0 = off

	watched watched // of the wheel

	in  inbound
	out outbound

	mu       sync.Mutex
	idle     sync.Cond // with mu: an outstanding record was applied
	pending  [3]int    // logged publishes not yet applied, by QoS
	controls int       // SUBSCRIBE, UNSUBSCRIBE and CONNECT not yet applied
	closed   bool      // no packet is sent any more but what is in the outbox

	unapplied atomic.Int32 // all of pending and controls together
	owed      atomic.Int32 // QoS 1 and 2 publishes from the client without a final answer

	lastRead atomic.Int64 // time of the last packet, or of progress in a large one, seconds; for the keep-alive
	holding  atomic.Bool  // publishes wait for room on the disk
	eager    atomic.Bool  // acknowledgements go to the log at once: a backlog waits for them
	twos     atomic.Int32 // len(out.twos)

	will      *record.Will // of a client without a durable session; reader and apply loop, handed over by end
	hasLogged bool         // the will is in the log
	reported  bool         // the log is told of the connection's end; under mu
	dropWill  bool         // a DISCONNECT with reason 0x00 came
	expiry    uint32       // session expiry in seconds
	newExpiry bool         // changed by the DISCONNECT
	reason    packets.Code // why the connection ended, for the log

	// Of the apply loop.
	sess    *session.Session
	filters filterSet // subscriptions of a client without a durable session
	one     [1]uint32 // scratch for a single subscription identifier
	asked   bool      // the loader has bodies on order
	ended   bool      // no longer in the index
}

// errClosed ends a reader whose connection was ended by the broker.
var errClosed = errors.New("broker: connection closed")

func (s *Server) newConn(nc net.Conn, listener string) *conn {
	c := &conn{srv: s, nc: nc, listener: listener}
	c.idle.L = &c.mu
	c.epoch = record.NewEpoch(s.boot, s.connections.Add(1))
	if c.raw = waitable(nc); c.raw != nil {
		c.in.tryRead = c.tryRead
		c.out.tryWrite = c.tryWrite
	}
	c.in.raw = c.raw
	return c
}

// serve runs the connection from accept to its CONNACK.
func (s *Server) serve(nc net.Conn, listener string) {
	if s.closing.Load() {
		nc.Close()
		return
	}
	if n := s.open.Add(1); n > int64(s.opts.Limits.MaxClients) {
		s.open.Add(-1)
		s.stats.refused.Add(1)
		nc.Close()
		return
	}
	c := s.newConn(nc, listener)
	if !s.track(c) {
		s.open.Add(-1)
		nc.Close()
		return
	}
	c.run()
}

// run hands over to a new goroutine after the CONNACK, whose stack the work of
// a CONNECT has not grown.
func (c *conn) run() {
	if err := c.handshake(); err != nil {
		c.leave(err)
		return
	}
	go func() { c.leave(c.readLoop()) }()
}

// leave ends the connection after its reader stopped.
func (c *conn) leave(err error) {
	defer c.srv.untrack(c)
	c.in.release(c.srv)
	if err != errClosed && err != io.EOF { // nearly always it is one of these
		c.blame(err)
	}
	c.finish() // before the socket closes: whoever has seen that finds the session disconnected
	c.shut()
	if c.waitFlushed() {
		c.linger(err)
		c.nc.Close()
	}
}

// blame sees to an error of the reader that the client may have caused.
func (c *conn) blame(err error) {
	if v := c.brokenBy(err); v != nil {
		c.violated(v)
	}
	code, _, answered := codeOf(err)
	c.mu.Lock()
	if c.reason == 0 {
		c.reason = code
	}
	c.mu.Unlock()
	if answered {
		c.farewell(code)
	}
}

// finish tells the state that the connection ended.
func (c *conn) finish() {
	if !c.in.accepted.Load() {
		return
	}
	var b batch
	if c.durable {
		d := record.Disconnect{
			Session: c.session, Epoch: c.epoch, DropWill: c.dropWill,
			HasExpiry: c.newExpiry, Expiry: c.expiry, Reason: byte(c.endReason()),
		}
		b.addRecord(item{conn: c}, d.AppendTo(nil))
	} else {
		if !c.hasLogged && c.srv.claim() {
			c.srv.endEphemeral(c)
			c.srv.settleClaim(c)
			return
		}
		b.addCommand(c, func() { c.srv.endEphemeral(c) })
		if c.hasLogged { // here and not there, for the lane may be closed by then
			c.mu.Lock()
			c.reported = true
			d := record.Disconnect{Epoch: c.epoch, DropWill: c.dropWill, Reason: byte(c.reason)}
			c.mu.Unlock()
			b.addRecord(item{}, d.AppendTo(nil))
		}
	}
	c.srv.lane.put(&b, true)
}

// disconnect ends the connection from the broker's side, with a reason.
func (c *conn) disconnect(code packets.Code) {
	c.farewell(code)
	c.shut()
}

// farewell tells an MQTT 5 client why its connection ends; an MQTT 3 client
// has no DISCONNECT from a server [MQTT-3.14.0-1]. Nothing is sent after it.
func (c *conn) farewell(code packets.Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	if c.version == packets.V5 && c.in.accepted.Load() {
		c.room()
		d := packets.Disconnect{Code: code}
		c.out.buf = d.AppendTo(c.out.buf, c.version)
		c.out.why = true
	}
	c.closed = true
}

// shut ends the connection without a word.
func (c *conn) shut() {
	c.mu.Lock()
	c.closed = true
	c.end()
}

// end lets the connection close once its outbox is written or the peer has
// had its time to take it. It unlocks mu.
func (c *conn) end() {
	c.out.last = true
	c.idle.Broadcast()
	if o := &c.out; c.raw != nil && len(o.buf) == 0 && !o.writing && !o.why && !o.hung { // nothing to wait for
		o.hung, o.touched = true, false
		c.srv.putBuffer(o.buf)
		o.buf = nil
		c.mu.Unlock()
		c.nc.Close()
		return
	}
	start := c.out.begin()
	c.mu.Unlock()
	deadline := time.Now().Add(c.srv.opts.Limits.ShutdownWriteTimeout)
	if err := c.nc.SetWriteDeadline(deadline); err != nil {
		c.nc.Close() // it is closed, or of a kind that cannot be bounded
	}
	if start {
		go c.flush()
	}
}

// waitOrder waits until a bypass packet of this QoS keeps the order: no
// logged publish of the same QoS is under way, and no SUBSCRIBE.
func (c *conn) waitOrder(qos byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.pending[qos] > 0 || c.controls > 0 {
		if c.closed {
			return errClosed
		}
		c.idle.Wait()
	}
	return nil
}

// logged counts a publish that goes into the log.
func (c *conn) logged(qos byte) {
	c.mu.Lock()
	c.pending[qos]++
	c.mu.Unlock()
	c.unapplied.Add(1)
}

// controlled counts a SUBSCRIBE or UNSUBSCRIBE on its way to the apply loop.
func (c *conn) controlled() {
	c.mu.Lock()
	c.controls++
	c.mu.Unlock()
	c.unapplied.Add(1)
}

// answeredFinally counts a publish of the client as done.
func (c *conn) answeredFinally() {
	for n := c.owed.Load(); n > 0 && !c.owed.CompareAndSwap(n, n-1); n = c.owed.Load() {
	}
}

// outstanding reports whether waitOrder would wait.
func (c *conn) outstanding(qos byte) bool {
	if c.unapplied.Load() == 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending[qos] > 0 || c.controls > 0
}

func (c *conn) info() ClientInfo {
	return ClientInfo{
		ClientID: c.clientID, Username: c.user, Remote: c.nc.RemoteAddr().String(),
		Listener: c.listener, Version: byte(c.version),
	}
}

func (c *conn) log(level slog.Level, msg string, args ...any) {
	if log := c.srv.opts.Logger; log.Enabled(c.srv.ctx, level) {
		log.Log(c.srv.ctx, level, msg, append(args, "client", c.clientID, "remote", c.nc.RemoteAddr(), "listener", c.listener)...)
	}
}
