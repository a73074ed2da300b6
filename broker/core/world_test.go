package core

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"pgregory.net/rapid"

	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// encoder is any record.
type encoder interface{ AppendTo(dst []byte) []byte }

// step is one thing that happens to a machine: a record, or a command of an
// ephemeral client.
type step struct {
	rec     []byte
	now     int64
	command func(m *Machine, refs map[string]uint32, fx *Effects)
	note    string
}

// world draws a history, mostly plausible, by looking at a machine that lives
// through it.
type world struct {
	m     *Machine
	fx    Effects
	now   int64
	conns uint32
	steps []step
	fail  func(format string, args ...any)

	// each is called after each step has been applied.
	each func(s *step)

	refs  map[string]uint32 // slots of the ephemeral clients
	ephem map[string][]string
	epoch map[string]record.Epoch
}

var (
	worldClients = []string{"c1", "c2", "c3", "c4"}
	worldFilters = []string{"a", "a/b", "a/+", "a/#", "#", "+/b", "b", "$share/g/a/#", "$share/g/b", "$share/h/a/b", "$share/h/a/#", "$x/y"}
	worldTopics  = []string{"a", "a/b", "a/c", "b", "x/b", "$x/y"}
	worldShared  = []GroupKey{{"g", "a/#"}, {"g", "b"}, {"h", "a/b"}, {"h", "a/#"}}
)

func newWorld(fail func(format string, args ...any)) *world {
	w := &world{
		m: New(), now: 1_000_000, fail: fail, each: func(*step) {},
		refs: map[string]uint32{}, ephem: map[string][]string{}, epoch: map[string]record.Epoch{},
	}
	return w
}

// begin writes the Genesis and the first ServerStart.
func (w *world) begin(l record.Limits) {
	w.apply(&record.Genesis{StoreID: [16]byte{1, 2, 3}, FeatureLevel: FeatureLevel, Limits: l})
	w.apply(&record.ServerStart{Boot: 1, Wall: w.now})
}

// populate begins with a few sessions, so that what follows meets somebody.
func (w *world) populate(t *rapid.T) {
	for _, client := range worldClients[:rapid.IntRange(0, 3).Draw(t, "sessions")] {
		w.apply(&record.Connect{
			Epoch: w.nextEpoch(), ClientID: []byte(client), User: []byte("u"), Version: 5, Expiry: session.Forever,
			ReceiveMaximum: rapid.SampledFrom([]uint16{65535, 3}).Draw(t, "receive maximum"),
		})
		s := w.m.SessionOf(client)
		r := &record.Subscribe{Session: s.ID, Epoch: s.Epoch, PacketID: 1}
		for range rapid.IntRange(1, 4).Draw(t, "filters") {
			f, opts := w.drawFilter(t)
			r.Filters = append(r.Filters, record.Filter{Name: []byte(f), Options: opts&^3 | 2})
		}
		w.apply(r)
	}
}

// drawBounds are small ones, or those of production.
func drawBounds(t *rapid.T) bounds {
	b := New().bounds
	if rapid.IntRange(0, 3).Draw(t, "bounds") > 0 {
		n := rapid.SliceOfN(rapid.IntRange(1, 4), 6, 6).Draw(t, "small bounds")
		b = bounds{n[0], n[1], n[2], n[3], n[4], n[5] - 1}
	}
	return b
}

// apply applies a record and keeps it.
func (w *world) apply(r encoder) {
	// The record is applied in memory that is overwritten at once: whatever of
	// it stays in the state must be a copy.
	s := step{rec: r.AppendTo(nil), now: w.now, note: fmt.Sprintf("%+v", r)}
	w.steps = append(w.steps, s)
	scratch := slices.Clone(s.rec)
	if err := w.m.Apply(w.m.Applied()+1, s.now, scratch, &w.fx); err != nil {
		w.fail("apply %s: %v", s.note, err)
	}
	w.each(&s)
	for i := range scratch {
		scratch[i] = 0xa5
	}
}

func (w *world) command(note string, fn func(m *Machine, refs map[string]uint32, fx *Effects)) {
	s := step{command: fn, now: w.now, note: note}
	w.steps = append(w.steps, s)
	w.fx.Reset()
	fn(w.m, w.refs, &w.fx)
	w.each(&s)
}

func (w *world) nextEpoch() record.Epoch {
	w.conns++
	return record.NewEpoch(max(w.m.Boot(), 1), w.conns)
}

func drawWorldLimits(t *rapid.T) record.Limits {
	return record.Limits{
		MaxInflight:      rapid.SampledFrom([]uint16{1, 2, 4, 256, 0}).Draw(t, "max inflight"),
		QueueMessages:    rapid.SampledFrom([]uint64{0, 0, 1, 3, 20}).Draw(t, "queue messages"),
		QueueBytes:       rapid.SampledFrom([]uint64{0, 0, 40, 400}).Draw(t, "queue bytes"),
		SessionExpiryMax: rapid.SampledFrom([]uint32{session.Forever, session.Forever, 100, 0}).Draw(t, "expiry max"),
		RestartGrace:     rapid.SampledFrom([]uint32{0, 30}).Draw(t, "grace"),
		ShareUsers:       rapid.Bool().Draw(t, "share users"),
		DropOldest:       rapid.Bool().Draw(t, "drop oldest"),
	}
}

// drawSteps draws a history of about n steps.
func (w *world) drawSteps(t *rapid.T, n int) {
	kinds := []func(t *rapid.T){
		w.connect, w.connect, w.connect, w.disconnect, w.subscribe, w.subscribe, w.subscribe, w.unsubscribe,
		w.publish, w.publish, w.publish, w.publish, w.publish, w.publish, w.burst, w.ack, w.ack, w.ack, w.rec, w.rec, w.pubrel,
		w.dispatch, w.dispatch, w.ackGroup, w.tick, w.tick, w.publishWill, w.loggedWill, w.ephemeral, w.ephemeral, w.server,
	}
	for range n {
		if rapid.IntRange(0, 3).Draw(t, "time passes") == 0 {
			w.now += rapid.SampledFrom([]int64{1, 500, 3000, 20_000, 200_000}).Draw(t, "by")
		}
		rapid.SampledFrom(kinds).Draw(t, "kind")(t)
	}
}

// sessions returns the live sessions in the order of their ids.
func (w *world) sessions() []*session.Session { return w.m.sorted() }

// drawSession draws a session that exists and mostly its current epoch; with
// none, or seldom, something that does not.
func (w *world) drawSession(t *rapid.T) (s *session.Session, id uint64, epoch record.Epoch) {
	list := w.sessions()
	connected := slices.DeleteFunc(slices.Clone(list), func(s *session.Session) bool { return !s.Connected() })
	if len(connected) > 0 && rapid.IntRange(0, 9).Draw(t, "connected") > 0 {
		list = connected
	}
	if len(list) == 0 || rapid.IntRange(0, 19).Draw(t, "no session") == 0 {
		return nil, rapid.Uint64Range(0, 30).Draw(t, "any session"), record.NewEpoch(1, 1)
	}
	s = rapid.SampledFrom(list).Draw(t, "session")
	epoch = s.Epoch
	if rapid.IntRange(0, 19).Draw(t, "stale") == 0 {
		epoch--
	}
	return s, s.ID, epoch
}

func drawWorldWill(t *rapid.T) (has bool, w record.Will) {
	if rapid.IntRange(0, 2).Draw(t, "will") > 0 {
		return false, w
	}
	return true, record.Will{
		QoS: rapid.Uint8Max(2).Draw(t, "will qos"), Retain: rapid.Bool().Draw(t, "will retain"),
		Delay:   rapid.SampledFrom([]uint32{0, 0, 5, 60}).Draw(t, "will delay"),
		Message: message5(rapid.SampledFrom(worldTopics).Draw(t, "will topic"), "will"),
	}
}

// message5 is a stored message.
func message5(name, payload string) []byte {
	m := packets.Message{Topic: []byte(name), Payload: []byte(payload)}
	return m.AppendTo(nil)
}

func (w *world) connect(t *rapid.T) {
	c := &record.Connect{
		Epoch: w.nextEpoch(), ClientID: []byte(rapid.SampledFrom(worldClients).Draw(t, "client")),
		User:    []byte(rapid.SampledFrom([]string{"u", "u", "u", "u", "v"}).Draw(t, "user")),
		Version: rapid.SampledFrom([]uint8{3, 4, 5}).Draw(t, "version"), CleanStart: rapid.IntRange(0, 5).Draw(t, "clean") == 0,
		Expiry:         rapid.SampledFrom([]uint32{session.Forever, session.Forever, 60, 5, 0}).Draw(t, "expiry"),
		ReceiveMaximum: rapid.SampledFrom([]uint16{65535, 3, 1, 0}).Draw(t, "receive maximum"),
		MaxPacket:      rapid.SampledFrom([]uint32{0, 100}).Draw(t, "max packet"),
	}
	if rapid.IntRange(0, 29).Draw(t, "no epoch") == 0 {
		c.Epoch = 0
	}
	c.HasWill, c.Will = drawWorldWill(t)
	w.apply(c)
}

func (w *world) disconnect(t *rapid.T) {
	_, id, epoch := w.drawSession(t)
	d := &record.Disconnect{Session: id, Epoch: epoch, DropWill: rapid.Bool().Draw(t, "drop will")}
	if rapid.IntRange(0, 3).Draw(t, "has expiry") == 0 {
		d.HasExpiry, d.Expiry = true, rapid.SampledFrom([]uint32{0, 1, 50, session.Forever}).Draw(t, "new expiry")
	}
	w.apply(d)
}

func (w *world) drawFilter(t *rapid.T) (string, topic.Options) {
	f := rapid.SampledFrom(worldFilters).Draw(t, "filter")
	opts := topic.MakeOptions(rapid.Uint8Max(2).Draw(t, "granted"), rapid.Uint8Max(2).Draw(t, "handling"), 0)
	if rapid.Bool().Draw(t, "as published") {
		opts |= topic.RetainAsPublished
	}
	if keyOf(f).Share == "" && rapid.IntRange(0, 3).Draw(t, "no local") == 0 {
		opts |= topic.NoLocal
	}
	return f, opts
}

func (w *world) subscribe(t *rapid.T) {
	_, id, epoch := w.drawSession(t)
	r := &record.Subscribe{Session: id, Epoch: epoch, PacketID: 1, ID: rapid.Uint32Max(3).Draw(t, "id")}
	for range rapid.IntRange(0, 3).Draw(t, "filters") {
		f, opts := w.drawFilter(t)
		r.Filters = append(r.Filters, record.Filter{Name: []byte(f), Options: opts})
	}
	w.apply(r)
}

func (w *world) unsubscribe(t *rapid.T) {
	s, id, epoch := w.drawSession(t)
	r := &record.Unsubscribe{Session: id, Epoch: epoch, PacketID: 2}
	names := worldFilters
	if s != nil && s.Subscriptions() > 0 {
		names = append(s.Filters(), worldFilters[0])
	}
	for range rapid.IntRange(1, 2).Draw(t, "filters") {
		r.Filters = append(r.Filters, []byte(rapid.SampledFrom(names).Draw(t, "filter")))
	}
	w.apply(r)
}

// drawPublish draws a publish by a durable session or by nobody in particular.
func (w *world) drawPublish(t *rapid.T) *record.Publish {
	p := &record.Publish{
		QoS: rapid.SampledFrom([]uint8{0, 1, 1, 2, 2}).Draw(t, "qos"), Retain: rapid.IntRange(0, 3).Draw(t, "retain") == 0,
	}
	if rapid.Bool().Draw(t, "durable publisher") {
		_, p.Session, p.Epoch = w.drawSession(t)
	} else if len(w.epoch) > 0 {
		p.Epoch = w.epoch[rapid.SampledFrom(slices.Sorted(maps.Keys(w.epoch))).Draw(t, "ephemeral publisher")]
	}
	if p.QoS > 0 {
		p.PacketID = rapid.Uint16Range(1, 6).Draw(t, "packet id")
	}
	if rapid.IntRange(0, 4).Draw(t, "has expiry") == 0 {
		p.HasExpiry, p.Expiry = true, rapid.SampledFrom([]uint32{0, 1, 10, 1000}).Draw(t, "expiry")
	}
	payload := ""
	if !p.Retain || rapid.IntRange(0, 2).Draw(t, "payload") > 0 {
		payload = fmt.Sprintf("message %d", w.m.Applied()+1)
	}
	p.Message = message5(rapid.SampledFrom(worldTopics).Draw(t, "topic"), payload)
	for _, k := range worldShared {
		if c, ok := w.drawChoice(t, k); ok {
			p.Choices = append(p.Choices, c)
		}
	}
	return p
}

// drawChoice draws who of a group gets a message: mostly a durable member.
func (w *world) drawChoice(t *rapid.T, k GroupKey) (c record.Choice, ok bool) {
	c = record.Choice{Share: []byte(k.Share), Filter: []byte(k.Filter)}
	if w.m.groups[k] == nil && rapid.IntRange(0, 9).Draw(t, "choice for nothing") > 0 {
		return c, false
	}
	c.Session, c.Epoch, c.QoS = w.drawMember(t, k)
	return c, rapid.IntRange(0, 9).Draw(t, "no choice") > 0
}

func (w *world) drawMember(t *rapid.T, k GroupKey) (sid uint64, epoch record.Epoch, qos uint8) {
	switch rapid.IntRange(0, 5).Draw(t, "member") {
	case 0:
		return 0, 0, 0
	case 1:
		return 0, record.NewEpoch(1, rapid.Uint32Range(1, 5).Draw(t, "ephemeral member")), rapid.Uint8Max(2).Draw(t, "member qos")
	case 2:
		return rapid.Uint64Range(1, 30).Draw(t, "any member"), 0, 0
	}
	members := slices.DeleteFunc(w.sessions(), func(s *session.Session) bool {
		_, ok := s.Subscription(k.String())
		return !ok
	})
	if len(members) == 0 {
		return 0, 0, 0
	}
	return rapid.SampledFrom(members).Draw(t, "durable member").ID, 0, 0
}

func (w *world) publish(t *rapid.T) { w.apply(w.drawPublish(t)) }

// burst publishes more messages than one record lets go.
func (w *world) burst(t *rapid.T) {
	p := w.drawPublish(t)
	p.Session, p.Retain = 0, false
	p.Message = message5(worldTopics[1], "one of many")
	for range rapid.SampledFrom([]int{3, 3, 10, 90}).Draw(t, "times") {
		w.apply(p)
	}
}

func (w *world) ack(t *rapid.T) {
	s, id, epoch := w.drawSession(t)
	a := &record.Ack{Session: id, Epoch: epoch}
	a.Reason = rapid.SampledFrom([]record.AckReason{0, 0, 0, 0, record.AckExpired, record.AckTooLarge, record.AckDenied}).Draw(t, "reason")
	if s == nil || len(s.Out.Inflight()) == 0 || rapid.IntRange(0, 9).Draw(t, "any ids") == 0 {
		a.Add(rapid.Uint16().Draw(t, "any id"))
		a.Runs[0].Count = rapid.Uint16Range(0, 30).Draw(t, "count")
		w.apply(a)
		return
	}
	in := s.Out.Inflight()
	n := rapid.IntRange(1, len(in)).Draw(t, "acks")
	for i := range n {
		if rapid.IntRange(0, 4).Draw(t, "leave out") > 0 {
			a.Add(in[i].PID)
		}
	}
	w.apply(a)
}

func (w *world) rec(t *rapid.T) {
	s, id, epoch := w.drawSession(t)
	r := &record.Rec{Session: id, Epoch: epoch, PacketID: rapid.Uint16Range(1, 9).Draw(t, "pid")}
	r.Code = rapid.SampledFrom([]uint8{0, 0, 0, 0x10, 0x80, 0x97}).Draw(t, "code")
	if s != nil && len(s.Out.Inflight()) > 0 {
		r.PacketID = rapid.SampledFrom(s.Out.Inflight()).Draw(t, "delivery").PID
	}
	w.apply(r)
}

func (w *world) pubrel(t *rapid.T) {
	s, id, epoch := w.drawSession(t)
	r := &record.PubRel{Session: id, Epoch: epoch, PacketID: rapid.Uint16Range(1, 6).Draw(t, "pid")}
	if s != nil && len(s.Received()) > 0 {
		r.PacketID = rapid.SampledFrom(s.Received()).Draw(t, "received")
	}
	w.apply(r)
}

// drawPending draws a pending message of a group.
func (w *world) drawPending(t *rapid.T) (k GroupKey, p pending) {
	k = rapid.SampledFrom(worldShared).Draw(t, "group")
	var all []pending
	for _, g := range w.m.sortedGroups() {
		if g.key == k {
			g.pending.each(func(_ pendingAt, p *pending) bool {
				all = append(all, *p)
				return len(all) < 5
			})
		}
	}
	if len(all) == 0 || rapid.IntRange(0, 9).Draw(t, "any message") == 0 {
		return k, pending{message: rapid.Uint64Range(1, 60).Draw(t, "message"), epoch: 1}
	}
	return k, rapid.SampledFrom(all).Draw(t, "pending")
}

func (w *world) dispatch(t *rapid.T) {
	k, p := w.drawPending(t)
	r := &record.Dispatch{Share: []byte(k.Share), Filter: []byte(k.Filter), Message: p.message}
	if r.Session, r.Epoch, r.QoS = w.drawMember(t, k); r.Session == 0 && r.Epoch == 0 {
		r.From = rapid.SampledFrom([]record.Epoch{0, p.epoch, p.epoch, 77}).Draw(t, "from")
	}
	w.apply(r)
}

func (w *world) ackGroup(t *rapid.T) {
	k, p := w.drawPending(t)
	if rapid.IntRange(0, 5).Draw(t, "other owner") == 0 {
		p.epoch++
	}
	w.apply(&record.Ack{Epoch: p.epoch, Share: []byte(k.Share), Filter: []byte(k.Filter), Message: p.message})
}

func (w *world) tick(t *rapid.T) {
	if at, ok := w.m.NextDeadline(); ok && rapid.IntRange(0, 2).Draw(t, "wait for it") > 0 {
		w.now = max(w.now, at)
	}
	w.apply(record.Tick{})
}

func (w *world) publishWill(t *rapid.T) {
	ids := append(w.m.PendingDue(), rapid.Uint64Range(1, 9).Draw(t, "any will"))
	id := rapid.SampledFrom(ids).Draw(t, "will")
	p := &record.Publish{WillOf: id}
	if d, ok := w.m.Due(id); ok && rapid.IntRange(0, 4).Draw(t, "withdrawn") > 0 {
		p.QoS, p.Retain, p.Message = d.Will.QoS, d.Will.Retain, d.Will.Message
	}
	w.apply(p)
}

func (w *world) loggedWill(t *rapid.T) {
	if ids := slices.Sorted(maps.Keys(w.m.byEpoch)); len(ids) > 0 && rapid.Bool().Draw(t, "ends") {
		w.apply(&record.Disconnect{
			Epoch: rapid.SampledFrom(ids).Draw(t, "epoch"), DropWill: rapid.Bool().Draw(t, "drop"),
		})
		return
	}
	r := &record.LoggedWill{
		Epoch: w.nextEpoch(), ClientID: []byte(rapid.SampledFrom(worldClients).Draw(t, "client")), User: []byte("u"),
	}
	switch rapid.IntRange(0, 9).Draw(t, "odd epoch") {
	case 0:
		r.Epoch = 0
	case 1:
		r.Epoch--
	}
	if _, r.Will = drawWorldWill(t); r.Will.Message == nil {
		r.Will.Message = message5("b", "will")
	}
	w.apply(r)
}

// ephemeral lets a client without a durable session come, subscribe or go.
func (w *world) ephemeral(t *rapid.T) {
	name := rapid.SampledFrom([]string{"e1", "e2", "e3"}).Draw(t, "ephemeral")
	filters, here := w.ephem[name]
	if !here {
		epoch := w.nextEpoch()
		w.ephem[name], w.epoch[name] = []string{}, epoch
		w.command("attach "+name, func(m *Machine, refs map[string]uint32, _ *Effects) { refs[name] = m.Attach(epoch) })
		return
	}
	if rapid.IntRange(0, 3).Draw(t, "leaves") == 0 {
		delete(w.ephem, name)
		delete(w.epoch, name)
		w.command("detach "+name, func(m *Machine, refs map[string]uint32, _ *Effects) { m.Detach(refs[name], filters) })
		return
	}
	f, opts := w.drawFilter(t)
	if i := slices.Index(filters, f); i >= 0 && rapid.Bool().Draw(t, "unsubscribes") {
		w.ephem[name] = slices.Delete(slices.Clone(filters), i, i+1)
		w.command("unsubscribe "+name+" "+f, func(m *Machine, refs map[string]uint32, _ *Effects) { m.UnsubscribeEphemeral(refs[name], f) })
		return
	} else if i < 0 {
		w.ephem[name] = append(slices.Clone(filters), f)
	}
	w.command("subscribe "+name+" "+f, func(m *Machine, refs map[string]uint32, fx *Effects) {
		m.SubscribeEphemeral(refs[name], f, opts, 3, fx)
	})
}

// server draws what the broker or an administrator does.
func (w *world) server(t *rapid.T) {
	switch rapid.IntRange(0, 6).Draw(t, "server") {
	case 0:
		for name := range w.ephem { // a start ends all connections
			delete(w.ephem, name)
			delete(w.epoch, name)
		}
		w.command("all ephemeral clients leave", func(m *Machine, refs map[string]uint32, _ *Effects) {
			for ref := range m.slots {
				if m.slots[ref].used && m.slots[ref].session == nil {
					m.Detach(uint32(ref), worldFilters)
				}
			}
			clear(refs)
		})
		w.apply(&record.ServerStart{Boot: w.m.Boot() + 1, Wall: w.now})
	case 1:
		w.apply(&record.Config{Limits: drawWorldLimits(t)})
	case 2:
		w.apply(&record.SessionRemove{ClientID: []byte(rapid.SampledFrom(worldClients).Draw(t, "client")), By: []byte("admin")})
	case 3:
		w.apply(&record.RetainClear{Topic: []byte(rapid.SampledFrom(worldTopics).Draw(t, "topic"))})
	case 4:
		w.apply(&record.StateHash{Index: w.m.Applied()})
	case 5:
		w.apply(&record.Upgrade{Level: FeatureLevel})
	case 6:
		w.apply(record.Tick{})
	}
}

// backend holds what Collect said, by table and key.
type backend struct {
	entries map[string][]byte
	bodies  map[uint64]bool
	hash    Hash
	fail    func(format string, args ...any)
}

var worldHashKey = [16]byte{7}

func newBackend(fail func(format string, args ...any)) *backend {
	return &backend{entries: map[string][]byte{}, bodies: map[uint64]bool{}, fail: fail}
}

func (b *backend) Put(table byte, key, value []byte, isNew bool) {
	name := string(table) + string(key)
	old, had := b.entries[name]
	if had && isNew {
		b.fail("%c %x is put as new and is there", table, key)
	}
	if had {
		b.hash.Remove(&worldHashKey, table, key, old)
	}
	b.hash.Add(&worldHashKey, table, key, value)
	b.entries[name] = slices.Clone(value)
}

func (b *backend) Delete(table byte, key []byte) {
	if table == TableBody {
		delete(b.bodies, binary.BigEndian.Uint64(key))
		return
	}
	name := string(table) + string(key)
	if old, had := b.entries[name]; had {
		b.hash.Remove(&worldHashKey, table, key, old)
		delete(b.entries, name)
	}
}

func (b *backend) Body(id uint64) { b.bodies[id] = true }

// scan is the Scan that Load reads.
func (b *backend) scan(table byte, fn func(key, value []byte) error) error {
	for _, name := range slices.Sorted(maps.Keys(b.entries)) {
		if name[0] != table {
			continue
		}
		key, value := []byte(name[1:]), slices.Clone(b.entries[name])
		if err := fn(key, value); err != nil {
			return err
		}
		clear(key) // what is kept must be a copy
		clear(value)
	}
	return nil
}

var _ Sink = (*backend)(nil)

// exported is the state as Export tells it.
func exported(m *Machine) map[string][]byte {
	all := make(map[string][]byte)
	m.Export(func(table byte, key, value []byte) {
		name := string(table) + string(key)
		if _, twice := all[name]; twice {
			panic(fmt.Sprintf("%c %x exported twice", table, key))
		}
		all[name] = slices.Clone(value)
	})
	return all
}
