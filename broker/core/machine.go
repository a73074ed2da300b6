package core

import (
	"errors"
	"fmt"

	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// FeatureLevel is the newest semantics of Apply that this release knows.
const FeatureLevel = 1

// Bounds of the work that one record may do beyond its own.
const (
	ExpirePerTick     = 1000 // sessions (with their subscriptions), wills and retained messages that one Tick expires
	ReleasePerRecord  = 64   // messages that ended sessions and groups leave behind, dealt with per record
	GiveBackPerFilter = 1000 // queued messages that an UNSUBSCRIBE gives back to a shared group; the rest is still delivered
	DropsPerPush      = 64   // messages that make room for one in a full queue that drops the oldest
	DropsPerFill      = 1000 // expired messages dropped from one queue per record
	RetainedAtOnce    = 1000 // retained topics that a SUBSCRIBE looks at; the rest follows
)

// bounds are those constants; tests make them small.
type bounds struct {
	expire, release, giveBack, push, fill, retained int
}

// ErrGap reports a record whose index does not follow the last applied one.
var ErrGap = errors.New("core: gap in the log")

// A Machine is the state that the log's records build up. See the package
// documentation for what Apply may depend on.
type Machine struct {
	genesis record.Genesis
	limits  record.Limits
	level   uint32
	boot    uint32
	applied uint64
	now     int64 // log time of the last record, unix ms

	index    *topic.Index
	slots    []slot
	free     []uint32 // unused slots, last one first
	sessions map[uint64]*session.Session
	byClient map[string]*session.Session
	retained *retain.Store
	messages messageTable
	groups   map[GroupKey]*group // those with a durable member
	wills    map[uint64]*will
	nextWill uint64
	byEpoch  map[record.Epoch]uint64 // wills of connected ephemeral clients
	waiting  map[string][]uint64     // by client identifier: wills that its return cancels
	due      []deadline              // heap

	// Work that is spread over records, see spread.go.
	scanning   []*session.Session // with scans, by id
	released   []*session.Session // ended, with messages still to let go, by id
	dissolving []*group           // without a durable member, with messages, by key

	bounds  bounds
	fresh   fresh
	counts  Counts // but for what the length of a map says
	changed changes
	scratch scratch
}

// slot is a client in the subscription index.
type slot struct {
	session *session.Session // nil for an ephemeral client
	epoch   record.Epoch     // of an ephemeral client
	used    bool
	due     [2]int32 // places in the heap of deadlines, by kind; 0 = none
}

// scratch is reused from record to record so that the hot kinds allocate
// nothing.
type scratch struct {
	matches     topic.Matches
	first, next []int32     // see deliverSeveral
	subs        []topic.Sub // see deliverSeveral
	publish     record.Publish
	ack         record.Ack
	subscribe   record.Subscribe
	unsubscribe record.Unsubscribe
	ids         []uint32
	value       []byte
}

// New returns an empty machine: its first record must be a Genesis.
func New() *Machine {
	return &Machine{
		index:    topic.NewIndex(),
		sessions: make(map[uint64]*session.Session),
		byClient: make(map[string]*session.Session),
		retained: retain.New(),
		messages: newMessageTable(),
		groups:   make(map[GroupKey]*group),
		wills:    make(map[uint64]*will),
		nextWill: 1,
		byEpoch:  make(map[record.Epoch]uint64),
		waiting:  make(map[string][]uint64),
		bounds:   bounds{ExpirePerTick, ReleasePerRecord, GiveBackPerFilter, DropsPerPush, DropsPerFill, RetainedAtOnce},
	}
}

// Applied returns the index of the last record applied, 0 for none.
func (m *Machine) Applied() uint64 { return m.applied }

// Now returns the log time of the last record, unix milliseconds.
func (m *Machine) Now() int64 { return m.now }

// Boot returns the number of the last ServerStart.
func (m *Machine) Boot() uint32 { return m.boot }

// Level returns the feature level in force, 0 before the Genesis.
func (m *Machine) Level() uint32 { return m.level }

// StoreID returns the store id of the Genesis record.
func (m *Machine) StoreID() [16]byte { return m.genesis.StoreID }

// Limits returns the limits in force.
func (m *Machine) Limits() record.Limits { return m.limits }

// Index is the subscription index of durable and ephemeral clients.
func (m *Machine) Index() *topic.Index { return m.index }

// Session returns the durable session in a slot, nil for an ephemeral client.
func (m *Machine) Session(ref uint32) *session.Session { return m.slots[ref].session }

// SessionOf returns the durable session of a client identifier, nil if there
// is none.
func (m *Machine) SessionOf(clientID string) *session.Session { return m.byClient[clientID] }

// Counts are sizes of the state. Messages counts each message once, Queued
// and Inflight once for each session it waits for.
type Counts struct {
	Sessions, Connected, Subscriptions, Retained, Messages, Queued, Inflight int
	// Pending messages belong to no member of a shared group yet, or to one
	// without a durable session.
	Pending int
	Wills   int // outside a session: due, or of ephemeral clients
	Ending  int // sessions that ended and have messages still to let go
}

// Counts returns the sizes of the state, without walking it.
func (m *Machine) Counts() Counts {
	c := m.counts
	c.Sessions, c.Retained, c.Messages = len(m.sessions), m.retained.Len(), m.messages.len()
	c.Wills, c.Ending = len(m.wills), len(m.released)
	return c
}

// ChangesIndex reports whether applying a record of this kind may change the
// subscription index, the slots, or which groups are durable. Only such a
// record has Effects.Retained.
func ChangesIndex(k record.Kind) bool {
	switch k {
	case record.KindPublish, record.KindPubRel, record.KindAck, record.KindRec, record.KindDispatch, record.KindStateHash:
		return false
	}
	return true
}

// Apply applies the record at index, whose frame has the log time now (unix
// ms), and fills fx. Records come in order without a gap. An error means that
// the record cannot be applied by this release or is damaged: the machine
// must not be used any further.
func (m *Machine) Apply(index uint64, now int64, rec []byte, fx *Effects) error {
	fx.reset()
	if index != m.applied+1 {
		return fmt.Errorf("%w: record %d after %d", ErrGap, index, m.applied)
	}
	if now > m.now { // log time never goes back
		m.now = now
	}
	kind := record.KindOf(rec)
	fx.Reply.Kind = kind
	if err := m.apply(index, kind, rec, fx); err != nil {
		return fmt.Errorf("core: apply record %d (%s): %w", index, kind, err)
	}
	m.applied = index
	if m.unfinished() {
		m.spread(m.bounds.release, kind, fx)
	}
	return nil
}

func (m *Machine) apply(index uint64, kind record.Kind, rec []byte, fx *Effects) error {
	if m.level == 0 && kind != record.KindGenesis && record.Known(kind) {
		return errors.New("the first record of a store must be a genesis")
	}
	switch kind {
	case record.KindPublish:
		return m.applyPublish(index, rec, fx)
	case record.KindAck:
		return m.applyAck(rec, fx)
	case record.KindRec:
		return m.applyRec(rec, fx)
	case record.KindPubRel:
		return m.applyPubRel(rec, fx)
	case record.KindDispatch:
		return m.applyDispatch(rec, fx)
	case record.KindConnect:
		return m.applyConnect(index, rec, fx)
	case record.KindDisconnect:
		return m.applyDisconnect(rec, fx)
	case record.KindSubscribe:
		return m.applySubscribe(rec, fx)
	case record.KindUnsubscribe:
		return m.applyUnsubscribe(rec, fx)
	case record.KindWill:
		return m.applyWill(rec)
	case record.KindTick:
		return m.applyTick(rec, fx)
	case record.KindSessionRemove:
		return m.applySessionRemove(rec, fx)
	case record.KindRetainClear:
		return m.applyRetainClear(rec, fx)
	}
	return m.applyServer(kind, rec, fx)
}

// applyServer applies the records that the broker makes about itself.
func (m *Machine) applyServer(kind record.Kind, rec []byte, fx *Effects) error {
	switch kind {
	case record.KindGenesis:
		return m.applyGenesis(rec)
	case record.KindConfig:
		var c record.Config
		if err := c.Decode(rec); err != nil {
			return err
		}
		m.limits, m.changed.config = c.Limits, true
	case record.KindServerStart:
		return m.applyServerStart(rec, fx)
	case record.KindStateHash:
		var h record.StateHash
		return h.Decode(rec) // a claim about the state, not a change of it
	case record.KindUpgrade:
		var u record.Upgrade
		if err := u.Decode(rec); err != nil {
			return err
		}
		if u.Level > FeatureLevel {
			return levelError(u.Level)
		}
		m.level, m.changed.config = max(m.level, u.Level), true
	default:
		return &record.UnknownError{Kind: kind, Version: version(rec)}
	}
	return nil
}

func version(rec []byte) uint8 {
	if len(rec) < 2 {
		return 0
	}
	return rec[1]
}

func levelError(level uint32) error {
	if level == 0 {
		return errors.New("feature level 0")
	}
	return fmt.Errorf("feature level %d is newer than this release's %d", level, FeatureLevel)
}

func (m *Machine) applyGenesis(rec []byte) error {
	var g record.Genesis
	if err := g.Decode(rec); err != nil {
		return err
	}
	if m.level != 0 {
		return errors.New("a second genesis")
	}
	if g.FeatureLevel == 0 || g.FeatureLevel > FeatureLevel {
		return levelError(g.FeatureLevel)
	}
	m.genesis, m.limits, m.level, m.changed.config = g, g.Limits, g.FeatureLevel, true
	return nil
}
