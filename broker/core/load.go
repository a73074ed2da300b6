package core

import (
	"encoding/binary"
	"fmt"

	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Scan calls fn for every entry of a table in key order, with the key as
// Export and Collect gave it. fn copies what it keeps.
type Scan func(table byte, fn func(key, value []byte) error) error

// Load builds the machine that Export or Collect wrote down after the record
// applied, at log time now. It is equal to the one that wrote: the same
// records make the same of both. Entries that no machine would have written
// are ErrEntry.
func Load(scan Scan, applied uint64, now int64) (*Machine, error) {
	m := &loader{Machine: New(), tails: make(map[uint64]uint64)}
	m.topics = retain.NewLoader(m.retained)
	m.applied, m.now = applied, now
	for _, table := range LoadOrder() {
		if err := scan(table, m.loads(table)); err != nil {
			return nil, fmt.Errorf("core: load table %c: %w", table, err)
		}
		if table == TableRetained {
			m.topics.Finish()
		}
	}
	if err := m.finish(); err != nil {
		return nil, fmt.Errorf("core: load: %w", err)
	}
	return m.Machine, nil
}

// LoadOrder returns the tables in the order in which Load scans them, so that
// whoever reads them can be ahead.
func LoadOrder() []byte {
	return []byte{
		TableConfig, TableMessage, TableRetained, TableSession, TableSubscription, TableReceived,
		TableQueue, TableGroup, TableWill,
	}
}

// loads returns what loads a pair of a table.
func (m *loader) loads(table byte) func(key, value []byte) error {
	switch table {
	case TableConfig:
		return m.loadConfig
	case TableMessage:
		return m.loadPage
	case TableRetained:
		return m.loadRetained
	case TableSession:
		return m.loadSession
	case TableSubscription:
		return m.loadSubscription
	case TableReceived:
		return m.loadReceived
	case TableQueue:
		return m.loadChunk
	case TableGroup:
		return m.loadPending
	default:
		return m.loadWill
	}
}

// loader is a machine being loaded.
type loader struct {
	*Machine
	tails map[uint64]uint64 // newest sequence number of each session

	// Of the session whose queue is being loaded:
	queue  *session.Session
	queued bool // a queued entry was there: no more in-flight ones
	used   [1 << 16 / 64]uint64
	pids   []uint16 // the bits set in used
	ids    []uint32
	group  string

	page   []message
	topics *retain.Loader
}

// finish does what can be done only when all entries are there.
func (m *loader) finish() error {
	for _, s := range m.sorted() {
		if s.Out.Tail() > m.tails[s.ID] {
			return fmt.Errorf("%w: session %d has an entry after its newest", ErrEntry, s.ID)
		}
		s.Out.Restored(m.tails[s.ID], s.Out.LastPID)
		if s.Connected() && s.Out.Queued() > 0 && len(s.Out.Inflight()) == 0 {
			return fmt.Errorf("%w: session %d is connected and its queue does not move", ErrEntry, s.ID)
		}
		if s.Connected() {
			m.counts.Connected++
		} else {
			m.arm(s)
		}
		m.counts.Queued += s.Out.Queued()
		m.counts.Inflight += len(s.Out.Inflight())
	}
	for _, s := range m.sorted() {
		if len(s.Scans) == 0 {
			continue
		}
		m.scanning = append(m.scanning, s)
		for i := range s.Scans {
			if _, ok := s.Subscription(s.Scans[i].Filter); !ok {
				return fmt.Errorf("%w: scan of session %d for %q, which it is not subscribed to", ErrEntry, s.ID, s.Scans[i].Filter)
			}
		}
	}
	for _, s := range m.released {
		s.Out.Restored(s.Out.Tail(), 0)
	}
	var err error
	m.messages.each(func(id uint64, msg *message) {
		if msg.refs == 0 && err == nil {
			err = fmt.Errorf("%w: nothing refers to message %d", ErrEntry, id)
		}
	})
	if err != nil {
		return err
	}
	if m.level == 0 && len(m.sessions)+m.messages.len()+len(m.wills) > 0 {
		return fmt.Errorf("%w: state without a configuration", ErrEntry)
	}
	return nil
}

func (m *loader) loadConfig(_, value []byte) error {
	e := openEntry(value)
	if id := e.take(16); len(id) == 16 {
		m.genesis.StoreID = [16]byte(id)
	}
	m.level, m.boot, m.nextWill = e.num32(), e.num32(), e.num()
	if e.err == nil {
		if err := m.limits.Decode(e.b); err != nil {
			e.fail(err.Error())
		}
	}
	m.genesis.FeatureLevel, m.genesis.Limits = m.level, m.limits
	switch {
	case e.err != nil:
		return e.err
	case m.level == 0 || m.level > FeatureLevel:
		return levelError(m.level)
	}
	return nil
}

func (m *loader) loadPage(key, value []byte) error {
	page, _, err := splitID(key, 0)
	if err != nil {
		return err
	}
	r := readPage(page, value)
	m.page = m.page[:0]
	for r.next() {
		r.msg.flags |= messageStored
		m.page = append(m.page, r.msg)
	}
	if r.id > m.applied || m.messages.len() > 0 && page <= m.messages.key {
		r.fail(fmt.Sprintf("message %d of no record, or twice", r.id))
	}
	if err := r.end(); err != nil {
		return err
	}
	m.messages.putPage(page, r.exist, m.page)
	return nil
}

// take adds a reference to a loaded message.
func (m *loader) take(id uint64) (message, error) {
	msg := m.messages.get(id)
	if msg == nil {
		return message{}, fmt.Errorf("%w: message %d is missing", ErrEntry, id)
	}
	msg.refs++
	return *msg, nil
}

func (m *loader) loadSession(key, value []byte) error {
	id, _, err := splitID(key, 0)
	if err != nil {
		return err
	}
	e := openEntry(value)
	flags := e.flags(sessionWill | sessionScans)
	s := &session.Session{ID: id, Version: e.u8(), ClientID: e.str(), User: e.str()}
	s.Epoch, s.Expiry = record.Epoch(e.num()), e.num32()
	s.ReceiveMaximum, s.MaxPacket = e.num16(), e.num32()
	s.Disconnected = e.time()
	m.tails[id], s.Out.LastPID = e.num(), e.num16()
	if s.HasWill = flags&sessionWill != 0; s.HasWill {
		s.WillAt = e.time()
		s.Will = e.will()
	}
	if flags&sessionScans != 0 {
		s.Scans = e.scans()
	}
	if m.byClient[s.ClientID] != nil {
		e.fail(fmt.Sprintf("a second session of client %q", s.ClientID))
	}
	if err := e.end(); err != nil {
		return err
	}
	s.Ref = m.attach(slot{session: s})
	m.sessions[id], m.byClient[s.ClientID] = s, s
	return nil
}

func (m *loader) loadSubscription(key, value []byte) error {
	id, name, err := splitID(key, -1)
	if err != nil {
		return err
	}
	s := m.sessions[id]
	if s == nil || topic.ValidateFilter(name) != nil {
		return fmt.Errorf("%w: subscription to %q of session %d", ErrEntry, name, id)
	}
	sub, err := decodeSubscription(value)
	if err != nil {
		return err
	}
	filter := string(name)
	s.RestoreSubscription(filter, sub)
	m.index.Subscribe(filter, topic.Sub{Ref: s.Ref, ID: sub.ID, Opts: sub.Options})
	m.counts.Subscriptions++
	if _, _, shared := topic.SplitShare(filter); shared {
		var fx Effects
		m.join(filter, false, &fx)
	}
	return nil
}

func (m *loader) loadReceived(key, value []byte) error {
	id, pid, err := splitID(key, 2)
	if err != nil {
		return err
	}
	s := m.sessions[id]
	if s == nil {
		return fmt.Errorf("%w: received identifier of session %d", ErrEntry, id)
	}
	s.RestoreReceived(binary.BigEndian.Uint16(pid))
	e := openEntry(value)
	return e.end()
}

func (m *loader) loadChunk(key, value []byte) error {
	id, chunk, err := splitChunk(key)
	if err != nil {
		return err
	}
	if m.queue == nil || m.queue.ID != id {
		m.startQueue(id)
	}
	r := readChunk(chunk, value)
	r.q.ids = m.ids
	for r.next() {
		if err := m.loadQueueEntry(&r.q); err != nil {
			return err
		}
	}
	m.ids = r.q.ids
	return r.err
}

func (m *loader) loadQueueEntry(q *queueEntry) error {
	s := m.queue
	switch {
	case q.Seq <= s.Out.Tail():
		return fmt.Errorf("%w: entry %d of session %d out of order", ErrEntry, q.Seq, s.ID)
	case q.PID == 0:
		m.queued = true
	case m.queued || m.used[q.PID/64]>>(q.PID%64)&1 != 0:
		return fmt.Errorf("%w: identifier %d of session %d after the window or twice", ErrEntry, q.PID, s.ID)
	default:
		m.used[q.PID/64] |= 1 << (q.PID % 64)
		m.pids = append(m.pids, q.PID)
	}
	msg := m.messages.get(q.Msg)
	if msg == nil {
		return fmt.Errorf("%w: message %d is missing", ErrEntry, q.Msg)
	}
	msg.refs++
	if q.PID == 0 {
		s.QueuedBytes += uint64(msg.size)
	}
	group := ""
	if q.Group {
		if group = m.groupName(q.group); keyOf(group).Share == "" {
			return fmt.Errorf("%w: not a shared filter", ErrEntry)
		}
	}
	s.Out.Restore(q.Entry, q.ids, group)
	return nil
}

// groupName returns the name as a string, the same one for entries that follow
// each other.
func (m *loader) groupName(name []byte) string {
	if m.group != string(name) {
		m.group = string(name)
	}
	return m.group
}

// startQueue turns to the entries of another session. One that does not exist
// has ended; its messages are still being let go.
func (m *loader) startQueue(id uint64) {
	m.queue, m.queued = m.sessions[id], false
	if m.queue == nil {
		m.queue = &session.Session{ID: id}
		m.released = append(m.released, m.queue)
	}
	for _, pid := range m.pids {
		m.used[pid/64] = 0
	}
	m.pids = m.pids[:0]
}

func (m *loader) loadRetained(key, value []byte) error {
	e := openEntry(value)
	r := retain.Entry{QoS: e.qos(e.flags(3)), Message: e.num(), Time: e.time(), Deadline: e.time(), Bytes: int(e.num32())}
	if err := e.end(); err != nil {
		return err
	}
	msg, err := m.take(r.Message)
	if err != nil {
		return err
	}
	if r.Bytes != int(msg.size) || r.Deadline != msg.deadline || topic.ValidateName(key) != nil {
		return fmt.Errorf("%w: retained message of %q differs from message %d", ErrEntry, key, r.Message)
	}
	m.topics.Add(key, r)
	return nil
}

func (m *loader) loadPending(key, value []byte) error {
	k, id, err := splitGroupKey(key)
	if err != nil {
		return err
	}
	g := m.groups[k]
	if g == nil { // it ended; its messages are still being let go
		i, ok := m.findDissolving(k)
		if !ok {
			m.addDissolving(&group{key: k, name: k.String()})
		}
		g = m.dissolving[i]
	}
	e := openEntry(value)
	p := pending{message: id, qos: e.qos(e.flags(3)), epoch: record.Epoch(e.num())}
	if p.epoch == 0 && p.qos != 0 {
		e.fail("QoS of no delivery")
	}
	if err := e.end(); err != nil {
		return err
	}
	msg, err := m.take(id)
	if err != nil {
		return err
	}
	if _, had := g.pending.find(id); had {
		return fmt.Errorf("%w: message %d twice in group %s", ErrEntry, id, k)
	}
	g.pending.insert(p)
	g.bytes += uint64(msg.size)
	m.counts.Pending++
	return nil
}

func (m *loader) loadWill(key, value []byte) error {
	id, _, err := splitID(key, 0)
	if err != nil {
		return err
	}
	e := openEntry(value)
	w := &will{id: id, due: e.flags(1)&1 != 0}
	w.epoch, w.clientID, w.user = record.Epoch(e.num()), e.str(), e.str()
	w.at, w.will = e.time(), e.will()
	_, had := m.byEpoch[w.epoch]
	if had || w.due && w.epoch != 0 || id == 0 || id >= m.nextWill {
		e.fail(fmt.Sprintf("will %d of connection %d", id, w.epoch))
	}
	if err := e.end(); err != nil {
		return err
	}
	m.putWill(w)
	return nil
}
