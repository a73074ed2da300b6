package core

import (
	"testing"

	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

const (
	qos0 = topic.Options(0)
	qos1 = topic.Options(1)
	qos2 = topic.Options(2)
)

// Clean Start 1 discards the session, Clean Start 0 resumes it or, when there
// is none, begins one [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.2-6].
func TestConnect_MQTT_3_1_2_4_CleanStart(t *testing.T) {
	r := newRig(t)
	a := r.connect("a")
	r.equal("present at first", r.fx.Reply.Present, false)
	a.subscribe("x", qos1)
	a.disconnect(true)
	r.publish("x", "m1", 1)

	b := r.connect("a")
	r.equal("present on resume", r.fx.Reply.Present, true)
	r.equal("session", b.sid, a.sid)
	b.wants("1:m1/1")
	b.disconnect(true)

	c := r.connect("a", cleanStart)
	r.equal("present after clean start", r.fx.Reply.Present, false)
	r.equal("ended", r.fx.Ended, []Ended{{Session: a.sid, ClientID: "a", Ref: r.fx.Reply.Ref, Reason: EndCleanStart}})
	c.wants()
	r.publish("x", "m2", 1)
	c.wants()
	r.equal("messages kept", r.m.Counts().Messages, 0)
}

// A second connection of a client takes the session over; the first one can
// do nothing to it any more [MQTT-3.1.4-3].
func TestConnect_MQTT_3_1_4_3_Takeover(t *testing.T) {
	r := newRig(t)
	old := r.connect("a")
	old.subscribe("x", qos2)
	r.publish("x", "m1", 2)
	now := r.connect("a")
	r.equal("taken over", r.fx.Reply.TakenOver, old.epoch)
	r.equal("present", r.fx.Reply.Present, true)
	r.equal("ended", len(r.fx.Ended), 0)
	for name, fx := range map[string]*Effects{
		"ack": old.ack(1), "rec": old.rec(1, 0), "subscribe": old.subscribe("y", qos1), "unsubscribe": old.unsubscribe("x"),
		"publish":    r.publish("x", "m2", 1, old.asPublisher, packetID(4)),
		"pubrel":     r.apply(&record.PubRel{Session: old.sid, Epoch: old.epoch, PacketID: 4}),
		"disconnect": old.disconnect(true),
	} {
		if !fx.Reply.Stale {
			t.Errorf("%s of the old connection is not stale", name)
		}
	}
	now.wants("1:m1/2")
	r.equal("subscriptions", now.session().Filters(), "[x]")
	r.equal("connected", now.session().Connected(), true)
}

// A takeover of a connection whose session expiry is 0 ends its session: the
// old connection closes (section 3.1.4, comment).
func TestConnect_3_1_4_TakeoverOfExpiryZero(t *testing.T) {
	r := newRig(t)
	a := r.connect("a")
	a.disconnect(true)
	a = r.connect("a", expiry(0), withWill(60)) // resumes, and lives as long as the connection
	r.equal("present", r.fx.Reply.Present, true)
	b := r.connect("a")
	r.equal("present", r.fx.Reply.Present, false)
	r.equal("ended", r.fx.Ended[0].Session == a.sid && r.fx.Ended[0].Epoch == a.epoch, true)
	r.equal("will due", len(r.fx.WillsDue), 1)
	r.equal("new session", b.sid != a.sid, true)
}

// The session ends when its expiry has passed since the disconnect, and not a
// millisecond earlier; with expiry 0 it ends with the connection; with
// 4294967295 it does not end [MQTT-3.1.2-23] [MQTT-4.1.0-2].
func TestExpiry_MQTT_4_1_0_2(t *testing.T) {
	r := newRig(t)
	short, zero, never := r.connect("short", expiry(5)), r.connect("zero", expiry(0)), r.connect("never")
	r.after(1_000_000)
	r.equal("connected sessions", r.m.Counts().Sessions, 3)
	short.disconnect(true)
	never.disconnect(true)
	zero.disconnect(true)
	r.equal("ended with its connection", r.fx.Ended[0].Session, zero.sid)
	at, ok := r.m.NextDeadline()
	r.equal("next deadline", []any{at, ok}, []any{r.now + 5000, true})

	r.now += 4999
	r.apply(record.Tick{})
	r.equal("ended early", len(r.fx.Ended), 0)
	r.now++
	r.apply(record.Tick{})
	r.equal("ended", []any{r.fx.Ended[0].Session, r.fx.Ended[0].Reason}, []any{short.sid, EndExpired})
	_, ok = r.m.NextDeadline()
	r.equal("anything due", ok, false)
	r.after(1 << 40)
	r.equal("never", never.session() != nil, true)
}

// A session that expired without a Tick in between is not resumed.
func TestExpiry_MQTT_4_1_0_2_NoTick(t *testing.T) {
	r := newRig(t)
	a := r.connect("a", expiry(5))
	a.disconnect(true)
	r.now += 5000
	b := r.connect("a", expiry(5))
	r.equal("present", r.fx.Reply.Present, false)
	r.equal("other session", a.sid != b.sid, true)
}

// DISCONNECT may change the expiry, but not from 0 (section 3.14.2.2.2). The
// server's maximum caps both.
func TestExpiry_3_14_2_2_2_Changed(t *testing.T) {
	r := newRig(t, func(l *record.Limits) { l.SessionExpiryMax = 100 })
	end := func(c *client, seconds uint32) *session.Session {
		r.apply(&record.Disconnect{Session: c.sid, Epoch: c.epoch, HasExpiry: true, Expiry: seconds})
		return c.session()
	}
	a := r.connect("a", expiry(50))
	r.equal("raised", end(a, 60).Expiry, 60)
	b := r.connect("b", expiry(4000))
	r.equal("in force", r.fx.Reply.Expiry, 100)
	r.equal("capped", end(b, session.Forever).Expiry, 100)
	c := r.connect("c", expiry(0))
	r.equal("from zero", end(c, 60) == nil, true)
	d := r.connect("d", expiry(50))
	r.equal("to zero", end(d, 0) == nil, true)
}

// Another user gets a new session, unless the configuration shares them.
func TestConnect_OtherUser(t *testing.T) {
	for _, share := range []bool{false, true} {
		r := newRig(t, func(l *record.Limits) { l.ShareUsers = share })
		a := r.connect("a", user("alice"))
		a.subscribe("x", qos1)
		a.disconnect(true)
		b := r.connect("a", user("bob"))
		r.equal("present", r.fx.Reply.Present, share)
		r.equal("same session", a.sid == b.sid, share)
		if !share {
			r.equal("reason", r.fx.Ended[0].Reason, EndUser)
		}
		r.equal("user", b.session().User, "bob")
	}
}

// After a reconnect with a smaller Receive Maximum what is in flight stays,
// and no new identifier is given until fewer are in use [MQTT-3.3.4-9]
// [MQTT-4.4.0-1].
func TestReceiveMaximum_MQTT_3_3_4_9_Lowered(t *testing.T) {
	r := newRig(t)
	a := r.connect("a", receiveMaximum(3))
	a.subscribe("x", qos2)
	for _, m := range []string{"m1", "m2", "m3", "m4", "m5"} {
		r.publish("x", m, 1)
	}
	a.wants("1:m1/1", "2:m2/1", "3:m3/1", "m4/1", "m5/1")
	a.disconnect(true)
	a = r.connect("a", receiveMaximum(1))
	a.wants("1:m1/1", "2:m2/1", "3:m3/1", "m4/1", "m5/1")
	a.ack(2)
	a.wants("1:m1/1", "3:m3/1", "m4/1", "m5/1")
	a.ack(1)
	a.wants("3:m3/1", "m4/1", "m5/1")
	a.ack(3)
	a.wants("4:m4/1", "m5/1")
	a.disconnect(true)
	a = r.connect("a") // and it may be raised again
	a.wants("4:m4/1", "5:m5/1")
	r.equal("touched", r.fx.Touched, []uint32{a.session().Ref})
}

// The broker's own maximum holds for all, and a changed one from then on.
func TestMaxInflight(t *testing.T) {
	r := newRig(t, func(l *record.Limits) { l.MaxInflight = 2 })
	a := r.connect("a")
	a.subscribe("x", qos1)
	for range 4 {
		r.publish("x", "m", 1)
	}
	a.wants("1:m/1", "2:m/1", "m/1", "m/1")
	l := r.m.Limits()
	l.MaxInflight = 3
	r.apply(&record.Config{Limits: l})
	a.ack(1)
	a.wants("2:m/1", "3:m/1", "4:m/1")
}

// What is in flight is sent again after a reconnect, with its identifier and
// in its order, also across a restart [MQTT-4.4.0-1].
func TestResend_MQTT_4_4_0_1(t *testing.T) {
	r := newRig(t)
	a := r.connect("a")
	a.subscribe("x", qos2)
	r.publish("x", "m1", 2)
	r.publish("x", "m2", 1)
	r.publish("x", "m3", 2)
	a.rec(1, 0)
	want := []string{"1:m1/2+", "2:m2/1", "3:m3/2"}
	a.wants(want...)
	for range 3 {
		r.reload()
		r.start()
		a = r.connect("a")
		a.wants(want...)
		r.equal("touched", len(r.fx.Touched), 1)
		for _, e := range a.session().Out.Inflight() {
			r.equal("marked as sent before", e.Resend, true)
		}
		r.equal("to be sent", a.session().Out.Unsent(), 3)
	}
	r.publish("x", "m4", 1)
	a.wants(append(want, "4:m4/1")...)
	r.equal("new one", a.session().Out.Inflight()[3].Resend, false)
}

// A broker that starts closes all connections: sessions begin to expire at
// the start, not before, and those with expiry 0 are over.
func TestServerStart_Expiry(t *testing.T) {
	r := newRig(t)
	a, zero := r.connect("a", expiry(60)), r.connect("zero", expiry(0))
	r.now += 3600 * 1000 // the broker was down for an hour
	r.start()
	r.equal("over", zero.session() == nil, true)
	r.equal("connected", a.session().Connected(), false)
	r.after(59)
	r.equal("before", a.session() != nil, true)
	r.after(1)
	r.equal("after", a.session() == nil, true)
}

// A session that is removed is gone at once, and its connection is named.
func TestSessionRemove(t *testing.T) {
	r := newRig(t)
	a := r.connect("a", withWill(60))
	a.subscribe("#", qos1)
	r.publish("x", "m1", 1)
	fx := r.apply(&record.SessionRemove{ClientID: []byte("a")})
	r.equal("known", fx.Reply.Known, true)
	r.equal("ended", []any{fx.Ended[0].Epoch, fx.Ended[0].Reason}, []any{a.epoch, EndRemoved})
	r.equal("its will", len(fx.WillsDue), 1) // [MQTT-3.1.2-8]: the session ends
	r.equal("counts", r.m.Counts(), Counts{Wills: 1})
	r.equal("again", r.apply(&record.SessionRemove{ClientID: []byte("a")}).Reply.Known, false)
}

// Log time does not go back, whatever the frames say.
func TestTimeNeverGoesBack(t *testing.T) {
	r := newRig(t)
	r.now += 5000
	r.apply(record.Tick{})
	r.now -= 3000
	a := r.connect("a", expiry(5))
	a.disconnect(true)
	r.equal("disconnected", a.session().Disconnected, r.now+3000)
}

// The publisher's QoS 2 identifier is taken once until it is released, across
// restarts [MQTT-4.3.3-9] [MQTT-4.3.3-10] [MQTT-4.3.3-11].
func TestReceive_MQTT_4_3_3_10_Duplicate(t *testing.T) {
	r := newRig(t)
	sub := r.connect("sub")
	sub.subscribe("x", qos2)
	p := r.connect("pub")
	release := func() *Effects { return r.apply(&record.PubRel{Session: p.sid, Epoch: p.epoch, PacketID: 7}) }
	r.publish("x", "m1", 2, p.asPublisher, packetID(7))
	r.equal("reply", []any{r.fx.Reply.PacketID, r.fx.Reply.QoS, r.fx.Reply.Duplicate, r.fx.Reply.Matched}, []any{7, 2, false, 1})
	for range 2 {
		r.publish("x", "m1 again", 2, p.asPublisher, packetID(7))
		r.equal("duplicate", r.fx.Reply.Duplicate, true)
		r.reload()
		r.start()
		p = r.connect("pub")
	}
	r.publish("x", "other id", 2, p.asPublisher, packetID(8))
	r.equal("released", release().Reply.Known, true)
	r.equal("released again", release().Reply.Known, false)
	r.publish("x", "m2", 2, p.asPublisher, packetID(7)) // the identifier may be used again
	r.equal("duplicate", r.fx.Reply.Duplicate, false)
	sub = r.connect("sub")
	sub.wants("1:m1/2", "2:other id/2", "3:m2/2")
	r.publish("x", "not deduplicated", 1, p.asPublisher, packetID(7)) // QoS 1 [MQTT-4.3.2-5]
	r.equal("duplicate", r.fx.Reply.Duplicate, false)
}
