package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal"
)

// Difference is what changed in the state between two points.
type Difference struct {
	A      StateInfo      `json:"a"`
	B      StateInfo      `json:"b"`
	Source string         `json:"source"` // of the state that was replayed from
	Same   bool           `json:"same"`   // the hashes are equal
	Began  []SessionDiff  `json:"sessions_began"`
	Ended  []SessionDiff  `json:"sessions_ended"`
	Others []SessionDiff  `json:"sessions_changed"`
	Topics []RetainedDiff `json:"retained_changed"`
}

// SessionDiff is what changed in one session. One that began or ended has all
// of its subscriptions and messages in here.
type SessionDiff struct {
	Client       string         `json:"client"`
	Session      uint64         `json:"session"`
	Changes      []string       `json:"changes,omitempty"` // in words: connected, expiry …
	Subscribed   []Subscription `json:"subscribed,omitempty"`
	Unsubscribed []Subscription `json:"unsubscribed,omitempty"`
	Queue        QueueDiff      `json:"queue"`
}

// QueueDiff is what changed in a session's queue and window. Messages are the
// indexes of their publishes.
type QueueDiff struct {
	Came    []uint64 `json:"came,omitempty"`
	Went    []uint64 `json:"went,omitempty"`
	Moved   []uint64 `json:"moved,omitempty"` // another state of delivery: queued, in flight, released
	BeforeN int      `json:"before"`          // queued and in flight
	AfterN  int      `json:"after"`
}

// RetainedDiff is a topic whose retained message changed; 0 = none.
type RetainedDiff struct {
	Topic  string `json:"topic"`
	Before uint64 `json:"before"` // index of its publish
	After  uint64 `json:"after"`
}

// Diff says what changed in the state from one point to another. They must lie
// in the reach of the records; the second must not be before the first.
func (d *Dir) Diff(ctx context.Context, from, to Point) (*Difference, error) {
	b, err := d.openBackend(ctx, false)
	if err != nil {
		return nil, err
	}
	defer b.close() //nolint:errcheck // only read
	o, err := d.originFor(ctx, b, from)
	if err != nil {
		return nil, err
	}
	r := &differ{p: &player{dir: d, machine: o.machine}, from: from, to: to, key: &d.manifest.HashKey}
	r.p.before = r.before
	r.diff.Source = o.source
	in, stopped, err := d.history(ctx, logScan{step: stepReplay, visit: func(_ *wal.SegmentInfo, f *wal.Frame) error {
		return r.p.play(f)
	}}, o.machine.Applied()+1)
	if err == nil {
		err = r.p.err
	}
	if err == nil && !stopped { // the end of the records, or of those that are intact
		_, err = d.verdict(in, &b.mark)
	}
	if err != nil {
		return nil, err
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return &r.diff, nil
}

// differ is one Diff.
type differ struct {
	p        *player
	from, to Point
	key      *[16]byte
	a        *summary // of the state at from, once it is reached
	done     bool
	diff     Difference
}

// summary is what a Diff compares of a state.
type summary struct {
	sessions map[uint64]*sessionSummary
	retained map[string]uint64 // index of the publish
}

type sessionSummary struct {
	client  string
	facts   map[string]string
	subs    map[string]session.Subscription
	entries map[uint64]entrySummary // by sequence number
}

type entrySummary struct {
	message uint64
	pid     uint16
	phase   session.Phase
}

func (r *differ) before(index uint64, now int64, _ []byte) error {
	if r.a == nil && r.from.past(index, now) {
		r.take()
	}
	if r.to.past(index, now) {
		r.compare()
		return errStop
	}
	return nil
}

// take keeps the state at the first point.
func (r *differ) take() {
	r.a = summarize(r.p.machine)
	r.diff.A = *stateOf(r.p.machine, r.p.machine.Hash(r.key).Bytes())
}

// end compares at the end of the records, if that is the second point.
func (r *differ) end() error {
	if r.done {
		return nil
	}
	last := r.p.machine.Applied()
	for _, p := range []Point{r.from, r.to} {
		if p.Index > last {
			return &NothingError{What: fmt.Sprintf("there is no record %d: the last one is %d", p.Index, last)}
		}
	}
	if r.a == nil {
		r.take()
	}
	r.compare()
	return nil
}

func summarize(m *core.Machine) *summary {
	s := &summary{sessions: map[uint64]*sessionSummary{}, retained: map[string]uint64{}}
	m.Sessions(func(x *session.Session) bool {
		s.sessions[x.ID] = summarizeSession(x)
		return true
	})
	m.AllRetained(func(topic string, e retain.Entry) bool {
		s.retained[topic] = e.Message
		return true
	})
	return s
}

func summarizeSession(x *session.Session) *sessionSummary {
	s := &sessionSummary{
		client: x.ClientID, subs: map[string]session.Subscription{}, entries: map[uint64]entrySummary{},
		facts: map[string]string{
			"connection": orNone(Epoch(x.Epoch).String()), "user": "none", "expiry": expiryWords(x.Expiry),
			"protocol": itoa(uint64(x.Version)), "receive maximum": itoa(uint64(x.ReceiveMaximum)),
			"maximum packet": itoa(uint64(x.MaxPacket)), "will": "none",
			"received QoS 2 identifiers": itoa(uint64(len(x.Received()))),
		},
	}
	if x.User != "" {
		s.facts["user"] = Printable(x.User)
	}
	if x.HasWill {
		s.facts["will"] = willOf(&x.Will).words()
	}
	for _, f := range x.Filters() {
		s.subs[f], _ = x.Subscription(f)
	}
	x.Out.All(func(e *session.Entry[uint64]) bool {
		s.entries[e.Seq] = entrySummary{e.Msg, e.PID, e.Phase}
		return true
	})
	return s
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// compare makes the difference between the state that was kept and this one.
func (r *differ) compare() {
	r.done = true
	if r.a == nil { // both points lie before the record that ended it
		r.take()
	}
	b := summarize(r.p.machine)
	d := &r.diff
	d.B = *stateOf(r.p.machine, r.p.machine.Hash(r.key).Bytes())
	d.Same = d.A.Hash == d.B.Hash
	d.Began, d.Ended, d.Others, d.Topics = []SessionDiff{}, []SessionDiff{}, []SessionDiff{}, []RetainedDiff{}
	none := &sessionSummary{}
	for _, id := range slices.Sorted(maps.Keys(r.a.sessions)) {
		was, is := r.a.sessions[id], b.sessions[id]
		if is == nil {
			d.Ended = append(d.Ended, compareSessions(id, was.client, was, none))
		} else if c := compareSessions(id, is.client, was, is); c.changed() {
			d.Others = append(d.Others, c)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(b.sessions)) {
		if r.a.sessions[id] == nil {
			d.Began = append(d.Began, compareSessions(id, b.sessions[id].client, none, b.sessions[id]))
		}
	}
	for topic, was := range r.a.retained {
		if is := b.retained[topic]; is != was {
			d.Topics = append(d.Topics, RetainedDiff{topic, was, is})
		}
	}
	for topic, is := range b.retained {
		if _, had := r.a.retained[topic]; !had {
			d.Topics = append(d.Topics, RetainedDiff{topic, 0, is})
		}
	}
	slices.SortFunc(d.Topics, func(a, b RetainedDiff) int { return cmp.Compare(a.Topic, b.Topic) })
}

func (s *SessionDiff) changed() bool {
	q := &s.Queue
	return len(s.Changes)+len(s.Subscribed)+len(s.Unsubscribed)+len(q.Came)+len(q.Went)+len(q.Moved) > 0
}

func compareSessions(id uint64, client string, was, is *sessionSummary) SessionDiff {
	d := SessionDiff{Client: client, Session: id}
	if was.facts != nil && is.facts != nil {
		for _, name := range slices.Sorted(maps.Keys(is.facts)) {
			if was.facts[name] != is.facts[name] {
				d.Changes = append(d.Changes, fmt.Sprintf("%s: %s → %s", name, was.facts[name], is.facts[name]))
			}
		}
	}
	for _, f := range slices.Sorted(maps.Keys(was.subs)) {
		if now, has := is.subs[f]; !has || now != was.subs[f] {
			d.Unsubscribed = append(d.Unsubscribed, sessionSubscription(f, was.subs[f]))
		}
	}
	for _, f := range slices.Sorted(maps.Keys(is.subs)) {
		if before, had := was.subs[f]; !had || before != is.subs[f] {
			d.Subscribed = append(d.Subscribed, sessionSubscription(f, is.subs[f]))
		}
	}
	q := &d.Queue
	q.BeforeN, q.AfterN = len(was.entries), len(is.entries)
	for _, seq := range slices.Sorted(maps.Keys(was.entries)) {
		e := was.entries[seq]
		switch now, has := is.entries[seq]; {
		case !has:
			q.Went = append(q.Went, e.message)
		case now != e:
			q.Moved = append(q.Moved, e.message)
		}
	}
	for _, seq := range slices.Sorted(maps.Keys(is.entries)) {
		if _, had := was.entries[seq]; !had {
			q.Came = append(q.Came, is.entries[seq].message)
		}
	}
	return d
}

// ErrOrder says that the second point lies before the first.
var ErrOrder = errors.New("inspect: the second point lies before the first")

// CheckOrder returns ErrOrder if that can be told from the points alone.
func CheckOrder(from, to Point) error {
	if from.Index != 0 && to.Index != 0 && from.Index > to.Index || from.Time != 0 && to.Time != 0 && from.Time > to.Time {
		return ErrOrder
	}
	return nil
}
