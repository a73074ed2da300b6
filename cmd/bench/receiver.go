package bench

import (
	"fmt"
	"io"
	"sync"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

const (
	readBuffer     = 16 << 10
	readBufferMany = 128 << 10 // of a receiver that gets everything there is
)

// A sink takes the messages of one receiver.
type sink interface {
	// take notes a message; it reports false if it is none of the receiver's.
	take(d *delivery) bool
}

// A receiver reads one connection: messages if it subscribes, acknowledgements
// if it belongs to a publisher. Its goroutine owns everything in it but count.
type receiver struct {
	load      *load
	c         *conn
	publisher *publisher
	sink      sink
	qos       byte // that messages should come with
	buffer    int  // bytes
	// passed, if set, is told after each round how many messages had come
	// before it and how many have come now.
	passed func(before, after uint64)
	// subscribed is set where messages may come before the SUBACK.
	subscribed bool

	foreign    uint64
	downgraded uint64
	open       []uint64 // QoS 2 identifiers between PUBLISH and PUBREL, a bit each
	acks       []byte
	delivery   delivery

	count paddedInt // messages received
}

func (l *load) newReceiver(c *conn, s sink) *receiver {
	r := &receiver{load: l, c: c, sink: s, qos: l.o.QoS, buffer: readBuffer}
	if l.o.QoS == 2 {
		r.open = make([]uint64, 65536/64)
	}
	l.receivers = append(l.receivers, r)
	return r
}

// newAckReader makes the receiver of a publisher's connection.
func (l *load) newAckReader(p *publisher) {
	l.ackReaders = append(l.ackReaders, &receiver{load: l, c: p.c, publisher: p, buffer: 4 << 10})
}

// run reads until the connection ends.
func (r *receiver) run() error {
	buf := make([]byte, max(r.buffer, len(r.c.buf)))
	have := copy(buf, r.c.buf)
	r.c.buf = nil
	for {
		used, need, err := r.round(buf[:have])
		if err != nil {
			return err
		}
		have = copy(buf, buf[used:have])
		if need > len(buf) {
			buf = append(make([]byte, 0, 2*need), buf[:have]...)[:2*need]
		}
		n, err := r.c.nc.Read(buf[have:])
		if have += n; n == 0 && err != nil {
			return err
		}
	}
}

// round handles all whole packets in b, then acknowledges them in one write.
// need is the size of the packet that b breaks off, if known.
func (r *receiver) round(b []byte) (used, need int, err error) {
	before := uint64(r.count.Load())
	after := before
	for used < len(b) {
		f, n, want, err := packets.Next(b[used:], 0)
		if err != nil {
			return used, 0, err
		}
		if n == 0 {
			need = want
			break
		}
		used += n
		if f.Type() == packets.TypePublish {
			if r.publish(f) {
				after++
			}
		} else if err := r.other(f); err != nil {
			return used, 0, err
		}
	}
	if len(r.acks) > 0 {
		if _, err := r.c.nc.Write(r.acks); err != nil {
			return used, need, err
		}
		r.acks = r.acks[:0]
	}
	if r.publisher != nil {
		return used, need, r.publisher.flush()
	}
	if after != before {
		r.count.Store(int64(after))
		if r.passed != nil {
			r.passed(before, after)
		}
	}
	return used, need, nil
}

// publish handles a message; it reports whether it counts.
func (r *receiver) publish(f packets.Frame) bool {
	d := &r.delivery
	ours := d.parse(r.c.version, f)
	switch d.qos {
	case 1:
		r.acks = packets.AppendAck(r.acks, r.c.version, packets.TypePuback, d.id, packets.CodeSuccess)
	case 2:
		r.acks = packets.AppendAck(r.acks, r.c.version, packets.TypePubrec, d.id, packets.CodeSuccess)
		if r.open == nil {
			break
		}
		word, bit := &r.open[d.id/64], uint64(1)<<(d.id%64)
		if *word&bit != 0 && d.dup {
			return false // sent again because our PUBREC had not arrived: no second message
		}
		*word |= bit
	}
	if !ours || d.run != r.load.run || r.sink == nil || !r.sink.take(d) {
		r.foreign++
		return false
	}
	if d.qos < r.qos {
		r.downgraded++
	}
	return true
}

// other handles what is no PUBLISH.
func (r *receiver) other(f packets.Frame) error {
	switch t := f.Type(); t {
	case packets.TypePuback, packets.TypePubrec, packets.TypePubcomp:
		if r.publisher == nil {
			return fmt.Errorf("unexpected %s", t)
		}
		return r.publisher.answer(f)
	case packets.TypePubrel:
		if len(f.Body) < 2 {
			return fmt.Errorf("PUBREL of %d bytes", len(f.Body))
		}
		id := uint16(f.Body[0])<<8 | uint16(f.Body[1])
		if r.open != nil {
			r.open[id/64] &^= 1 << (id % 64)
		}
		r.acks = packets.AppendAck(r.acks, r.c.version, packets.TypePubcomp, id, packets.CodeSuccess)
		return nil
	case packets.TypeSuback:
		if !r.subscribed {
			return fmt.Errorf("unexpected %s", t)
		}
		return r.c.granted(f, r.qos, 1)
	case packets.TypeDisconnect:
		return disconnected(r.c.version, f)
	case packets.TypePingresp:
		return nil
	default:
		return fmt.Errorf("unexpected %s", t)
	}
}

// start runs the receiver until its connection is closed. An end that nobody
// asked for fails the load.
func (r *receiver) start() {
	r.load.readers.Go(func() {
		err := r.run()
		if r.load.closing.Load() {
			return
		}
		if err == io.EOF {
			err = fmt.Errorf("the broker closed the connection: %w", err)
		}
		r.load.fail(fmt.Errorf("bench: %s: %w", r.c.id, err))
	})
}

// one is the sink of a receiver with a single source.
type one struct {
	source uint32
	stream stream
}

func (o *one) take(d *delivery) bool {
	if d.source != o.source {
		return false
	}
	o.stream.take(d.seq)
	return true
}

// many is the sink of a receiver with sources 0 to len-1.
type many []stream

func (m many) take(d *delivery) bool {
	if d.source >= uint32(len(m)) {
		return false
	}
	m[d.source].take(d.seq)
	return true
}

// shared is what the receivers of a shared group get together.
type shared struct {
	mu      sync.Mutex
	streams many
}

// member is the sink of one receiver of a shared group: complete and without
// duplicates together, in order each for itself.
type member struct {
	group     *shared
	next      []uint64 // of each source, above the last that came here
	reordered uint64
}

func (m *member) take(d *delivery) bool {
	if d.source >= uint32(len(m.next)) {
		return false
	}
	if d.seq < m.next[d.source] {
		m.reordered++
	}
	m.next[d.source] = d.seq + 1
	m.group.mu.Lock()
	m.group.streams.take(d)
	m.group.mu.Unlock()
	return true
}
