package core

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// A message is added to the session state of every client with a matching
// subscription, connected or not, once per message [MQTT-4.5.0-1].
func TestPublish_MQTT_4_5_0_1(t *testing.T) {
	r := newRig(t)
	on, off, other := r.connect("on"), r.connect("off"), r.connect("other")
	on.subscribe("a/+", qos1)
	off.subscribe("a/b", qos2)
	other.subscribe("b", qos2)
	off.disconnect(true)
	r.publish("a/b", "m", 2)
	r.equal("matched", r.fx.Reply.Matched, 2)
	on.wants("1:m/1")
	off.wants("m/2")
	other.wants()
	r.equal("touched", r.fx.Touched, []uint32{on.session().Ref})
	r.equal("stored once", r.m.Counts().Messages, 1)
	on.ack(1)
	r.equal("still there", r.m.Counts().Messages, 1)
	off = r.connect("off")
	off.rec(1, 0)
	off.ack(1)
	r.equal("gone", r.m.Counts().Messages, 0)
}

// The QoS is the lower of the message's and the subscription's
// [MQTT-3.8.4-8]; QoS 0 is delivered to who is connected, and not kept.
func TestPublish_MQTT_3_8_4_8_QoS(t *testing.T) {
	r := newRig(t)
	var subs [3]*client
	names := map[uint32]string{}
	for granted := range subs {
		subs[granted] = r.connect(fmt.Sprint("s", granted))
		subs[granted].subscribe("x", topic.Options(granted))
		names[subs[granted].session().Ref] = fmt.Sprint("s", granted)
	}
	r.publish("x", "m0", 0)
	r.equal("direct", r.directs(names), "s0/0 s1/0 s2/0")
	r.publish("x", "m1", 1)
	r.equal("direct", r.directs(names), "s0/0")
	r.publish("x", "m2", 2)
	r.equal("direct", r.directs(names), "s0/0")
	subs[0].wants()
	subs[1].wants("1:m1/1", "2:m2/1")
	subs[2].wants("1:m1/1", "2:m2/2")
	for _, s := range subs {
		s.disconnect(true)
	}
	r.publish("x", "m3", 0)
	r.equal("direct to the absent", r.directs(names), "")
}

// Overlapping subscriptions give one copy, with the highest QoS and the
// identifiers of all of them [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4].
func TestPublish_MQTT_3_3_4_2_Overlapping(t *testing.T) {
	r := newRig(t)
	a := r.connect("a")
	a.subscribe("a/b", qos0, 5)
	a.subscribe("a/#", qos2, 3)
	a.subscribe("+/b", qos1)
	a.subscribe("#", qos1|topic.RetainAsPublished, 4)
	a.subscribe("c", qos2, 9)
	r.publish("a/b", "m", 2, retained)
	a.wants("1:m/2r#3#4#5")
	r.publish("a/b", "m0", 0)
	r.equal("QoS 0", r.directs(map[uint32]string{a.session().Ref: "a"}), "a/0#3#4#5")
	r.reload()
	a.wants("1:m/2r#3#4#5")
	a.rec(1, 0x87)
	a.wants()
	r.equal("notes of identifiers left", len(a.session().Out.SubIDs), 0)
}

// A subscription with the same filter replaces the other: its QoS, options
// and identifier; what was queued under the old one is kept [MQTT-3.8.4-3]
// [MQTT-3.8.4-4].
func TestSubscribe_MQTT_3_8_4_3_Replaced(t *testing.T) {
	r := newRig(t)
	a := r.connect("a")
	a.subscribe("x", qos2, 1)
	r.publish("x", "m1", 2)
	a.subscribe("x", qos1, 2)
	r.publish("x", "m2", 2)
	a.wants("1:m1/2#1", "2:m2/1#2")
	r.equal("subscriptions", r.m.Counts().Subscriptions, 1)
	r.equal("in the index", r.m.Index().Len(), 1)
}

// What a connection published does not come back to it by a subscription with
// No Local [MQTT-3.8.3-3]; by another one it does.
func TestPublish_MQTT_3_8_3_3_NoLocal(t *testing.T) {
	r := newRig(t)
	a, b := r.connect("a"), r.connect("b")
	a.subscribe("x", qos1|topic.NoLocal, 1)
	r.publish("x", "own", 1, a.asPublisher, packetID(1))
	a.wants()
	r.publish("x", "other", 1, b.asPublisher, packetID(1))
	a.wants("1:other/1#1")
	a.subscribe("+", qos1, 2)
	r.publish("x", "own again", 1, a.asPublisher, packetID(2))
	a.wants("1:other/1#1", "2:own again/1#2")

	ref := r.m.Attach(77)
	r.m.SubscribeEphemeral(ref, "y", qos1|topic.NoLocal, 0, &r.fx)
	r.publish("y", "own", 1, func(p *record.Publish) { p.Epoch = 77 })
	r.equal("ephemeral, own", r.directs(map[uint32]string{ref: "e"}), "")
	r.publish("y", "other", 1)
	r.equal("ephemeral, other", r.directs(map[uint32]string{ref: "e"}), "e/1")
}

// The RETAIN flag of a live message is 0, unless the subscription asks for it
// as published [MQTT-3.3.1-12] [MQTT-3.3.1-13].
func TestPublish_MQTT_3_3_1_12_RetainAsPublished(t *testing.T) {
	r := newRig(t)
	plain, asIs := r.connect("plain"), r.connect("as is")
	plain.subscribe("x", qos1)
	asIs.subscribe("x", qos1|topic.RetainAsPublished)
	r.publish("x", "m1", 1)
	r.publish("x", "m2", 1, retained)
	plain.wants("1:m1/1", "2:m2/1")
	asIs.wants("1:m1/1", "2:m2/1r")
}

// A retained message replaces the one before, one without payload removes it,
// and one without the flag changes nothing [MQTT-3.3.1-5] to [MQTT-3.3.1-8].
func TestRetain_MQTT_3_3_1_5_Replaced(t *testing.T) {
	r := newRig(t)
	watch := r.connect("watch")
	watch.subscribe("t", qos1)
	have := func() string {
		c := r.connect("new", cleanStart)
		c.subscribe("t", qos2)
		var got []string
		for _, e := range c.session().Out.Inflight() {
			got = append(got, fmt.Sprint(r.payload[e.Msg], e.QoS, e.Retain))
		}
		for _, e := range r.fx.Retained {
			got = append(got, fmt.Sprint(r.payload[e.Message], " direct ", e.QoS))
		}
		return strings.Join(got, ", ")
	}
	r.publish("t", "one", 1, retained)
	r.equal("first", have(), "one1 true")
	r.publish("t", "two", 2, retained)
	r.equal("replaced", have(), "two2 true")
	r.publish("t", "live", 1)
	r.equal("not replaced", have(), "two2 true")
	r.publish("t", "zero", 0, retained)
	r.equal("QoS 0", have(), "zero direct 0")
	r.reload()
	r.equal("after a restart", have(), "zero direct 0")
	r.publish("t", "", 1, retained)
	r.equal("removed", have(), "")
	watch.wants("1:one/1", "2:two/1", "3:live/1", "4:/1") // the empty one is delivered as usual
	r.equal("retained", r.m.Counts().Retained, 0)
}

// Retain Handling 0 sends the retained messages at each SUBSCRIBE, 1 at a new
// one, 2 never; shared subscriptions get none [MQTT-3.3.1-9] [MQTT-3.3.1-10]
// [MQTT-3.3.1-11].
func TestSubscribe_MQTT_3_3_1_9_RetainHandling(t *testing.T) {
	r := newRig(t)
	r.publish("a", "ra", 1, retained)
	r.publish("b/c", "rb", 2, retained)
	r.publish("$x", "hidden", 1, retained)
	for handling, want := range [3][2]int{{2, 4}, {2, 2}, {0, 0}} {
		c := r.connect(fmt.Sprint("c", handling))
		opts := topic.MakeOptions(2, byte(handling), 0)
		c.subscribe("#", opts)
		r.equal(fmt.Sprint("new, handling ", handling), len(c.session().Out.Inflight()), want[0])
		c.subscribe("#", opts, 8)
		r.equal(fmt.Sprint("again, handling ", handling), len(c.session().Out.Inflight()), want[1])
	}
	r.connect("c0").wants("1:ra/1r", "2:rb/2r", "3:ra/1r#8", "4:rb/2r#8")
	s := r.connect("shared")
	s.subscribe("$share/g/#", qos2)
	s.wants()
	e := r.m.Attach(5)
	r.fx.Reset()
	r.m.SubscribeEphemeral(e, "a", qos2, 6, &r.fx)
	r.equal("ephemeral", r.fx.Retained, []Retained{{Ref: e, SubID: 6, Message: r.fx.Retained[0].Message, QoS: 1}})
}

// A PUBACK ends QoS 1. QoS 2 ends by PUBREC and PUBCOMP, in that order, or by
// a PUBREC of 0x80 and above, which is not sent again [MQTT-4.3.2-3]
// [MQTT-4.3.3-4] [MQTT-4.3.3-6] [MQTT-4.4.0-2].
func TestAck_MQTT_4_4_0_2(t *testing.T) {
	r := newRig(t)
	a := r.connect("a")
	a.subscribe("x", qos2)
	for _, m := range []string{"q1", "q2", "refused"} {
		r.publish("x", m, 1+uint8(len(m)%2))
	}
	r.publish("x", "q2b", 2)
	a.wants("1:q1/1", "2:q2/1", "3:refused/2", "4:q2b/2")
	r.equal("PUBREC for QoS 1", a.rec(1, 0).Reply.Known, false)
	r.equal("PUBACK for QoS 2", a.ack(3).Reply.Known, false)
	r.equal("unknown", a.ack(99).Reply.Known, false)
	r.equal("PUBACK", a.ack(1, 2).Reply.Known, true)
	r.equal("PUBREC", a.rec(4, 0).Reply.Known, true)
	r.equal("PUBREC of 0x10", a.rec(4, 0x10).Reply.Known, true)
	a.wants("3:refused/2", "4:q2b/2+")
	r.equal("PUBREC of 0x83", a.rec(3, 0x83).Reply.Known, true)
	a.wants("4:q2b/2+")
	a.disconnect(true)
	a = r.connect("a")
	a.wants("4:q2b/2+")
	r.equal("PUBCOMP", a.ack(4).Reply.Known, true)
	a.wants()
}

// A message that expired is not handed over; one already in flight goes on
// [MQTT-3.3.2-5]. A retained one goes from the store at its time.
func TestExpiry_MQTT_3_3_2_5(t *testing.T) {
	r := newRig(t)
	a := r.connect("a")
	a.subscribe("x", qos1)
	a.disconnect(true)
	r.publish("x", "short", 1, lives(10))
	r.publish("x", "long", 1, lives(100), retained)
	r.publish("x", "ever", 1)
	_, deadline, _ := r.m.Message(r.m.Applied() - 1)
	r.equal("deadline", deadline, r.now+100_000)
	r.now += 10_000
	a = r.connect("a", receiveMaximum(1))
	r.equal("drops", r.drops(), "short:expired")
	a.wants("1:long/1", "ever/1")
	r.after(89)
	r.equal("retained expired", len(r.fx.RetainedExpired), 0)
	at, ok := r.m.NextDeadline()
	r.equal("next deadline", []any{at, ok}, []any{r.now + 1000, true})
	r.after(1)
	r.equal("retained expired", r.fx.RetainedExpired, "[x]")
	a.wants("1:long/1", "ever/1") // in flight
	b := r.connect("b")
	b.subscribe("x", qos1)
	b.wants()
	// What the broker finds expired before its first send ends by an Ack.
	r.apply(&record.Ack{Session: a.sid, Epoch: a.epoch, Reason: record.AckExpired, Runs: []record.Run{{First: 1, Count: 1}}})
	r.equal("drops", r.drops(), "long:expired")
	a.wants("2:ever/1")
}

// A retained message whose time has come is not sent to a new subscription,
// Tick or not.
func TestExpiry_RetainedBetweenTicks(t *testing.T) {
	r := newRig(t)
	r.publish("x", "m", 1, retained, lives(10))
	r.now += 10_000
	a := r.connect("a")
	a.subscribe("x", qos1)
	a.wants()
}

// A full queue drops the new message, or with DropOldest the oldest, and says
// so. What is in flight does not count.
func TestQueueFull(t *testing.T) {
	for _, oldest := range []bool{false, true} {
		r := newRig(t, func(l *record.Limits) { l.QueueMessages, l.DropOldest = 2, oldest })
		a := r.connect("a", receiveMaximum(1))
		a.subscribe("x", qos1)
		for _, m := range []string{"m1", "m2", "m3"} {
			r.publish("x", m, 1)
			r.equal("drops", r.drops(), "")
		}
		r.publish("x", "m4", 1)
		if oldest {
			r.equal("drops", r.drops(), "m2:queue-full")
			a.wants("1:m1/1", "m3/1", "m4/1")
		} else {
			r.equal("drops", r.drops(), "m4:queue-full")
			a.wants("1:m1/1", "m2/1", "m3/1")
		}
		a.ack(1)
		r.publish("x", "m5", 1)
		r.equal("drops", r.drops(), "")
	}
}

// The byte limit counts what is queued; a message that can't fit drops
// nothing else for its sake.
func TestQueueBytes(t *testing.T) {
	for _, oldest := range []bool{false, true} {
		r := newRig(t, func(l *record.Limits) { l.QueueBytes, l.DropOldest = 40, oldest })
		a := r.connect("a")
		a.subscribe("x", qos1)
		a.disconnect(true)
		body := strings.Repeat("m", 20-4) // 20 bytes with the topic
		r.publish("x", body, 1)
		r.publish("x", body, 1)
		r.equal("queued bytes", a.session().QueuedBytes, 40)
		r.publish("x", strings.Repeat("L", 60), 1)
		r.equal("queued after the large one", a.session().Out.Queued(), 2)
		r.publish("x", "s", 1)
		r.equal("drops", len(r.fx.Dropped), 1)
		r.equal("queued bytes", a.session().QueuedBytes, map[bool]int{false: 40, true: 25}[oldest])
	}
}

// A message that reaches a session twice, by a subscription and by a shared
// one, may push its own first copy out of the queue.
func TestQueueFull_OwnCopy(t *testing.T) {
	r := newRig(t, func(l *record.Limits) { l.QueueMessages, l.DropOldest = 1, true })
	a := r.connect("a")
	a.subscribe("x", qos1, 1)
	a.subscribe("$share/g/x", qos1, 2)
	a.disconnect(true)
	r.publish("x", "m", 1, to("g", "x", a))
	r.equal("drops", r.drops(), "m:queue-full")
	a.wants("m/1#2")
}

// UNSUBSCRIBE stops new messages and lets go on what has started or waits; an
// unknown filter is answered 0x11 [MQTT-3.10.4-2] [MQTT-3.10.4-3]
// [MQTT-3.10.4-1].
func TestUnsubscribe_MQTT_3_10_4_2(t *testing.T) {
	r := newRig(t)
	a := r.connect("a", receiveMaximum(1))
	a.subscribe("x", qos1)
	a.subscribe("X", qos1)
	r.publish("x", "m1", 1)
	r.publish("x", "m2", 1)
	fx := a.unsubscribe("x", "y", "x")
	r.equal("codes", fx.Reply.Codes, []byte{0, 0x11, 0x11})
	r.publish("x", "m3", 1)
	a.wants("1:m1/1", "m2/1")
	r.equal("the other", a.session().Filters(), "[X]")
}
