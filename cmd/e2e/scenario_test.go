package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
)

// TestClients plays every scenario with every kit.
func TestClients(t *testing.T) {
	for _, k := range kits(t) {
		t.Run(k.name, func(t *testing.T) {
			if what := k.missing(); what != "" {
				t.Skip(what)
			}
			b := startBroker(t)
			run := func(name string, scenario func(*testing.T, kit, *broker)) {
				t.Run(name, func(t *testing.T) { scenario(t, k, b) })
			}
			run("QoS", qosLevels)
			run("Retained", retained)
			run("Will", lastWill)
			run("Shared", sharedSubscription)
			run("Large", largePayload)
			run("Request", requestResponse)
			run("Takeover", takeover)
			run("OfflineOverKill", offlineOverKill)
			b.stop()
		})
	}
}

func dial(t *testing.T, k kit, b *broker, o dialOptions) client {
	t.Helper()
	c, _ := k.dial(t, b, o)
	return closing(t, c)
}

func subscribe(t *testing.T, c client, filter string, qos byte) {
	t.Helper()
	if err := c.subscribe(filter, qos); err != nil {
		t.Fatalf("subscribe to %s: %v", filter, err)
	}
}

func publish(t *testing.T, c client, m message) {
	t.Helper()
	if err := c.publish(m); err != nil {
		t.Fatalf("publish %v: %v", m, err)
	}
}

func expect(t *testing.T, c client, want message) {
	t.Helper()
	got := wait(t, c.messages(), want.String())
	if got.String() != want.String() || !bytes.Equal(got.Payload, want.Payload) {
		t.Fatalf("received %v\nwant     %v", got, want)
	}
}

// qosLevels: a message arrives with its QoS, whatever that is.
func qosLevels(t *testing.T, k kit, b *broker) {
	sub := dial(t, k, b, dialOptions{id: "qos-sub"})
	subscribe(t, sub, "qos/+/x", 2)
	pub := dial(t, k, b, dialOptions{id: "qos-pub"})
	for qos := range byte(3) {
		m := message{Topic: fmt.Sprintf("qos/%d/x", qos), Payload: []byte{'0' + qos, 0, 0xff}, QoS: qos}
		publish(t, pub, m)
		expect(t, sub, m)
	}
	pub.close()
	sub.close()
}

// retained: who subscribes later gets the last value, until an empty payload
// removes it.
func retained(t *testing.T, k kit, b *broker) {
	pub := dial(t, k, b, dialOptions{id: "retain-pub"})
	for i, text := range []string{"old", "new"} {
		publish(t, pub, message{Topic: "retain/a", Payload: []byte(text), QoS: byte(1 + i), Retain: true})
	}
	first := dial(t, k, b, dialOptions{id: "retain-1"})
	subscribe(t, first, "retain/#", 2)
	expect(t, first, message{Topic: "retain/a", Payload: []byte("new"), QoS: 2, Retain: true})

	publish(t, pub, message{Topic: "retain/a", QoS: 1, Retain: true})
	expect(t, first, message{Topic: "retain/a", Payload: []byte{}, QoS: 1})

	second := dial(t, k, b, dialOptions{id: "retain-2"})
	subscribe(t, second, "retain/#", 2)
	marker := message{Topic: "retain/marker", Payload: []byte("nothing came before this"), QoS: 2}
	publish(t, pub, marker)
	expect(t, second, marker)
	for _, c := range []client{pub, first, second} {
		c.close()
	}
}

// lastWill: the broker publishes it when the connection is cut, not when the
// client says goodbye, unless it says so with 0x04.
func lastWill(t *testing.T, k kit, b *broker) {
	watch := dial(t, k, b, dialOptions{id: "will-watch"})
	subscribe(t, watch, "will/#", 2)
	will := message{Topic: "will/a", Payload: []byte("died"), QoS: 1}
	for _, cut := range []bool{false, true} {
		c := dial(t, k, b, dialOptions{id: "will-owner", will: &will})
		subscribe(t, c, "other/#", 0) // a program connects only now
		if cut {
			c.cut()
		} else {
			c.close()
			wait(t, c.gone(), "the end of the connection")
			if k.parting { // DISCONNECT with 0x04 keeps the will [MQTT-3.14.4-3]
				expect(t, watch, will)
			}
			marker := message{Topic: "will/marker", Payload: []byte("no will came before this"), QoS: 1}
			pub := dial(t, k, b, dialOptions{id: "will-pub"})
			publish(t, pub, marker)
			pub.close()
			expect(t, watch, marker)
		}
	}
	expect(t, watch, will)
	watch.close()
}

// sharedSubscription: each message goes to one member of the group.
func sharedSubscription(t *testing.T, k kit, b *broker) {
	const n = 40
	members := []client{dial(t, k, b, dialOptions{id: "share-1"}), dial(t, k, b, dialOptions{id: "share-2"})}
	for _, c := range members {
		subscribe(t, c, "$share/group/share/#", 1)
	}
	pub := dial(t, k, b, dialOptions{id: "share-pub"})
	var want, got []string
	for i := range n {
		want = append(want, fmt.Sprintf("%02d", i))
		publish(t, pub, message{Topic: "share/x", Payload: []byte(want[i]), QoS: 1})
	}
	both := make(chan message)
	stop := make(chan struct{})
	defer close(stop)
	for _, c := range members {
		go func() {
			for {
				select {
				case m := <-c.messages():
					select {
					case both <- m:
					case <-stop:
						return
					}
				case <-stop:
					return
				}
			}
		}()
	}
	for range n {
		got = append(got, string(wait(t, both, "a message for the group").Payload))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Fatalf("the members received %q, want each of %d messages once", got, n)
	}
	for _, c := range append(members, pub) {
		c.close()
	}
}

// largePayload: 5 MiB go through unharmed.
func largePayload(t *testing.T, k kit, b *broker) {
	payload := make([]byte, 5<<20)
	for i, sum := 0, sha256.Sum256([]byte(k.name)); i < len(payload); i += len(sum) {
		copy(payload[i:], sum[:])
		sum = sha256.Sum256(sum[:])
	}
	sub := dial(t, k, b, dialOptions{id: "large-sub"})
	subscribe(t, sub, "large", 1)
	pub := dial(t, k, b, dialOptions{id: "large-pub"})
	m := message{Topic: "large", Payload: payload, QoS: 1}
	publish(t, pub, m)
	expect(t, sub, m)
	pub.close()
	sub.close()
}

// requestResponse: response topic, correlation data and user properties go
// through, the latter in order [MQTT-3.3.2-15, -16, -18].
func requestResponse(t *testing.T, k kit, b *broker) {
	if !k.v5 {
		t.Skip("properties exist with MQTT 5 only")
	}
	requester := dial(t, k, b, dialOptions{id: "requester"})
	subscribe(t, requester, "answers/1", 1)
	responder := dial(t, k, b, dialOptions{id: "responder"})
	subscribe(t, responder, "questions", 1)
	question := message{
		Topic: "questions", Payload: []byte("6*7"), QoS: 1, ResponseTopic: "answers/1", Correlation: []byte("c-1"),
		User: []property{{"b", "1"}, {"b", "3"}, {"a", "2"}},
	}
	publish(t, requester, question)
	got := wait(t, responder.messages(), "the question")
	if got.String() != question.String() {
		t.Fatalf("received %v\nwant     %v", got, question)
	}
	answer := message{Topic: got.ResponseTopic, Payload: []byte("42"), QoS: 1, Correlation: got.Correlation}
	publish(t, responder, answer)
	expect(t, requester, answer)
	requester.close()
	responder.close()
}

// takeover: a second connection under the same identifier ends the first one
// and has its session [MQTT-3.1.4-3].
func takeover(t *testing.T, k kit, b *broker) {
	if k.program {
		t.Skip("the program reconnects by itself: the two would take over each other for ever")
	}
	first, _ := k.dial(t, b, dialOptions{id: "twin", durable: true})
	closing(t, first)
	subscribe(t, first, "twin/#", 1)
	second, present := k.dial(t, b, dialOptions{id: "twin", durable: true})
	closing(t, second)
	if !present && !k.silent {
		t.Error("the second connection did not get the session")
	}
	wait(t, first.gone(), "the end of the first connection")
	pub := dial(t, k, b, dialOptions{id: "twin-pub"})
	m := message{Topic: "twin/a", Payload: []byte("for the second"), QoS: 1}
	publish(t, pub, m)
	expect(t, second, m)
	pub.close()
	second.close()
}

// offlineOverKill: what was acknowledged while a durable subscriber was away is
// there after kill -9 and a restart, in order and once.
func offlineOverKill(t *testing.T, k kit, b *broker) {
	const n = 20
	sub := dial(t, k, b, dialOptions{id: "away", durable: true})
	subscribe(t, sub, "queue/#", 2)
	sub.close()
	wait(t, sub.gone(), "the end of the connection")

	pub := dial(t, k, b, dialOptions{id: "away-pub"})
	retained := message{Topic: "kept", Payload: []byte("kept"), QoS: 1, Retain: true}
	publish(t, pub, retained)
	var want []message
	for i := range n {
		m := message{Topic: "queue/x", Payload: fmt.Appendf(nil, "%02d", i), QoS: 1}
		if i >= n/2 {
			m.QoS = 2
		}
		publish(t, pub, m)
		want = append(want, m)
	}
	b.kill()
	b.start()

	again, present := k.dial(t, b, dialOptions{id: "away", durable: true})
	closing(t, again)
	if !present && !k.silent && !k.program {
		t.Error("the session is gone")
	}
	if k.program { // connects only with a subscription, which it has already
		subscribe(t, again, "queue/#", 2)
	}
	for _, m := range want {
		expect(t, again, m)
	}
	subscribe(t, again, "kept", 1)
	if !k.program {
		expect(t, again, retained) // and nothing of the queue came twice before it
	}
	again.close()
}
