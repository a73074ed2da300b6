package core

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// device is a subscriber that follows the protocol: it keeps the identifiers
// of QoS 2 messages between PUBLISH and PUBREL, over connections too. What is
// on the wire in either direction is lost with a connection.
type device struct {
	id     string
	epoch  record.Epoch
	sid    uint64
	online bool

	taken   map[uint16]bool // QoS 2 identifiers, PUBREC sent and PUBREL not seen
	got     []delivered     // what the application saw
	sent    []encoder       // records that its packets lead to, not yet logged
	pubrels []uint16        // PUBRELs under way to it
}

// breaks ends the device's connection.
func (d *device) breaks() { d.online, d.sent, d.pubrels = false, nil, nil }

type delivered struct {
	msg uint64
	qos uint8
	dup bool
}

// exchange is a broker reduced to the machine and its send cursors, devices,
// and a log that a crash cuts.
type exchange struct {
	t       *rapid.T
	m       *Machine
	fx      Effects
	b       *backend
	now     int64
	conns   uint32
	devices []*device
	log     []step // since the last checkpoint
	want    map[string][]delivered
	subs    map[string]topic.Options
}

func (x *exchange) apply(r encoder) {
	s := step{rec: r.AppendTo(nil), now: x.now}
	x.log = append(x.log, s)
	if err := x.m.Apply(x.m.Applied()+1, s.now, slices.Clone(s.rec), &x.fx); err != nil {
		x.t.Fatalf("%+v: %v", r, err)
	}
	if len(x.fx.Dropped) > 0 {
		x.t.Fatalf("%+v drops %v", r, x.fx.Dropped)
	}
}

func (x *exchange) checkpoint() {
	x.m.Collect(x.b)
	x.log = x.log[:0]
}

// crash loses the machine and all connections, and builds it anew from the
// last checkpoint and the log.
func (x *exchange) crash() {
	m, err := Load(x.b.scan, x.m.Applied()-uint64(len(x.log)), x.now)
	if err != nil {
		x.t.Fatal(err)
	}
	for i := range x.log {
		if err := m.Apply(m.Applied()+1, x.log[i].now, x.log[i].rec, &x.fx); err != nil {
			x.t.Fatal(err)
		}
	}
	x.m = m
	for _, d := range x.devices {
		d.breaks()
	}
	x.apply(&record.ServerStart{Boot: m.Boot() + 1})
}

func (x *exchange) connect(d *device) {
	x.conns++
	d.breaks()
	d.epoch, d.online = record.NewEpoch(x.m.Boot(), x.conns), true
	x.apply(&record.Connect{
		Epoch: d.epoch, ClientID: []byte(d.id), Version: 5, Expiry: session.Forever,
		ReceiveMaximum: rapid.Uint16Range(1, 4).Draw(x.t, "receive maximum"),
	})
	if d.sid != 0 && (x.fx.Reply.Session != d.sid || !x.fx.Reply.Present) {
		x.t.Fatalf("%s lost its session", d.id)
	}
	d.sid = x.fx.Reply.Session
}

// publish is a message to a topic by somebody.
func (x *exchange) publish(name string, qos uint8) {
	id := x.m.Applied() + 1
	x.apply(&record.Publish{QoS: qos, Message: message5(name, "m")})
	for _, d := range x.devices {
		if granted, ok := x.subs[d.id+" "+name]; ok {
			x.want[d.id+" "+name] = append(x.want[d.id+" "+name], delivered{msg: id, qos: min(qos, granted.QoS())})
		}
	}
}

// receive lets the broker send up to n packets and the device answer them.
func (x *exchange) receive(d *device, n int) {
	s := x.m.sessions[d.sid]
	for ; n > 0; n-- {
		if len(d.pubrels) > 0 {
			d.pubrel(d.pubrels[0])
			d.pubrels = d.pubrels[1:]
			continue
		}
		e := s.Out.Next()
		if e == nil {
			return
		}
		x.take(d, *e)
		s.Out.Sent()
	}
}

// take is a packet that arrives at the device.
func (x *exchange) take(d *device, e session.Entry[uint64]) {
	switch {
	case e.Phase == session.PhaseRelease: // PUBREL sent again
		d.pubrel(e.PID)
	case e.QoS == 1:
		d.got = append(d.got, delivered{e.Msg, 1, e.Resend})
		d.puback(e.PID)
	default:
		if !d.taken[e.PID] {
			if d.taken[e.PID] = true; len(d.taken) > 65535 {
				x.t.Fatal("too many identifiers")
			}
			d.got = append(d.got, delivered{e.Msg, 2, e.Resend})
		} else if !e.Resend {
			x.t.Fatalf("%s: identifier %d is in use and not sent as a duplicate", d.id, e.PID)
		}
		d.sent = append(d.sent, &record.Rec{Session: d.sid, Epoch: d.epoch, PacketID: e.PID})
	}
}

// pubrel is a PUBREL that arrives; PUBCOMP answers it.
func (d *device) pubrel(pid uint16) {
	delete(d.taken, pid)
	d.puback(pid)
}

func (d *device) puback(pid uint16) {
	a := &record.Ack{Session: d.sid, Epoch: d.epoch}
	a.Add(pid)
	d.sent = append(d.sent, a)
}

// answer lets the broker log the device's next packets; a PUBREC is answered
// by PUBREL.
func (x *exchange) answer(d *device, n int) {
	for ; n > 0 && len(d.sent) > 0; n-- {
		r := d.sent[0]
		d.sent = d.sent[1:]
		x.apply(r)
		if x.fx.Reply.Stale {
			x.t.Fatalf("%+v is stale", r)
		}
		if rec, ok := r.(*record.Rec); ok {
			d.pubrels = append(d.pubrels, rec.PacketID)
		}
	}
}

// settle lets a device get and answer everything.
func (x *exchange) settle(d *device) {
	if !d.online {
		x.connect(d)
	}
	for range 100_000 {
		s := x.m.sessions[d.sid]
		if s.Out.Unsent()+len(d.sent)+len(d.pubrels) == 0 {
			if n := len(s.Out.Inflight()) + s.Out.Queued(); n > 0 {
				x.t.Fatalf("%s: %d messages are stuck", d.id, n)
			}
			return
		}
		x.receive(d, 3)
		x.answer(d, 2)
	}
	x.t.Fatalf("%s never gets to an end", d.id)
}

// However connections break and the broker crashes, a subscriber with a
// durable session gets every message that matched while it was subscribed,
// QoS 2 once and QoS 1 at least once, what is repeated marked as such, in the
// order of each topic [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT-4.4.0-1]
// [MQTT-4.6.0-6].
func TestDelivery_MQTT_4_6_0_6_ThroughCrashes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := &exchange{
			t: t, m: New(), b: newBackend(t.Fatalf), now: 1000, want: map[string][]delivered{}, subs: map[string]topic.Options{},
		}
		x.apply(&record.Genesis{FeatureLevel: FeatureLevel, Limits: record.Limits{
			MaxInflight: rapid.Uint16Range(1, 5).Draw(t, "max inflight"), SessionExpiryMax: session.Forever,
		}})
		names := []string{"a", "b"}
		for _, id := range []string{"d1", "d2"} {
			d := &device{id: id, taken: map[uint16]bool{}}
			x.devices = append(x.devices, d)
			x.connect(d)
			for _, name := range names {
				opts := topic.Options(rapid.Uint8Range(1, 2).Draw(t, "granted"))
				x.subs[id+" "+name] = opts
				x.apply(&record.Subscribe{Session: d.sid, Epoch: d.epoch, Filters: []record.Filter{{Name: []byte(name), Options: opts}}})
			}
		}
		for range rapid.IntRange(0, 120).Draw(t, "steps") {
			d := rapid.SampledFrom(x.devices).Draw(t, "device")
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1, 2:
				x.publish(rapid.SampledFrom(names).Draw(t, "topic"), rapid.Uint8Range(1, 2).Draw(t, "qos"))
			case 3, 4:
				if d.online {
					x.receive(d, rapid.IntRange(1, 4).Draw(t, "packets"))
				}
			case 5, 6:
				if d.online {
					x.answer(d, rapid.IntRange(1, 4).Draw(t, "answers"))
				}
			case 7:
				x.connect(d) // a takeover when it is online
			case 8:
				x.checkpoint()
			case 9:
				if rapid.Bool().Draw(t, "crash") {
					x.crash()
				} else if d.online {
					d.breaks()
					x.apply(&record.Disconnect{Session: d.sid, Epoch: d.epoch})
				}
			}
		}
		for _, d := range x.devices {
			x.settle(d)
			x.compare(d, names)
		}
		if c := x.m.Counts(); c.Messages != 0 {
			t.Fatalf("%d messages are left: %+v", c.Messages, c)
		}
	})
}

// compare holds what a device got against what it had to get.
func (x *exchange) compare(d *device, names []string) {
	seen := map[uint64]bool{}
	var first []delivered
	for _, g := range d.got {
		if seen[g.msg] && g.qos == 2 {
			x.t.Fatalf("%s got message %d of QoS 2 twice", d.id, g.msg)
		}
		if seen[g.msg] && !g.dup {
			x.t.Fatalf("%s got message %d again without DUP", d.id, g.msg)
		}
		if !seen[g.msg] {
			first = append(first, delivered{msg: g.msg, qos: g.qos})
		}
		seen[g.msg] = true
	}
	total := 0
	for _, name := range names {
		want := x.want[d.id+" "+name]
		total += len(want)
		var got []delivered
		for _, g := range first {
			if slices.Contains(want, g) {
				got = append(got, g)
			}
		}
		if !slices.Equal(got, want) {
			x.t.Fatalf("%s, topic %s: got %v, want %v", d.id, name, got, want)
		}
	}
	if total != len(first) {
		x.t.Fatalf("%s got %d messages, want %d: %s", d.id, len(first), total, fmt.Sprint(d.got))
	}
}
