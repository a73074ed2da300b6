package main

import (
	"fmt"
	"slices"
)

// targetsMax bounds the durable sessions and shared groups of one run: each is
// one bit of a message's obligations.
const targetsMax = 64

// findingsMax bounds the findings kept; further ones are only counted.
const findingsMax = 50

// keepSettled is how many settled messages a stream remembers, so that what
// arrives late can still be judged by when it was published.
const keepSettled = 1024

// A Checker judges a history, event by event. It knows only what the clients
// did and were told, never what the broker holds. It reads no clock and does no
// I/O: the same events give the same findings. Its memory is bounded by what is
// still owed to somebody, not by the length of the history. Not safe for
// concurrent use.
type Checker struct {
	streams    map[Stream]*stream
	streamList []*stream
	peers      map[string]*peer
	peerList   []*peer
	groups     map[string]*target
	targets    []*target
	audience   map[string]uint64 // topic → targets surely subscribed; nil = recompute
	retained   map[string]*retainedTopic
	topics     []string // of retained, in order of first use

	full       bool    // the disk may be full: MQTT 3 has only 0x80 to say so
	downAt     int64   // when it ended; -1 while it serves
	readyAt    []int64 // when the broker served again, ascending; the last few
	tick       uint64
	ignore     []string // rules not to report: defects already known
	only       []string // if not empty, the only rules to report
	findings   []Finding
	suppressed int
	stats      Stats
}

// Stats counts what passed by.
type Stats struct {
	Published  int // application messages sent at least once
	Resent     int // PUBLISH packets with DUP sent by publishers
	Accepted   int // messages acknowledged with success (PUBACK, PUBREC)
	Rejected   int // messages refused with a reason code of 0x80 or more
	Delivered  int // PUBLISH packets received
	Duplicates int // of these, QoS 1 copies beyond the first, all with a cause
	Redelivery int // of these, redeliveries after a reconnect
	Completed  int // QoS 2 handshakes completed, both directions
	Reads      int // looks at retained messages
	Subscribes int // SUBACKs and UNSUBACKs
	Wills      int // wills that had to be published
	Sessions   int // CONNACKs that resumed a session
	Kills      int
}

// NewChecker returns a checker for a history that begins with an empty broker.
func NewChecker() *Checker {
	return &Checker{
		downAt:   -1,
		streams:  map[Stream]*stream{},
		peers:    map[string]*peer{},
		groups:   map[string]*target{},
		retained: map[string]*retainedTopic{},
	}
}

// A target is who a message is owed to: a durable session, or a shared group of
// durable sessions as a whole.
type target struct {
	name    string
	bit     uint64
	peer    *peer              // nil for a group
	members map[*peer]struct{} // nil for a session: members surely subscribed
	seen    map[Stream]*seqSet // group only: what any member received
	pending int                // messages sent and still owed
}

// Observe takes the next event of the history.
func (c *Checker) Observe(e *Event) {
	if e.Tick <= c.tick {
		panic(fmt.Sprintf("torture: event %d after %d", e.Tick, c.tick))
	}
	c.tick = e.Tick
	switch e.Kind {
	case Kill, Stop:
		c.down(e)
		return
	case Ready:
		c.downAt, c.readyAt = -1, append(c.readyAt, e.At)
		return
	}
	p := c.peer(e.Client)
	if e.Kind != Connect && e.Conn != p.conn {
		return // the rest of a connection that another one has replaced
	}
	switch e.Kind {
	case Connect:
		c.connect(p, e)
	case Connack:
		c.connack(p, e)
	case End:
		c.end(p, e)
	case Disconnect:
		if w := p.currentWill(e); w != nil && e.Sent {
			w.parted = true
		}
	case Publish:
		if e.Sent {
			c.publish(p, e)
		} else {
			c.stats.Delivered++
			c.delivery(p, e)
		}
	case Puback, Pubrec, Pubcomp:
		if e.Sent {
			c.receipt(p, e)
		} else {
			c.acknowledged(p, e)
		}
	case Pubrel:
		if e.Sent {
			c.release(p, e)
		} else {
			c.released(p, e)
		}
	case Subscribe:
		c.subscribe(p, e)
	case Suback:
		c.suback(p, e)
	case Unsubscribe:
		c.unsubscribe(p, e)
	case Unsuback:
		c.unsuback(p, e)
	case Read:
		c.read(p, e)
	}
}

// Finish judges what only the end can show. The history must have been drained:
// publishers finished, every session connected until nothing more came.
func (c *Checker) Finish() {
	for _, s := range c.streamList {
		c.finishStream(s)
	}
	for _, p := range c.peerList {
		c.finishPeer(p)
	}
}

// Findings returns what was found, and how many more were not kept.
func (c *Checker) Findings() ([]Finding, int) { return c.findings, c.suppressed }

// Stats returns the counts so far.
func (c *Checker) Stats() Stats { return c.stats }

// Owed returns the messages still owed to a client's session, or to the groups
// it is a member of.
func (c *Checker) Owed(client string) int {
	p := c.peers[client]
	if p == nil {
		return 0
	}
	n := 0
	if p.target != nil {
		n = p.target.pending
	}
	for _, t := range c.targets {
		if _, ok := t.members[p]; ok {
			n += t.pending
		}
	}
	return n
}

// Outstanding is what the clients wait for.
type Outstanding struct {
	Publishes  int // sent, neither PUBACK nor PUBREC came
	Handshakes int // QoS 2 exchanges begun and not completed, both directions
	Released   int // of these, past PUBREC: identifiers held on both sides
	Owed       int // deliveries owed to sessions and groups
}

// Outstanding counts what is open at this moment of the history.
func (c *Checker) Outstanding() Outstanding {
	var o Outstanding
	for _, p := range c.peerList {
		for _, x := range p.out {
			if !x.received {
				o.Publishes++
			}
			if x.msg.QoS == 2 {
				o.Handshakes++
				if x.received {
					o.Released++
				}
			}
		}
		for _, x := range p.in {
			if x.qos == 2 && x.state != deliveryDone {
				o.Handshakes++
				if x.state != deliveryOpen {
					o.Released++
				}
			}
		}
	}
	for _, t := range c.targets {
		o.Owed += t.pending
	}
	return o
}

func (c *Checker) report(f Finding) {
	if slices.Contains(c.ignore, f.Rule) || len(c.only) > 0 && !slices.Contains(c.only, f.Rule) {
		return
	}
	if len(c.findings) == findingsMax {
		c.suppressed++
		return
	}
	c.findings = append(c.findings, f)
}

// finding reports a broken promise that event e of peer p shows.
func (c *Checker) finding(p *peer, e *Event, rule, statement, format string, args ...any) {
	c.report(Finding{
		Rule: rule, Statement: statement, Event: *e, Client: p.name, Msg: e.Msg,
		Text: fmt.Sprintf(format, args...),
	})
}

func (c *Checker) newTarget(name string) *target {
	if len(c.targets) == targetsMax {
		panic("torture: more durable sessions and groups than the checker has bits")
	}
	t := &target{name: name, bit: 1 << len(c.targets), seen: map[Stream]*seqSet{}}
	c.targets = append(c.targets, t)
	return t
}

// seen returns the set of m's stream, made on first use.
func seen(sets map[Stream]*seqSet, s Stream) *seqSet {
	set := sets[s]
	if set == nil {
		set = &seqSet{}
		sets[s] = set
	}
	return set
}
