package conformance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/packets"
)

// actor is a client that does what comes to its mind, within the protocol.
type actor struct {
	*client
	id      string
	version packets.Version
	durable bool
	loner   bool             // subscribes to nothing shared: gets each message once
	open    []packets.Packet // deliveries and PUBRELs it has not answered
	owed    []uint16         // QoS 2 publishes to be released
	waiting int              // publishes without an answer
	got     map[string]int   // QoS 2 payloads, how often
}

// stage is a broker with its actors.
type stage struct {
	t      *testing.T
	in     *instance
	rnd    *rand.Rand
	topics []string
	actors []*actor
	serial int
}

// Clients that subscribe, publish, acknowledge in any order or not at all,
// come, go and push each other out, with all kinds of limits: whatever they do,
// the broker must keep to what is allowed on each connection, and deliver no
// QoS 2 message twice to one session.
//
// Proves 5.0 [MQTT-3.3.4-9] [MQTT-2.2.1-4] [MQTT-4.4.0-1] [MQTT-4.3.3-10] [MQTT-3.1.2-24] [MQTT-3.1.2-26]; 3.1.1 [MQTT-2.3.1-4] [MQTT-4.4.0-1] [MQTT-4.3.3-2].
func TestRandom_KeepsTheRules(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			in := start(t, func(o *broker.Options) { o.Limits.MaxInflight, o.Limits.ReceiveMaximum = 8, 12 })
			s := &stage{t: t, in: in, rnd: rand.New(rand.NewPCG(seed, 7)), topics: []string{"a", "a/b", "a/b/c", "b", "$x/a", "/"}}
			for i := range 5 {
				a := &actor{id: fmt.Sprint("actor", i), version: packets.V5, durable: i%2 == 0, loner: i < 2, got: map[string]int{}}
				if i == 3 {
					a.version = packets.V311
				}
				s.actors = append(s.actors, a)
				s.enter(a)
			}
			for range 300 {
				s.step(s.actors[s.rnd.IntN(len(s.actors))])
			}
			for _, a := range s.actors {
				s.drain(a)
			}
		})
	}
}

// enter connects an actor, as it likes.
func (s *stage) enter(a *actor) {
	s.t.Helper()
	clean := !a.durable || s.rnd.IntN(12) == 0
	a.client = s.in.connect(s.t, a.version, a.id, func(c *packets.Connect) {
		c.CleanStart = clean
		if a.version != packets.V5 {
			return
		}
		if a.durable {
			resume(300)(c)
			c.CleanStart = clean
		}
		if s.rnd.IntN(2) == 0 {
			receiveMaximum(uint16(1 + s.rnd.IntN(10)))(c)
		}
		if s.rnd.IntN(3) == 0 {
			maximumPacketSize(uint32(30 + s.rnd.IntN(100)))(c)
		}
		topicAliasMaximum(uint16(s.rnd.IntN(4)))(c)
	})
	a.open, a.owed, a.waiting = nil, nil, 0
	if clean {
		a.got = map[string]int{}
	}
	a.lastPID = uint16(s.rnd.IntN(60_000))
}

func (s *stage) step(a *actor) {
	s.t.Helper()
	switch k := s.rnd.IntN(100); {
	case k < 15:
		s.subscribe(a)
	case k < 20:
		a.send(&packets.Unsubscribe{PacketID: a.pid(), Filters: [][]byte{[]byte(s.filter(a))}})
	case k < 60:
		s.publish(a)
	case k < 88:
		s.listen(a)
		s.answer(a)
	case k < 91:
		a.cut()
		s.enter(a)
	case k < 94:
		a.bye(0)
		s.enter(a)
	case k < 96:
		old := a.client
		s.enter(a) // pushes the old one out
		old.gone()
	default:
		a.send(&packets.Ping{Type: packets.TypePingreq})
	}
}

func (s *stage) filter(a *actor) string {
	filters := []string{"a", "a/+", "a/#", "#", "+", "b", "a/b/c", "$x/#", "+/b/#", "/", "$share/g/a/#", "$share/g/b", "$share/h/#"}
	if a.loner {
		filters = filters[:10]
	}
	return filters[s.rnd.IntN(len(filters))]
}

func (s *stage) subscribe(a *actor) {
	f := s.filter(a)
	options := byte(s.rnd.IntN(3))
	p := &packets.Subscribe{PacketID: a.pid()}
	if a.version == packets.V5 {
		options |= byte(s.rnd.IntN(3)<<4 | s.rnd.IntN(2)<<3)
		if f[0] != '$' && s.rnd.IntN(3) == 0 {
			options |= noLocal
		}
		p.Props.SubscriptionID = uint32(s.rnd.IntN(3))
	}
	p.Filters = []packets.Subscription{{Filter: []byte(f), Options: options}}
	a.send(p)
}

// publish publishes while the broker's receive maximum allows it.
func (s *stage) publish(a *actor) {
	s.serial++
	m := message(s.topics[s.rnd.IntN(len(s.topics))], byte(s.rnd.IntN(3)), fmt.Sprint(s.serial))
	if m.Retain = s.rnd.IntN(4) == 0; m.Retain && s.rnd.IntN(4) == 0 {
		m.Payload = nil
	}
	if s.rnd.IntN(6) == 0 {
		m.Payload = append(m.Payload, make([]byte, s.rnd.IntN(200))...)
	}
	if m.QoS > 0 {
		if a.waiting+len(a.owed) >= 12 {
			return
		}
		a.waiting++
		m.PacketID = a.pid()
	}
	a.send(m)
}

// listen reads what has come.
func (s *stage) listen(a *actor) {
	s.t.Helper()
	a.fence()
	for _, p := range a.pending {
		switch p := p.(type) {
		case *packets.Publish:
			if p.QoS > 0 {
				a.open = append(a.open, p)
			}
			if p.QoS == 2 && !p.Dup && len(p.Payload) > 0 {
				key := fmt.Sprintf("%s %s", p.Topic, p.Payload)
				if a.got[key]++; a.got[key] > 1 && !p.Retain && a.loner {
					s.t.Fatalf("%s got %s again", a.id, describe(p))
				}
			}
		case *packets.Ack:
			switch p.Type {
			case packets.TypePuback:
				a.waiting--
			case packets.TypePubrec:
				a.waiting--
				a.owed = append(a.owed, p.PacketID)
			case packets.TypePubrel:
				a.open = append(a.open, p)
			}
		}
	}
	a.pending = nil
}

// answer acknowledges some of what is open, in an order of its own.
func (s *stage) answer(a *actor) {
	for range s.rnd.IntN(6) {
		if len(a.open) == 0 {
			break
		}
		i := s.rnd.IntN(len(a.open))
		p := a.open[i]
		a.open = append(a.open[:i:i], a.open[i+1:]...)
		switch p := p.(type) {
		case *packets.Publish:
			ack := &packets.Ack{Type: packets.TypePuback, PacketID: p.PacketID}
			if p.QoS == 2 {
				ack.Type = packets.TypePubrec
			}
			if a.version == packets.V5 && s.rnd.IntN(8) == 0 {
				ack.Code = packets.CodeQuotaExceeded
			}
			a.send(ack)
		case *packets.Ack:
			a.send(&packets.Ack{Type: packets.TypePubcomp, PacketID: p.PacketID})
		}
	}
	for len(a.owed) > 0 && s.rnd.IntN(3) > 0 {
		a.send(&packets.Ack{Type: packets.TypePubrel, PacketID: a.owed[0]})
		a.owed = a.owed[1:]
	}
}

// drain acknowledges until nothing more comes.
func (s *stage) drain(a *actor) {
	s.t.Helper()
	for range 2000 {
		s.listen(a)
		if len(a.open) == 0 {
			return
		}
		s.answer(a)
	}
	s.t.Fatalf("%s: no end of it: %s", a.id, errors.New(describe(a.open...)))
}
