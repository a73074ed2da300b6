// Package backends defines where the materialized state lives between two
// checkpoints: the Store interface, the batch, the mark, and the layout of keys
// and values, which is the same in every driver.
//
// A store is an ordered map from bytes to bytes plus one Mark. The compactor
// folds the changes of applied records into a Batch and commits it together
// with the Mark that says up to which record index the pairs reach and what
// their state hash is. Log segments below that index may then go.
//
// # Keys
//
// One byte names the table; integers are big-endian, so that growing ids are
// growing keys and inserts append. sid is the record index of the Connect that
// made the session, mid the record index of the Publish.
//
//	table  key after the table byte      holds
//	B      mid                           message body (stored message form)
//	C      name                          state outside sessions: limits, counters, client ids
//	G      share filter, mid             pending entry of a shared subscription
//	M      mid / 64                      meta of up to 64 messages: QoS, size, deadline
//	Q      sid, position / 64            up to 64 queued and in-flight entries
//	R      sid, packet identifier        received QoS 2 identifier, not yet released
//	S      sid                           session head
//	T      topic                         retained message
//	U      sid, filter                   subscription
//	W      sid                           will, armed or due
//	!      (drivers)                     "!mark": the mark; never shown by Scan
//
// Reference counts are not stored; they are rebuilt while loading. What is in a
// value is the business of broker/core, which says how a pair of M and Q splits
// into entries; the state hash is over those.
//
// # Values
//
// Not every store notices bit rot (a page of bbolt has no checksum), and damage
// must never be served. So a Batch seals every value with four bytes, the
// CRC-32C over key and value, and drivers pass what they read through Unseal.
// It costs less than copying the value. A value found under another key fails
// too. What a seal cannot see is a pair that is missing; the state hash in the
// Mark does.
//
//	stored value = value | crc            key up to 1024 bytes
//	             = key | value | n | crc  longer keys, see StoredKey
//
// # Concurrency and durability
//
// See Store. This package does no I/O and holds no state.
package backends
