// Package migrate copies the whole state of a broker that is stopped to another
// backend, and compares two of them.
//
//	SOURCE                                          TARGET
//	backend ─▶ machine ─┐                           ┌─▶ entries, bodies, cursor: one
//	log ─▶ replay ──────┴▶ entries, then bodies ────┘   transaction for each chunk
//	                                                ◀── read back: hash, bodies
//	                                                ──▶ sealed mark, then MANIFEST
//
// # The source
//
// It is only read, under its shared lock. The records of the log that the
// backend does not have yet are replayed in memory first, so that what is
// copied is the newest state. A torn end of the log, which was never
// acknowledged, is left out; damage is refused as a start would.
//
// # The target
//
// A data directory is a broker of its own: it gets a new store id, as backups
// do, since both it and the source could be started; the key of the state hash
// goes with it. It is built in its place, under its exclusive lock:
//
//	MIGRATION      from the first moment to the last: where the state comes from,
//	               the new identities. While it is there and no MANIFEST, a broker
//	               refuses the directory (exit 65)
//	state.…        the backend, not sealed
//	MANIFEST       written last, when the backend is sealed
//
// Redis is a second target beside a directory, which stays the truth (package
// backends/redis). So keys that are migrated to keep the source's store id:
// serve --data SOURCE --backend redis://… finds them filled. Where a directory has
// a file, Redis has a pair, where no body can be:
//
//	'B' | 00 00 00 00 00 00 00 00 | "migration"
//
// It stays when the migration has ended, and holds the key of the state hash
// then, with which a migration from Redis checks what it reads. Keys without it
// were filled by a broker: they have a data directory, which is the truth, and
// are not migrated from.
//
// # Resuming
//
// Every chunk's transaction writes the cursor too, at 'B' | 00… | "cursor":
//
//	pairs written | bytes of them | CRC-32C over all their keys and values
//
// A run that resumes goes through the source again, skips that many pairs, and
// begins to write only if the CRC agrees: the source is the same and gives the
// same pairs in the same order. A source that went on meanwhile is ErrChanged.
// The last transaction removes the cursor and seals the mark. Before it, the
// whole target is read back: its entries must have the source's state hash, and
// every message its body, with the checksum that the state knows.
//
// # The crash argument
//
// A crash before MIGRATION is durable leaves an empty directory; before the
// manifest is, a directory that no broker takes and that a resume completes;
// after it, a whole data directory with a MIGRATION file that nobody asks for
// and that the next resume removes. The source is never written.
//
// # Concurrency
//
// Everything runs in the caller's goroutine, but for what recovery reads ahead.
package migrate
