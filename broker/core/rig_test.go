package core

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// rig is a machine that a test talks to in MQTT's words.
type rig struct {
	t       testing.TB
	m       *Machine
	fx      Effects
	now     int64
	conns   uint32
	payload map[uint64]string // of each message
}

func newRig(t testing.TB, mod ...func(*record.Limits)) *rig {
	r := &rig{t: t, m: New(), now: 1_000_000, payload: map[uint64]string{}}
	l := record.Limits{MaxInflight: 256, SessionExpiryMax: session.Forever, RestartGrace: 30}
	for _, f := range mod {
		f(&l)
	}
	r.apply(&record.Genesis{FeatureLevel: FeatureLevel, Limits: l})
	r.start()
	if t, ok := t.(*testing.T); ok {
		t.Cleanup(func() {
			if err := r.m.Check(); err != nil {
				t.Error(err)
			}
		})
	}
	return r
}

// apply applies a record and returns what it asks for.
func (r *rig) apply(rec encoder) *Effects {
	r.t.Helper()
	if err := r.m.Apply(r.m.Applied()+1, r.now, rec.AppendTo(nil), &r.fx); err != nil {
		r.t.Fatalf("apply %+v: %v", rec, err)
	}
	return &r.fx
}

// start is a start of the broker, after a crash or not.
func (r *rig) start() *Effects {
	return r.apply(&record.ServerStart{Boot: r.m.Boot() + 1, Wall: r.now})
}

// after lets seconds pass and everything fall due.
func (r *rig) after(seconds int64) *Effects {
	r.now += seconds * 1000
	return r.apply(record.Tick{})
}

// reload writes the state down and loads it.
func (r *rig) reload() {
	r.t.Helper()
	b := newBackend(r.t.Fatalf)
	r.m.Export(func(table byte, key, value []byte) { b.Put(table, key, value, true) })
	m, err := Load(b.scan, r.m.Applied(), r.m.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	r.m = m
}

// client is a client with a durable session.
type client struct {
	r     *rig
	id    string
	epoch record.Epoch
	sid   uint64
}

type connectOption = func(*record.Connect)

func expiry(seconds uint32) connectOption { return func(c *record.Connect) { c.Expiry = seconds } }

func cleanStart(c *record.Connect) { c.CleanStart = true }

func receiveMaximum(n uint16) connectOption { return func(c *record.Connect) { c.ReceiveMaximum = n } }

func user(name string) connectOption { return func(c *record.Connect) { c.User = []byte(name) } }

func withWill(delay uint32) connectOption {
	return func(c *record.Connect) {
		c.HasWill = true
		c.Will = record.Will{QoS: 1, Delay: delay, Message: message5("will/"+string(c.ClientID), "gone")}
	}
}

// connect connects a client, with a session that never expires.
func (r *rig) connect(id string, opts ...connectOption) *client {
	r.t.Helper()
	r.conns++
	c := record.Connect{
		Epoch: record.NewEpoch(r.m.Boot(), r.conns), ClientID: []byte(id), User: []byte("user"), Version: 5,
		Expiry: session.Forever, ReceiveMaximum: 65535,
	}
	for _, o := range opts {
		o(&c)
	}
	fx := r.apply(&c)
	return &client{r, id, c.Epoch, fx.Reply.Session}
}

// session returns the client's session, nil when it has ended.
func (c *client) session() *session.Session { return c.r.m.sessions[c.sid] }

// disconnect closes the connection; dropWill with a DISCONNECT of reason 0x00.
func (c *client) disconnect(dropWill bool) *Effects {
	return c.r.apply(&record.Disconnect{Session: c.sid, Epoch: c.epoch, DropWill: dropWill})
}

func (c *client) subscribe(filter string, opts topic.Options, id ...uint32) *Effects {
	rec := record.Subscribe{
		Session: c.sid, Epoch: c.epoch, PacketID: 9, Filters: []record.Filter{{Name: []byte(filter), Options: opts}},
	}
	if len(id) > 0 {
		rec.ID = id[0]
	}
	return c.r.apply(&rec)
}

func (c *client) unsubscribe(filters ...string) *Effects {
	rec := record.Unsubscribe{Session: c.sid, Epoch: c.epoch, PacketID: 10}
	for _, f := range filters {
		rec.Filters = append(rec.Filters, []byte(f))
	}
	return c.r.apply(&rec)
}

func (c *client) ack(pids ...uint16) *Effects {
	a := record.Ack{Session: c.sid, Epoch: c.epoch}
	for _, pid := range pids {
		a.Add(pid)
	}
	return c.r.apply(&a)
}

func (c *client) rec(pid uint16, code uint8) *Effects {
	return c.r.apply(&record.Rec{Session: c.sid, Epoch: c.epoch, PacketID: pid, Code: code})
}

type publishOption = func(*record.Publish)

func retained(p *record.Publish) { p.Retain = true }

func lives(seconds uint32) publishOption {
	return func(p *record.Publish) { p.HasExpiry, p.Expiry = true, seconds }
}

func (c *client) asPublisher(p *record.Publish) { p.Session, p.Epoch = c.sid, c.epoch }

func packetID(pid uint16) publishOption { return func(p *record.Publish) { p.PacketID = pid } }

// to chooses a durable member of a group.
func to(share, filter string, c *client) publishOption {
	return func(p *record.Publish) {
		p.Choices = append(p.Choices, record.Choice{Share: []byte(share), Filter: []byte(filter), Session: c.sid})
	}
}

// publish publishes a message of nobody in particular.
func (r *rig) publish(name, payload string, qos uint8, opts ...publishOption) *Effects {
	r.t.Helper()
	p := record.Publish{QoS: qos, Message: message5(name, payload)}
	for _, o := range opts {
		o(&p)
	}
	r.payload[r.m.Applied()+1] = payload
	return r.apply(&p)
}

// publishWills publishes every will that is due, as the broker does.
func (r *rig) publishWills() {
	for _, id := range r.m.PendingDue() {
		d, _ := r.m.Due(id)
		msg, err := packets.ParseMessage(d.Will.Message)
		if err != nil {
			r.t.Fatal(err)
		}
		r.payload[r.m.Applied()+1] = string(msg.Payload)
		r.apply(&record.Publish{WillOf: id, QoS: d.Will.QoS, Retain: d.Will.Retain, Message: d.Will.Message})
	}
}

// wants fails unless the session holds these deliveries, in flight first:
// "1:payload/2" is identifier 1 and QoS 2, without identifier it is queued;
// "r" follows for RETAIN, "+" for PUBREC taken, "#4" for an identifier of a
// subscription.
func (c *client) wants(want ...string) {
	c.r.t.Helper()
	var got []string
	if s := c.session(); s != nil {
		s.Out.All(func(e *session.Entry[uint64]) bool {
			var b strings.Builder
			if e.PID != 0 {
				fmt.Fprintf(&b, "%d:", e.PID)
			}
			fmt.Fprintf(&b, "%s/%d", c.r.payload[e.Msg], e.QoS)
			if e.Retain {
				b.WriteString("r")
			}
			if e.Phase == session.PhaseRelease {
				b.WriteString("+")
			}
			for _, id := range idsOf(&s.Out, e) {
				fmt.Fprintf(&b, "#%d", id)
			}
			got = append(got, b.String())
			return true
		})
	}
	if g, w := strings.Join(got, " "), strings.Join(want, " "); g != w {
		c.r.t.Errorf("%s has [%s], want [%s]", c.id, g, w)
	}
}

// directs lists the deliveries without state in the last effects, by the
// names that of gives to slots: "name/qos", "r" for RETAIN, "#4" for ids.
func (r *rig) directs(of map[uint32]string) string {
	var got []string
	for i := range r.fx.Direct {
		d := &r.fx.Direct[i]
		s := fmt.Sprintf("%s/%d", of[d.Ref], d.QoS)
		if d.Retain {
			s += "r"
		}
		for _, id := range d.IDs(&r.fx) {
			s += fmt.Sprintf("#%d", id)
		}
		got = append(got, s)
	}
	return strings.Join(got, " ")
}

// drops lists the drops in the last effects as "payload:reason".
func (r *rig) drops() string {
	var got []string
	for _, d := range r.fx.Dropped {
		got = append(got, r.payload[d.Message]+":"+d.Reason.String())
	}
	return strings.Join(got, " ")
}

func (r *rig) equal(what string, got, want any) {
	r.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Errorf("%s: %v, want %v", what, got, want)
	}
}
