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
// one that saw them all. Map iteration never decides anything, nor does the
// order in which the subscription index lists what matches.
//
// # Messages
//
// A message is its Publish record: its id is the record's index, its body is
// not here but in the log or a backend. The machine counts the references to
// it (queue entries, in-flight entries, the retained topic, a shared group)
// and says when the last one goes.
//
// # Entries
//
// Written down, the state is a set of small entries (entries.go has their
// layouts): [Machine.Export] gives all of them, [Machine.Collect] the net
// changes since the last time, [Load] builds the machine again.
//
//	C  limits, feature level, counters      T  retained message of a topic
//	S  session          by id               G  message that waits in a shared
//	U  subscription     by id, filter          group, or that an ephemeral
//	R  received QoS 2   by id, packet id       member has
//	Q  queue, in flight by id, sequence     W  will outside a session
//	M  message          by id               B  its body (not part of the hash)
//
// Entries of Q and M are stored 64 to a pair (chunks.go). That is how they are
// written down and nothing more: the hash is over entries.
//
// # Stale and repeated records
//
// A record with an epoch that is not the session's current one changes
// nothing ([Reply].Stale), nor does a QoS 2 PUBLISH whose identifier is taken,
// nor the Publish of a will that is not due: a will is published once.
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
// No record holds the loop for more than a few milliseconds, but for a message
// that very many sessions get (about a tenth of a microsecond for each) and
// ServerStart. Other work that grows with the state is spread (spread.go): the
// messages of an ended session or group, and the retained messages for a
// subscription to very many of them, come a few per record; a Tick expires at
// most ExpirePerTick entries. Work that is left is state like everything else,
// and [Machine.NextDeadline] asks for Ticks until it is done.
//
// # Ownership
//
// A Machine belongs to one goroutine, the apply loop. [Machine.Index],
// [Machine.Session] and [Machine.HasDurable] may be read by others under a
// lock that the owner takes for writing around every record that
// [ChangesIndex] names and around the calls for ephemeral clients.
package core
