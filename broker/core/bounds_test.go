package core

import (
	"fmt"
	"testing"

	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// A Tick expires so many entries and no more; the next goes on where it
// stopped, and the deadline says that there is something to do.
func TestTick_Bounded(t *testing.T) {
	r := newRig(t)
	const sessions, wills, topics = 300, 400, 700
	for i := range sessions {
		c := r.connect(fmt.Sprint("s", i), expiry(10))
		c.subscribe("a", qos1)
		c.subscribe("b", qos1)
		c.disconnect(true)
	}
	for i := range wills {
		r.connect(fmt.Sprint("w", i), withWill(10)).disconnect(false)
	}
	for i := range topics {
		r.publish(fmt.Sprint("t/", i), "m", 0, retained, lives(10))
	}
	r.now += 10_000
	total, ticks := 0, 0
	for {
		at, ok := r.m.NextDeadline()
		if !ok || at > r.now {
			break
		}
		fx := r.apply(record.Tick{})
		n := len(fx.Ended) + len(fx.WillsDue) + len(fx.RetainedExpired)
		if work := 2*len(fx.Ended) + n; n == 0 || work > ExpirePerTick+2 {
			t.Fatalf("Tick %d did %d, counting subscriptions %d", ticks, n, work)
		}
		total += n
		ticks++
	}
	r.equal("expired", total, sessions+wills+topics)
	r.equal("ticks", ticks, 2)
	r.equal("left", r.m.Counts(), Counts{Sessions: wills, Wills: wills})
}

// The messages of a session that ended go a few per record, by Ticks when
// nothing else happens, and the hash is that of what is left in between.
func TestRelease_Bounded(t *testing.T) {
	r := newRig(t)
	a := r.connect("a")
	a.subscribe("x", qos1)
	const n = 3*ReleasePerRecord + ExpirePerTick
	for range n {
		r.publish("x", "m", 1)
	}
	r.apply(&record.SessionRemove{ClientID: []byte("a")})
	left := func() int { return r.m.Counts().Messages }
	r.equal("after its end", left(), n-ReleasePerRecord)
	r.equal("ending", r.m.Counts().Ending, 1)
	r.equal("queued", r.m.Counts().Queued+r.m.Counts().Inflight, 0)
	r.apply(&record.StateHash{})
	r.equal("after another record", left(), n-2*ReleasePerRecord)
	r.reload()
	_, due := r.m.NextDeadline()
	r.equal("due", due, true)
	r.apply(record.Tick{})
	r.equal("after a Tick", left(), 0)
	_, due = r.m.NextDeadline()
	r.equal("due", due, false)
	r.equal("counts", r.m.Counts(), Counts{})
}

// UNSUBSCRIBE from a group gives back so many messages; the others are still
// delivered.
func TestUnsubscribe_Bounded(t *testing.T) {
	r := newRig(t)
	a, b := r.connect("a", receiveMaximum(1)), r.connect("b")
	a.subscribe("$share/g/x", qos1)
	b.subscribe("$share/g/x", qos1)
	const n = GiveBackPerFilter + 100
	for range n {
		r.publish("x", "m", 1, to("g", "x", a))
	}
	a.unsubscribe("$share/g/x")
	r.equal("waiting", len(r.m.Waiting(groupKey, n)), GiveBackPerFilter)
	r.equal("queued", a.session().Out.Queued(), n-1-GiveBackPerFilter)
}

// A queue full of expired messages is cleared a bounded number at a time; the
// broker's Acks lead on.
func TestFill_Bounded(t *testing.T) {
	r := newRig(t)
	a := r.connect("a")
	a.subscribe("x", qos1)
	a.disconnect(true)
	const n = 3*DropsPerFill + 5
	for range n {
		r.publish("x", "m", 1, lives(1))
	}
	r.now += 2000
	a = r.connect("a", receiveMaximum(2))
	drops := len(r.fx.Dropped)
	r.equal("drops at once", drops, DropsPerFill)
	for rounds := 0; a.session().Out.Queued()+len(a.session().Out.Inflight()) > 0; rounds++ {
		if rounds > n {
			t.Fatal("it does not end")
		}
		r.apply(&record.Ack{
			Session: a.sid, Epoch: a.epoch, Reason: record.AckExpired,
			Runs: []record.Run{{First: a.session().Out.Inflight()[0].PID, Count: 1}},
		})
		if drops += len(r.fx.Dropped); len(r.fx.Dropped) > DropsPerFill+1 {
			t.Fatalf("%d drops by one record", len(r.fx.Dropped))
		}
	}
	r.equal("drops", drops, n)
}

// Making room for one large message in a queue of small ones is bounded too.
func TestPush_Bounded(t *testing.T) {
	r := newRig(t, func(l *record.Limits) { l.QueueBytes, l.DropOldest = 10_000, true })
	a := r.connect("a")
	a.subscribe("x", qos1)
	a.disconnect(true)
	for range 1000 {
		r.publish("x", "123456", 1)
	}
	r.publish("x", fmt.Sprintf("%9000d", 0), 1)
	r.equal("drops", len(r.fx.Dropped), DropsPerPush+1) // it gives up, and the new one goes
	r.equal("queued", a.session().Out.Queued(), 1000-DropsPerPush)
}

// Deadlines do not pile up with reconnects: there is one of a kind for a
// session.
func TestDeadlines_DoNotPileUp(t *testing.T) {
	r := newRig(t)
	for range 1000 {
		r.connect("a", expiry(86400), withWill(3600)).disconnect(false)
		r.now += 1000
	}
	r.equal("deadlines", len(r.m.due), 2)
	r.connect("a", expiry(session.Forever))
	r.equal("deadlines", len(r.m.due), 0)
}

// The list of new messages does not grow with those that came and went.
func TestChanges_DoNotPileUp(t *testing.T) {
	r := newRig(t)
	a := r.connect("a")
	a.subscribe("x", qos1)
	r.m.Collect(newBackend(t.Fatalf))
	r.publish("x", "stays", 1)
	for i := range 10_000 {
		r.publish("x", "m", 1)
		a.ack(uint16(i + 2))
	}
	if n := len(r.m.changed.messages); n > 2*messagesKeep {
		t.Errorf("%d notes of one new message", n)
	}
	r.equal("changed", r.m.Changed(), 3) // message, entry, session
	b := newBackend(t.Fatalf)
	r.m.Collect(b)
	r.equal("collected", len(b.entries), 3)
	r.publish("x", "m", 1)
	r.m.Collect(newBackend(t.Fatalf))
	r.equal("changed", r.m.Changed(), 0)
}

// Very many retained messages for a new subscription come bit by bit, each
// once, whatever is published, lost or restarted meanwhile; the end of the
// subscription ends them [MQTT-3.3.1-9] [MQTT-3.10.4-2].
func TestSubscribe_MQTT_3_3_1_9_ManyRetained(t *testing.T) {
	r := newRig(t)
	const n = 3 * RetainedAtOnce
	for i := range n {
		r.publish(fmt.Sprintf("t/%04d", i), "old", 1, retained)
	}
	a, b := r.connect("a"), r.connect("b")
	a.subscribe("t/#", qos2, 7)
	b.subscribe("#", qos1)
	r.equal("at once", a.session().Out.Queued()+len(a.session().Out.Inflight()), RetainedAtOnce+2*ReleasePerRecord)
	at, due := r.m.NextDeadline()
	r.equal("a Tick is due", []any{at, due}, []any{r.m.Now(), true})

	r.publish("t/2900", "new", 1, retained) // not looked at yet: it is delivered now, and not again
	r.publish("t/2901", "", 1, retained)    // removed before its turn
	r.publish("t/0001", "new", 1, retained) // had its turn
	a.disconnect(true)
	r.reload()
	b.unsubscribe("#")
	for range 10 {
		r.apply(record.Tick{})
	}
	_, due = r.m.NextDeadline()
	r.equal("due", due, false)
	if err := r.m.Check(); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	a.session().Out.All(func(e *session.Entry[uint64]) bool {
		r.equal("QoS, identifier", []any{e.QoS, e.SubID}, []any{1, 7})
		got[fmt.Sprint(r.payload[e.Msg], e.Retain)]++
		return true
	})
	r.equal("messages", got, map[string]int{"oldtrue": n - 2, "newfalse": 2, "false": 1})
	rest := b.session().Out.Queued() + len(b.session().Out.Inflight())
	if rest < RetainedAtOnce || rest > RetainedAtOnce+8*ReleasePerRecord {
		t.Errorf("%d messages for a subscription that ended", rest)
	}
}

// One SUBSCRIBE has one allowance for all its filters, and they take their
// turns afterwards.
func TestSubscribe_ManyFilters(t *testing.T) {
	r := newRig(t)
	const n = RetainedAtOnce - 10
	for i := range n {
		r.publish(fmt.Sprint("t/", i), "m", 1, retained)
	}
	a := r.connect("a")
	s := record.Subscribe{Session: a.sid, Epoch: a.epoch}
	for _, f := range []string{"t/#", "t/+", "#", "+/+"} {
		s.Filters = append(s.Filters, record.Filter{Name: []byte(f), Options: qos1})
	}
	r.apply(&s)
	had := func() int { return a.session().Out.Queued() + len(a.session().Out.Inflight()) }
	if at := had(); at < n || at > n+ReleasePerRecord+20 {
		t.Errorf("%d at once", at)
	}
	for range 10 {
		r.apply(record.Tick{})
	}
	r.equal("in the end", had(), 4*n)
}
