package main

import (
	"fmt"
	"strings"
)

// Kind says what an Event is: an MQTT packet a client sent or received, or
// something that happened to a connection or to the broker's process.
type Kind byte

const (
	// Packets, seen from the client. Event.Sent tells the direction.
	Connect Kind = iota + 1
	Connack
	Publish
	Puback
	Pubrec
	Pubrel
	Pubcomp
	Subscribe // one event for each filter of the packet
	Suback
	Unsubscribe
	Unsuback
	Disconnect

	// End is the end of a connection. Graceful says that the client had sent
	// DISCONNECT and then saw the broker close: everything it sent was read.
	End
	// Read ends a look at retained messages: every retained message of Filter
	// that the broker meant to send has arrived.
	Read

	// Kill is the death of the broker without warning, Stop its orderly end
	// (SIGTERM, exit 0), Ready the moment it serves again. They name no client.
	Kill
	Stop
	Ready
)

var kindNames = [...]string{
	Connect: "CONNECT", Connack: "CONNACK", Publish: "PUBLISH", Puback: "PUBACK", Pubrec: "PUBREC",
	Pubrel: "PUBREL", Pubcomp: "PUBCOMP", Subscribe: "SUBSCRIBE", Suback: "SUBACK",
	Unsubscribe: "UNSUBSCRIBE", Unsuback: "UNSUBACK", Disconnect: "DISCONNECT",
	End: "END", Read: "READ", Kill: "KILL", Stop: "STOP", Ready: "READY",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("KIND(%d)", byte(k))
}

// Stream is everything one publisher sends to one topic at one QoS: the unit
// within which MQTT promises order [MQTT-4.6.0-5].
type Stream struct {
	Publisher string
	Topic     string
	QoS       byte
}

// Message names one application message: the Seq-th of its stream, from 1,
// without gaps. Every payload carries it.
type Message struct {
	Stream
	Seq uint32
}

// String gives the form that transcripts use: publisher:qos:topic:seq.
func (m Message) String() string {
	return fmt.Sprintf("%s:%d:%s:%d", m.Publisher, m.QoS, m.Topic, m.Seq)
}

// NeverExpires is the session expiry interval that never passes
// [MQTT-3.1.2.11.2]. A v3 CONNECT with clean session 0 has it, too.
const NeverExpires = 0xFFFFFFFF

// Event is one thing a client did or was told. A history is a sequence of
// events in an order that is true: a send is noted before the bytes leave, a
// receipt after they have come.
type Event struct {
	Tick   uint64 // place in the history, from 1; given by the journal
	At     int64  // milliseconds since the run began
	Client string
	Conn   uint32 // the client's connection number, from 1
	Kind   Kind
	Sent   bool // by the client; false = received from the broker

	Dup      bool
	Retain   bool
	Clean    bool // CONNECT: clean start (v5) or clean session (v3)
	Present  bool // CONNACK: session present
	Graceful bool // END
	Clear    bool // PUBLISH: empty payload, removes the retained message
	QoS      byte // PUBLISH: of this packet; SUBSCRIBE: asked for
	Code     byte // reason or return code
	ID       uint16
	Expiry   uint32 // CONNECT: session expiry interval in seconds
	Max      uint16 // CONNECT: receive maximum, 0 = not limited
	Filter   string
	Msg      Message // PUBLISH, and the will of a CONNECT; for acknowledgements the checker fills it in
}

// String gives the event as one line of a transcript; ParseEvent reads it back.
func (e *Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "@%d at=%d ", e.Tick, e.At)
	if e.Client == "" {
		b.WriteString("- ")
		b.WriteString(e.Kind.String())
		return b.String()
	}
	dir := "<"
	if e.Sent {
		dir = ">"
	}
	fmt.Fprintf(&b, "%s#%d %s %s", e.Client, e.Conn, dir, e.Kind)
	if e.ID != 0 {
		fmt.Fprintf(&b, " id=%d", e.ID)
	}
	switch e.Kind {
	case Connect:
		fmt.Fprintf(&b, " expiry=%d max=%d", e.Expiry, e.Max)
	case Connack, Puback, Pubrec, Pubcomp, Suback, Unsuback, Disconnect:
		fmt.Fprintf(&b, " code=0x%02x", e.Code)
	case Publish:
		fmt.Fprintf(&b, " qos=%d", e.QoS)
	case Subscribe:
		fmt.Fprintf(&b, " qos=%d", e.QoS)
	}
	if e.Msg.Seq != 0 {
		fmt.Fprintf(&b, " msg=%s", e.Msg)
	}
	if e.Filter != "" {
		fmt.Fprintf(&b, " filter=%s", e.Filter)
	}
	for _, f := range []struct {
		on   bool
		name string
	}{
		{e.Dup, "dup"},
		{e.Retain, "retain"},
		{e.Clean, "clean"},
		{e.Present, "present"},
		{e.Graceful, "graceful"},
		{e.Clear, "clear"},
	} {
		if f.on {
			b.WriteByte(' ')
			b.WriteString(f.name)
		}
	}
	return b.String()
}

// Finding is a broken promise, with the event that showed it.
type Finding struct {
	Rule      string // what kind of promise, for example "lost"
	Statement string // what says so, for example "MQTT-4.4.0-1" or "P1"
	Event     Event  // zero for what only the end of the run shows
	Client    string // the session or group concerned, "" if none
	Msg       Message
	Text      string
}

func (f *Finding) String() string {
	s := fmt.Sprintf("%s [%s]: %s", f.Rule, f.Statement, f.Text)
	if f.Event.Kind != 0 {
		s += "\n    at " + f.Event.String()
	}
	return s
}
