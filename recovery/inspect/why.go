package inspect

import (
	"context"
	"fmt"
	"slices"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Question is what Why answers: what became of the messages of a client.
type Question struct {
	Client  string
	Topic   string // messages whose topic meets this filter; empty = all that the client has to do with
	Message uint64 // this one alone: the index of its publish

	Payload    string // form, empty = PayloadText
	PayloadMax int
}

// Event is a record that concerns the client and the messages asked for, with
// what it led to for the client.
type Event struct {
	*Line
	Outcomes []Outcome `json:"outcomes"`
	// Unknown: the record is older than the oldest state there is, so that what
	// it led to cannot be told.
	Unknown bool `json:"unknown,omitempty"`
}

// Outcome is one consequence of a record for the client.
type Outcome struct {
	Result   string `json:"result"`
	Reason   string `json:"reason,omitempty"`
	Message  uint64 `json:"message,omitempty"` // index of its publish, 0 = it is about the session
	Topic    string `json:"topic,omitempty"`
	PacketID uint16 `json:"packet_id,omitempty"`
	QoS      *uint8 `json:"qos,omitempty"` // of the delivery
}

// The results of an Outcome.
const (
	SessionBegun   = "session-begun"
	SessionResumed = "session-resumed"
	SessionEnded   = "session-ended"
	Disconnected   = "disconnected"
	Published      = "published"     // by the client
	Queued         = "queued"        // for the client
	InFlight       = "in-flight"     // it has a packet identifier and is sent as soon as the connection takes it
	Sent           = "sent"          // with QoS 0: nobody acknowledges it
	Received       = "received"      // PUBREC
	Acknowledged   = "acknowledged"  // PUBACK or PUBCOMP
	Dropped        = "dropped"       // with a reason
	NotDelivered   = "not-delivered" // with a reason
	KeptRetained   = "retained"      // it is the retained message of its topic now
	ClearedRetain  = "retained-cleared"
	Ignored        = "ignored" // the record changed nothing
)

// Fate is what became of a message for the client.
type Fate struct {
	Message uint64 `json:"message"`
	Topic   string `json:"topic,omitempty"`
	Result  string `json:"result"` // the last one
	Reason  string `json:"reason,omitempty"`
	At      uint64 `json:"at"` // record that brought it, 0 = before the records that were replayed
}

// Story is the answer to a Question, beside its events.
type Story struct {
	Client string `json:"client"`
	// From is the record after which the story begins: its state is known. 0 =
	// from the first record of the store on.
	From     uint64 `json:"from"`
	FromTime Time   `json:"from_time"`
	Source   string `json:"source"` // of that state
	To       uint64 `json:"to"`     // last record that was read
	Events   int    `json:"events"`
	Fates    []Fate `json:"fates"` // of the messages asked for, oldest first
	// Damage is why the records end before the log does.
	Damage error `json:"-"`
	// Clients are other clients with a durable session at the end, a few.
	Clients []string `json:"-"`
}

// fatesKept bounds the fates of one answer; the oldest go first.
const fatesKept = 100_000

// clientsTold bounds Story.Clients.
const clientsTold = 10_000

// Why calls fn for every record that concerns a client and messages, in order,
// and says what became of the messages. It replays everything from the oldest
// state there is.
//
// Traffic that is not logged leaves no trace: QoS 0 that is not retained, and
// everything between clients whose sessions end with their connection.
func (d *Dir) Why(ctx context.Context, q *Question, fn func(e *Event) error) (*Story, error) {
	if q.Payload == "" {
		q.Payload = PayloadText
	}
	b, err := d.openBackend(ctx, false)
	if err != nil {
		return nil, err
	}
	defer b.close() //nolint:errcheck // only read
	a := &asker{
		dir: d, ctx: ctx, q: q, b: b, fn: fn, story: &Story{Client: q.Client}, filter: q.Topic,
		liner: liner{names: newNames(q.Client), payload: q.Payload, most: q.PayloadMax},
		fates: map[uint64]*Fate{}, open: map[uint64]held{},
	}
	if q.Message != 0 {
		if err := a.findMessage(); err != nil {
			return nil, err
		}
	}
	o, err := d.oldest(ctx, b)
	if err != nil {
		return nil, err
	}
	if err := a.begin(o); err != nil {
		return nil, err
	}
	in, _, err := d.history(ctx, logScan{step: stepReplay, visit: a.frame}, 0)
	if err == nil {
		_, err = d.verdict(in, &b.mark)
	}
	if err == nil {
		err = a.p.err
	}
	if err != nil && (ctx.Err() != nil || !isFinding(err)) {
		return nil, err
	}
	a.story.Damage = err
	a.finish()
	return a.story, nil
}

// findMessage finds the topic of the message asked for.
func (a *asker) findMessage() error {
	id := a.q.Message
	var found record.Kind
	_, _, err := a.dir.history(a.ctx, logScan{step: "find message", visit: func(_ *wal.SegmentInfo, f *wal.Frame) error {
		if f.Count == 0 || f.Last() < id {
			return nil
		}
		err := f.Records(func(index uint64, rec []byte) error {
			if index != id {
				return nil
			}
			found = record.KindOf(rec)
			var p record.Publish
			if found == record.KindPublish && p.Decode(rec) == nil {
				a.filter = topicOf(p.Message)
			}
			return errStop
		})
		if err == nil {
			err = errStop
		}
		return err
	}}, id)
	if err != nil && (a.ctx.Err() != nil || !isFinding(err)) {
		return err
	}
	if found == 0 && a.b.used() {
		a.filter = a.storedTopic(id)
	}
	switch {
	case found != 0 && found != record.KindPublish:
		return &NothingError{What: fmt.Sprintf("record %d is no message: it is a %s", id, found)}
	case a.filter == "" && found == 0:
		return &NothingError{What: fmt.Sprintf("there is no message %d: neither the log nor the state has it", id)}
	}
	return nil
}

// storedTopic returns the topic of a message in the backend, empty if it is not
// there.
func (a *asker) storedTopic(id uint64) (name string) {
	if !a.b.used() {
		return ""
	}
	keys := [][]byte{backends.IDKey(nil, backends.TableBody, id)}
	// What cannot be read has no name here; Verify says why.
	_ = a.b.store.Get(a.ctx, keys, func(_ int, body []byte) error {
		name = topicOf(body)
		return nil
	})
	return name
}

// topicOf returns the topic of a stored message, empty if it is none.
func topicOf(message []byte) string {
	m, err := packets.ParseMessage(message)
	if err != nil {
		return ""
	}
	return string(m.Topic)
}

// asker is one Why.
type asker struct {
	liner
	dir    *Dir
	ctx    context.Context
	q      *Question
	b      *backend
	fn     func(e *Event) error
	p      *player
	story  *Story
	filter string // of the topics asked for, empty = all

	fates map[uint64]*Fate // of the messages asked for
	order []uint64         // of fates, oldest first
	open  map[uint64]held  // of them, those that the client's session has

	was moment // of the client's session, before the record in work
	cur work   // the record in work

	scratch record.Publish
	filters []string // of the client's session; nil = look them up
}

// held is a message that a session has: how often, and whether through a shared
// group. A retained message may come twice.
type held struct {
	n     int
	group bool
}

// begin sets where the story starts, and what the client's session holds then.
func (a *asker) begin(o *origin) error {
	m := o.machine
	a.p = &player{dir: a.dir, machine: m, before: a.before, after: a.after}
	a.story.From, a.story.FromTime, a.story.Source = m.Applied(), Time(m.Now()), o.source
	s := m.SessionOf(a.q.Client)
	if s == nil {
		return nil
	}
	a.names.note(s.ID, s.Epoch, s.ClientID)
	topics := map[uint64]string{}
	s.Out.All(func(e *session.Entry[uint64]) bool {
		topics[e.Msg] = ""
		return true
	})
	if o.base != "" {
		if err := baseTopics(o.base, topics); err != nil {
			return err
		}
	}
	s.Out.All(func(e *session.Entry[uint64]) bool {
		name := topics[e.Msg]
		if name == "" {
			name = a.storedTopic(e.Msg)
		}
		if a.asked(e.Msg, name) {
			a.hold(e)
			result := Queued
			if e.PID != 0 {
				result = InFlight
			}
			a.note(&Outcome{Result: result, Message: e.Msg, Topic: name}, 0)
		}
		return true
	})
	return nil
}

// asked reports whether a message is one of those asked for.
func (a *asker) asked(id uint64, name string) bool {
	if a.q.Message != 0 {
		return id == a.q.Message
	}
	return a.q.Topic == "" || topic.Match(a.q.Topic, name)
}

// frame replays a frame. Records that the state to begin with has already are
// told without their outcome.
func (a *asker) frame(_ *wal.SegmentInfo, f *wal.Frame) error {
	if f.Count == 0 {
		return nil
	}
	a.story.To = f.Last()
	if f.First <= a.story.From {
		err := f.Records(func(index uint64, rec []byte) error {
			if index > a.story.From {
				return nil
			}
			return a.old(index, f.Time, rec)
		})
		if err != nil {
			return err
		}
	}
	return a.p.play(f)
}

// old tells of a record that is older than the state.
func (a *asker) old(index uint64, now int64, rec []byte) error {
	l, err := a.line(index, now, rec)
	if err != nil {
		return damagedRecord(index, err)
	}
	mine := l.Client == a.q.Client
	for _, m := range l.members {
		mine = mine || a.names.is(m.session, m.epoch)
	}
	if l.Topic != "" {
		mine = a.asked(index, l.Topic) && (mine || a.filter != "")
	} else if mine && a.filter != "" && len(l.Filters) > 0 {
		mine = l.meets(a.filter)
	}
	if !mine {
		return nil
	}
	return a.tell(&Event{Line: l, Unknown: true})
}

func (a *asker) tell(e *Event) error {
	a.story.Events++
	return a.fn(e)
}

// note keeps the latest outcome of a message asked for.
func (a *asker) note(o *Outcome, at uint64) {
	if o.Message == 0 {
		return
	}
	f := a.fates[o.Message]
	if f == nil {
		if len(a.order) == fatesKept {
			delete(a.fates, a.order[0])
			a.order = a.order[1:]
		}
		f = &Fate{Message: o.Message}
		a.fates[o.Message] = f
		a.order = append(a.order, o.Message)
	}
	if f.Topic == "" {
		f.Topic = o.Topic
	}
	switch o.Result {
	case KeptRetained, ClearedRetain, Published: // says nothing of a delivery
		if f.Result == "" {
			f.Result, f.Reason, f.At = o.Result, o.Reason, at
		}
		return
	}
	if a.open[o.Message].n > 0 && o.Result != Queued && o.Result != InFlight && o.Result != Received {
		return // the session has another copy: a retained message may come twice
	}
	f.Result, f.Reason, f.At = o.Result, o.Reason, at
}

func (a *asker) finish() {
	slices.Sort(a.order)
	for _, id := range a.order {
		a.story.Fates = append(a.story.Fates, *a.fates[id])
	}
	if a.p.machine == nil {
		return
	}
	a.p.machine.Sessions(func(s *session.Session) bool {
		a.story.Clients = append(a.story.Clients, s.ClientID)
		return len(a.story.Clients) < clientsTold
	})
}
