package conformance

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// strict knows what the broker may send on one connection, from what both
// sides have sent. Its zero value is a connection without a CONNECT.
type strict struct {
	v          packets.Version
	connect    *packets.Connect
	connack    *packets.Connack
	ended      bool     // the broker has sent a DISCONNECT
	partial    []byte   // beginning of a packet that was sent
	last       []string // the last packets, to show
	maxPacket  int
	receiveMax int
	aliasMax   uint16

	answers map[answer]int    // expected answers of the broker, by count
	filters map[uint16][]byte // options asked for, by SUBSCRIBE
	unsubs  map[uint16]int    // filters, by UNSUBSCRIBE
	flight  map[uint16]bool   // deliveries of the broker that are not completed; true: counts against the receive maximum
	began   map[uint16]bool   // deliveries seen on this connection
	aliases map[uint16]string
	subIDs  map[uint32]bool
}

// answer is a packet that the broker owes.
type answer struct {
	t   packets.Type
	pid uint16
}

func newStrict() *strict {
	return &strict{
		answers: make(map[answer]int), filters: make(map[uint16][]byte), unsubs: make(map[uint16]int),
		flight: make(map[uint16]bool), began: make(map[uint16]bool), aliases: make(map[uint16]string),
		subIDs: make(map[uint32]bool),
	}
}

// tail is how many packets of a connection a failure shows.
const tail = 40

// remember keeps the last packets for a failure.
func (s *strict) remember(who string, p packets.Packet) {
	if len(s.last) == tail {
		s.last = s.last[1:]
	}
	s.last = append(s.last, who+" "+describe(p))
}

func (s *strict) trace() string { return strings.Join(s.last, "\n") }

// sent takes note of what the test wrote, as far as it is well-formed.
func (s *strict) sent(b []byte) {
	s.partial = append(s.partial, b...)
	for len(s.partial) > 0 {
		f, n, _, err := packets.Next(s.partial, 0)
		if err == nil && n == 0 {
			return // more of it follows
		}
		var p packets.Packet
		if err == nil {
			p, err = f.Decode(s.v)
		}
		if err != nil {
			s.partial = nil
			return
		}
		s.partial = s.partial[n:]
		s.remember(">", p)
		s.note(p)
	}
}

func (s *strict) note(p packets.Packet) {
	switch p := p.(type) {
	case *packets.Connect:
		if s.connect != nil {
			return
		}
		s.connect, s.v = p, p.Version
		s.maxPacket, s.receiveMax, s.aliasMax = int(p.Props.MaximumPacketSize), 65535, p.Props.TopicAliasMaximum
		if p.Props.HasReceiveMaximum {
			s.receiveMax = int(p.Props.ReceiveMaximum)
		}
	case *packets.Publish:
		switch p.QoS {
		case 1:
			s.answers[answer{packets.TypePuback, p.PacketID}]++
		case 2:
			s.answers[answer{packets.TypePubrec, p.PacketID}]++
		}
	case *packets.Ack:
		s.noteAck(p)
	case *packets.Subscribe:
		s.answers[answer{packets.TypeSuback, p.PacketID}]++
		var options []byte
		for _, f := range p.Filters {
			options = append(options, f.Options)
		}
		s.filters[p.PacketID] = options
		if id := p.Props.SubscriptionID; id != 0 {
			s.subIDs[id] = true
		}
	case *packets.Unsubscribe:
		s.answers[answer{packets.TypeUnsuback, p.PacketID}]++
		s.unsubs[p.PacketID] = len(p.Filters)
	case *packets.Ping:
		s.answers[answer{packets.TypePingresp, 0}]++
	}
}

func (s *strict) noteAck(a *packets.Ack) {
	switch a.Type {
	case packets.TypePubrel:
		s.answers[answer{packets.TypePubcomp, a.PacketID}]++
		return
	case packets.TypePubrec:
		if !a.Code.IsError() {
			s.answers[answer{packets.TypePubrel, a.PacketID}]++
			return
		}
	}
	delete(s.flight, a.PacketID)
}

// heard checks one packet of the broker; raw is all of it.
func (s *strict) heard(p packets.Packet, raw []byte) error {
	defer s.remember("<", p)
	if s.ended {
		return fmt.Errorf("a packet after the DISCONNECT [MQTT-3.14.4-1]")
	}
	if s.maxPacket > 0 && len(raw) > s.maxPacket {
		return fmt.Errorf("%d bytes, the client takes %d [MQTT-3.1.2-24]", len(raw), s.maxPacket)
	}
	if c, ok := p.(*packets.Connack); ok {
		return s.heardConnack(c)
	}
	if s.connack == nil {
		return fmt.Errorf("a packet before the CONNACK [MQTT-3.2.0-1]")
	}
	if s.connack.Code != packets.CodeSuccess {
		return fmt.Errorf("a packet after a refusal [MQTT-3.2.2-7]")
	}
	switch p := p.(type) {
	case *packets.Publish:
		return s.heardPublish(p)
	case *packets.Ack:
		return s.heardAck(p)
	case *packets.Suback:
		return s.heardSuback(p)
	case *packets.Unsuback:
		if n := s.unsubs[p.PacketID]; s.v == packets.V5 && len(p.Codes) != n {
			return fmt.Errorf("%d reason codes for %d filters [MQTT-3.11.3-1]", len(p.Codes), n)
		}
		return s.expected(packets.TypeUnsuback, p.PacketID, &p.Props)
	case *packets.Ping:
		if p.Type != packets.TypePingresp {
			return fmt.Errorf("a PINGREQ from the server")
		}
		return s.expected(packets.TypePingresp, 0, nil)
	case *packets.Disconnect:
		s.ended = true
		if s.v != packets.V5 {
			return fmt.Errorf("a DISCONNECT to an MQTT 3 client")
		}
		return p.CheckFromServer()
	}
	return fmt.Errorf("a server does not send %T here", p)
}

func (s *strict) heardConnack(c *packets.Connack) error {
	switch {
	case s.connack != nil:
		return fmt.Errorf("a second CONNACK [MQTT-3.2.0-2]")
	case s.connect == nil: // to something that was no CONNECT
		s.connack = c
		return nil
	case c.SessionPresent && s.connect.CleanStart:
		return fmt.Errorf("session present after a clean start [MQTT-3.2.2-2]")
	case c.Props.HasResponseInfo && !s.connect.Props.RequestResponseInfo:
		return fmt.Errorf("response information that was not asked for [MQTT-3.1.2-28]")
	case (c.Props.HasAuthMethod || c.Props.HasAuthData) && !s.connect.Props.HasAuthMethod:
		return fmt.Errorf("an authentication method [MQTT-4.12.0-6]")
	}
	assigned := s.v == packets.V5 && c.Code == packets.CodeSuccess && len(s.connect.ClientID) == 0
	if c.Props.HasAssignedClientID != assigned {
		return fmt.Errorf("assigned client identifier: %v, expected %v [MQTT-3.2.2-16]", !assigned, assigned)
	}
	s.connack = c
	return nil
}

func (s *strict) resumed() bool { return s.connack.SessionPresent || s.v == packets.V31 }

func (s *strict) heardPublish(p *packets.Publish) error {
	if err := s.heardTopic(p); err != nil {
		return err
	}
	for _, id := range p.Props.SubscriptionIDs {
		if !s.subIDs[id] && !s.resumed() {
			return fmt.Errorf("subscription identifier %d was never given [MQTT-3.3.4-3]", id)
		}
	}
	if p.QoS == 0 {
		return nil
	}
	if p.Dup && !s.resumed() {
		return fmt.Errorf("DUP in a new session [MQTT-3.3.1-1]")
	}
	if p.Dup && s.began[p.PacketID] {
		return fmt.Errorf("sent again on the same connection [MQTT-4.4.0-1]")
	}
	if _, used := s.flight[p.PacketID]; used {
		return fmt.Errorf("identifier %d is in use [MQTT-2.2.1-4]", p.PacketID)
	}
	s.flight[p.PacketID], s.began[p.PacketID] = true, true
	n := 0
	for _, counts := range s.flight {
		if counts {
			n++
		}
	}
	if s.v == packets.V5 && n > s.receiveMax {
		return fmt.Errorf("%d deliveries at once, receive maximum %d [MQTT-3.3.4-9]", n, s.receiveMax)
	}
	return nil
}

// heardTopic checks the topic of a PUBLISH and resolves its alias.
func (s *strict) heardTopic(p *packets.Publish) error {
	if bytes.ContainsAny(p.Topic, "+#\x00") {
		return fmt.Errorf("topic name %q [MQTT-3.3.2-2]", p.Topic)
	}
	a := p.Props.TopicAlias
	switch {
	case a == 0:
		return nil
	case a > s.aliasMax:
		return fmt.Errorf("topic alias %d, maximum %d [MQTT-3.3.2-11]", a, s.aliasMax)
	case len(p.Topic) > 0:
		s.aliases[a] = string(p.Topic)
		return nil
	case s.aliases[a] == "":
		return fmt.Errorf("topic alias %d was never set", a)
	}
	p.Topic = []byte(s.aliases[a])
	return nil
}

func (s *strict) heardAck(a *packets.Ack) error {
	if a.Type == packets.TypePubrel {
		if s.answers[answer{a.Type, a.PacketID}] == 0 {
			if !s.resumed() {
				return fmt.Errorf("PUBREL %d without a PUBREC", a.PacketID)
			}
			s.answers[answer{a.Type, a.PacketID}]++
		}
		s.began[a.PacketID] = true
		if _, known := s.flight[a.PacketID]; !known && !a.Code.IsError() {
			s.flight[a.PacketID] = false // sent again: no place in the window
		}
	}
	return s.expected(a.Type, a.PacketID, &a.Props)
}

func (s *strict) heardSuback(p *packets.Suback) error {
	options := s.filters[p.PacketID]
	if len(p.Codes) != len(options) {
		return fmt.Errorf("%d reason codes for %d filters [MQTT-3.8.4-6]", len(p.Codes), len(options))
	}
	for i, c := range p.Codes {
		if !c.IsError() && byte(c) > options[i]&3 {
			return fmt.Errorf("granted QoS %d, asked for %d", c, options[i]&3)
		}
	}
	return s.expected(packets.TypeSuback, p.PacketID, &p.Props)
}

// expected checks that an answer was asked for and brings nothing unwanted.
func (s *strict) expected(t packets.Type, pid uint16, props *packets.ReasonProps) error {
	a := answer{t, pid}
	if s.answers[a] == 0 {
		return fmt.Errorf("%s %d that answers nothing", t, pid)
	}
	s.answers[a]--
	if props == nil || !s.connect.Props.HasRequestProblemInfo || s.connect.Props.RequestProblemInfo {
		return nil
	}
	if props.HasReasonString || len(props.User) > 0 {
		return fmt.Errorf("problem information that was not wanted [MQTT-3.1.2-29]")
	}
	return nil
}
