// Package session holds the durable state of one MQTT session: who it belongs
// to, its subscriptions, the messages queued and in flight towards the client,
// the QoS 2 identifiers received from it, its will and its expiry (MQTT 5
// section 4.1, MQTT 3.1.1 section 3.1.2.4).
//
//	                  Push                Assign                 Remove
//	new message ──▶ [ queue: FIFO ] ──▶ [ in flight: ordered, with identifiers ] ──▶ done
//	                                         PUBLISH sent ▸ PUBREC ▸ PUBREL
//
// An entry gets a sequence number when it is queued and keeps it in flight.
// Numbers only grow, so that entries are stored in chunks of neighbours under
// ordered keys, an entry that comes and goes between two checkpoints is never stored at all, and the
// order of the numbers is that of the queue and of the window. They have gaps
// where a shared subscription took entries back.
//
// # Memory
//
// The queue is a list of chunks of 64 entries of 16 bytes, the window a slice
// of 32-byte entries whose free part in front is reused. Neither has pointers
// when the message handle has none, and neither allocates in steady state.
//
// # Identifiers
//
// Packet identifiers are given in turn, the next free one above the last, so
// that one is not reused before all others were. Their order in the window is
// then that of the identifiers, but for deliveries that are a whole turn old,
// and a search is binary.
//
// # Durability, concurrency
//
// A session knows which of its parts differ from what the backend holds; the
// methods named Changes tell them once. Everything else, the send cursor for
// one, is not state. The package is pure: no clock, no I/O, no goroutine, no
// map-order effect. A Session belongs to one goroutine, the apply loop.
package session
