package core

import (
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Effects is what one record asks the outside to do: plain data, in order,
// filled by Apply and read by the broker before the next Apply. Slices alias
// the record and the machine; all of it is overwritten by the next Apply.
//
// Ended comes before everything else: a Connect that replaces a session gives
// the new one the slot of the old. The rest is independent.
//
// A replay fills Effects as well and ignores them: what they ask for either
// happened before the crash or is asked for again by the state
// ([Machine.PendingDue], [Machine.PendingGroups]).
type Effects struct {
	Reply Reply

	// Direct is delivered without state: to ephemeral clients, and QoS 0 to
	// connected durable ones. SubIDs is the arena of its identifiers.
	Direct []Direct
	SubIDs []uint32

	// Touched are the slots of connected durable sessions that may have
	// something to send. One may be in it more than once.
	Touched []uint32

	// Groups are the shared groups without a durable member that the message
	// matches: the broker picks one member of each.
	Groups []*topic.Group

	// Owned are messages of groups with a durable member that an ephemeral
	// member was chosen for.
	Owned []Owned

	// Waiting are groups that hold messages nobody was chosen for.
	Waiting []GroupKey

	// Orphans are messages of a group without a durable member (any more): an
	// ephemeral member gets them, without state, or nobody. Epoch is 0.
	Orphans []Owned

	// Retained are retained messages for a new subscription that travel
	// outside the queue: to ephemeral clients, and QoS 0.
	Retained []Retained

	// WillsDue are ids of wills that fell due.
	WillsDue []uint64

	// Ended are durable sessions that ended.
	Ended []Ended

	Dropped []Drop

	// RetainedExpired are topics whose retained message expired.
	RetainedExpired []string
}

func (fx *Effects) reset() {
	fx.Reply = Reply{Codes: fx.Reply.Codes[:0]}
	fx.Direct, fx.SubIDs, fx.Touched = fx.Direct[:0], fx.SubIDs[:0], fx.Touched[:0]
	fx.Groups, fx.Owned, fx.Waiting = fx.Groups[:0], fx.Owned[:0], fx.Waiting[:0]
	fx.Orphans = fx.Orphans[:0]
	fx.Retained, fx.WillsDue, fx.Ended = fx.Retained[:0], fx.WillsDue[:0], fx.Ended[:0]
	fx.Dropped, fx.RetainedExpired = fx.Dropped[:0], fx.RetainedExpired[:0]
}

// Reply is the answer to whoever caused the record.
type Reply struct {
	Kind record.Kind
	// Stale: the record's epoch is not the session's current one, or the will
	// it publishes is not due (any more). Nothing was changed and nothing may
	// be acknowledged.
	Stale    bool
	PacketID uint16
	QoS      uint8 // of a Publish
	// Known: the packet identifier of a PubRel, Rec or Ack named a delivery;
	// the message of a Dispatch was there and went to the member; a
	// SessionRemove or RetainClear found something to remove.
	Known bool
	// Duplicate: a QoS 2 PUBLISH whose identifier is taken already.
	Duplicate bool
	// Matched counts the subscriptions that a Publish met.
	Matched int
	// Message is the message of a Dispatch.
	Message uint64
	// Codes are the reason codes of an Unsubscribe, one a filter.
	Codes []byte

	// Of a Connect:
	Session   uint64       // session id
	Ref       uint32       // slot
	Present   bool         // the session existed before
	Expiry    uint32       // session expiry in force, seconds
	TakenOver record.Epoch // connection of the same session that this one replaces, 0 = none
}

// touch adds a slot to Touched.
func (fx *Effects) touch(ref uint32) {
	if n := len(fx.Touched); n == 0 || fx.Touched[n-1] != ref {
		fx.Touched = append(fx.Touched, ref)
	}
}

// wait adds a group to Waiting.
func (fx *Effects) wait(key GroupKey) {
	if n := len(fx.Waiting); n == 0 || fx.Waiting[n-1] != key {
		fx.Waiting = append(fx.Waiting, key)
	}
}

// direct adds a delivery to Direct.
func (fx *Effects) direct(ref uint32, qos uint8, retain bool, ids []uint32) {
	fx.Direct = append(fx.Direct, Direct{
		Ref: ref, QoS: qos, Retain: retain, subIDs: uint32(len(fx.SubIDs)), nSubs: uint32(len(ids)),
	})
	fx.SubIDs = append(fx.SubIDs, ids...)
}

// Direct is one delivery without state.
type Direct struct {
	Ref    uint32
	QoS    uint8
	Retain bool
	subIDs uint32 // place of the identifiers in Effects.SubIDs
	nSubs  uint32
}

// IDs returns the delivery's subscription identifiers.
func (d *Direct) IDs(fx *Effects) []uint32 { return fx.SubIDs[d.subIDs : d.subIDs+d.nSubs] }

// Owned is a group's message that an ephemeral connection has to deliver and
// to answer for by an Ack record.
type Owned struct {
	Group   GroupKey
	Epoch   record.Epoch
	Message uint64
	QoS     uint8 // of the message; the member's grant may lower it
	Retain  bool
	// Deadline is the log time of the message's expiry, 0 = never.
	Deadline int64
}

// Retained is one retained message for a new subscription.
type Retained struct {
	Ref     uint32
	SubID   uint32
	Message uint64
	QoS     uint8 // to deliver with
}

// Ended says that a durable session ended.
type Ended struct {
	Session  uint64
	ClientID string
	Ref      uint32
	Epoch    record.Epoch // connection to be closed, 0 = none
	Reason   EndReason
}

// EndReason says why a session ended.
type EndReason uint8

// The reasons for a session's end.
const (
	EndExpired    EndReason = iota // its expiry passed, or was 0 at the disconnect
	EndCleanStart                  // a CONNECT with Clean Start 1 replaced it
	EndUser                        // another user connected with its client identifier
	EndRemoved                     // a SessionRemove record
)

// DropReason says why a message was not delivered to a session.
type DropReason uint8

// The reasons for a drop.
const (
	DropQueueFull DropReason = iota
	DropExpired
	DropTooLarge
	DropDenied
	DropNoMember
	DropOutboxFull
	DropDiskFull
)

// String gives the name used in logs and metrics.
func (d DropReason) String() string {
	switch d {
	case DropQueueFull:
		return "queue-full"
	case DropExpired:
		return "expired"
	case DropTooLarge:
		return "too-large"
	case DropDenied:
		return "denied"
	case DropNoMember:
		return "no-member"
	case DropOutboxFull:
		return "outbox-full"
	case DropDiskFull:
		return "disk-full"
	}
	return "unknown"
}

// NoRef is the slot of nobody: in a Drop, the message waited in a shared group.
const NoRef = 1<<32 - 1

// Drop is a message that a session will not get.
type Drop struct {
	Ref     uint32 // slot of the session, or NoRef
	Message uint64
	Reason  DropReason
}

// Reset empties fx for calls that are no records, such as
// [Machine.SubscribeEphemeral].
func (fx *Effects) Reset() { fx.reset() }
