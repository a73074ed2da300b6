package inspect

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// This file finds out what a record led to for one client: from the effects of
// Apply, and by comparing the client's session before and after.

// moment is the client's session before a record.
type moment struct {
	had       bool
	id        uint64
	ref       uint32
	connected bool
	tail      uint64 // newest entry
	assigned  uint64 // newest entry in flight, 0 = none
}

// work is the record in work.
type work struct {
	outcomes []Outcome
	concerns bool // it is told even without an outcome

	publish *record.Publish // of a Publish that is asked for
	name    string          // its topic
	matched []match         // subscriptions of the client that it meets
	ended   []session.Entry[uint64]
	found   bool // the client got it, or it is told why not
}

// match is a subscription that a message meets.
type match struct {
	Subscription
	shared bool
}

func (a *asker) out(o Outcome) {
	if o.Message != 0 && o.Topic == "" {
		if o.Message == a.p.machine.Applied() && a.cur.name != "" {
			o.Topic = a.cur.name
		} else if f := a.fates[o.Message]; f != nil {
			o.Topic = f.Topic
		} else {
			o.Topic = a.storedTopic(o.Message)
		}
	}
	if o.Message != 0 && !a.asked(o.Message, o.Topic) {
		return
	}
	a.cur.outcomes = append(a.cur.outcomes, o)
}

// before looks at the state that a record will find.
func (a *asker) before(index uint64, _ int64, rec []byte) error {
	a.was, a.cur = moment{}, work{outcomes: a.cur.outcomes[:0], matched: a.cur.matched[:0], ended: a.cur.ended[:0]}
	if core.ChangesIndex(record.KindOf(rec)) {
		a.filters = nil
	}
	s := a.p.machine.SessionOf(a.q.Client)
	if s != nil {
		a.was = moment{had: true, id: s.ID, ref: s.Ref, connected: s.Connected(), tail: s.Out.Tail()}
		if in := s.Out.Inflight(); len(in) > 0 {
			a.was.assigned = in[len(in)-1].Seq
		}
	}
	switch record.KindOf(rec) {
	case record.KindPublish:
		a.beforePublish(index, rec, s)
	case record.KindAck:
		var ack record.Ack
		if s != nil && ack.Decode(rec) == nil && ack.Session == s.ID {
			for _, run := range ack.Runs {
				for i := range run.Count {
					a.beforeAck(s, run.First+i)
				}
			}
		}
	case record.KindRec:
		var r record.Rec
		if s != nil && r.Decode(rec) == nil && r.Session == s.ID {
			a.beforeAck(s, r.PacketID)
		}
	}
	return nil
}

func (a *asker) beforeAck(s *session.Session, pid uint16) {
	if e := s.Out.Find(pid); e != nil {
		a.cur.ended = append(a.cur.ended, *e)
	}
}

func (a *asker) beforePublish(index uint64, rec []byte, s *session.Session) {
	p := &a.scratch
	if p.Decode(rec) != nil || len(p.Message) == 0 {
		return
	}
	m, err := packets.ParseMessage(p.Message)
	if err != nil {
		return
	}
	mine := s != nil && p.Session == s.ID
	if a.q.Message != 0 && index != a.q.Message || a.q.Topic != "" && !topic.Match(a.q.Topic, string(m.Topic)) {
		return // what it does to other messages of the client shows all the same
	}
	name := string(m.Topic)
	if s != nil {
		for _, f := range a.filtersOf(s) {
			_, inner, shared := topic.SplitShare(f)
			if !shared {
				inner = f
			}
			if topic.Match(inner, name) {
				sub, _ := s.Subscription(f)
				a.cur.matched = append(a.cur.matched, match{sessionSubscription(f, sub), shared})
			}
		}
	}
	a.cur.publish, a.cur.name = p, name
	a.cur.concerns = a.filter != "" || mine || len(a.cur.matched) > 0
}

// filtersOf returns the filters of a session. It keeps them until a record may
// have changed them.
func (a *asker) filtersOf(s *session.Session) []string {
	if a.filters == nil {
		a.filters = s.Filters()
	}
	return a.filters
}

// after tells what the record led to.
func (a *asker) after(index uint64, now int64, rec []byte) error {
	kind := record.KindOf(rec)
	fx := &a.p.fx
	s := a.p.machine.SessionOf(a.q.Client)
	a.ends(fx)
	switch kind {
	case record.KindPublish:
		a.afterPublish(index, s, fx)
	case record.KindAck, record.KindRec, record.KindPubRel:
		a.afterAck(kind, rec, s, fx)
	case record.KindDispatch:
		a.afterDispatch(rec, fx)
	default:
		a.afterSession(kind, rec, fx)
	}
	a.arrivals(index, s)
	a.drops(fx)
	if kind == record.KindPublish && a.cur.publish != nil && !a.cur.found && !fx.Reply.Stale && !fx.Reply.Duplicate {
		a.whyNot(index)
	}
	if !a.cur.concerns && len(a.cur.outcomes) == 0 {
		if kind == record.KindConnect || kind == record.KindWill { // for the names of others
			if _, err := a.line(index, now, rec); err != nil {
				return damagedRecord(index, err)
			}
		}
		return nil
	}
	l, err := a.line(index, now, rec)
	if err != nil {
		return damagedRecord(index, err)
	}
	e := &Event{Line: l, Outcomes: slices.Clone(a.cur.outcomes)}
	for i := range e.Outcomes {
		o := &e.Outcomes[i]
		a.follow(o)
		a.note(o, index)
	}
	return a.tell(e)
}

// follow keeps which messages the session has.
func (a *asker) follow(o *Outcome) {
	switch o.Result {
	case Acknowledged, Dropped:
		h := a.open[o.Message]
		if h.n--; h.n > 0 {
			a.open[o.Message] = h
		} else {
			delete(a.open, o.Message)
		}
	}
}

// ends tells of the end of the client's session, and of what ends with it.
func (a *asker) ends(fx *core.Effects) {
	for i := range fx.Ended {
		e := &fx.Ended[i]
		if e.ClientID != a.q.Client {
			continue
		}
		a.out(Outcome{Result: SessionEnded, Reason: endWords(e.Reason)})
		for _, id := range slices.Sorted(maps.Keys(a.open)) {
			reason := "the session ended"
			if a.open[id].group {
				reason = "the session ended; unless it was in flight with QoS 2, another member of the group gets it"
			}
			a.out(Outcome{Result: Dropped, Reason: reason, Message: id})
		}
	}
}

func endWords(r core.EndReason) string {
	switch r {
	case core.EndExpired:
		return "it expired, or was to end with its connection"
	case core.EndCleanStart:
		return "the client asked for a clean start"
	case core.EndUser:
		return "another user connected with its client identifier"
	case core.EndRemoved:
		return "it was removed"
	}
	return "unknown"
}

// arrivals tells of messages that came to the session, or moved from its queue
// into flight.
func (a *asker) arrivals(index uint64, s *session.Session) {
	if s == nil {
		return
	}
	tail := a.was.tail
	if !a.was.had || a.was.id != s.ID {
		tail, a.was.assigned = 0, 0
	}
	if in := s.Out.Inflight(); len(in) > 0 && in[len(in)-1].Seq > a.was.assigned {
		for i := range in {
			if in[i].Seq > a.was.assigned {
				a.arrival(&in[i], InFlight, "")
			}
		}
	}
	if s.Out.Tail() == tail || s.Out.Queued() == 0 {
		return
	}
	reason := "the client is away"
	if s.Connected() {
		reason = "the window of messages in flight is full"
	}
	if s.Out.Tail() == tail+1 && a.cur.publish != nil { // the usual case, without a walk
		if in := s.Out.Inflight(); len(in) == 0 || in[len(in)-1].Seq != s.Out.Tail() {
			a.arrival(&session.Entry[uint64]{Msg: index, QoS: a.cur.publish.QoS, Group: a.onlyShared()}, Queued, reason)
		}
		return
	}
	s.Out.All(func(e *session.Entry[uint64]) bool {
		if e.Seq > tail && e.PID == 0 {
			a.arrival(e, Queued, reason)
		}
		return true
	})
}

// onlyShared reports whether the publish in work meets only shared
// subscriptions of the client.
func (a *asker) onlyShared() bool {
	for i := range a.cur.matched {
		if !a.cur.matched[i].shared {
			return false
		}
	}
	return len(a.cur.matched) > 0
}

func (a *asker) arrival(e *session.Entry[uint64], result, reason string) {
	o := Outcome{Result: result, Reason: reason, Message: e.Msg, PacketID: e.PID}
	if result == InFlight {
		qos := e.QoS
		o.QoS = &qos
	}
	n := len(a.cur.outcomes)
	a.out(o)
	if len(a.cur.outcomes) > n {
		if result == Queued || e.Seq == 0 || e.Seq > a.was.tail || !a.was.had {
			a.hold(e)
		}
	}
	if a.cur.publish != nil && e.Msg == a.p.machine.Applied() {
		a.cur.found = true
	}
}

// hold counts a copy of a message that the session has.
func (a *asker) hold(e *session.Entry[uint64]) {
	h := a.open[e.Msg]
	a.open[e.Msg] = held{h.n + 1, e.Group}
}

// drops tells of messages that the client, or its shared group, will not get.
func (a *asker) drops(fx *core.Effects) {
	for i := range fx.Dropped {
		d := &fx.Dropped[i]
		_, known := a.fates[d.Message]
		switch {
		case a.was.had && d.Ref == a.was.ref:
			a.out(Outcome{Result: Dropped, Reason: dropWords(d.Reason), Message: d.Message})
		case d.Ref == core.NoRef && (known || d.Message == a.p.machine.Applied() && len(a.cur.matched) > 0):
			a.out(Outcome{Result: Dropped, Reason: dropWords(d.Reason) + ", while it waited in a shared group", Message: d.Message})
		default:
			continue
		}
		if d.Message == a.p.machine.Applied() {
			a.cur.found = true
		}
	}
}

func dropWords(r core.DropReason) string {
	switch r {
	case core.DropQueueFull:
		return "the queue is full"
	case core.DropExpired:
		return "it expired"
	case core.DropTooLarge:
		return "larger than the client's maximum packet size"
	case core.DropDenied:
		return "the client may not read it any more"
	}
	return r.String()
}

func (a *asker) afterPublish(index uint64, s *session.Session, fx *core.Effects) {
	p := a.cur.publish
	if p == nil {
		return
	}
	mine := s != nil && p.Session == s.ID
	switch {
	case fx.Reply.Stale && mine:
		a.out(Outcome{Result: Ignored, Reason: staleWords})
		return
	case fx.Reply.Stale:
		a.cur.concerns = false
		return
	case fx.Reply.Duplicate:
		a.out(Outcome{Result: Ignored, Reason: "a repeated QoS 2 PUBLISH: its packet identifier is taken"})
		return
	}
	if mine {
		a.out(Outcome{Result: Published, Reason: fmt.Sprintf("by the client; it met %d subscriptions", fx.Reply.Matched), Message: index})
	}
	if p.Retain && (a.filter != "" || mine || len(a.cur.matched) > 0) {
		if m, err := packets.ParseMessage(p.Message); err == nil && len(m.Payload) == 0 {
			a.out(Outcome{Result: ClearedRetain, Message: index})
		} else {
			a.out(Outcome{Result: KeptRetained, Message: index})
		}
	}
	for i := range fx.Direct {
		if d := &fx.Direct[i]; a.was.had && d.Ref == a.was.ref {
			qos := d.QoS
			a.out(Outcome{Result: Sent, Message: index, QoS: &qos, Reason: "nothing is kept of it"})
			a.cur.found = true
		}
	}
}

const staleWords = "it came from a connection that is no longer the session's"

// whyNot says why the client did not get the message of the record in work.
func (a *asker) whyNot(index uint64) {
	if a.filter == "" && len(a.cur.matched) == 0 {
		return // only asked for what concerns the client
	}
	a.out(Outcome{Result: NotDelivered, Reason: a.notDelivered(), Message: index})
}

func (a *asker) notDelivered() string {
	p := a.cur.publish
	switch {
	case !a.was.had:
		return "the client had no durable session then"
	case len(a.cur.matched) == 0:
		return "no matching subscription"
	}
	own := p.Session == a.was.id
	var reason string
	for i := range a.cur.matched {
		switch m := &a.cur.matched[i]; {
		case m.shared:
			reason = a.chosen(m.Filter)
		case own && m.NoLocal:
			reason = "the client's own message, and No Local in its subscription " + Printable(m.Filter)
		case min(m.QoS, p.QoS) == 0 && !a.was.connected:
			return "QoS 0, and the client was away: that is not kept"
		}
	}
	if reason == "" {
		reason = "unknown"
	}
	return reason
}

// chosen says who of a shared group got the message of the record in work.
func (a *asker) chosen(filter string) string {
	share, inner, _ := topic.SplitShare(filter)
	for i := range a.cur.publish.Choices {
		c := &a.cur.publish.Choices[i]
		if bytes.Equal(c.Share, []byte(share)) && bytes.Equal(c.Filter, []byte(inner)) {
			if who := a.member(c.Session, c.Epoch); who != "" {
				return "the shared group " + Printable(filter) + " gave it to " + Printable(who)
			}
		}
	}
	if a.cur.publish.QoS == 0 {
		return "QoS 0: the shared group " + Printable(filter) + " gives it to one member, and that is not logged"
	}
	return "it waits in the shared group " + Printable(filter) + ": no member was connected"
}

func (a *asker) afterAck(kind record.Kind, rec []byte, s *session.Session, fx *core.Effects) {
	if kind == record.KindPubRel {
		var p record.PubRel
		if p.Decode(rec) == nil && a.was.had && p.Session == a.was.id && a.filter == "" {
			a.cur.concerns = true
		}
		return
	}
	if len(a.cur.ended) == 0 {
		a.afterGroupAck(kind, rec, fx)
		return
	}
	if fx.Reply.Stale {
		for i := range a.cur.ended {
			a.out(Outcome{Result: Ignored, Reason: staleWords, Message: a.cur.ended[i].Msg})
		}
		return
	}
	client := true // not the broker's decision, which shows as a drop
	reason := "by the client"
	if kind == record.KindAck {
		var ack record.Ack
		client = ack.Decode(rec) == nil && ack.Reason == record.AckClient
	} else if r := (record.Rec{}); r.Decode(rec) == nil && r.Code >= 0x80 {
		reason = fmt.Sprintf("refused by the client with code 0x%02x", r.Code)
	}
	for i := range a.cur.ended {
		e := &a.cur.ended[i]
		o := Outcome{Result: Acknowledged, Reason: reason, Message: e.Msg, PacketID: e.PID}
		if now := s.Out.Find(e.PID); now != nil && now.Seq == e.Seq {
			if kind != record.KindRec {
				continue // a PUBACK of QoS 2: it ends nothing
			}
			o.Result = Received
		} else if !client {
			continue
		}
		a.out(o)
	}
}

// afterGroupAck tells of a message that another, ephemeral member of a shared
// group acknowledged.
func (a *asker) afterGroupAck(kind record.Kind, rec []byte, fx *core.Effects) {
	var ack record.Ack
	if kind != record.KindAck || ack.Decode(rec) != nil || ack.Message == 0 || !fx.Reply.Known {
		return
	}
	if _, known := a.fates[ack.Message]; known {
		a.out(Outcome{
			Result: NotDelivered, Message: ack.Message,
			Reason: "another member of the shared group acknowledged it: connection " + Epoch(ack.Epoch).String(),
		})
	}
}

func (a *asker) afterDispatch(rec []byte, fx *core.Effects) {
	var d record.Dispatch
	if d.Decode(rec) != nil || !fx.Reply.Known {
		return
	}
	if a.was.had && d.Session == a.was.id { // arrivals tell the rest
		a.cur.concerns = a.asked(d.Message, a.storedOrFate(d.Message))
		return
	}
	if _, known := a.fates[d.Message]; !known {
		return
	}
	who := a.member(d.Session, d.Epoch)
	reason := "the shared group gave it to " + Printable(who)
	if who == "" {
		reason = "it waits in its shared group again"
	}
	a.out(Outcome{Result: NotDelivered, Reason: reason, Message: d.Message})
}

func (a *asker) storedOrFate(id uint64) string {
	if f := a.fates[id]; f != nil {
		return f.Topic
	}
	return a.storedTopic(id)
}

// afterSession tells of records about sessions, subscriptions and the broker.
func (a *asker) afterSession(kind record.Kind, rec []byte, fx *core.Effects) {
	for i := range fx.Retained {
		if r := &fx.Retained[i]; a.was.had && r.Ref == a.was.ref {
			qos := r.QoS
			a.out(Outcome{Result: Sent, Reason: "the retained message, for a new subscription", Message: r.Message, QoS: &qos})
		}
	}
	switch kind {
	case record.KindConnect:
		var c record.Connect
		if c.Decode(rec) != nil || string(c.ClientID) != a.q.Client {
			return
		}
		if fx.Reply.Present {
			o := Outcome{Result: SessionResumed}
			if fx.Reply.TakenOver != 0 {
				o.Reason = "it takes over from connection " + Epoch(fx.Reply.TakenOver).String()
			}
			a.out(o)
		} else {
			a.out(Outcome{Result: SessionBegun})
		}
		a.names.note(fx.Reply.Session, c.Epoch, a.q.Client)
		a.reset(fx)
	case record.KindServerStart:
		if a.was.connected {
			a.out(Outcome{Result: Disconnected, Reason: "the broker started anew"})
		}
	case record.KindDisconnect:
		var d record.Disconnect
		if d.Decode(rec) == nil && a.was.had && d.Session == a.was.id {
			a.disconnected(fx)
		}
	case record.KindSubscribe, record.KindUnsubscribe:
		a.subscribed(kind, rec, fx)
	case record.KindSessionRemove:
		var r record.SessionRemove
		a.cur.concerns = r.Decode(rec) == nil && string(r.ClientID) == a.q.Client
	case record.KindRetainClear:
		var r record.RetainClear
		a.cur.concerns = r.Decode(rec) == nil && a.filter != "" && topic.Match(a.filter, string(r.Topic))
	}
}

// reset forgets what an earlier session had.
func (a *asker) reset(fx *core.Effects) {
	if !fx.Reply.Present {
		clear(a.open)
	}
}

func (a *asker) disconnected(fx *core.Effects) {
	if fx.Reply.Stale {
		a.out(Outcome{Result: Ignored, Reason: staleWords})
		return
	}
	a.out(Outcome{Result: Disconnected})
}

// subscribed decides whether a change of subscriptions is told: if it has to do
// with the topics asked for.
func (a *asker) subscribed(kind record.Kind, rec []byte, fx *core.Effects) {
	var id uint64
	var filters []string
	if kind == record.KindSubscribe {
		var s record.Subscribe
		if s.Decode(rec) != nil {
			return
		}
		id = s.Session
		for i := range s.Filters {
			filters = append(filters, string(s.Filters[i].Name))
		}
	} else {
		var u record.Unsubscribe
		if u.Decode(rec) != nil {
			return
		}
		id = u.Session
		for _, f := range u.Filters {
			filters = append(filters, string(f))
		}
	}
	if !a.was.had || id != a.was.id {
		return
	}
	if fx.Reply.Stale {
		a.out(Outcome{Result: Ignored, Reason: staleWords})
		return
	}
	a.cur.concerns = a.filter == "" || slices.ContainsFunc(filters, func(f string) bool { return overlap(a.filter, f) })
}
