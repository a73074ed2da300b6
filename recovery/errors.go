package recovery

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

var (
	// ErrLocked is what every *LockedError is: another process has the data
	// directory open.
	ErrLocked = errors.New("recovery: data directory is in use")

	// ErrVersion says that a newer release wrote the data directory. Nothing is
	// damaged.
	ErrVersion = errors.New("recovery: written by a newer version")

	// ErrDamaged is what every *DamageError is.
	ErrDamaged = errors.New("recovery: data directory is damaged")

	// ErrNoBody is what every *NoBodyError is: the body of a message is neither
	// in memory nor in the log nor in the backend. It is normal for a message
	// that nothing refers to any more, and damage for any other.
	ErrNoBody = errors.New("recovery: no such message body")

	// ErrCreate says that the data directory or a file in it could not be made.
	ErrCreate = errors.New("recovery: create data directory")

	// ErrBackend says that the data directory cannot be used with the backend
	// that was asked for. Nothing is damaged.
	ErrBackend = errors.New("recovery: wrong backend for this data directory")

	// ErrClosed reports a call after Close.
	ErrClosed = errors.New("recovery: closed")
)

// LockedError says who holds the data directory.
type LockedError struct {
	Path string // of the lock file
	PID  int    // of the process that holds it, 0 if unknown
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("recovery: %s is locked by another process", e.Path)
	}
	return fmt.Sprintf("recovery: %s is locked by process %d", e.Path, e.PID)
}

// Is makes every LockedError an ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// DamageError refuses a data directory whose state a crash cannot explain.
// Nothing was changed.
type DamageError struct {
	File string // what is damaged or missing
	What string // what is wrong with it
	Lost string // what going on without it would lose
	Do   string // what to do next
	Err  error  // the finding, may be nil
}

func (e *DamageError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "recovery: %s: %s", e.File, e.What)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Lost != "" {
		fmt.Fprintf(&b, "; at stake: %s", e.Lost)
	}
	if e.Do != "" {
		fmt.Fprintf(&b, "; next: %s", e.Do)
	}
	return b.String()
}

// Unwrap returns the finding.
func (e *DamageError) Unwrap() error { return e.Err }

// Is makes every DamageError an ErrDamaged.
func (e *DamageError) Is(target error) bool { return target == ErrDamaged }

// NoBodyError names the messages whose bodies Load did not find.
type NoBodyError struct {
	IDs []uint64
}

func (e *NoBodyError) Error() string {
	if len(e.IDs) == 1 {
		return fmt.Sprintf("recovery: no body of message %d", e.IDs[0])
	}
	return fmt.Sprintf("recovery: no bodies of %d messages, %d the first", len(e.IDs), e.IDs[0])
}

// Is makes every NoBodyError an ErrNoBody.
func (e *NoBodyError) Is(target error) bool { return target == ErrNoBody }

// The exit codes of a process that an error of this package ends, by the
// numbers of sysexits.h.
const (
	ExitDamaged = 65
	ExitCreate  = 73
	ExitIO      = 74
	ExitLocked  = 75
	ExitConfig  = 78
)

// ExitCode returns the exit code for an error of Open, of Close or from
// Compactor.Fatal; 0 for nil.
func ExitCode(err error) int {
	var unknown *record.UnknownError
	var corrupt *wal.CorruptError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrLocked), errors.Is(err, wal.ErrLocked), errors.Is(err, backends.ErrLocked):
		return ExitLocked
	case errors.Is(err, ErrVersion), errors.Is(err, wal.ErrVersion), errors.Is(err, backends.ErrSchema),
		errors.Is(err, ErrBackend), errors.As(err, &unknown):
		return ExitConfig
	case errors.Is(err, ErrDamaged), errors.Is(err, backends.ErrDamaged), errors.As(err, &corrupt),
		errors.Is(err, wal.ErrForeign), errors.Is(err, wal.ErrStray), errors.Is(err, backends.ErrNotStore):
		return ExitDamaged
	case errors.Is(err, ErrCreate), errors.Is(err, fs.ErrPermission):
		return ExitCreate
	}
	return ExitIO
}
