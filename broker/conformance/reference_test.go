package conformance

import (
	"fmt"
	"maps"
	"slices"

	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session/topic"
)

// reference is the broker as one would explain it: maps and lists that are
// searched. It says what each client must be sent, and in which order, given
// what all of them have sent. Identifiers it takes from the broker, and holds
// it to them.
type reference struct {
	sessions map[string]*refSession
	retained map[string]*refMessage
	window   int // identifiers in use towards one client, at most
	batch    int // number of the last thing that caused deliveries
}

type refMessage struct {
	topic, payload string
	qos            byte
	retain         bool
}

type refSub struct {
	options topic.Options
	id      uint32
}

// refSession is a session, and the connection it has or had.
type refSession struct {
	client    string
	version   packets.Version
	max       int  // receive maximum
	lasting   bool // outlives the connection
	connected bool
	will      *refMessage
	subs      map[string]refSub
	received  map[uint16]bool // QoS 2 identifiers that are not released
	zero      []*refOut       // to be sent at QoS 0
	out       []*refOut       // to be sent, or in flight, at QoS 1 and 2
}

// refOut is a message for a client. Those of one batch, the retained messages
// for one SUBSCRIBE, may come in any order.
type refOut struct {
	msg      *refMessage
	qos      byte
	retain   bool
	ids      []uint32
	batch    int
	pid      uint16 // 0: not sent yet
	released bool   // the client has sent PUBREC
	sent     bool   // on this connection
	counts   bool   // of that, as a PUBLISH: against the receive maximum
}

func newReference(window int) *reference {
	return &reference{sessions: map[string]*refSession{}, retained: map[string]*refMessage{}, window: window}
}

// connect begins or resumes a session and reports which.
func (r *reference) connect(client string, v packets.Version, clean, lasting bool, receiveMax int, will *refMessage) (s *refSession, present bool) {
	s = r.sessions[client]
	if present = s != nil && !clean; !present {
		s = &refSession{client: client, subs: map[string]refSub{}, received: map[uint16]bool{}}
		r.sessions[client] = s
	}
	s.version, s.max, s.lasting, s.connected, s.will = v, min(receiveMax, r.window), lasting, true, will
	for _, o := range s.out {
		o.sent, o.counts = false, false
	}
	return s, present
}

// leave ends a connection.
func (r *reference) leave(s *refSession, dropWill bool) {
	s.connected, s.zero = false, nil
	if !s.lasting {
		delete(r.sessions, s.client)
	}
	if w := s.will; w != nil && !dropWill {
		r.publish(s.client, w)
	}
	s.will = nil
}

// publish routes a message, of a client or its will.
func (r *reference) publish(from string, m *refMessage) {
	r.batch++
	if m.retain {
		if delete(r.retained, m.topic); m.payload != "" {
			r.retained[m.topic] = m
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.sessions)) {
		s := r.sessions[name]
		o := &refOut{msg: m, batch: r.batch}
		matched := false
		for filter, sub := range s.subs {
			if !topic.Match(filter, m.topic) || sub.options.NoLocal() && from == s.client {
				continue
			}
			matched = true
			o.qos = max(o.qos, min(m.qos, sub.options.QoS()))
			o.retain = o.retain || m.retain && sub.options.RetainAsPublished()
			if sub.id != 0 {
				o.ids = append(o.ids, sub.id)
			}
		}
		if matched {
			s.give(o)
		}
	}
}

func (s *refSession) give(o *refOut) {
	switch {
	case o.qos > 0:
		s.out = append(s.out, o)
	case s.connected:
		s.zero = append(s.zero, o)
	}
}

func (r *reference) subscribe(s *refSession, filter string, options topic.Options, id uint32) {
	_, existed := s.subs[filter]
	s.subs[filter] = refSub{options, id}
	if h := options.RetainHandling(); h == topic.RetainSendIfNew && existed || h == topic.RetainDoNotSend {
		return
	}
	r.batch++
	for _, name := range slices.Sorted(maps.Keys(r.retained)) {
		if m := r.retained[name]; topic.Match(filter, name) {
			o := &refOut{msg: m, qos: min(m.qos, options.QoS()), retain: true, batch: r.batch}
			if id != 0 {
				o.ids = []uint32{id}
			}
			s.give(o)
		}
	}
}

// receive takes a PUBLISH from a client. One whose QoS 2 identifier is in use
// is the same message again.
func (r *reference) receive(s *refSession, pid uint16, m *refMessage) {
	if m.qos == 2 {
		if s.received[pid] {
			return
		}
		s.received[pid] = true
	}
	r.publish(s.client, m)
}

// acknowledge takes PUBACK, PUBREC and PUBCOMP.
func (s *refSession) acknowledge(o *refOut, t packets.Type, code packets.Code) {
	if t == packets.TypePubrec && !code.IsError() {
		o.released = true
		return
	}
	s.out = slices.DeleteFunc(s.out, func(other *refOut) bool { return other == o })
}

// heard takes a PUBLISH or a PUBREL of the broker, which must be what comes
// next.
func (s *refSession) heard(p packets.Packet) error {
	switch p := p.(type) {
	case *packets.Publish:
		if p.QoS == 0 {
			i, err := next(s.zero, p)
			if err == nil {
				s.zero = slices.Delete(s.zero, i, i+1)
			}
			return err
		}
		rest := s.unsent()
		i, err := next(rest, p)
		if err != nil {
			return err
		}
		o := rest[i]
		switch {
		case o.released:
			return fmt.Errorf("it was taken by PUBREC [MQTT-4.3.3-6]")
		case p.Dup != (o.pid != 0):
			return fmt.Errorf("DUP %v, sent before %v [MQTT-3.3.1-1]", p.Dup, o.pid != 0)
		case o.pid != 0 && o.pid != p.PacketID:
			return fmt.Errorf("identifier %d, first it was %d [MQTT-4.4.0-1]", p.PacketID, o.pid)
		}
		if ids, quota := s.used(); quota >= s.max || o.pid == 0 && ids >= s.max {
			return fmt.Errorf("%d identifiers and %d deliveries in use, at most %d [MQTT-4.9.0-2]", ids, quota, s.max)
		}
		o.pid, o.sent, o.counts = p.PacketID, true, true
	case *packets.Ack:
		if rest := s.unsent(); len(rest) > 0 && rest[0].released && rest[0].pid == p.PacketID {
			rest[0].sent = true
		} else if !slices.ContainsFunc(s.out, func(o *refOut) bool { return o.pid == p.PacketID && o.released }) {
			return fmt.Errorf("PUBREL of nothing")
		}
	}
	return nil
}

// unsent are those that this connection has not sent, in order.
func (s *refSession) unsent() (list []*refOut) {
	for _, o := range s.out {
		if !o.sent {
			list = append(list, o)
		}
	}
	return list
}

// next finds a PUBLISH in the batch that is first in a list.
func next(list []*refOut, p *packets.Publish) (int, error) {
	for i, o := range list {
		if o.batch != list[0].batch {
			break
		}
		if o.qos == p.QoS && o.msg.topic == string(p.Topic) && o.msg.payload == string(p.Payload) && o.retain == p.Retain && sameIDs(o.ids, p.Props.SubscriptionIDs) {
			return i, nil
		}
	}
	if len(list) == 0 {
		return 0, fmt.Errorf("nothing is due")
	}
	return 0, fmt.Errorf("due is %s", list[0])
}

func sameIDs(a, b []uint32) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func (o *refOut) String() string {
	return fmt.Sprintf("PUBLISH{%s %q qos %d id %d released %v retain %v ids %v batch %d}", o.msg.topic, o.msg.payload, o.qos, o.pid, o.released, o.retain, o.ids, o.batch)
}

// used counts the identifiers in use and what stands against the receive maximum.
func (s *refSession) used() (ids, quota int) {
	for _, o := range s.out {
		if o.pid != 0 {
			ids++
		}
		if o.counts {
			quota++
		}
	}
	return ids, quota
}

// missing reports what the broker should have sent by now: QoS 0, and of the
// others as many as the window takes.
func (s *refSession) missing() error {
	if len(s.zero) > 0 {
		return fmt.Errorf("not delivered: %s", s.zero[0])
	}
	rest := s.unsent()
	if len(rest) == 0 {
		return nil
	}
	ids, quota := s.used()
	if o := rest[0]; o.released || quota < s.max && (o.pid != 0 || ids < s.max) {
		return fmt.Errorf("not delivered: %s; %d identifiers and %d deliveries in use, at most %d", o, ids, quota, s.max)
	}
	return nil
}
