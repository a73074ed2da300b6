package session

import (
	"maps"
	"slices"

	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Forever is the expiry of a session that never ends by itself, in seconds
// (MQTT 5 section 3.1.2.11.2).
const Forever = 1<<32 - 1

// Subscription is what a session holds for one filter.
type Subscription struct {
	Options topic.Options // QoS is the granted one
	ID      uint32        // subscription identifier, 0 = none
}

// Scan is what a SUBSCRIBE still has to get of the retained messages: those
// that match Filter, come behind the topic After, and were published before
// the record Before. There is one only when there are very many; what is left
// of them may come after a message that was published to its topic since.
type Scan struct {
	Filter string
	After  string
	ID     uint32 // subscription identifier, 0 = none
	QoS    uint8  // granted
	Before uint64
}

// Session is the durable state of one client. The apply loop owns it.
type Session struct {
	ID       uint64 // record index of the Connect that began it
	ClientID string
	User     string
	Ref      uint32 // slot in the subscription index; not state

	Version        uint8        // protocol level of the last connection: 3, 4 or 5
	Epoch          record.Epoch // current connection, 0 = none
	Expiry         uint32       // seconds after the disconnect; Forever never
	ReceiveMaximum uint16       // of the client
	MaxPacket      uint32       // of the client, 0 = no limit
	Disconnected   int64        // log time of the last disconnect, unix ms; with Epoch 0

	Will    record.Will // with HasWill; its bytes belong to the session
	HasWill bool
	WillAt  int64 // log time at which the will falls due, 0 = with the connection's end

	Out   Outbound[uint64]
	Scans []Scan // in the order of their SUBSCRIBEs

	QueuedBytes uint64 // sum of the sizes of the queued messages, without those in flight; not state, follows from Out

	subs     map[string]Subscription
	shared   []string // the filters of subs that are $share/…, sorted
	received []uint16 // QoS 2 identifiers taken and not released, sorted

	// What changed since the last checkpoint.
	Dirty     bool // something of the session changed
	subsDirty map[string]bool
	recvDirty map[uint16]bool // identifiers that came (true) or went (false)
}

// Connected reports whether a client is connected to the session.
func (s *Session) Connected() bool { return s.Epoch != 0 }

// ExpiresAt returns the log time (unix ms) at which the session ends, and
// false while it is connected or when it never ends by itself.
func (s *Session) ExpiresAt() (int64, bool) {
	if s.Connected() || s.Expiry == Forever {
		return 0, false
	}
	return s.Disconnected + int64(s.Expiry)*1000, true
}

// Window returns how many identifiers may be in use at once, at least 1.
func (s *Session) Window(maxInflight uint16) int {
	return int(max(1, min(maxInflight, s.ReceiveMaximum)))
}

// Subscribe adds or replaces the subscription to a filter and reports whether
// there was one.
func (s *Session) Subscribe(filter string, sub Subscription) bool {
	had := s.RestoreSubscription(filter, sub)
	s.subDirty(filter)
	return had
}

// Unsubscribe removes the subscription to a filter and reports whether there
// was one.
func (s *Session) Unsubscribe(filter string) bool {
	if _, had := s.subs[filter]; !had {
		return false
	}
	delete(s.subs, filter)
	if i, shared := slices.BinarySearch(s.shared, filter); shared {
		s.shared = slices.Delete(s.shared, i, i+1)
	}
	s.subDirty(filter)
	return true
}

// Subscription returns what the session holds for a filter.
func (s *Session) Subscription(filter string) (Subscription, bool) {
	sub, ok := s.subs[filter]
	return sub, ok
}

// Subscriptions returns how many filters the session is subscribed to.
func (s *Session) Subscriptions() int { return len(s.subs) }

// Shared returns the session's filters that are shared subscriptions, sorted.
// The slice is valid until the next change and must not be modified.
func (s *Session) Shared() []string { return s.shared }

// Filters returns the session's filters, sorted.
func (s *Session) Filters() []string { return slices.Sorted(maps.Keys(s.subs)) }

func (s *Session) subDirty(filter string) {
	if s.subsDirty == nil {
		s.subsDirty = make(map[string]bool)
	}
	s.subsDirty[filter] = true
}

// Receive notes the identifier of a QoS 2 PUBLISH from the client and reports
// whether it is new. A repeated one is a duplicate [MQTT-4.3.3-10].
func (s *Session) Receive(pid uint16) bool {
	i, had := slices.BinarySearch(s.received, pid)
	if had {
		return false
	}
	s.received = slices.Insert(s.received, i, pid)
	s.receiptDirty(pid, true)
	return true
}

// Release forgets a received identifier (PUBREL) and reports whether it was
// known.
func (s *Session) Release(pid uint16) bool {
	i, had := slices.BinarySearch(s.received, pid)
	if !had {
		return false
	}
	s.received = slices.Delete(s.received, i, i+1)
	s.receiptDirty(pid, false)
	return true
}

// Received returns the identifiers taken and not released, sorted.
func (s *Session) Received() []uint16 { return s.received }

// receiptDirty notes that an identifier came or went. One that did both since
// the last checkpoint is no change.
func (s *Session) receiptDirty(pid uint16, held bool) {
	if _, seen := s.recvDirty[pid]; seen {
		delete(s.recvDirty, pid)
		return
	}
	if s.recvDirty == nil {
		s.recvDirty = make(map[uint16]bool)
	}
	s.recvDirty[pid] = held
}

// RestoreSubscription puts back a subscription that the backend held, and
// reports whether there was one for the filter.
func (s *Session) RestoreSubscription(filter string, sub Subscription) (had bool) {
	if s.subs == nil {
		s.subs = make(map[string]Subscription)
	}
	_, had = s.subs[filter]
	s.subs[filter] = sub
	if _, _, shared := topic.SplitShare(filter); shared && !had {
		i, _ := slices.BinarySearch(s.shared, filter)
		s.shared = slices.Insert(s.shared, i, filter)
	}
	return had
}

// RestoreReceived puts back a received identifier that the backend held.
func (s *Session) RestoreReceived(pid uint16) {
	if i, had := slices.BinarySearch(s.received, pid); !had {
		s.received = slices.Insert(s.received, i, pid)
	}
}

// SubscriptionChanges calls fn in filter order for each filter that changed
// since the last call; held is false for one that is gone.
func (s *Session) SubscriptionChanges(fn func(filter string, sub Subscription, held bool)) {
	if len(s.subsDirty) == 0 {
		return
	}
	for _, f := range slices.Sorted(maps.Keys(s.subsDirty)) {
		sub, held := s.subs[f]
		fn(f, sub, held)
	}
	s.subsDirty = nil
}

// ReceivedChanges calls fn in order for each received identifier that came or
// went since the last call, leaving out those that did both.
func (s *Session) ReceivedChanges(fn func(pid uint16, held bool)) {
	if len(s.recvDirty) == 0 {
		return
	}
	for _, pid := range slices.Sorted(maps.Keys(s.recvDirty)) {
		fn(pid, s.recvDirty[pid])
	}
	clear(s.recvDirty)
}
