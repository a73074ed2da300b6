// Package broker is the live MQTT server and the API to embed it.
//
// # The way of a packet
//
//	conn reader ──▶ lane ──▶ committer ──▶ apply loop ──▶ outboxes ──▶ flushers
//	parse, check    batch    write, sync   core.Machine   encoded      one write
//	authorise                one frame     Effects        packets      per round
//	     │                                                   ▲
//	     └──────────── bypass: nothing durable concerned ────┘
//
// A connection is one goroutine, its reader. It parses all packets in what the
// socket has. A packet that can change durable state becomes a record in the
// reader's batch, and the batch goes into the lane at the end of the round.
// The committer turns all that waits in the lane into one frame, one write and
// one sync (group commit: the last sync's duration is the batch window). The
// apply loop owns the state machine and the subscription index; it applies the
// frame's records and carries out their effects: acknowledgements and
// deliveries are appended to outboxes, and each outbox touched in a round is
// written once: by who touched it when they are few, else by transient
// goroutines. What a socket does not take at once waits in one of its own.
//
// What promises nothing durable goes the bypass: the reader itself finds the
// subscribers, in a cache of matches that the index generation guards, and
// appends to their outboxes. A bypass packet waits while its connection has an
// unfinished logged publish, so that the order per topic and QoS holds.
//
// Commands (a CONNECT, a SUBSCRIBE of an ephemeral client) travel through the
// lane as well, without touching the disk: one order of everything. While
// nothing is under way there, the reader runs its command itself, in the apply
// loop's place: see direct.go.
//
// # Ownership
//
//	Server.machine, session cursors, Server.byClient   apply loop
//	Server.clients, core.Machine's index               apply loop, under indexMu for writing
//	conn.in…                                           the connection's reader
//	conn.out…                                          conn.mu
//
// "Apply loop" is whoever holds lane.applying. Locks are taken in the order
// lane.applying, indexMu, conn.mu, lane.mu; no two conn.mu at a time.
package broker
