package wal

import (
	"errors"
	"fmt"
)

// Errors of Open and Scan.
var (
	// ErrLocked says that another Log, of this or another process, holds the
	// directory.
	ErrLocked = errors.New("wal: directory is in use by another log")

	// ErrForeign says that the directory holds intact frames of another store:
	// somebody moved files between data directories.
	ErrForeign = errors.New("wal: log belongs to another store")

	// ErrVersion says that an intact frame has a format version or flags that
	// this build does not know. The log is not damaged: a newer build wrote it.
	ErrVersion = errors.New("wal: log was written by a newer version")

	// ErrStray says that the directory holds .START or .END files. Only a
	// foreign tool makes them, and the engine would delete segments because of
	// them, so nothing is opened until somebody has looked.
	ErrStray = errors.New("wal: unexpected file in log directory")
)

// Errors of a running log.
var (
	// ErrPoisoned is in every error after a write or sync failed. It is final:
	// the kernel may have dropped the dirty pages, so a retry could report a
	// success that never reached the disk. The error that Commit returns wraps
	// the first failure too.
	ErrPoisoned = errors.New("wal: log has failed, nothing more is written")

	// ErrClosed says that Close has been called.
	ErrClosed = errors.New("wal: log is closed")

	// ErrNotFound says that no record with this index is in the log: not
	// written yet, or dropped.
	ErrNotFound = errors.New("wal: record not in the log")

	// ErrInvalid says that a frame given to Commit is not well formed (no
	// records, a count that differs from the body, a body that is too large).
	// Nothing was written and the log goes on; it is a bug of the caller.
	ErrInvalid = errors.New("wal: invalid frame")
)

// Reasons inside a CorruptError or Damage.
var (
	// ErrTruncated: the file ends inside a frame.
	ErrTruncated = errors.New("file ends inside a frame")
	// ErrZeros: nothing but zero bytes up to the end of the file, and the next
	// file begins with a later frame.
	ErrZeros = errors.New("zeros up to the end of the file, in the place of frames")
	// ErrFrame: the bytes are not a frame (length, magic or header checksum).
	ErrFrame = errors.New("not a frame")
	// ErrChecksum: the header is intact, the body is not.
	ErrChecksum = errors.New("body checksum differs")
	// ErrOrder: an intact frame that does not belong at this place (record
	// index or checksum of the previous frame).
	ErrOrder = errors.New("frame out of order")
	// ErrMissing: a segment, or the end of the log, is gone.
	ErrMissing = errors.New("segment missing")
	// ErrBody: an intact frame whose records cannot be decoded.
	ErrBody = errors.New("body cannot be decoded")
)

// CorruptError reports damage that a crash cannot explain: data that was known
// to be on stable storage is gone or altered. Nothing has been modified.
type CorruptError struct {
	Segment string // file name, empty if no segment is left
	Offset  int64  // byte offset in Segment where the first bad frame begins
	Index   uint64 // record index expected there, 0 if unknown
	Durable uint64 // greatest record index known to have been synced
	Err     error  // what is wrong: one of the reasons above, or ErrForeign

	// What intact frames follow the damage, found by resynchronisation.
	LaterFrames  uint64
	LaterRecords uint64
	LaterFirst   uint64 // index of the first record in them, 0 if none
	LaterLast    uint64 // index of the last record in them, 0 if none
}

func (e *CorruptError) Error() string {
	where := "the log directory"
	if e.Segment != "" {
		where = fmt.Sprintf("%s:%d", e.Segment, e.Offset)
	}
	s := fmt.Sprintf("wal: corrupt at %s: %v", where, e.Err)
	if e.Index > 0 {
		s += fmt.Sprintf("; record %d expected there", e.Index)
	}
	s += fmt.Sprintf("; records up to %d were durable", e.Durable)
	if e.LaterFrames > 0 {
		s += fmt.Sprintf("; %d intact frames with %d records (%d to %d) follow",
			e.LaterFrames, e.LaterRecords, e.LaterFirst, e.LaterLast)
	}
	return s
}

// Unwrap returns the reason.
func (e *CorruptError) Unwrap() error { return e.Err }
