package core

import (
	"fmt"
	"testing"

	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// dueWills lists the wills that are due.
func (r *rig) dueWills() string {
	var got []string
	for _, id := range r.m.PendingDue() {
		d, _ := r.m.Due(id)
		got = append(got, d.ClientID)
	}
	return fmt.Sprint(got)
}

// Without a delay the will falls due when the connection ends, however it
// does, but for DISCONNECT with reason 0x00; it is published once, and gone
// then [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.14.4-3].
func TestWill_MQTT_3_1_2_8(t *testing.T) {
	r := newRig(t)
	watch := r.connect("watch")
	watch.subscribe("will/+", qos1)
	a := r.connect("a", withWill(0))
	r.equal("dropped", len(a.disconnect(true).WillsDue), 0)
	r.equal("due", r.dueWills(), "[]")
	a = r.connect("a", withWill(0))
	fx := a.disconnect(false)
	r.equal("due", r.dueWills(), "[a]")
	id := fx.WillsDue[0]
	r.reload()
	d, ok := r.m.Due(id)
	r.equal("after a restart", []any{d.ClientID, d.User, d.Will.QoS, ok}, []any{"a", "user", 1, true})
	r.publishWills()
	watch.wants("1:gone/1")
	r.equal("due", r.dueWills(), "[]")
	r.publish("will/a", "again", 1, func(p *record.Publish) { p.WillOf = id })
	r.equal("published again", r.fx.Reply.Stale, true)
	watch.wants("1:gone/1")
	r.equal("kept", r.m.Counts().Wills, 0)
	a.r.connect("a")
	r.equal("a new connection has none", len(r.m.SessionOf("a").Will.Message), 0)
}

// A will with a delay falls due after it, or with the session's end if that
// comes first [MQTT-3.1.3-9].
func TestWill_MQTT_3_1_3_9_Delay(t *testing.T) {
	r := newRig(t)
	a := r.connect("a", withWill(10))
	b := r.connect("b", withWill(10), expiry(5))
	a.disconnect(false)
	b.disconnect(false)
	r.after(4)
	r.equal("due", r.dueWills(), "[]")
	r.reload()
	r.after(1)
	r.equal("due", r.dueWills(), "[b]")
	r.equal("ended", r.fx.Ended[0].Session, b.sid)
	r.after(4)
	r.equal("due", r.dueWills(), "[b]")
	r.after(1)
	r.equal("due", r.dueWills(), "[b a]")
	_, more := r.m.NextDeadline()
	r.equal("more", more, false)
}

// A client that is back before the delay has passed takes its will with it
// [MQTT-3.1.3-9]; a clean start ends the session, and so lets it fall due
// [MQTT-3.1.2-8].
func TestWill_MQTT_3_1_3_9_Return(t *testing.T) {
	r := newRig(t)
	r.connect("a", withWill(10)).disconnect(false)
	r.connect("a")
	r.after(60)
	r.equal("due after a return", r.dueWills(), "[]")
	r.connect("b", withWill(10)).disconnect(false)
	r.connect("b", cleanStart)
	r.equal("due after a clean start", r.dueWills(), "[b]")
}

// Takeover: the old connection's will is published when it has no delay, and
// also with one when the new connection begins a new session (section 3.1.4).
func TestWill_3_1_4_Takeover(t *testing.T) {
	r := newRig(t)
	r.connect("now", withWill(0))
	r.connect("now", withWill(0))
	r.equal("without a delay", r.dueWills(), "[now]")
	r.connect("later", withWill(10))
	r.connect("later")
	r.equal("with a delay", r.dueWills(), "[now]")
	r.connect("clean", withWill(10))
	r.connect("clean", cleanStart)
	r.equal("with a delay, clean start", r.dueWills(), "[now clean]")
	r.after(3600)
	r.equal("later", r.dueWills(), "[now clean]")
}

// Clients that a crash cut off have the grace to return before their wills
// are published, those with a session expiry of 0 too.
func TestWill_RestartGrace(t *testing.T) {
	for _, back := range []bool{false, true} {
		r := newRig(t) // grace 30 s
		r.connect("a", withWill(0))
		r.connect("long", withWill(40))
		r.connect("zero", withWill(0), expiry(0))
		r.connect("soon", withWill(0), expiry(20))
		r.start()
		r.equal("due at the start", r.dueWills(), "[]")
		r.equal("of zero", len(r.m.WillsOf("zero")), 1)
		if back {
			for _, name := range []string{"a", "long", "zero", "soon"} {
				r.connect(name)
			}
			r.after(3600)
			r.equal("due", r.dueWills(), "[]")
			continue
		}
		r.reload()
		r.after(20)
		r.equal("due after 20 s", r.dueWills(), "[soon]") // its session ended
		r.after(9)
		r.equal("due after 29 s", r.dueWills(), "[soon]")
		r.after(1)
		r.equal("due after 30 s", r.dueWills(), "[zero soon a]")
		r.after(10)
		r.equal("due after 40 s", r.dueWills(), "[zero soon a long]")
	}
}

// The logged will of an ephemeral client: gone with DISCONNECT 0x00, due with
// any other end at once, and after the grace when a crash ended it, unless
// the client returns.
func TestWill_Ephemeral(t *testing.T) {
	r := newRig(t)
	log := func(client string, epoch record.Epoch) {
		r.apply(&record.LoggedWill{Epoch: epoch, ClientID: []byte(client), User: []byte("u"), Will: record.Will{
			QoS: 1, Delay: 1000, Message: message5("w", "gone"),
		}})
	}
	log("good", 11)
	log("bad", 12)
	r.apply(&record.Disconnect{Epoch: 11, DropWill: true})
	r.apply(&record.Disconnect{Epoch: 12})
	r.equal("due", r.dueWills(), "[bad]") // no session, no delay (section 3.1.3.2.2)
	r.equal("ended twice", r.apply(&record.Disconnect{Epoch: 12}).Reply.Stale, true)
	r.publishWills()

	log("twice", 13)
	log("twice", 13) // a connection has one will
	r.equal("wills", r.m.Counts().Wills, 1)
	log("back", 14)
	log("removed", 15)
	r.reload()
	r.start()
	r.equal("connections", r.apply(&record.Disconnect{Epoch: 13}).Reply.Stale, true)
	r.connect("back")
	r.apply(&record.SessionRemove{ClientID: []byte("removed")}) // returned without a durable session
	r.after(29)
	r.equal("due", r.dueWills(), "[]")
	r.after(1)
	r.equal("due", r.dueWills(), "[twice]")
	log("nobody", 0)
	r.equal("of no connection", r.m.Counts().Wills, 1)
}

// The broker may decide against a will, and the will of a client does not
// come back to it by a No Local subscription of its session.
func TestWill_Withdrawn(t *testing.T) {
	r := newRig(t)
	r.connect("a", withWill(0))
	r.connect("a").subscribe("will/a", qos1|topic.NoLocal)
	id := r.m.PendingDue()[0]
	r.publishWills()
	r.equal("No Local", len(r.m.SessionOf("a").Out.Inflight()), 0)
	r.equal("published", r.fx.Reply.Matched, 1)
	b := r.connect("b", withWill(0))
	b.disconnect(false)
	r.equal("ids differ", r.m.PendingDue()[0] > id, true)
	r.apply(&record.Publish{WillOf: r.m.PendingDue()[0]})
	r.equal("due", r.dueWills(), "[]")
	r.equal("messages", r.m.Counts().Messages, 0)
}
