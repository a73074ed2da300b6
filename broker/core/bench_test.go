package core

import (
	"fmt"
	"slices"
	"testing"

	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// hot is a machine with one durable subscriber and some sessions around it,
// and the records of a QoS 1 message that comes and is acknowledged.
type hot struct {
	m       *Machine
	fx      Effects
	index   uint64
	publish []byte
	ack     record.Ack
	sub     *session.Session
	buf     []byte
}

func newHot(tb testing.TB, sessions int) *hot {
	r := newRig(tb)
	for i := range sessions {
		c := r.connect(fmt.Sprint("other", i))
		c.subscribe(fmt.Sprintf("site/%d/temp", i), qos1)
	}
	p, c := r.connect("pub"), r.connect("sub")
	c.subscribe("site/+/temp/#", qos1, 4)
	h := &hot{m: r.m, index: r.m.Applied(), sub: c.session()}
	h.publish = (&record.Publish{
		Session: p.sid, Epoch: p.epoch, PacketID: 77, QoS: 1, Message: message5("site/x/temp", string(make([]byte, 256))),
	}).AppendTo(nil)
	h.ack = record.Ack{Session: c.sid, Epoch: c.epoch, Runs: make([]record.Run, 1)}
	return h
}

func (h *hot) apply(tb testing.TB, rec []byte) {
	h.index++
	if err := h.m.Apply(h.index, 1_000_000, rec, &h.fx); err != nil {
		tb.Fatal(err)
	}
}

// turn is one message, published and acknowledged.
func (h *hot) turn(tb testing.TB) {
	h.apply(tb, h.publish)
	h.ack.Runs[0] = record.Run{First: h.sub.Out.Inflight()[0].PID, Count: 1}
	h.buf = h.ack.AppendTo(h.buf[:0])
	h.apply(tb, h.buf)
}

// Publish and ack do not allocate: with the message alone, with a standing
// window, and with a standing backlog.
func TestApplyDoesNotAllocate(t *testing.T) {
	for name, standing := range map[string]int{"alone": 0, "window of 100": 100, "backlog": 5000} {
		h := newHot(t, 10)
		for range standing {
			h.apply(t, h.publish)
		}
		for range 10_000 { // maps and lists grow to their size
			h.turn(t)
		}
		if n := testing.AllocsPerRun(1000, func() { h.turn(t) }); n != 0 {
			t.Errorf("%s: %v allocations for a message", name, n)
		}
	}
}

// The other records of a QoS 2 delivery do not allocate either.
func TestApplyQoS2DoesNotAllocate(t *testing.T) {
	r := newRig(t)
	p, c := r.connect("pub"), r.connect("sub")
	c.subscribe("x", qos2)
	pub := record.Publish{Session: p.sid, Epoch: p.epoch, PacketID: 1, QoS: 2, Message: message5("x", "m")}
	rel := record.PubRel{Session: p.sid, Epoch: p.epoch, PacketID: 1}
	rec := record.Rec{Session: c.sid, Epoch: c.epoch}
	ack := record.Ack{Session: c.sid, Epoch: c.epoch, Runs: make([]record.Run, 1)}
	s := c.session()
	var buf []byte
	index := r.m.Applied()
	apply := func(encoded []byte) {
		index++
		if err := r.m.Apply(index, 1, encoded, &r.fx); err != nil {
			t.Fatal(err)
		}
	}
	turn := func() {
		buf = pub.AppendTo(buf[:0])
		apply(buf)
		buf = rel.AppendTo(buf[:0])
		apply(buf)
		rec.PacketID = s.Out.Inflight()[0].PID
		buf = rec.AppendTo(buf[:0])
		apply(buf)
		ack.Runs[0] = record.Run{First: rec.PacketID, Count: 1}
		buf = ack.AppendTo(buf[:0])
		apply(buf)
	}
	for range 10_000 {
		turn()
	}
	if n := testing.AllocsPerRun(1000, turn); n != 0 {
		t.Errorf("%v allocations for a message", n)
	}
}

// A publish and its ack: two records.
func BenchmarkApply(b *testing.B) {
	for _, sessions := range []int{0, 10_000} {
		b.Run(fmt.Sprint("publish+ack/sessions=", sessions), func(b *testing.B) {
			h := newHot(b, sessions)
			b.ReportAllocs()
			for b.Loop() {
				h.turn(b)
			}
		})
	}
	b.Run("publish+ack/window=200", func(b *testing.B) {
		h := newHot(b, 0)
		for range 200 {
			h.apply(b, h.publish)
		}
		b.ReportAllocs()
		for b.Loop() {
			h.turn(b)
		}
	})
	b.Run("publish+ack/backlog=100000", func(b *testing.B) {
		h := newHot(b, 0)
		for range 100_000 {
			h.apply(b, h.publish)
		}
		b.ReportAllocs()
		for b.Loop() {
			h.turn(b)
		}
	})
}

// One message to sessions that are offline: the cost of one record.
func BenchmarkApplyFanOut(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		for _, filters := range []int{1, 2} {
			b.Run(fmt.Sprintf("sessions=%d/filters=%d", n, filters), func(b *testing.B) {
				r := newRig(b, func(l *record.Limits) { l.QueueMessages, l.DropOldest = 100, true })
				for i := range n {
					c := r.connect(fmt.Sprint("c", i))
					for f := range filters {
						c.subscribe([]string{"x/y", "x/#"}[f], qos1)
					}
					c.disconnect(true)
				}
				rec := (&record.Publish{QoS: 1, Message: message5("x/y", string(make([]byte, 256)))}).AppendTo(nil)
				index := r.m.Applied()
				b.ReportAllocs()
				for b.Loop() {
					index++
					if err := r.m.Apply(index, 1, rec, &r.fx); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/session")
			})
		}
	}
}

// A client that reconnects, with a session, subscriptions and a will.
func BenchmarkApplyConnect(b *testing.B) {
	r := newRig(b)
	for i := range 10_000 {
		r.connect(fmt.Sprint("other", i), expiry(3600)).disconnect(true)
	}
	c := r.connect("c", withWill(10), expiry(3600))
	for i := range 20 {
		c.subscribe(fmt.Sprint("t/", i), qos1)
	}
	connect := record.Connect{
		Epoch: c.epoch, ClientID: []byte("c"), User: []byte("user"), Version: 5, Expiry: 3600, ReceiveMaximum: 100,
		HasWill: true, Will: record.Will{QoS: 1, Delay: 10, Message: message5("w", "w")},
	}
	disconnect := record.Disconnect{Session: c.sid}
	index := r.m.Applied()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		connect.Epoch++
		disconnect.Epoch = connect.Epoch
		for _, rec := range []encoder{&connect, &disconnect} {
			buf = rec.AppendTo(buf[:0])
			index++
			if err := r.m.Apply(index, int64(index), buf, &r.fx); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// A new subscription to everything, over many retained messages: how long one
// record may hold the loop.
func BenchmarkApplySubscribeRetained(b *testing.B) {
	const n = 100_000
	r := newRig(b)
	for i := range n {
		r.publish(fmt.Sprintf("site/%d/dev/%d", i%100, i), "21.5", 1, retained)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		c := r.connect(fmt.Sprint("c", i), expiry(0))
		sub := (&record.Subscribe{
			Session: c.sid, Epoch: c.epoch, Filters: []record.Filter{{Name: []byte("#"), Options: topic.Options(1)}},
		}).AppendTo(nil)
		b.StartTimer()
		if err := r.m.Apply(r.m.Applied()+1, r.now, sub, &r.fx); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		c.disconnect(true)
		for r.m.Counts().Ending > 0 {
			r.apply(record.Tick{})
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/message")
}

// What a start does with the tail of the log: mixed records, as fast as it
// goes.
func BenchmarkReplay(b *testing.B) {
	r := newRig(b)
	var log [][]byte
	var subs []*client
	for i := range 1000 {
		c := r.connect(fmt.Sprint("c", i))
		c.subscribe(fmt.Sprintf("site/%d/#", i), qos2)
		subs = append(subs, c)
	}
	start := r.m.Applied()
	keep := func(rec encoder) {
		encoded := rec.AppendTo(nil)
		log = append(log, encoded)
		if err := r.m.Apply(r.m.Applied()+1, r.now, encoded, &r.fx); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 20_000 {
		c, p := subs[i*7919%1000], subs[i*31%1000]
		qos := uint8(1 + i%4/3)
		keep(&record.Publish{
			Session: p.sid, Epoch: p.epoch, QoS: qos, PacketID: uint16(1 + i), Message: message5("site/"+c.id[1:]+"/t", string(make([]byte, 128))),
		})
		pid := c.session().Out.Inflight()[0].PID
		if qos == 2 {
			keep(&record.PubRel{Session: p.sid, Epoch: p.epoch, PacketID: uint16(1 + i)})
			keep(&record.Rec{Session: c.sid, Epoch: c.epoch, PacketID: pid})
		}
		keep(&record.Ack{Session: c.sid, Epoch: c.epoch, Runs: []record.Run{{First: pid, Count: 1}}})
	}
	back := newBackend(b.Fatalf)
	fresh := newRig(b)
	for i := range 1000 {
		c := fresh.connect(fmt.Sprint("c", i))
		c.subscribe(fmt.Sprintf("site/%d/#", i), qos2)
	}
	fresh.m.Collect(back)
	if fresh.m.Applied() != start {
		b.Fatal("not the same beginning")
	}
	var fx Effects
	for b.Loop() {
		b.StopTimer()
		m, err := Load(back.scan, start, 1)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		for _, rec := range log {
			if err := m.Apply(m.Applied()+1, r.now, rec, &fx); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(len(log))*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// Checkpoints: Collect of sessions that all have something new, and Load.
func BenchmarkCollectLoad(b *testing.B) {
	r := newRig(b)
	const n = 1000
	for i := range n {
		c := r.connect(fmt.Sprint("c", i))
		c.subscribe("x", qos1)
		c.disconnect(true)
	}
	back := newBackend(b.Fatalf)
	b.Run("collect", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			r.publish("x", "m", 1)
			b.StartTimer()
			r.m.Collect(nullSink{})
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(2*n), "ns/entry")
	})
	r.m.Export(func(table byte, key, value []byte) { back.Put(table, key, value, true) })
	b.Run("hash", func(b *testing.B) {
		for b.Loop() {
			r.m.Hash(&worldHashKey)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(back.entries)), "ns/entry")
	})
}

// Loading a state: sessions with a backlog, and a message for each entry.
func BenchmarkLoad(b *testing.B) {
	r := newRig(b)
	for i := range 1000 {
		c := r.connect(fmt.Sprint("c", i))
		c.subscribe(fmt.Sprintf("site/%d/#", i), qos1)
		c.disconnect(true)
		for range 100 {
			r.publish(fmt.Sprintf("site/%d/temp", i), "21.5", 1)
		}
	}
	tables := map[byte][][2][]byte{}
	n := 0
	r.m.Export(func(table byte, key, value []byte) {
		tables[table] = append(tables[table], [2][]byte{slices.Clone(key), slices.Clone(value)})
		n++
	})
	scan := func(table byte, fn func(key, value []byte) error) error {
		for _, e := range tables[table] {
			if err := fn(e[0], e[1]); err != nil {
				return err
			}
		}
		return nil
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(scan, r.m.Applied(), r.m.Now()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/entry")
}

type nullSink struct{}

func (nullSink) Put(byte, []byte, []byte, bool) {}

func (nullSink) Delete(byte, []byte) {}

func (nullSink) Body(uint64) {}
