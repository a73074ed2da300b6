// Package badger is the backend for a state far larger than memory: a log
// structured merge tree, github.com/dgraph-io/badger, version 4.9.4 or newer
// (older ones can bring deleted keys back).
//
// # The directory
//
//	key        holds
//	"!format"  version of this table
//	"!mark"    the mark, see backends.EncodeMark
//	others     keys as in backends, values sealed as in backends
//
// A new directory is made under another name and renamed, so that one that
// exists is whole. Values above 256 KiB go to badger's value log, which a
// goroutine of the store cleans up.
//
// # Durability
//
// badger takes transactions of limited size, a Commit has to be one however
// large it is. So the store chooses the versions itself (badger calls this
// managed mode):
//
//	version g    what the last Commit made; readers look at nothing newer
//	version g+1  what the Commit in progress writes: transactions one after
//	             another, each synced, and the mark in the last one
//
// The version of the mark is g. A crash before the last transaction leaves
// pairs of version g+1 that no reader sees. Open writes over them what version g
// has, since the next Commit would make them visible, and Commit does the same
// after a failed one. What version g needs is kept from badger's compaction by
// the discard mark, which never exceeds g nor what a reader still reads.
//
// A failed write or sync is final (ErrSyncFailed). badger writes through a
// mapping of sparse files, so that a full disk would end the process by a
// signal: Commit looks at the free space first, and answers ErrFull below a
// reserve.
//
// # Damage
//
// Open verifies the checksums of all tables, up to Options.Preread bytes of
// them; seals are verified on every read. What badger drops silently, a damaged
// end of one of its logs, leaves either an older mark, and the broker's log is
// asked whether it joins there, or a wrong state hash.
//
// # Memory
//
// Bounded by badger's options, not by the state: two tables of 32 MiB, caches of
// 32 and 32 MiB, and what compaction takes for the moment. While commits of 10 000
// pairs at random places follow each other without a pause, a process had up to
// 620 MB of anonymous memory, most of it waiting for the garbage collector.
//
// # Concurrency
//
// Gets run beside each other and beside a Commit. Scans read in chunks of 1 MiB.
// One goroutine of the store, beside badger's own, cleans up the value log.
package badger
