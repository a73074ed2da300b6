package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

const (
	// tickEvery is how often a client publishes, answers and changes its mind.
	tickEvery = 5 * time.Millisecond
	// connackTimeout bounds the wait for a CONNACK of a broker that is up. A
	// replay may lie in between.
	connackTimeout = 30 * time.Second
	// refusedPause is the pause after a connection that got no further.
	refusedPause = 20 * time.Millisecond
	// expiryDoubt is how long before its end a session may already be thought to
	// have expired.
	expiryDoubt = time.Second
	// closeTimeout bounds the wait for the broker to close after DISCONNECT.
	closeTimeout = 10 * time.Second
)

// habits is what a client does beside its traffic. The chances are per tick, in
// ten thousandths.
type habits struct {
	drop     int // breaks the connection off
	leave    int // sends DISCONNECT
	takeover int // opens a second connection and lets the first one hang
	restart  int // breaks off and comes back with clean start
	rethink  int // changes its mind about one optional subscription

	offline [2]time.Duration // how long it stays away after drop or leave
	lag     int              // greatest number of deliveries left unanswered
	burst   int              // greatest number of publishes a tick
}

// A client is one durable MQTT client: the state that a correct client keeps
// over its connections, and the goroutine that owns it. It publishes, or
// subscribes, or both; the journal hears of every packet.
type client struct {
	id      string
	version packets.Version
	expiry  uint32   // session expiry interval of its CONNECT
	window  int      // QoS>0 publishes in flight
	maxima  []uint16 // receive maximum of a CONNECT is one of these; 0 = none
	habits  habits
	sources []*source
	wishes  []*wish
	will    *Stream // each CONNECT has the next message of it as its will; nil = none

	addr    string
	journal *Journal
	control *control
	calm    atomic.Bool     // connected, and nothing of its own is open
	ready   *sync.WaitGroup // done once every first subscription is acknowledged
	rnd     *rand.Rand

	// Durable state.
	conn   uint32              // connections so far
	out    []*sent             // own publishes in flight, in the order first sent
	ids    map[uint16]struct{} // own identifiers in use
	asked  map[uint16][]*wish  // SUBSCRIBE and UNSUBSCRIBE not acknowledged
	clean  bool                // the next CONNECT is with clean start
	doubt  bool                // the session may have expired and begun anew without our hearing of it
	parted time.Time           // end of the last accepted connection
	known  bool                // a CONNECT was accepted before
	once   bool                // every first subscription was acknowledged
	turn   int                 // source to publish next

	// Of the current connection.
	l         *link
	accepted  bool
	quota     int      // in-flight limit that the server announced
	aliases   aliases  // both directions
	answers   []answer // to be sent, in order of receipt
	lag       int      // deliveries that may stay unanswered now
	publish   packets.Publish
	leaving   bool // DISCONNECT sent
	passing   bool // the session ends with this connection
	abandoned *link
}

// answer is an acknowledgement that the client owes.
type answer struct {
	kind Kind
	id   uint16
}

// run lives until modeQuit or the end of ctx.
func (c *client) run(ctx context.Context) {
	for ctx.Err() == nil {
		m, up, changed := c.control.now()
		if m == modeQuit {
			return
		}
		if !up {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		wait := c.connection(ctx)
		if wait > 0 {
			c.away(ctx, wait)
		}
	}
}

// away stays offline, cut short when the run begins to drain.
func (c *client) away(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		m, _, changed := c.control.now()
		if m != modeRun {
			return
		}
		select {
		case <-timer.C:
			return
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// connection lives through one connection and returns how long to stay away
// after it.
func (c *client) connection(ctx context.Context) time.Duration {
	c.control.linked(1)
	defer c.control.linked(-1)
	l, err := dial(ctx, c.addr)
	if err != nil {
		return tickEvery
	}
	c.begin(l)
	ticker := time.NewTicker(tickEvery + time.Duration(c.rnd.Int64N(int64(tickEvery))))
	defer ticker.Stop()
	deadline := time.NewTimer(connackTimeout)
	defer deadline.Stop()
	wait := time.Duration(0)
	for {
		select {
		case chunk, ok := <-l.in:
			if !ok {
				c.ended()
				if !c.accepted {
					wait = refusedPause
				}
				return wait
			}
			c.receive(chunk, deadline)
		case <-ticker.C:
			if c.accepted && !c.leaving {
				away, over := c.tick(deadline)
				if over {
					return away
				}
				wait = away
			}
		case <-deadline.C:
			c.late()
			return tickEvery
		case <-ctx.Done():
			c.ended()
			return 0
		}
		l.flush()
	}
}

// begin sends CONNECT.
func (c *client) begin(l *link) {
	c.conn++
	c.l, c.accepted, c.leaving = l, false, false
	c.answers = c.answers[:0]
	c.aliases = aliases{}
	c.lag = c.rnd.IntN(c.habits.lag + 1)
	p := packets.Connect{CleanStart: c.clean, ClientID: []byte(c.id)}
	e := Event{Client: c.id, Conn: c.conn, Kind: Connect, Sent: true, Clean: c.clean, Expiry: c.expiry}
	if c.passing = c.clean && c.version != packets.V5; c.passing {
		e.Expiry = 0 // before MQTT 5 a clean session ends with its connection
	}
	if c.version == packets.V5 {
		p.Props.HasSessionExpiry, p.Props.SessionExpiry = c.expiry > 0, c.expiry
		p.Props.HasTopicAliasMaximum, p.Props.TopicAliasMaximum = true, uint16(c.rnd.IntN(8))
		if most := c.maxima[c.rnd.IntN(len(c.maxima))]; most > 0 {
			p.Props.HasReceiveMaximum, p.Props.ReceiveMaximum = true, most
			e.Max = most
		}
	}
	if c.will != nil {
		e.Msg = Message{*c.will, c.conn}
		p.HasWill = true
		p.Will = packets.Will{QoS: c.will.QoS, Topic: []byte(c.will.Topic), Payload: AppendPayload(nil, e.Msg, 100)}
	}
	c.journal.Add(&e)
	l.out = p.AppendTo(l.out, c.version)
	l.flush()
}

// ended notes the end of the connection and forgets what does not outlive it.
func (c *client) ended() {
	if c.l.hung() {
		c.journal.Report(Finding{
			Rule: "stuck", Statement: "DESIGN 3.3", Client: c.id,
			Text: c.id + ": the broker did not read for " + writeTimeout.String(),
		})
	}
	c.journal.Add(&Event{Client: c.id, Conn: c.conn, Kind: End, Graceful: c.leaving && c.l.err == nil})
	c.l.close()
	c.forget()
}

// hang leaves the connection open and unread: the client comes back on another
// one, and the broker has to find that out by itself [MQTT-3.1.4-3].
func (c *client) hang() {
	c.dropAbandoned()
	c.abandoned = c.l
	c.forget()
}

// forget drops what does not outlive the connection.
func (c *client) forget() {
	c.calm.Store(false)
	switch {
	case c.accepted:
		c.parted = time.Now()
	case c.known && c.expiry != NeverExpires && time.Since(c.parted)+expiryDoubt > time.Duration(c.expiry)*time.Second:
		c.doubt = true
	}
	for id, wishes := range c.asked {
		delete(c.ids, id)
		for _, w := range wishes {
			w.asked = false
		}
		delete(c.asked, id)
	}
}

func (c *client) dropAbandoned() {
	if c.abandoned != nil {
		c.abandoned.close()
		c.abandoned = nil
	}
}

// late reports a broker that is up and does not answer.
func (c *client) late() {
	if _, up, _ := c.control.now(); up {
		what := "no CONNACK for " + connackTimeout.String()
		if c.leaving {
			what = "connection still open " + closeTimeout.String() + " after DISCONNECT"
		}
		c.journal.Report(Finding{Rule: "stuck", Statement: "MQTT-3.14.4-3", Client: c.id, Text: c.id + ": " + what})
	}
	c.leaving = false
	c.ended()
}

// tick does what is due and what comes to the client's mind. over says that
// the connection was given up; away is how long to stay offline after its end.
func (c *client) tick(deadline *time.Timer) (away time.Duration, over bool) {
	c.dropAbandoned()
	m, _, _ := c.control.now()
	switch m {
	case modeQuit:
		c.leave(deadline)
		return 0, false
	case modeDrain:
		c.lag = 0
		c.answer(0)
	case modeRun:
		if away, over, done := c.whim(deadline); done {
			return away, over
		}
		keep := c.lag
		if c.rnd.IntN(8) == 0 {
			keep = 0 // even a client with few deliveries answers some time
		}
		c.answer(keep)
		c.pump()
	}
	c.ask()
	settled := c.settled()
	c.calm.Store(settled && len(c.out) == 0 && len(c.answers) == 0)
	if settled && !c.once {
		c.once = true
		c.ready.Done()
	}
	return 0, false
}

// settled reports whether every wish is acknowledged.
func (c *client) settled() bool {
	for _, w := range c.wishes {
		if !w.settled {
			return false
		}
	}
	return true
}

// whim decides about the connection and about one subscription.
func (c *client) whim(deadline *time.Timer) (away time.Duration, over, done bool) {
	h := &c.habits
	if c.passing && c.rnd.IntN(50) == 0 { // back to a durable session
		c.leave(deadline)
		return tickEvery, false, true
	}
	switch roll := c.rnd.IntN(10_000); {
	case roll < h.drop:
		c.l.flush()
		c.ended()
		return c.absence(), true, true
	case roll < h.drop+h.leave:
		c.answer(c.rnd.IntN(2) * c.lag)
		c.leave(deadline)
		return c.absence(), false, true
	case roll < h.drop+h.leave+h.takeover:
		c.l.flush()
		c.hang()
		return 0, true, true
	case roll < h.drop+h.leave+h.takeover+h.restart:
		c.clean = true
		c.ended()
		return tickEvery, true, true
	case roll < h.drop+h.leave+h.takeover+h.restart+h.rethink:
		c.rethink()
	}
	return 0, false, false
}

func (c *client) absence() time.Duration {
	low, high := c.habits.offline[0], c.habits.offline[1]
	return max(tickEvery, low+time.Duration(c.rnd.Int64N(int64(high-low)+1)))
}

// leave sends DISCONNECT; the broker must close.
func (c *client) leave(deadline *time.Timer) {
	c.l.out = (&packets.Disconnect{}).AppendTo(c.l.out, c.version)
	c.journal.Add(&Event{Client: c.id, Conn: c.conn, Kind: Disconnect, Sent: true})
	c.leaving = true
	deadline.Reset(closeTimeout)
}
