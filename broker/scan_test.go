package broker_test

import (
	"fmt"
	"testing"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/packets"
)

// keep publishes n retained messages to s/000, s/001 … and returns their
// publisher.
func keep(t *testing.T, r *running, n int) *client {
	t.Helper()
	pub := dial(t, r, packets.V311, "pub", true, 0)
	for i := range n {
		retain(pub, fmt.Sprintf("s/%03d", i), "old")
	}
	return pub
}

func retain(c *client, topic, payload string) {
	c.t.Helper()
	c.send(&packets.Publish{QoS: 1, PacketID: 1, Retain: true, Topic: []byte(topic), Payload: []byte(payload)})
	if ack, ok := c.receive().(*packets.Ack); !ok || ack.Type != packets.TypePuback {
		c.t.Fatalf("%+v instead of a PUBACK", ack)
	}
}

// next receives a PUBLISH; ack says whether to acknowledge it.
func (c *client) next(ack bool) *packets.Publish {
	c.t.Helper()
	p, ok := c.receive().(*packets.Publish)
	if !ok {
		c.t.Fatalf("%+v instead of a PUBLISH", p)
	}
	if ack {
		c.acknowledge(p)
	}
	return p
}

func (c *client) acknowledge(p *packets.Publish) {
	c.t.Helper()
	c.send(&packets.Ack{Type: packets.TypePuback, PacketID: p.PacketID})
}

// quiet checks that nothing comes before the answer to a ping.
func (c *client) quiet() {
	c.t.Helper()
	c.send(&packets.Ping{Type: packets.TypePingreq})
	if pk, ok := c.receive().(*packets.Ping); !ok {
		c.t.Errorf("%+v instead of a PINGRESP", pk)
	}
}

// A client whose window holds retained messages back gets each once, and one
// that changes meanwhile only as it is then, behind all that came before it
// [MQTT-3.3.1-9] [MQTT-4.6.0-6].
func TestRetainedWhileTheyChange(t *testing.T) {
	const n, window = 2000, 4 // more than may wait for the window: s/300 and s/400 do not yet
	r := start(t, broker.Options{DataDir: t.TempDir(), Limits: broker.Limits{MaxInflight: window}})
	defer r.stop(t)
	pub := keep(t, r, n)
	sub := dial(t, r, packets.V311, "sub", true, 0)
	sub.subscribe("s/#", 1)
	var first []*packets.Publish
	for range window {
		first = append(first, sub.next(false))
	}
	retain(pub, "s/300", "new")
	retain(pub, "s/400", "")
	got := map[string]string{}
	var last []string
	take := func(p *packets.Publish) {
		name := string(p.Topic)
		if was, again := got[name]; again {
			t.Errorf("%s came as %q and as %q", name, was, p.Payload)
		}
		got[name] = string(p.Payload)
		last = append(last, name)
	}
	for _, p := range first {
		take(p)
		sub.acknowledge(p)
	}
	for range n - window {
		take(sub.next(true))
	}
	if len(got) != n || got["s/300"] != "new" || got["s/400"] != "" || got["s/299"] != "old" {
		t.Errorf("%d topics, s/300 is %q, s/400 is %q", len(got), got["s/300"], got["s/400"])
	}
	if last := last[n-2:]; last[0] != "s/300" || last[1] != "s/400" {
		t.Errorf("last came %v", last)
	}
	sub.quiet()
	sub.close()
	pub.close()
}

// What is left of the retained messages, but for those that wait for the window
// already, is not sent after an UNSUBSCRIBE [MQTT-3.10.4-2, -3].
func TestUnsubscribeEndsRetained(t *testing.T) {
	const window, waiting = 4, 1024 // for the window, besides those in it
	r := start(t, broker.Options{DataDir: t.TempDir(), Limits: broker.Limits{MaxInflight: window}})
	defer r.stop(t)
	pub := keep(t, r, 2000)
	sub := dial(t, r, packets.V311, "sub", true, 0)
	sub.subscribe("s/#", 1)
	var first []*packets.Publish
	for range window {
		first = append(first, sub.next(false))
	}
	sub.send(&packets.Unsubscribe{PacketID: 2, Filters: [][]byte{[]byte("s/#")}})
	if _, ok := sub.receive().(*packets.Unsuback); !ok {
		t.Fatal("no unsuback")
	}
	for _, p := range first {
		sub.acknowledge(p)
	}
	for range waiting {
		sub.next(true)
	}
	sub.subscribe("other", 1) // goes the same way as what the acknowledgements set free
	sub.quiet()
	sub.close()
	pub.close()
}
