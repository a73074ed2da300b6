// Package wal is the write-ahead log: it makes groups of records durable, in
// order, and after any crash gives back exactly a prefix that contains every
// record whose Commit has returned.
//
// It knows nothing of what the records mean. It owns the files in its
// directory and nothing else; the data directory's lock, the manifest and the
// backends belong to package recovery.
//
//	Commit ──► frame ──► Engine.Append ──► segment files ◄── Scan (Open, recover)
//	            │              │                 ▲   ▲
//	            │           Sync (data)          │   └────── Replay   (sequential)
//	            └── location ──────────► index ──┴────────── ReadRecord (pread)
//
// # Files
//
//	DIR/00000000000000000001   segment: the name is the number of its first entry
//	DIR/00000000000000000187   … the last one is written to, the others are sealed
//	DIR/tail.tmp               the last segment while Open writes it anew
//	DIR/spare.tmp              zeros: the next segment of the native engine; Open removes it
//	DIR/broken/NAME-OFFSET     what Open has cut off as a torn tail; never read again
//
// A segment is a sequence of entries, each a uvarint length and one frame of
// that length. Entries are numbered without gaps from 1, records from
// Options.Next; a segment begins where the one before it ends, in both counts.
//
// Behind the last entry a segment may go on with zeros: space that was made
// beforehand and not used. Zero is no length of an entry, and nothing else is
// taken for unused. A sealed segment is as long as its entries, except after a
// crash that lost the truncation of one that an oversized frame had cut short;
// the next Open makes up for it.
//
// # Engines
//
// An Engine appends entries; everything else is the same with both, and each
// goes on with the other's log, since Open writes the last segment anew:
//
//   - tidwall appends to a growing file, through a library that copies each frame
//     twice and keeps the last segment in memory. Every sync has to commit the
//     file's new size and blocks.
//   - native writes each entry with one pwrite into zeros that are on stable
//     storage: a sync has only data to write. A goroutine makes the next segment
//     while the last one fills, each piece written back before the next so that no
//     sync waits for more than one; the end of a segment costs a rename. If the
//     next one is not ready, the segment after that grows as with tidwall.
//
// A file is never used for a second segment: its old frames would have to be
// zeroed first, which costs what a new file costs, and with the archive on there
// are none to be had.
//
// # Frame
//
// Little-endian. Version 1; these bytes never change their meaning, a new
// layout gets a new version.
//
//	offset size
//	     0    4  magic "CQW" 0xF2
//	     4    1  version, 1
//	     5    1  flags: 1 compressed (s2 block), 2 mark, 4 clean close
//	     6    2  length of the header, 80
//	     8   16  store id
//	    24    8  index of the first record; of a mark: of the next record
//	    32    4  number of records; 0 = mark
//	    36    8  term
//	    44    4  group
//	    48    4  CRC of the frame before this one (its last field)
//	    52    8  log time, unix milliseconds
//	    60    8  durable: greatest record index known to be synced when this was written
//	    68    4  length of the body in the file
//	    72    4  length of the body, uncompressed
//	    76    4  CRC32C of bytes 0 to 75
//	    80    n  body: for each record a uvarint length and its bytes
//	  80+n    4  CRC32C of bytes 0 to 75 and the body
//
// In every version the first 24 bytes are as above and the header ends with its
// CRC: so a frame of a newer version is told from a damaged one. The last CRC
// leaves the header's own out, because a CRC over data and that data's CRC does
// not depend on the data, and the chain of CRCs would not bind the header.
//
// A frame is valid in its place only if both CRCs and the store id are right,
// its first index is the next one, it names the CRC of the frame before it, and
// its segment's name is the number of its first entry. So a segment that is
// missing, swapped, copied or from another store is noticed, and so is any
// changed bit: also those of the entry's length, which has to be minimal and to
// agree with the header. Only the first frame that is left is free in its
// position.
//
// # What a crash leaves, and what is damage
//
// D is the greatest record index known to have been durable: the greatest
// `durable` in any intact header of this store, wherever it lies, and
// Options.Floor. The first bad frame of a scan decides:
//
//   - it would begin with an index above D: torn. Nothing that was acknowledged
//     is behind it, whatever follows. It is saved, up to the zeros at the end of
//     its segment, cut off and reported.
//   - at or below D, or the log ends below D: durable data is gone. Refused with
//     a *CorruptError, nothing is touched.
//   - it is intact but of another store, or of a newer version: refused. Crashes
//     do not write those.
//
// Zeros up to the end of the last segment are no bad frame but the end of the
// log. If frames are missing there, a greater D says so: the log ends below it.
// Zeros up to the end of another segment are a bad frame unless the next segment
// begins with the very entry that would come there.
//
// With SyncAlways at most one frame is not synced, and its header says that
// everything before it is; so only the very last frame can be taken for torn.
// That is the one residual hole: rot in the last frame, after a kill within the
// idle interval, cannot be told from a torn write. It closes when the next
// frame, the idle mark, the clean-close mark or the next Open's mark is durable.
//
// The first frame of a log is a mark that is durable before the log is used,
// and segments are dropped only if a later one has a durable frame. So the first
// frame that is left is never torn, and a log without any intact frame is always
// damage.
//
// Step by step:
//
//   - Commit: one write, one sync. Crash before the sync returns: torn or whole,
//     either is right, since nobody was told.
//   - Rotation: the old segment is synced, the new one created, the directory
//     synced, and only then does Commit return. Crash in between: the new name is
//     lost or empty, and the log ends with the old segment. native takes the new
//     name before it syncs the old segment, so that one commit of the file
//     system's journal does for both. Crash in between: the old segment may be torn
//     and an empty one follow, which is a torn tail.
//   - Spare: reserved, zeroed, synced; then renamed when its turn comes. So a
//     segment that has a name has only zeros and entries in it, and whatever a
//     crash leaves of a spare is removed. One whose sync failed is not used.
//   - DropBefore: unlinks from the oldest on. Crash: some of them are still there.
//   - Open, torn tail: copy to broken and sync; move later segments there, the
//     last first; sync both directories; write the last segment anew. Crash in
//     between: the next Open finds a torn tail again.
//   - Open, last segment: temporary file, sync, compare with what was scanned,
//     rename, sync the directory. Crash in between: the old file is still there.
//     This is needed because after a failed sync the page cache may show data
//     that the disk does not have.
//   - Any failed write or sync poisons the log: the kernel may have dropped the
//     dirty pages, so a later sync could report a success that never happened.
//
// # Assumptions
//
//  1. fdatasync of a file returns after its data, and the size needed to read it,
//     are on stable storage; fsync of a directory likewise for its names. The
//     device's cache honours flushes.
//  2. rename replaces a file atomically.
//  3. Names in one directory reach the disk in the order of the operations (a
//     journal: ext4, xfs, btrfs, zfs). Otherwise a crash inside DropBefore could
//     leave a gap at the front, which is refused, not misread.
//  4. A write may be torn anywhere, leave zeros or old bytes, and reach the disk
//     in any order within the unsynced part.
//  5. Somebody who can write to the directory can forge frames: CRCs are not
//     signatures. Clients cannot, even if a payload imitates a frame, because they
//     do not know the store id, and frames are searched for only behind damage.
//
// # Concurrency
//
// A Log may be used by many goroutines. Writers share one mutex, held across
// the sync with SyncAlways; readers never wait for it. The Log owns at most two
// goroutines, the interval syncer and the idle marker, and the native engine one
// that makes segments; Close waits for them. On Linux a sync holds no thread up:
// the kernel carries it out and wakes the goroutine, see syncer.
//
// Two Logs on one directory are refused with ErrLocked, also in one process: the
// lock is a flock on the directory.
//
// # Cost
//
// 16 bytes of memory for each frame with records, freed by DropBefore; at most
// 64 open files for ReadRecord. Commit itself allocates nothing; see Engines for
// what they do. A synced commit of one record, tidwall and native, on ext4
// without a journal and two processors: median, 99th percentile and processor
// time; and the median on ext4 with a journal, in a loop device on that:
//
//	 100 B   0.30 and 0.21 ms    2.1 and 0.6 ms   0.17 and 0.12 ms   1.5 and 0.7 ms
//	  4 KiB  0.34 and 0.18 ms    1.4 and 0.8 ms   0.22 and 0.10 ms   1.9 and 0.7 ms
//	 64 KiB  0.54 and 0.29 ms    4.4 and 2.2 ms   0.52 and 0.24 ms   3.2 and 1.0 ms
//	256 KiB  1.01 and 0.60 ms   10.1 and 2.6 ms   1.13 and 0.53 ms
//
// Compression is off by default, see CompressOff for the figures; where it is on
// it is tried for bodies above 4 KiB only, and for fewer and fewer frames while
// it saves too little.
package wal
