// Package archive keeps what leaves the log, so that the state can be built as
// it was at any record of the last day: the segments, and base snapshots of the
// state to begin a replay from.
//
//	log ── Release ──▶ busy: rename ──▶ seg….raw ── when it is quiet ──┐
//	          └──────▶ quiet: verify, compress ──────────────────────▶ seg….zst
//	base + segments ── Next, in idle time ──▶ base….cqb
//	live state ─────── Fresh, when nothing else leads here ──▶ base….cqb
//
// It knows nothing of what records and entries mean: package recovery makes the
// bases and replays.
//
// # Files
//
//	DIR/seg-FIRST-LAST-TIME.zst   a segment of the log, one zstd frame: what `zstd -d`
//	                              gives is the segment as package wal wrote it
//	DIR/seg-FIRST-LAST-TIME.raw   the segment itself, not compressed yet
//	DIR/base-APPLIED-TIME.cqb     a base snapshot, below
//	DIR/*.tmp                     in work, or left by a crash: removed at the next start
//
// FIRST, LAST and APPLIED are record indexes, TIME is the log time of the last
// frame in unix milliseconds. Nothing else is kept about a file: the directory
// is the catalog.
//
// # Base
//
// Little-endian. Version 1; these bytes never change their meaning, a new layout
// gets a new version.
//
//	offset size
//	     0    4  magic "CQB" 0xF2
//	     4    1  version, 1
//	     5    1  flags, 0
//	     6    2  length of the header, 80
//	     8   16  store id
//	    24   16  key of the state hash
//	    40    8  applied: index of the last record in the state
//	    48    8  log time at applied, unix milliseconds
//	    56   16  state hash at applied
//	    72    4  schema: layout of the entries, as in a backend's mark
//	    76    4  CRC32C of bytes 0 to 75
//	    80       blocks:
//	     0    1    table: the letter of package backends; 'B' = bodies; 0 = the end
//	     1    3    0
//	     4    4    number of the block, from 0
//	     8    4    length of the content, uncompressed
//	    12    4    length of the content in the file
//	    16    4    CRC32C of the header's CRC, bytes 0 to 15 of the block, the content
//	    20    n    content: one zstd frame
//
// A content is a list of entries, each a uvarint length and the key, a uvarint
// length and the value, as a backend stores them. All entries of a table are in
// blocks of that table, in order; blocks of different tables may alternate. The
// bodies come last, by message id, their keys 8 bytes big-endian. The last block
// has table 0 and as its content, not compressed, 8 bytes number of entries and
// 8 bytes number of bodies; the file ends with it. The CRCs bind each block to
// its file and its place, and the state hash binds the entries: a base is
// believed only after the loaded state has it.
//
// The log from record 1 is a base too: the empty state.
//
// # What a crash leaves
//
// A compressed segment and a base are written to a temporary name, synced,
// renamed, and the directory synced, before the log is told that the segment may
// go: so a segment is in the log or in the archive, perhaps in both, and History
// reads it once. A segment that is moved here is moved by one rename, after its
// unused end was cut off; the log syncs its own directory afterwards.
//
// # Limits
//
// Segments take at most Options.Bytes, and with the bases an eighth of what is
// free on the disk; they are removed from the oldest on, always up to a base,
// because what is left of them would lead nowhere. A base is due when a quarter
// of the limits has come since the last, so three quarters of the limits can
// always be reached; where it is never quiet, half of them have to do, and the
// base is made of the live state, in a twentieth of the time at most. A log that
// fills the limits faster than that reaches nowhere until it slows down. At clean
// stops more bases are made, and thinned out.
//
// # When it fails
//
// An archive is not what an acknowledgement rests on. Whatever fails here is
// counted and said, the segment leaves the log without having been kept, and
// the archive begins anew with a base of the live state. Nothing waits for it:
// no commit, no checkpoint; the log grows by what the archive has in work, a
// segment in the usual case, and by a Hold up to 2 GiB.
//
// # Concurrency
//
// One goroutine, on a thread of the least priority, does all the work. All
// methods of an Archive may be called by anybody; a History and a BaseReader
// belong to one goroutine each. Compressing takes about 10 ms for a segment of
// 4 MiB and stops where the log grows by more than Options.Busy a second; raw
// segments are compressed later, in a fifth of the time.
package archive
