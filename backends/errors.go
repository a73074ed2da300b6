package backends

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed reports a call after Close.
	ErrClosed = errors.New("backends: closed")

	// ErrDamaged is what every *CorruptError is: the store holds something that
	// a crash cannot explain.
	ErrDamaged = errors.New("backends: damaged")

	// ErrSyncFailed is final: a write or a sync to stable storage failed, and a
	// retry could report a success that never reached the disk. The process
	// must stop (exit 74); the next open decides what is durable.
	ErrSyncFailed = errors.New("backends: write or sync failed")

	// ErrSchema reports a mark, a value or a file written by a newer version.
	ErrSchema = errors.New("backends: written by a newer version")

	// ErrNotStore reports a file or a server that holds something else.
	ErrNotStore = errors.New("backends: not a comqtt store")

	// ErrLocked reports a store that another process has open.
	ErrLocked = errors.New("backends: locked by another process")

	// ErrReadOnly reports a Commit to a store opened for reading.
	ErrReadOnly = errors.New("backends: opened read-only")

	// ErrFull reports that there was no room for a Commit. Nothing was changed;
	// the same Commit may be tried again.
	ErrFull = errors.New("backends: no space left")

	// ErrKey reports an empty, reserved ('!…') or too long key in a batch.
	ErrKey = errors.New("backends: invalid key")

	// ErrTooLarge reports a value longer than MaxValue in a batch.
	ErrTooLarge = errors.New("backends: value too large")
)

// CorruptError reports damage that a crash does not explain. errors.Is reports
// true for ErrDamaged.
type CorruptError struct {
	Store  string // file or address of the store
	Key    []byte // the key concerned, nil if not known
	Offset int64  // byte offset in the file, -1 if not known
	Err    error  // what is wrong
}

// Error names the store, the place and what is wrong with it.
func (e *CorruptError) Error() string {
	where := ""
	if e.Offset >= 0 {
		where += fmt.Sprintf(" at offset %d", e.Offset)
	}
	if e.Key != nil {
		where += fmt.Sprintf(" at key %q", e.Key)
	}
	return fmt.Sprintf("backends: %s damaged%s: %v", e.Store, where, e.Err)
}

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

// Is makes every CorruptError an ErrDamaged.
func (e *CorruptError) Is(target error) bool { return target == ErrDamaged }
