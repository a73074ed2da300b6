package topic

// Options is the Subscription Options byte of a SUBSCRIBE (§3.8.3.1):
//
//	bit   7 6        5 4                  3                     2           1 0
//	    reserved   Retain Handling   Retain As Published    No Local   Maximum QoS
//
// MQTT 3 sends the QoS bits only. Its sessions are given the byte which means
// the same: No Local and Retain As Published off, Retain Handling 0.
type Options byte

// Single bits of Options.
const (
	NoLocal           Options = 1 << 2
	RetainAsPublished Options = 1 << 3
)

// Values of Options.RetainHandling.
const (
	RetainSend      = 0 // send retained messages at each SUBSCRIBE
	RetainSendIfNew = 1 // send them only if the subscription did not exist
	RetainDoNotSend = 2 // never send them
)

// MakeOptions returns the byte for a maximum QoS of 0 to 2, a Retain Handling
// of 0 to 2, and flags, an or of NoLocal and RetainAsPublished.
func MakeOptions(qos, retainHandling byte, flags Options) Options {
	return Options(qos&3) | Options(retainHandling&3)<<4 | flags&(NoLocal|RetainAsPublished)
}

// QoS returns the maximum QoS that the subscriber accepts.
func (o Options) QoS() byte { return byte(o) & 3 }

// NoLocal reports whether the subscriber must not get what it published itself
// [MQTT-3.8.3-3].
func (o Options) NoLocal() bool { return o&NoLocal != 0 }

// RetainAsPublished reports whether messages keep their RETAIN flag.
func (o Options) RetainAsPublished() bool { return o&RetainAsPublished != 0 }

// RetainHandling returns when retained messages are sent: RetainSend,
// RetainSendIfNew or RetainDoNotSend.
func (o Options) RetainHandling() byte { return byte(o) >> 4 & 3 }

// Valid reports whether o can be in a SUBSCRIBE: the reserved bits are 0
// [MQTT-3.8.3-5], neither QoS nor Retain Handling is 3.
func (o Options) Valid() bool { return o&0xC0 == 0 && o.QoS() != 3 && o.RetainHandling() != 3 }

// A Sub is one subscription as the index holds it, without its filter.
type Sub struct {
	Ref  uint32 // slot of the subscribing client
	ID   uint32 // Subscription Identifier (§3.8.2.1.2), 0 if none
	Opts Options
}

// A Group is the members of one shared subscription: those clients which
// subscribed with the same share name and the same filter (§4.8.2). A pointer
// to a Group stays valid, and is the same for each match, as long as the group
// has members. Only the index changes it; a reader is bound to the same rules
// as a reader of the index.
type Group struct {
	Share  string // share name
	Filter string // filter without $share/ and share name
	// Members is in order of arrival, where the last one fills the place of one
	// that leaves. A Ref is in it once.
	Members []Sub

	at   map[uint32]uint32 // position of each Ref, see list
	leaf uint32            // leaf of Filter
	slot int               // position among the groups of the leaf
}

// Matches is the result of a match, and its working memory: keep it and pass it
// again, and a match does not allocate. The zero value is ready for use.
type Matches struct {
	// Subs holds the non-shared subscriptions with a matching filter. A client
	// with several matching filters is in it several times.
	Subs []Sub
	// Filters is the number of distinct non-shared filters that matched. If it
	// is 1, no Ref repeats in Subs.
	Filters int
	// Groups holds the shared subscriptions with a matching filter.
	Groups []*Group

	here, next []uint32 // trie nodes reached at this topic level and the next
}

// reset empties m and keeps its memory.
func (m *Matches) reset() {
	clear(m.Groups) // do not keep groups alive that have ended
	m.Subs, m.Groups, m.Filters = m.Subs[:0], m.Groups[:0], 0
}
