package bench

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// A Relay answers just enough MQTT 3.1.1 to be put under load, and does
// nothing for it: it has one subscriber per topic or a list of them, no
// wildcards, no sessions, no queues, no checks. What a run against it costs is
// what the generator costs, and the floor of what a broker can cost.
type Relay struct {
	listener net.Listener
	// spoil, if set, is asked before message n goes to a subscriber what is to
	// go there instead: to prove the checks.
	spoil func(n uint64, frame []byte) [][]byte

	mu     sync.RWMutex
	topics map[string][]*relayConn
	conns  map[net.Conn]struct{}
	wg     sync.WaitGroup
}

// relayConn is the sending half of a connection.
type relayConn struct {
	nc     net.Conn
	mu     sync.Mutex
	nextID uint16
	out    []byte // appended to in a round
	n      uint64 // messages
}

// NewRelay listens on an address.
func NewRelay(address string) (*Relay, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("bench: relay: %w", err)
	}
	return &Relay{listener: l, topics: map[string][]*relayConn{}, conns: map[net.Conn]struct{}{}}, nil
}

// Address is where it listens.
func (r *Relay) Address() string { return r.listener.Addr().String() }

// Serve relays until Close.
func (r *Relay) Serve() error {
	for {
		nc, err := r.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			r.wg.Wait()
			return nil
		}
		if err != nil {
			return fmt.Errorf("bench: relay: %w", err)
		}
		r.mu.Lock()
		r.conns[nc] = struct{}{}
		r.mu.Unlock()
		r.wg.Go(func() { r.serve(nc) })
	}
}

// Close ends Serve and all connections.
func (r *Relay) Close() error {
	err := r.listener.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for nc := range r.conns {
		_ = nc.Close() // its reader ends
	}
	return err
}

// relayRound is what one connection's reader reuses from read to read.
type relayRound struct {
	self    *relayConn
	targets map[string][]*relayConn // topics seen on this connection
	touched []*relayConn
}

func (r *Relay) serve(nc net.Conn) {
	c := &relayConn{nc: nc}
	defer r.forget(c)
	round := &relayRound{self: c, targets: map[string][]*relayConn{}}
	buf := make([]byte, 64<<10)
	have := 0
	for {
		n, err := nc.Read(buf[have:])
		if err != nil {
			return
		}
		have += n
		used := 0
		for {
			f, n, need, err := packets.Next(buf[used:have], 0)
			if err != nil {
				return
			}
			if n == 0 {
				if need > len(buf) {
					buf = append(buf, make([]byte, need)...)
				}
				break
			}
			if !r.handle(round, f, buf[used:used+n]) {
				return
			}
			used += n
		}
		have = copy(buf, buf[used:have])
		for _, t := range round.touched {
			t.flush()
		}
		round.touched = round.touched[:0]
		c.flush()
	}
}

// handle answers one packet; it reports false if the connection is to end.
func (r *Relay) handle(round *relayRound, f packets.Frame, whole []byte) bool {
	c := round.self
	switch f.Type() {
	case packets.TypeConnect:
		c.append([]byte{0x20, 2, 0, 0})
	case packets.TypeSubscribe:
		var pk packets.Subscribe
		if pk.Decode(packets.V311, f.Flags(), f.Body) != nil {
			return false
		}
		ack := packets.Suback{PacketID: pk.PacketID}
		r.mu.Lock()
		for _, s := range pk.Filters {
			r.topics[string(s.Filter)] = append(r.topics[string(s.Filter)], c)
			ack.Codes = append(ack.Codes, packets.Code(s.Options&3))
		}
		r.mu.Unlock()
		c.append(ack.AppendTo(nil, packets.V311))
	case packets.TypePublish:
		return r.publish(round, f, whole)
	case packets.TypePubrec:
		c.appendAck(packets.TypePubrel, f.Body)
	case packets.TypePubrel:
		c.appendAck(packets.TypePubcomp, f.Body)
	case packets.TypeDisconnect:
		return false
	}
	return true
}

// publish copies a PUBLISH to its subscribers, with identifiers of their own.
func (r *Relay) publish(round *relayRound, f packets.Frame, whole []byte) bool {
	if len(f.Body) < 2 {
		return false
	}
	end := 2 + int(f.Body[0])<<8 + int(f.Body[1])
	qos := f.Flags() >> 1 & 3
	if len(f.Body) < end+2 {
		return false
	}
	to, ok := round.targets[string(f.Body[2:end])]
	if !ok {
		topic := strings.Clone(string(f.Body[2:end]))
		r.mu.RLock()
		to = r.topics[topic]
		r.mu.RUnlock()
		round.targets[topic] = to
	}
	id := len(whole) - len(f.Body) + end
	for _, t := range to {
		t.mu.Lock()
		if len(t.out) == 0 {
			round.touched = append(round.touched, t)
		}
		if r.spoil == nil {
			t.deliver(whole, id)
		} else {
			for _, b := range r.spoil(t.n, whole) {
				t.deliver(b, id)
			}
		}
		t.n++
		t.mu.Unlock()
	}
	switch qos {
	case 1:
		round.self.appendAck(packets.TypePuback, f.Body[end:])
	case 2:
		round.self.appendAck(packets.TypePubrec, f.Body[end:])
	}
	return true
}

// deliver appends a PUBLISH, if it has QoS with an identifier at offset id.
func (c *relayConn) deliver(frame []byte, id int) {
	at := len(c.out)
	c.out = append(c.out, frame...)
	if frame[0]&0x06 != 0 {
		c.nextID = c.nextID%65535 + 1
		c.out[at+id], c.out[at+id+1] = byte(c.nextID>>8), byte(c.nextID)
	}
}

func (c *relayConn) append(b []byte) {
	c.mu.Lock()
	c.out = append(c.out, b...)
	c.mu.Unlock()
}

func (c *relayConn) appendAck(t packets.Type, body []byte) {
	if len(body) < 2 {
		return
	}
	c.mu.Lock()
	c.out = packets.AppendAck(c.out, packets.V311, t, uint16(body[0])<<8|uint16(body[1]), packets.CodeSuccess)
	c.mu.Unlock()
}

// flush writes what was gathered. A failed write ends with the reader.
func (c *relayConn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out) > 0 {
		_, _ = c.nc.Write(c.out)
		c.out = c.out[:0]
	}
}

// forget ends a connection and its subscriptions.
func (r *Relay) forget(c *relayConn) {
	_ = c.nc.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c.nc)
	for topic, all := range r.topics {
		kept := all[:0:0]
		for _, t := range all {
			if t != c {
				kept = append(kept, t)
			}
		}
		if len(kept) == 0 {
			delete(r.topics, topic)
			continue
		}
		r.topics[topic] = kept
	}
}
