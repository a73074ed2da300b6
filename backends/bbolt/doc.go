// Package bbolt is the default backend: everything in one file, with
// go.etcd.io/bbolt inside.
//
// # The file
//
//	bucket   holds                                    pages are left full to
//	"!"      "!format": version of this table         -
//	         "!mark": the mark, see backends.EncodeMark
//	"B" "M"  one table each, keys as in backends,     0.95, keys only grow
//	"S"      values sealed as in backends             0.8
//	others                                            0.5, keys come anywhere
//
// The free list is a map in memory and is synced with every commit, so that
// opening does not walk the file. The file never shrinks; Compact rewrites it.
// A new file is made under another name and renamed, so that a file that exists
// is whole.
//
// # Durability
//
// A Commit is one bbolt transaction: data pages, sync, meta page, sync. It is
// never cut into slices: the mark holds a hash of the state, and a crash between
// two slices would leave pairs that no mark describes. The caller bounds the
// batch; 10 000 pairs of 300 bytes at growing keys take about 20 ms.
//
// A failed write or sync is final (ErrSyncFailed): every later call fails and
// the process should exit with 74. The next start needs no flag to know of it.
// Opening for writing makes one empty, synced commit, the settling commit; when
// it succeeds, all that can be read is durable, see Open. When it fails, Open
// fails with ErrSyncFailed again. A write that found no room (ErrFull) changed
// nothing and may be tried again.
//
// # Damage
//
// A page of bbolt has no checksum, and bbolt trusts its pages: rot makes it
// panic, read outside the file, run in circles or allocate without end.
// Therefore
//
//   - Open reads the file itself before bbolt does: every page and every seal up
//     to Options.Preread, the branch pages and the free list beyond;
//   - panics and faults inside bbolt become a *backends.CorruptError;
//   - seals are verified on every read, the order of keys on every scan.
//
// Not visible here: a page that is whole but old, because the disk lost a write.
// The state hash in the mark tells. A rotten newest meta page looks like a torn
// one: bbolt falls back to the state of the commit before, whose mark says so,
// and the log is asked whether it joins there.
//
// # Concurrency
//
// Gets run beside each other and beside a Commit; values passed to their
// callback are slices of the mapped file. A Get ends its read transaction when
// it returns, a scan after each chunk of 256 KiB: a long read transaction would
// keep freed pages from being used again and a growing file from being mapped
// anew.
package bbolt
