package core

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// naive is the broker as one would explain it: lists that are searched, no
// index, no reference counts, no bounds. It reads the same records as Machine
// and is the oracle for what Machine holds and does.
type naive struct {
	limits   record.Limits
	now      int64
	nextWill uint64
	sessions []*naiveSession // living ones, in the order of their ids
	messages map[uint64]*naiveMessage
	retained map[string]uint64
	pending  map[GroupKey][]naivePending // in the order of the messages
	wills    []*naiveWill
	did      naiveEffects
}

type naiveMessage struct {
	id       uint64
	topic    string
	empty    bool
	qos      uint8
	retain   bool
	size     int
	deadline int64
}

type naiveSession struct {
	id           uint64
	client, user string
	epoch        record.Epoch
	expiry       uint32
	max          int
	disconnected int64
	will         *record.Will
	willAt       int64
	subs         map[string]session.Subscription
	received     map[uint16]bool
	queue        []naiveEntry
	flight       []naiveEntry
	lastPID      uint16
}

type naiveEntry struct {
	Msg      uint64
	PID      uint16
	QoS      uint8
	Retain   bool
	Released bool
	IDs      []uint32
	Group    string
}

type naivePending struct {
	msg   uint64
	epoch record.Epoch
	qos   uint8
}

type naiveWill struct {
	id     uint64
	epoch  record.Epoch
	client string
	due    bool
	at     int64
	will   record.Will
}

// naiveEffects is what of a record's effects is compared, as sets of lines.
type naiveEffects []string

func (d *naiveEffects) add(args ...any) { *d = append(*d, strings.TrimSpace(fmt.Sprintln(args...))) }

func newNaive() *naive {
	return &naive{
		nextWill: 1, messages: map[uint64]*naiveMessage{}, retained: map[string]uint64{}, pending: map[GroupKey][]naivePending{},
	}
}

func (n *naive) byID(id uint64) *naiveSession {
	for _, s := range n.sessions {
		if s.id == id {
			return s
		}
	}
	return nil
}

func (n *naive) current(id uint64, e record.Epoch) *naiveSession {
	if s := n.byID(id); s != nil && e != 0 && s.epoch == e {
		return s
	}
	return nil
}

func (s *naiveSession) window(n *naive) int { return max(1, min(s.max, int(n.limits.MaxInflight))) }

func (n *naive) apply(index uint64, now int64, rec []byte) {
	n.now, n.did = max(n.now, now), nil
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	switch record.KindOf(rec) {
	case record.KindGenesis:
		var r record.Genesis
		must(r.Decode(rec))
		n.limits = r.Limits
	case record.KindConfig:
		var r record.Config
		must(r.Decode(rec))
		n.limits = r.Limits
	case record.KindServerStart:
		n.serverStart()
	case record.KindTick:
		n.tick()
	case record.KindConnect:
		var r record.Connect
		must(r.Decode(rec))
		n.connect(index, &r)
	case record.KindDisconnect:
		var r record.Disconnect
		must(r.Decode(rec))
		n.disconnect(&r)
	case record.KindWill:
		var r record.LoggedWill
		must(r.Decode(rec))
		n.wills = slices.DeleteFunc(n.wills, func(w *naiveWill) bool { return w.epoch == r.Epoch && r.Epoch != 0 })
		if r.Epoch != 0 {
			n.addWill(&naiveWill{epoch: r.Epoch, client: string(r.ClientID), will: r.Will})
		}
	case record.KindSubscribe:
		var r record.Subscribe
		must(r.Decode(rec))
		n.subscribe(&r)
	case record.KindUnsubscribe:
		var r record.Unsubscribe
		must(r.Decode(rec))
		if s := n.current(r.Session, r.Epoch); s != nil {
			for _, f := range r.Filters {
				n.unsubscribe(s, string(f), true)
			}
		}
	case record.KindPublish:
		var r record.Publish
		must(r.Decode(rec))
		n.publish(index, &r)
	case record.KindPubRel:
		var r record.PubRel
		must(r.Decode(rec))
		if s := n.current(r.Session, r.Epoch); s != nil {
			delete(s.received, r.PacketID)
		}
	case record.KindAck:
		var r record.Ack
		must(r.Decode(rec))
		n.ack(&r)
	case record.KindRec:
		var r record.Rec
		must(r.Decode(rec))
		n.rec(&r)
	case record.KindDispatch:
		var r record.Dispatch
		must(r.Decode(rec))
		n.dispatch(&r)
	case record.KindSessionRemove:
		var r record.SessionRemove
		must(r.Decode(rec))
		for _, s := range slices.Clone(n.sessions) {
			if s.client == string(r.ClientID) {
				n.end(s)
			}
		}
		n.cancelWills(string(r.ClientID))
	case record.KindRetainClear:
		var r record.RetainClear
		must(r.Decode(rec))
		delete(n.retained, string(r.Topic))
	}
	n.forget()
}

// forget drops the messages that nothing refers to.
func (n *naive) forget() {
	alive := map[uint64]bool{}
	for _, s := range n.sessions {
		for _, e := range slices.Concat(s.flight, s.queue) {
			alive[e.Msg] = true
		}
	}
	for _, id := range n.retained {
		alive[id] = true
	}
	for _, list := range n.pending {
		for _, p := range list {
			alive[p.msg] = true
		}
	}
	for id := range n.messages {
		if !alive[id] {
			delete(n.messages, id)
		}
	}
}

func (n *naive) connect(index uint64, c *record.Connect) {
	if c.Epoch == 0 {
		return
	}
	var s *naiveSession
	for _, old := range n.sessions {
		if old.client == string(c.ClientID) {
			s = old
		}
	}
	if s != nil {
		expired := s.epoch == 0 && s.expiry != session.Forever && n.now >= s.disconnected+int64(s.expiry)*1000
		other := s.user != string(c.User) && !n.limits.ShareUsers
		if expired || other || c.CleanStart || s.epoch != 0 && s.expiry == 0 {
			n.end(s)
			s = nil
		} else if s.epoch != 0 && s.will != nil && s.will.Delay == 0 {
			n.willDue(s)
		}
	}
	n.did.add("present", s != nil)
	if s == nil {
		s = &naiveSession{id: index, client: string(c.ClientID), subs: map[string]session.Subscription{}, received: map[uint16]bool{}}
		n.sessions = append(n.sessions, s)
	}
	n.cancelWills(s.client)
	s.user, s.epoch, s.expiry, s.max = string(c.User), c.Epoch, min(c.Expiry, n.limits.SessionExpiryMax), max(1, int(c.ReceiveMaximum))
	s.will, s.willAt = nil, 0
	if c.HasWill {
		s.will = &c.Will
	}
	n.fill(s)
}

func (n *naive) disconnect(d *record.Disconnect) {
	if d.Session == 0 {
		for i, w := range n.wills {
			if w.epoch == d.Epoch && d.Epoch != 0 {
				if d.DropWill {
					n.wills = slices.Delete(n.wills, i, i+1)
				} else {
					n.fallDue(w)
				}
				return
			}
		}
		return
	}
	s := n.current(d.Session, d.Epoch)
	if s == nil {
		return
	}
	if d.HasExpiry && s.expiry != 0 {
		s.expiry = min(d.Expiry, n.limits.SessionExpiryMax)
	}
	if d.DropWill {
		s.will = nil
	}
	n.offline(s)
}

func (n *naive) offline(s *naiveSession) {
	s.epoch, s.disconnected = 0, n.now
	switch {
	case s.expiry == 0:
		n.end(s)
	case s.will != nil && s.will.Delay == 0:
		n.willDue(s)
	case s.will != nil:
		s.willAt = n.now + int64(s.will.Delay)*1000
	}
}

func (n *naive) serverStart() {
	grace := n.limits.RestartGrace
	for k, list := range n.pending {
		list = slices.DeleteFunc(list, func(p naivePending) bool { return p.epoch != 0 && p.qos == 2 })
		for i := range list {
			list[i].epoch, list[i].qos = 0, 0
		}
		n.pending[k] = list
	}
	for _, s := range slices.Clone(n.sessions) {
		if s.epoch == 0 {
			continue
		}
		if s.will != nil {
			w := *s.will
			w.Delay = max(w.Delay, grace)
			s.will = &w
			if s.expiry == 0 {
				n.addWill(&naiveWill{client: s.client, at: n.now + int64(grace)*1000, will: w})
				s.will = nil
			}
		}
		n.offline(s)
	}
	for _, w := range n.wills {
		if w.epoch != 0 {
			w.epoch, w.at = 0, n.now+int64(grace)*1000
		}
	}
}

// tick lets everything fall due whose time has come, earliest first.
func (n *naive) tick() {
	for {
		type due struct {
			at   int64
			kind int
			id   uint64
			do   func()
		}
		var all []due
		for _, s := range n.sessions {
			if at := s.disconnected + int64(s.expiry)*1000; s.epoch == 0 && s.expiry != session.Forever && at <= n.now {
				all = append(all, due{at, 0, s.id, func() { n.end(s) }})
			}
			if s.epoch == 0 && s.will != nil && s.willAt <= n.now {
				all = append(all, due{s.willAt, 1, s.id, func() { n.willDue(s) }})
			}
		}
		for _, w := range n.wills {
			if !w.due && w.epoch == 0 && w.at <= n.now {
				all = append(all, due{w.at, 2, w.id, func() { n.fallDue(w) }})
			}
		}
		if len(all) == 0 {
			break
		}
		slices.SortFunc(all, func(a, b due) int {
			return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.kind, b.kind), cmp.Compare(a.id, b.id))
		})
		all[0].do()
	}
	for name, id := range n.retained {
		if m := n.messages[id]; m.deadline != 0 && m.deadline <= n.now {
			n.did.add("retained expired", name)
			delete(n.retained, name)
		}
	}
}

func (n *naive) end(s *naiveSession) {
	if s.will != nil {
		n.willDue(s)
	}
	n.did.add("ended", s.id)
	for f := range s.subs {
		n.unsubscribe(s, f, false)
	}
	n.sessions = slices.DeleteFunc(n.sessions, func(o *naiveSession) bool { return o == s })
	for _, e := range slices.Concat(s.flight, s.queue) {
		if e.Group != "" && (e.PID == 0 || e.QoS == 1) {
			n.giveBack(keyOf(e.Group), e.Msg)
		}
	}
}

func (n *naive) addWill(w *naiveWill) {
	w.id = n.nextWill
	n.nextWill++
	n.wills = append(n.wills, w)
	if w.due {
		n.did.add("will", w.id)
	}
}

func (n *naive) fallDue(w *naiveWill) {
	w.epoch, w.due = 0, true
	n.did.add("will", w.id)
}

func (n *naive) willDue(s *naiveSession) {
	n.addWill(&naiveWill{client: s.client, due: true, will: *s.will})
	s.will, s.willAt = nil, 0
}

func (n *naive) cancelWills(client string) {
	n.wills = slices.DeleteFunc(n.wills, func(w *naiveWill) bool { return w.client == client && !w.due && w.epoch == 0 })
}

func (n *naive) subscribe(r *record.Subscribe) {
	s := n.current(r.Session, r.Epoch)
	if s == nil {
		return
	}
	for _, f := range r.Filters {
		name, o := string(f.Name), f.Options
		_, existed := s.subs[name]
		s.subs[name] = session.Subscription{Options: o, ID: r.ID}
		if keyOf(name).Share != "" || o.RetainHandling() == 2 || o.RetainHandling() == 1 && existed {
			continue
		}
		var names []string
		for t := range n.retained {
			if topic.Match(name, t) {
				names = append(names, t)
			}
		}
		slices.SortFunc(names, levelOrder)
		for _, t := range names {
			m := n.messages[n.retained[t]]
			switch qos := min(m.qos, o.QoS()); {
			case m.deadline != 0 && m.deadline <= n.now:
			case qos == 0:
				n.did.add("retained", s.id, m.id, r.ID)
			default:
				n.push(s, naiveEntry{Msg: m.id, QoS: qos, Retain: true, IDs: idList(r.ID)})
			}
		}
	}
	n.fill(s)
}

// levelOrder is the order in which retained messages are sent.
func levelOrder(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) }

func idList(id uint32) []uint32 {
	if id == 0 {
		return nil
	}
	return []uint32{id}
}

func (n *naive) unsubscribe(s *naiveSession, f string, alone bool) {
	if _, had := s.subs[f]; !had {
		return
	}
	k := keyOf(f)
	if k.Share != "" && alone {
		var kept, back []naiveEntry
		for _, e := range s.queue {
			if e.Group == f {
				back = append(back, e)
			} else {
				kept = append(kept, e)
			}
		}
		s.queue = kept
		for _, e := range back {
			n.giveBack(k, e.Msg)
		}
	}
	delete(s.subs, f)
	if k.Share != "" && !n.durable(k) {
		for _, p := range n.pending[k] {
			if p.epoch == 0 {
				n.did.add("orphan", k, p.msg)
			}
		}
		delete(n.pending, k)
	}
}

func (n *naive) publish(index uint64, p *record.Publish) {
	origin := p.Session
	switch {
	case p.WillOf != 0:
		i := slices.IndexFunc(n.wills, func(w *naiveWill) bool { return w.id == p.WillOf && w.due })
		if i < 0 {
			return
		}
		for _, s := range n.sessions {
			if s.client == n.wills[i].client {
				origin = s.id
			}
		}
		n.wills = slices.Delete(n.wills, i, i+1)
		if len(p.Message) == 0 {
			return
		}
	case p.Session != 0:
		s := n.current(p.Session, p.Epoch)
		if s == nil || p.QoS == 2 && s.received[p.PacketID] {
			return
		}
		if p.QoS == 2 {
			s.received[p.PacketID] = true
		}
	}
	body, err := packets.ParseMessage(p.Message)
	if err != nil {
		panic(err)
	}
	m := &naiveMessage{id: index, topic: string(body.Topic), empty: len(body.Payload) == 0, qos: p.QoS, retain: p.Retain, size: len(p.Message)}
	if p.HasExpiry {
		m.deadline = n.now + int64(p.Expiry)*1000
	}
	n.messages[index] = m
	for _, s := range n.sessions {
		n.deliver(s, m, origin)
	}
	for _, k := range n.groups() {
		if p.QoS > 0 && topic.Match(k.Filter, m.topic) {
			n.deliverGroup(k, m, p)
		}
	}
	if m.retain && m.empty {
		delete(n.retained, m.topic)
	} else if m.retain {
		n.retained[m.topic] = m.id
	}
}

// groups returns the groups with a durable member.
func (n *naive) deliver(s *naiveSession, m *naiveMessage, origin uint64) {
	e := naiveEntry{Msg: m.id}
	matched := false
	for f, sub := range s.subs {
		if keyOf(f).Share != "" || !topic.Match(f, m.topic) || sub.Options.NoLocal() && s.id == origin {
			continue
		}
		matched = true
		e.QoS = max(e.QoS, min(m.qos, sub.Options.QoS()))
		e.Retain = e.Retain || m.retain && sub.Options.RetainAsPublished()
		e.IDs = append(e.IDs, idList(sub.ID)...)
	}
	slices.Sort(e.IDs)
	switch {
	case !matched:
	case e.QoS > 0:
		n.push(s, e)
	case s.epoch != 0:
		n.did.add("direct", s.id, e.Retain, e.IDs)
	}
}

// give reports whether the session is a member and so had the message.
// push queues a message, and assigns it when nothing is in its way.
func (n *naive) push(s *naiveSession, e naiveEntry) {
	if s.epoch != 0 && len(s.queue) == 0 && len(s.flight) < s.window(n) {
		s.queue = append(s.queue, e)
		n.assign(s)
		return
	}
	size, l := n.messages[e.Msg].size, n.limits
	for {
		bytes := size
		for _, o := range s.queue {
			bytes += n.messages[o.Msg].size
		}
		if (l.QueueMessages == 0 || len(s.queue) < int(l.QueueMessages)) && (l.QueueBytes == 0 || bytes <= int(l.QueueBytes)) {
			break
		}
		if !l.DropOldest || len(s.queue) == 0 || l.QueueBytes > 0 && size > int(l.QueueBytes) {
			n.did.add("drop", s.id, e.Msg, DropQueueFull)
			return
		}
		n.did.add("drop", s.id, s.queue[0].Msg, DropQueueFull)
		s.queue = s.queue[1:]
	}
	s.queue = append(s.queue, e)
}

func (n *naive) assign(s *naiveSession) {
	e := s.queue[0]
	s.queue = s.queue[1:]
	for e.PID = s.lastPID + 1; e.PID == 0 || s.find(e.PID) >= 0; e.PID++ {
	}
	s.lastPID = e.PID
	s.flight = append(s.flight, e)
}

func (s *naiveSession) find(pid uint16) int {
	return slices.IndexFunc(s.flight, func(e naiveEntry) bool { return e.PID == pid })
}

func (n *naive) fill(s *naiveSession) {
	for s.epoch != 0 && len(s.queue) > 0 && len(s.flight) < s.window(n) {
		if m := n.messages[s.queue[0].Msg]; m.deadline != 0 && m.deadline <= n.now {
			n.did.add("drop", s.id, m.id, DropExpired)
			s.queue = s.queue[1:]
			continue
		}
		n.assign(s)
	}
}

func (n *naive) ack(a *record.Ack) {
	if a.Message != 0 {
		k := GroupKey{string(a.Share), string(a.Filter)}
		if n.durable(k) {
			n.pending[k] = slices.DeleteFunc(n.pending[k], func(p naivePending) bool {
				return p.msg == a.Message && p.epoch == a.Epoch && a.Epoch != 0
			})
		}
		return
	}
	s := n.current(a.Session, a.Epoch)
	if s == nil {
		return
	}
	reasons := map[record.AckReason]DropReason{
		record.AckExpired: DropExpired, record.AckTooLarge: DropTooLarge, record.AckDenied: DropDenied,
	}
	for _, run := range a.Runs {
		for j := range run.Count {
			i := s.find(run.First + j)
			if i < 0 || a.Reason == record.AckClient && s.flight[i].QoS == 2 && !s.flight[i].Released {
				continue
			}
			if why, dropped := reasons[a.Reason]; dropped {
				n.did.add("drop", s.id, s.flight[i].Msg, why)
			}
			s.flight = slices.Delete(s.flight, i, i+1)
		}
	}
	n.fill(s)
}

func (n *naive) rec(r *record.Rec) {
	s := n.current(r.Session, r.Epoch)
	if s == nil {
		return
	}
	i := s.find(r.PacketID)
	if i < 0 || s.flight[i].QoS != 2 {
		return
	}
	if r.Code < 0x80 {
		s.flight[i].Released = true
		return
	}
	s.flight = slices.Delete(s.flight, i, i+1)
	n.fill(s)
}
