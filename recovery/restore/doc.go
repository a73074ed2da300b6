// Package restore writes data directories: the state as it was at some record
// (Restore, which is also what a backup is), and what can be saved of a damaged
// one (Repair in place, Salvage into a new one).
//
//	archive + log ──▶ recovery.Past ──▶ TO.partial-… ── rename ──▶ TO
//
// # A new directory
//
// It is built under a temporary name beside its place, everything in it is
// synced, and it is renamed last: a directory of the name that was asked for is
// whole, whatever happened. A build that was interrupted leaves a directory
// whose name ends with ".partial-" and a number; nothing takes it for a data
// directory, and it may be removed.
//
// It holds a manifest with a new store id and the hash key of the old one, a
// sealed backend, and a base in its archive, so that the past of the new store
// begins at once. It holds no log: serve begins one at the next record.
//
// # Repair
//
// A plan is made first; --dry-run prints it and --apply carries it out. Each of
// its steps copies or moves what it replaces to DIR/quarantine before it touches
// anything, and syncs it. Where a step loses records that were acknowledged the
// plan says how many, and names their topics and clients as far as the records
// can still be read.
//
// # Salvage
//
// Everything that can be read, in the order of the records, over the gaps: the
// state goes on behind a gap as if nothing had happened in it. So sessions and
// messages that were made in a gap are missing, and what was acknowledged,
// unsubscribed or cleared in it is there again. The report lists every gap.
//
// Nothing here needs or talks to a running broker. All functions hold the lock
// of the directory they read, exclusively if they write to it, unless the caller
// says that it has made sure of that by other means.
package restore
