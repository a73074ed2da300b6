// Package session holds the durable state of one MQTT session: who it belongs
// to, its subscriptions, the messages queued and in flight towards the client,
// the QoS 2 identifiers received from it, its will and its expiry (MQTT 5
// section 4.1, MQTT 3.1.1 section 3.1.2.4).
//
//	                  Push                Assign                 Remove
//	new message ──▶ [ queue: FIFO ] ──▶ [ in flight: ordered, with identifiers ] ──▶ done
//	                                         PUBLISH sent ▸ PUBREC ▸ PUBREL
//
// A queue entry has a sequence number that it keeps in flight; numbers grow by
// one with each message, so that entries are stored under ordered keys and an
// entry that comes and goes between two checkpoints is never stored at all.
//
// The package is pure: no clock, no I/O, no goroutine, no map-order effect. A
// Session belongs to one goroutine, the apply loop.
package session
