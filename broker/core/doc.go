// Package core is the broker's pure state machine: the durable sessions, the
// retained messages, the shared groups and the wills that the log's records
// build up.
//
//	record ──▶ Machine.Apply ──▶ new state
//	                    └──────▶ Effects: what to send, as plain data
//
// State = replay(records). Apply reads nothing but the state and the record:
// no clock (time is the log time of the record's frame), no configuration
// (limits are records), no random choice (choices are recorded by whoever
// wrote the record), no I/O. The same records give the same state, the same
// effects and the same [Machine.Hash] on every run and every node, and a
// state that was exported, loaded and fed the rest of the records is equal to
// one that saw them all. Map iteration never decides anything.
//
// # Messages
//
// A message is its Publish record: its id is the record's index, its body is
// not here but in the log or a backend. The machine counts the references to
// it (queue entries, in-flight entries, the retained topic, a shared group)
// and says when the last one goes.
//
// # Ephemeral clients
//
// Clients without a durable session have a slot in the same subscription
// index, so that one lookup finds everybody; they come and go by
// [Machine.Attach] and [Machine.Detach], which are no records. They show up in
// Effects and never in the state: a replay without them gives the same hash.
//
// # Bounds
//
// Work that grows with the state is spread: ending a session releases its
// messages a few per record, a Tick expires at most ExpirePerTick entries.
//
// # Ownership
//
// A Machine belongs to one goroutine, the apply loop. [Machine.Index] and
// [Machine.Session] may be read by others under a lock that the owner takes
// for writing around every record that [ChangesIndex] names and around the
// calls for ephemeral clients.
package core
