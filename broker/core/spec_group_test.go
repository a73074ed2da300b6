package core

import (
	"fmt"
	"testing"

	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

var groupKey = GroupKey{"g", "x"}

// ephemeral chooses an ephemeral member of the group g of x.
func ephemeralMember(epoch record.Epoch, qos uint8) publishOption {
	return func(p *record.Publish) {
		p.Choices = append(p.Choices, record.Choice{Share: []byte("g"), Filter: []byte("x"), Epoch: epoch, QoS: qos})
	}
}

func (r *rig) dispatchTo(c *client, id uint64) *Effects {
	return r.apply(&record.Dispatch{Share: []byte("g"), Filter: []byte("x"), Message: id, Session: c.sid})
}

func (r *rig) dispatchEphemeral(epoch record.Epoch, id uint64) *Effects {
	return r.apply(&record.Dispatch{Share: []byte("g"), Filter: []byte("x"), Message: id, Epoch: epoch})
}

func (r *rig) takeBack(from record.Epoch, id uint64) *Effects {
	return r.apply(&record.Dispatch{Share: []byte("g"), Filter: []byte("x"), Message: id, From: from})
}

// waiting lists what waits in the group g of x.
func (r *rig) waiting() string {
	var got []string
	for _, id := range r.m.Waiting(groupKey, 100) {
		got = append(got, r.payload[id])
	}
	return fmt.Sprint(got)
}

// A member gets a message with at most its own granted QoS [MQTT-4.8.2-3],
// with its identifier, and no other member does.
func TestGroup_MQTT_4_8_2_3_QoS(t *testing.T) {
	r := newRig(t)
	a, b := r.connect("a"), r.connect("b")
	a.subscribe("$share/g/x", qos1|topic.RetainAsPublished, 7)
	b.subscribe("$share/g/x", qos2)
	r.publish("x", "m1", 2, to("g", "x", a))
	r.publish("x", "m2", 2, to("g", "x", b))
	r.publish("x", "m3", 2, to("g", "x", a), retained)
	a.wants("1:m1/1#7", "2:m3/1r#7")
	b.wants("1:m2/2")
	r.equal("matched", r.fx.Reply.Matched, 1)
	// Two groups, and a subscription of its own, are three deliveries.
	c := r.connect("c")
	c.subscribe("$share/h/x", qos1)
	c.subscribe("$share/g/x", qos2)
	c.subscribe("x", topic.MakeOptions(1, topic.RetainDoNotSend, 0))
	r.publish("x", "m4", 2, to("g", "x", c), to("h", "x", c))
	c.wants("1:m4/1", "2:m4/2", "3:m4/1")
}

// QoS 0, and a group without a durable member, are the broker's to deliver.
func TestGroup_NothingDurable(t *testing.T) {
	r := newRig(t)
	e := r.m.Attach(5)
	r.m.SubscribeEphemeral(e, "$share/g/x", qos2, 0, &r.fx)
	r.publish("x", "m1", 2)
	r.equal("groups", len(r.fx.Groups), 1)
	r.equal("kept", r.m.Counts().Messages, 0)
	r.equal("durable", r.m.HasDurable(groupKey), false)
	a := r.connect("a")
	a.subscribe("$share/g/x", qos2)
	r.equal("durable", r.m.HasDurable(groupKey), true)
	r.publish("x", "m0", 0)
	r.equal("groups", len(r.fx.Groups), 1)
	r.publish("x", "m1", 1)
	r.equal("groups", len(r.fx.Groups), 0)
	r.equal("waiting", r.waiting(), "[m1]")
	r.equal("waits", r.fx.Waiting, []GroupKey{groupKey})
}

// What nobody was chosen for, or one who is no member, waits in order and is
// given out by Dispatch.
func TestGroup_Waiting(t *testing.T) {
	r := newRig(t)
	a, b := r.connect("a"), r.connect("b")
	a.subscribe("$share/g/x", qos2)
	r.publish("x", "m1", 2)
	r.publish("x", "m2", 1, to("g", "x", b)) // no member
	r.publish("x", "m3", 1, to("g", "y", a)) // of another group
	r.publish("x", "m4", 1)
	r.equal("waiting", r.waiting(), "[m1 m2 m3 m4]")
	r.equal("groups that wait", r.m.PendingGroups(), []GroupKey{groupKey})
	ids := r.m.Waiting(groupKey, 2)
	r.equal("limited", len(ids), 2)
	r.reload()
	fx := r.dispatchTo(a, ids[1])
	r.equal("reply", []any{fx.Reply.Known, fx.Reply.Message}, []any{true, ids[1]})
	r.equal("to a stranger", r.dispatchTo(b, ids[0]).Reply.Known, false)
	r.equal("waits on", r.fx.Waiting, []GroupKey{groupKey})
	r.equal("gone", r.dispatchTo(a, ids[1]).Reply.Known, false)
	r.dispatchTo(a, ids[0])
	a.wants("1:m2/1", "2:m1/2")
	r.equal("waiting", r.waiting(), "[m3 m4]")
	b.subscribe("$share/g/x", qos1)
	r.equal("a new member is told", r.fx.Waiting, []GroupKey{groupKey})
	b.disconnect(true)
	r.connect("b")
	r.equal("one that returns is told", r.fx.Waiting, []GroupKey{groupKey})
}

// An ephemeral member owns what it was given until it acknowledges it, or
// leaves; its epoch alone may say so.
func TestGroup_EphemeralMember(t *testing.T) {
	r := newRig(t)
	a := r.connect("a")
	a.subscribe("$share/g/x", qos2)
	a.disconnect(true)
	r.publish("x", "m1", 2, ephemeralMember(5, 0))
	m1 := r.m.Applied()
	r.equal("owned", r.fx.Owned, []Owned{{Group: groupKey, Epoch: 5, Message: m1, QoS: 2}})
	r.equal("owned by", r.m.OwnedBy(groupKey, 5), r.fx.Owned)
	r.publish("x", "m2", 1, retained)
	m2 := r.m.Applied()
	r.equal("dispatched", r.dispatchEphemeral(6, m2).Owned, []Owned{{Group: groupKey, Epoch: 6, Message: m2, QoS: 1, Retain: true}})
	r.equal("waiting", r.waiting(), "[]")
	r.equal("given away twice", r.dispatchEphemeral(7, m2).Reply.Known, false)

	ack := func(epoch record.Epoch, id uint64) bool {
		return r.apply(&record.Ack{Epoch: epoch, Share: []byte("g"), Filter: []byte("x"), Message: id}).Reply.Known
	}
	r.equal("another's ack", ack(6, m1), false)
	r.equal("own ack", ack(5, m1), true)
	r.equal("again", ack(5, m1), false)
	r.equal("taken from another", r.takeBack(5, m2).Reply.Known, false)
	r.equal("taken back", r.takeBack(6, m2).Reply.Known, true)
	r.equal("waiting", r.waiting(), "[m2]")
	r.equal("an ack too late", ack(6, m2), false)
	r.equal("messages", r.m.Counts().Messages, 1)
}

// A start takes back what ephemeral members had, but for QoS 2 deliveries,
// which may have begun and die with their session [MQTT-4.8.2-5].
func TestGroup_MQTT_4_8_2_5_ServerStart(t *testing.T) {
	r := newRig(t)
	a := r.connect("a")
	a.subscribe("$share/g/x", qos2)
	r.publish("x", "begun", 2, ephemeralMember(5, 2))
	r.publish("x", "as QoS 1", 2, ephemeralMember(5, 1))
	r.publish("x", "unknown", 2, ephemeralMember(5, 0))
	r.publish("x", "QoS 1", 1, ephemeralMember(6, 2))
	r.publish("x", "waits", 2)
	r.reload()
	r.start()
	r.equal("waiting", r.waiting(), "[as QoS 1 QoS 1 waits]")
}

// The end of a member gives what it has back to the group, in its old place,
// but for QoS 2 deliveries that began: those die with it [MQTT-4.8.2-4]
// [MQTT-4.8.2-5]. The message keeps its own QoS and RETAIN flag.
func TestGroup_MQTT_4_8_2_4_MemberEnds(t *testing.T) {
	r := newRig(t)
	a, b := r.connect("a", receiveMaximum(2)), r.connect("b")
	a.subscribe("$share/g/x", qos1)
	b.subscribe("$share/g/x", qos2|topic.RetainAsPublished)
	r.publish("x", "m1", 2, to("g", "x", a), retained)
	r.publish("x", "m2", 2)
	a.subscribe("$share/g/x", qos2)
	r.publish("x", "m3", 2, to("g", "x", a))
	r.publish("x", "m4", 2, to("g", "x", a))
	a.wants("1:m1/1", "2:m3/2", "m4/2")
	m1, m4 := r.m.Applied()-4, r.m.Applied()
	a.disconnect(true)
	r.equal("a member that is away keeps all", r.waiting(), "[m2]")
	r.apply(&record.SessionRemove{ClientID: []byte("a")})
	r.equal("waiting", r.waiting(), "[m1 m2 m4]")
	r.equal("told", r.fx.Waiting, []GroupKey{groupKey})
	r.dispatchTo(b, m4)
	r.dispatchTo(b, m1)
	b.wants("1:m4/2", "2:m1/2r")
}

// A message that a member refuses is discarded [MQTT-4.8.2-6].
func TestGroup_MQTT_4_8_2_6_Refused(t *testing.T) {
	r := newRig(t)
	a, b := r.connect("a"), r.connect("b")
	a.subscribe("$share/g/x", qos2)
	b.subscribe("$share/g/x", qos2)
	r.publish("x", "m", 2, to("g", "x", a))
	a.rec(1, 0x80)
	r.equal("messages", r.m.Counts().Messages, 0)
	b.wants()
}

// UNSUBSCRIBE gives back what is queued; what is in flight is completed
// [MQTT-3.10.4-3], and goes back at the session's end if it is QoS 1.
func TestGroup_Unsubscribe(t *testing.T) {
	r := newRig(t)
	a, b := r.connect("a", receiveMaximum(1)), r.connect("b")
	a.subscribe("$share/g/x", qos1)
	a.subscribe("x", qos1)
	b.subscribe("$share/g/x", qos1)
	r.publish("x", "m1", 1, to("g", "x", a))
	r.publish("x", "m2", 1, to("g", "x", a))
	a.wants("1:m1/1", "m1/1", "m2/1", "m2/1")
	a.ack(1)
	a.wants("2:m1/1", "m2/1", "m2/1") // in flight is that of the group
	a.unsubscribe("$share/g/x")
	a.wants("2:m1/1", "m2/1")
	r.equal("waiting", r.waiting(), "[m2]")
	r.apply(&record.SessionRemove{ClientID: []byte("a")})
	r.equal("waiting", r.waiting(), "[m1 m2]")
}

// The last durable member takes the group's state with it: what waits is
// offered to ephemeral members, once.
func TestGroup_LastMember(t *testing.T) {
	r := newRig(t)
	a := r.connect("a")
	a.subscribe("$share/g/x", qos1)
	r.publish("x", "owned", 2, ephemeralMember(5, 0))
	r.publish("x", "waits", 2)
	r.publish("x", "queued", 2, to("g", "x", a))
	a.session().Out.Reconnected()
	fx := a.unsubscribe("$share/g/x")
	r.equal("orphans", fx.Orphans, []Owned{{Group: groupKey, Message: r.m.Applied() - 2, QoS: 2}})
	a.wants("1:queued/1") // in flight
	fx = r.apply(&record.SessionRemove{ClientID: []byte("a")})
	r.equal("orphans", fx.Orphans, []Owned{{Group: groupKey, Message: r.m.Applied() - 2, QoS: 2}})
	r.equal("counts", r.m.Counts(), Counts{})
}

// A group whose last durable member left with much to wait for ends bit by
// bit, also across a restart, and goes on when a member comes in time.
func TestGroup_Dissolves(t *testing.T) {
	r := newRig(t)
	a := r.connect("a")
	a.subscribe("$share/g/x", qos1)
	const n = 5 * ReleasePerRecord
	for i := range n {
		r.publish("x", fmt.Sprint(i), 1)
	}
	fx := a.unsubscribe("$share/g/x")
	orphans := len(fx.Orphans)
	r.equal("at once", orphans, ReleasePerRecord)
	r.equal("durable", r.m.HasDurable(groupKey), false)
	at, due := r.m.NextDeadline()
	r.equal("a Tick is due", []any{at, due}, []any{r.m.Now(), true})
	r.publish("x", "m", 1)
	r.equal("nothing durable", len(r.fx.Groups)+len(r.fx.Waiting), 0)
	orphans += len(r.fx.Orphans)
	r.reload()
	orphans += len(r.apply(&record.StateHash{}).Orphans)
	r.equal("in three records", orphans, 3*ReleasePerRecord)
	if err := r.m.Check(); err != nil {
		t.Fatal(err)
	}
	a.subscribe("$share/g/x", qos1)
	r.equal("what is left waits again", len(r.m.Waiting(groupKey, n)), n-3*ReleasePerRecord)
	r.equal("pending", r.m.Counts().Pending, n-3*ReleasePerRecord)
	_, due = r.m.NextDeadline()
	r.equal("nothing due", due, false)
	a.unsubscribe("$share/g/x")
	r.equal("the rest", len(r.after(0).Orphans), n-4*ReleasePerRecord)
	r.equal("counts", r.m.Counts(), Counts{Sessions: 1, Connected: 1})
}

// The limits of a queue hold for what waits in a group, not for what a member
// has.
func TestGroup_Full(t *testing.T) {
	for _, oldest := range []bool{false, true} {
		r := newRig(t, func(l *record.Limits) { l.QueueMessages, l.DropOldest = 2, oldest })
		a := r.connect("a")
		a.subscribe("$share/g/x", qos1)
		r.publish("x", "owned", 1, ephemeralMember(5, 0))
		r.publish("x", "m1", 1)
		r.publish("x", "m2", 1)
		r.equal("waiting", r.waiting(), map[bool]string{false: "[m1]", true: "[m2]"}[oldest])
		r.equal("drops", r.drops(), map[bool]string{false: "m2:queue-full", true: "m1:queue-full"}[oldest])
		r.equal("nobody's", r.fx.Dropped[0].Ref, uint32(NoRef))
		r.publish("x", "owned too", 1, ephemeralMember(5, 0))
		r.equal("drops", r.drops(), "")
	}
}

// A message that expired while it waited is not given out [MQTT-3.3.2-5].
func TestGroup_MQTT_3_3_2_5_Expired(t *testing.T) {
	r := newRig(t)
	a := r.connect("a")
	a.subscribe("$share/g/x", qos1)
	r.publish("x", "m", 1, lives(10))
	id := r.m.Applied()
	r.now += 10_000
	r.equal("known", r.dispatchTo(a, id).Reply.Known, false)
	r.equal("drops", r.drops(), "m:expired")
	r.equal("messages", r.m.Counts().Messages, 0)
}

// The order in which groups of one filter get a message does not depend on
// the order in which they came to be.
func TestGroup_OrderAfterRestart(t *testing.T) {
	r := newRig(t)
	x, a := r.connect("x"), r.connect("a")
	x.subscribe("$share/g/x", qos1)
	a.subscribe("$share/h/x", qos1)
	x.unsubscribe("$share/g/x")
	a.subscribe("$share/g/x", qos2) // now the second of the two in the index
	m := r.m
	r.publish("x", "m", 2, to("g", "x", a), to("h", "x", a))
	a.wants("1:m/2", "2:m/1")
	rec := (&record.Publish{QoS: 2, Message: message5("x", "m"), Choices: []record.Choice{
		{Share: []byte("h"), Filter: []byte("x"), Session: a.sid}, {Share: []byte("g"), Filter: []byte("x"), Session: a.sid},
	}}).AppendTo(nil)
	r.reload()
	for _, m := range []*Machine{m, r.m} {
		if err := m.Apply(m.Applied()+1, r.now, rec, &r.fx); err != nil {
			t.Fatal(err)
		}
	}
	if m.Hash(&worldHashKey) != r.m.Hash(&worldHashKey) {
		t.Error("a loaded machine delivers in another order")
	}
	for range 2 {
		r.payload[r.m.Applied()] = "m"
	}
	a.wants("1:m/2", "2:m/1", "3:m/2", "4:m/1")
}
