package e2e

import (
	"fmt"
	"slices"
	"testing"
)

// message is a PUBLISH as an application sees it. The properties exist with
// MQTT 5 only.
type message struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool

	ResponseTopic string
	Correlation   []byte
	User          []property
}

// property is a user property; the order of several is kept.
type property struct{ Key, Value string }

func (m message) String() string {
	payload := fmt.Sprintf("%d bytes", len(m.Payload))
	if len(m.Payload) <= 100 {
		payload = fmt.Sprintf("%q", m.Payload)
	}
	return fmt.Sprintf("%s qos %d retain %v %s response %q correlation %q user %v",
		m.Topic, m.QoS, m.Retain, payload, m.ResponseTopic, m.Correlation, m.User)
}

// client is one connection made by a real client library or program.
type client interface {
	// subscribe returns when the SUBACK has come and granted qos.
	subscribe(filter string, qos byte) error
	// publish returns when the message is sent (QoS 0) or fully acknowledged.
	publish(m message) error
	// messages are the messages received, in order. Never closed.
	messages() <-chan message
	// gone is closed when the connection has ended, whoever ended it.
	gone() <-chan struct{}
	// close sends DISCONNECT and ends the connection.
	close()
	// cut ends the connection without a word.
	cut()
}

// dialOptions say how to connect.
type dialOptions struct {
	id      string
	durable bool     // the session outlives the connection (expiry 1 h, or clean session 0)
	will    *message // published by the broker when the connection is cut
}

// kit is a client library, a version of MQTT and a transport.
type kit struct {
	name string
	v5   bool
	// dial connects; present is what CONNACK said about the session.
	dial func(t *testing.T, b *broker, o dialOptions) (c client, present bool)
	// silent is set for those that do not tell whether the session is present.
	silent bool
	// program is set for command line clients: they are silent too, and they
	// reconnect by themselves.
	program bool
	// parting is set where close says "disconnect with will message" (0x04).
	parting bool
	// missing says what is not installed, "" if nothing.
	missing func() string
}

func kits(t *testing.T) []kit {
	return slices.Concat(paho5Kits(), paho3Kits(), pahocKits(t), mosquittoKits(), mqttjsKits(t))
}

// closing makes the test close c at its end.
func closing(t *testing.T, c client) client {
	t.Cleanup(c.cut)
	return c
}
