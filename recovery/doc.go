// Package recovery opens a data directory, brings its state to the end of the
// log, and keeps the backend in step with the log from there on.
//
//	DIR/LOCK          flock; the process id of the holder
//	DIR/MANIFEST      identities, hash key, floor; MANIFEST.old is the one before
//	DIR/wal/          the log, package wal
//	DIR/state.bbolt   the backend, package backends/bbolt; or
//	DIR/state.badger  package backends/badger
//
//	  broker's apply loop                          this package
//	  ───────────────────                          ────────────
//	  frame ─▶ Bodies.AddFrame ──────────────────▶ cache of bodies ◀─ Bodies.Cached
//	        ─▶ Machine.Apply                           │  ▲
//	  now and then:                                    │  └─ log, backend ◀─ Bodies.Load
//	        Compactor.Checkpoint ─▶ delta ─▶ merger ─▶ fold
//	                                                   │ committer
//	        Compactor.Hashes ◀── state hash ──┐        ▼
//	                                          └── one transaction ─▶ backend
//	                                                   │
//	                                              log.DropBefore
//
// # Opening
//
// [Open] goes through these steps. Each only reads until the one that says
// otherwise, and an error leaves the directory as it was.
//
//  1. Lock.
//  2. Manifest. No manifest and nothing else: a new store, whose manifest is
//     the first file that is written. No manifest and something else: refused.
//  3. Backend and its mark, if it is there. bbolt checks its pages and seals.
//     Its store id must be the manifest's.
//  4. The machine is loaded from the backend's entries; the hash of exactly
//     these entries must be the mark's. A pair that is missing is found here.
//  5. Log. It must not begin above applied+1 nor end below the applied index or
//     the manifest's floor; wal.Open cuts a torn tail off, and writes.
//  6. A backend that is not there is made: only if the log begins at record 1,
//     which makes the log alone the whole story.
//  7. Replay of what the backend does not have. Effects are ignored. Where the
//     log holds a state hash, the state is compared with it.
//  8. Going live: a sealed backend is marked open; the records of this start
//     (Genesis in a new store, Config if the limits differ, ServerStart) are
//     appended as one frame and synced in every mode, because the boot number is
//     part of every connection's epoch; the manifest's floor rises.
//
// A sealed backend says that no log beyond its state exists: then, and only
// then, a missing log is begun anew, at applied+1.
//
// # Checkpoints
//
// The apply loop calls [Compactor.Checkpoint], which copies the net changes
// since the last one out of the machine: no I/O, some 150 ns a change. One
// goroutine merges them into a fold, key by key: what came and went between two
// commits is gone from it, so online traffic leaves next to nothing for the
// backend, and a backend that is slow, full or gone costs memory by the size of
// the state, not by the traffic. A second goroutine brings a fold to the
// backend:
//
//  1. log.Sync, in every sync mode;
//  2. bodies of new messages, from the cache or the log. All but the last few
//     megabytes go ahead in transactions that leave the mark alone, see
//     ahead.go;
//  3. the old values of the changed entries, for the hash: the mark's hash minus
//     the old entries plus the new ones;
//  4. one transaction with all changes and the new mark;
//  5. the manifest's floor, at most every ten seconds; then whole segments of
//     the log at or below the mark are unlinked.
//
// An attempt that fails is made again, merged with what came meanwhile, while
// the error says that this may help ([backends.ErrFull]); any other ends the
// compactor, and [Compactor.Fatal] says so. The log has everything in any case.
//
// # The crash argument
//
// The log up to any synced record is the truth; the backend is a cache of the
// state at one of its records. A crash
//
//   - before the transaction of step 4, or in it (the backend keeps all of it or
//     nothing): the old mark stands, and the segments after it are there, since
//     only a later step 5 unlinks them. Bodies that went ahead are named by
//     notes in the same transactions, and the next checkpoint deletes those
//     whose messages the replay does not make again;
//   - after step 4, before or in step 5: the log reaches further back than it
//     need; the replay begins at mark+1 and wal drops what is left over later;
//   - anywhere: the mark never names a record above the synced part of the log,
//     because of step 1. So a power cut that takes everything that was not
//     synced cannot leave a backend from the future;
//   - in a clean stop: the seal is written after the last checkpoint and before
//     the log's closing mark, and only if the backend has reached the log's
//     end. In a start: the backend is unsealed before the first record.
//
// The manifest is replaced by rename, and its predecessor is a copy made
// before, so that one of the two can be read after any crash. Losing the newer
// one loses a higher floor, which the backend's mark and the log's own marks
// know too.
//
// # What is not noticed
//
// A log whose end was cut off at or above the backend's mark and the floor, with
// every frame that tells of it: the records since the last checkpoint, two
// seconds in the usual case. The marks in the log close that after 50 ms of
// idleness. With the memory backend only the manifest's floor stands against
// it, which is written at each start and stop.
//
// # The mirror
//
// A second target, a Redis server, beside the backend: see mirror. The committer
// tells it which keys it has changed; everything else is its own goroutine's
// business, and nothing here waits for it. The order of the crash argument stays
// as it is: the mirror's mark never names a record above the backend's.
//
// # The memory backend
//
// It does not outlive the process: the log is the only copy, is never
// shortened, and every start replays all of it. Bodies stay in the log. A directory that was used
// with bbolt can be opened with it only while its log still begins at record
// 1, and the other way round always.
//
// # Memory
//
// Bodies: [Options.CacheBytes], whatever the backend does; one body or frame
// may exceed it. Waiting changes: a key, a value and about 32 bytes each;
// [Lag.Over] says when they exceed [CheckpointOptions.FoldBytes], and the
// broker should hold publishers back then. A commit needs about the same again.
//
// # Concurrency
//
// [State.Machine] belongs to the apply loop, which alone calls AddFrame, Due and
// Checkpoint. Everything else may be called by anybody at any time.
package recovery
