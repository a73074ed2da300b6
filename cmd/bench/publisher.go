package bench

import (
	"fmt"
	"sync/atomic"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// A publisher sends messages of one source as far as its window, its group
// and its limits allow.
//
// pump may be called by any goroutine; one at a time sends. Acknowledgements
// are handled by the goroutine that reads the publisher's connection.
type publisher struct {
	load   *load
	c      *conn
	frames *frames
	qos    byte
	window int64
	least  int64  // room in the window below which it waits for more
	limit  uint64 // messages in all; 0: until the load stops
	group  *group // nil: no end-to-end bound

	// due is the number of messages whose time has come (open loop); nil: all.
	due *atomic.Int64
	// choose, if set, gives frame i its topic for message seq.
	choose func(i int, seq uint64)

	_       [64]byte // what follows is written all the time
	asked   atomic.Int32
	sent    atomic.Int64
	acked   atomic.Int64
	refused atomic.Int64
	nextAck uint64 // message that the next acknowledgement should be of
	answers []byte // PUBREL to write
}

// publisherSpec says what a publisher is.
type publisherSpec struct {
	topic  string
	number int // see frameSpec
	source uint32
	qos    byte
	retain bool
	limit  uint64
	group  *group
}

func (l *load) newPublisher(c *conn, s publisherSpec) *publisher {
	o := l.o
	p := &publisher{load: l, c: c, qos: s.qos, limit: s.limit, group: s.group, window: int64(o.Window)}
	if s.qos > 0 && p.window > int64(c.receiveMaximum) {
		p.window = int64(c.receiveMaximum)
		l.note("the broker takes %d messages at a time (receive maximum): the window is smaller than asked for", c.receiveMaximum)
	}
	p.least = (p.window + 3) / 4
	p.frames = newFrames(frameSpec{
		version: o.Version, qos: s.qos, retain: s.retain, topic: s.topic, number: s.number,
		size: o.Size, most: o.Window, run: l.run, source: s.source,
	})
	l.publishers = append(l.publishers, p)
	return p
}

// pump sends what may be sent. Whoever calls while another goroutine is at it
// leaves the work to that one.
func (p *publisher) pump() {
	if p.asked.Add(1) != 1 {
		return
	}
	for {
		seen := p.asked.Load()
		for p.send() {
		}
		if p.asked.CompareAndSwap(seen, 0) {
			return
		}
	}
}

// send writes one batch and reports whether there may be more.
func (p *publisher) send() bool {
	sent := p.sent.Load()
	room := int64(p.frames.count)
	if p.qos > 0 {
		free := p.window - (sent - p.acked.Load())
		if free < p.least {
			return false
		}
		room = min(room, free)
	}
	if p.limit > 0 {
		room = min(room, int64(p.limit)-sent)
	}
	if p.due != nil {
		room = min(room, p.due.Load()-sent)
	}
	if room <= 0 {
		return false
	}
	if p.group != nil {
		if p.group.only == p && p.group.free.Load() < p.least {
			return false // give asks again
		}
		if room = p.group.take(room); room == 0 {
			p.group.park(p)
			return false
		}
	}
	// Counted first: the answer may be here before Write returns. And whoever
	// stops the load either sees this count or is seen here.
	p.sent.Store(sent + room)
	if p.load.stopped.Load() {
		p.sent.Store(sent)
		return false
	}
	if p.choose != nil {
		for i := range int(room) {
			p.choose(i, uint64(sent)+uint64(i))
		}
	}
	if _, err := p.c.nc.Write(p.frames.prepare(uint64(sent), int(room))); err != nil {
		p.load.fail(fmt.Errorf("bench: %s publishes: %w", p.c.id, err))
		return false
	}
	return true
}

// answer handles an acknowledgement.
func (p *publisher) answer(f packets.Frame) error {
	if len(f.Body) < 2 {
		return fmt.Errorf("%s of %d bytes", f.Type(), len(f.Body))
	}
	id := uint16(f.Body[0])<<8 | uint16(f.Body[1])
	refused := p.c.version >= packets.V5 && len(f.Body) > 2 && packets.Code(f.Body[2]).IsError()
	if refused {
		p.refused.Add(1)
	}
	switch {
	case f.Type() == packets.TypePubrec && !refused:
		p.answers = packets.AppendAck(p.answers, p.c.version, packets.TypePubrel, id, packets.CodeSuccess)
		return nil
	case f.Type() != packets.TypePuback && f.Type() != packets.TypePubcomp && f.Type() != packets.TypePubrec:
		return fmt.Errorf("unexpected %s", f.Type())
	}
	if want := packetID(p.nextAck); id != want && !refused {
		// [MQTT-4.6.0-2] and [-3] want acknowledgements in order; the broker
		// may still work, so this is a remark and not the end.
		p.load.note("acknowledgements out of order")
	}
	p.nextAck++
	return nil
}

// flush ends a round of answers.
func (p *publisher) flush() error {
	if len(p.answers) > 0 {
		if _, err := p.c.nc.Write(p.answers); err != nil {
			return err
		}
		p.answers = p.answers[:0]
	}
	if n := int64(p.nextAck); n != p.acked.Load() {
		p.acked.Store(n)
		p.pump()
	}
	return nil
}

// done reports whether everything that was sent is acknowledged.
func (p *publisher) done() bool {
	return p.qos == 0 || p.acked.Load() == p.sent.Load()
}
