package core

import (
	"errors"
	"fmt"
	"slices"

	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// FeatureLevel is the newest semantics of Apply that this release knows.
const FeatureLevel = 1

// Bounds of the work that one record may do beyond its own.
const (
	ExpirePerTick    = 1000 // sessions, wills and retained messages that one Tick expires
	ReleasePerRecord = 64   // messages of ended sessions let go per record
)

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
	messages map[uint64]message
	groups   map[GroupKey]*group
	wills    map[uint64]*will
	nextWill uint64
	byEpoch  map[record.Epoch]uint64 // will ids of connected ephemeral clients
	due      deadlines
	released []*session.Session // ended, with messages still to let go; by id

	changed changes
	scratch scratch
}

// slot is a client in the subscription index.
type slot struct {
	session *session.Session // nil for an ephemeral client
	epoch   record.Epoch     // of an ephemeral client
	used    bool
}

// message is what the machine knows of a stored message. Its body is in the
// log or a backend, under the same id.
type message struct {
	refs     uint32
	size     uint32 // bytes of the stored form
	crc      uint32 // CRC-32C of the stored form
	stored   bool   // the backend has it
	deadline int64  // log time of its expiry, unix ms; 0 = never
}

func (m *message) expired(now int64) bool { return m.deadline != 0 && now >= m.deadline }

// scratch is reused from record to record so that the hot kinds allocate
// nothing.
type scratch struct {
	matches     topic.Matches
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
		messages: make(map[uint64]message),
		groups:   make(map[GroupKey]*group),
		wills:    make(map[uint64]*will),
		nextWill: 1,
		byEpoch:  make(map[record.Epoch]uint64),
	}
}

// Applied returns the index of the last record applied, 0 for none.
func (m *Machine) Applied() uint64 { return m.applied }

// Now returns the log time of the last record, unix milliseconds.
func (m *Machine) Now() int64 { return m.now }

// Boot returns the number of the last ServerStart.
func (m *Machine) Boot() uint32 { return m.boot }

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

// Counts are sizes of the state.
type Counts struct {
	Sessions, Connected, Subscriptions, Retained, Messages, Queued, Inflight int
}

// Counts walks the sessions and returns the sizes of the state.
func (m *Machine) Counts() Counts {
	c := Counts{Sessions: len(m.sessions), Retained: m.retained.Len(), Messages: len(m.messages)}
	for _, s := range m.sessions {
		if s.Connected() {
			c.Connected++
		}
		c.Subscriptions += s.Subscriptions()
		c.Queued += s.Out.Queued()
		c.Inflight += len(s.Out.Inflight())
	}
	return c
}

// ChangesIndex reports whether applying a record of this kind may change the
// subscription index or the slots.
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
	if len(m.released) > 0 {
		m.release(ReleasePerRecord)
	}
	return nil
}

func (m *Machine) apply(index uint64, kind record.Kind, rec []byte, fx *Effects) error {
	if m.level == 0 && kind != record.KindGenesis {
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
		return m.applyRetainClear(rec)
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
		return m.applyServerStart(rec)
	case record.KindStateHash:
		var h record.StateHash
		return h.Decode(rec) // a claim about the state, not a change of it
	case record.KindUpgrade:
		var u record.Upgrade
		if err := u.Decode(rec); err != nil {
			return err
		}
		if u.Level > FeatureLevel {
			return fmt.Errorf("feature level %d is newer than this release's %d", u.Level, FeatureLevel)
		}
		m.level, m.changed.config = u.Level, true
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

func (m *Machine) applyGenesis(rec []byte) error {
	var g record.Genesis
	if err := g.Decode(rec); err != nil {
		return err
	}
	if m.level != 0 {
		return errors.New("a second genesis")
	}
	if g.FeatureLevel == 0 || g.FeatureLevel > FeatureLevel {
		return fmt.Errorf("feature level %d is newer than this release's %d", g.FeatureLevel, FeatureLevel)
	}
	m.genesis, m.limits, m.level, m.changed.config = g, g.Limits, g.FeatureLevel, true
	return nil
}

// attach gives a client a slot.
func (m *Machine) attach(s slot) uint32 {
	s.used = true
	if n := len(m.free); n > 0 {
		ref := m.free[n-1]
		m.free = m.free[:n-1]
		m.slots[ref] = s
		return ref
	}
	m.slots = append(m.slots, s)
	return uint32(len(m.slots) - 1)
}

func (m *Machine) detach(ref uint32) {
	m.slots[ref] = slot{}
	m.free = append(m.free, ref)
}

// hold stores a message with no reference yet.
func (m *Machine) hold(id uint64, msg message) {
	m.messages[id] = msg
	m.changed.messages = append(m.changed.messages, id)
}

// ref adds n references to a message.
func (m *Machine) ref(id uint64, n uint32) {
	msg := m.messages[id]
	msg.refs += n
	m.messages[id] = msg
}

// unref takes one reference from a message and forgets it with the last.
func (m *Machine) unref(id uint64) message {
	msg, ok := m.messages[id]
	if !ok || msg.refs == 0 {
		panic(fmt.Sprintf("core: reference count of message %d below zero after record %d", id, m.applied))
	}
	msg.refs--
	if msg.refs > 0 {
		m.messages[id] = msg
		return msg
	}
	delete(m.messages, id)
	if msg.stored {
		m.changed.gone = append(m.changed.gone, id)
	}
	return msg
}

// Message returns size in bytes, expiry (log time ms, 0 = never) and whether
// the machine still refers to a message.
func (m *Machine) Message(id uint64) (size uint32, deadline int64, ok bool) {
	msg, ok := m.messages[id]
	return msg.size, msg.deadline, ok
}

// release lets go up to n messages of ended sessions, oldest session first.
func (m *Machine) release(n int) {
	for n > 0 && len(m.released) > 0 {
		s := m.released[0]
		m.touch(s)
		for ; n > 0; n-- {
			if fl := s.Out.Inflight(); len(fl) > 0 {
				e, _ := s.Out.Remove(fl[0].PID)
				m.unref(e.Msg)
			} else if s.Out.Queued() > 0 {
				m.unref(s.Out.DropHead().Msg)
			} else {
				break
			}
		}
		if len(s.Out.Inflight()) == 0 && s.Out.Queued() == 0 {
			m.released = slices.Delete(m.released, 0, 1)
		}
	}
}
