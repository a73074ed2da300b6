package migrate

import (
	"errors"
	"fmt"
)

var (
	// ErrURL reports a URL that names no backend.
	ErrURL = errors.New("migrate: bad URL")

	// ErrNoData says that the source does not exist.
	ErrNoData = errors.New("migrate: no such source")

	// ErrExists says that the target is not empty.
	ErrExists = errors.New("migrate: the target is not empty")

	// ErrUnfinished says that the target was begun by a migration that has not
	// ended.
	ErrUnfinished = errors.New("migrate: the target is half made")

	// ErrOther says that the target was begun by another migration.
	ErrOther = errors.New("migrate: the target was begun from another source")

	// ErrChanged says that the source is not what it was when the migration
	// began.
	ErrChanged = errors.New("migrate: the source has changed since")

	// ErrSpace says that the target has not enough room.
	ErrSpace = errors.New("migrate: not enough space at the target")

	// ErrUnreachable says that a server did not answer, or refused the password.
	ErrUnreachable = errors.New("migrate: cannot be reached")

	// ErrDiffer is what every *DiffError is, and what a target that does not
	// read back as it was written is.
	ErrDiffer = errors.New("migrate: source and target differ")
)

// DiffError is the first difference of source and target.
type DiffError struct {
	Where  string // what of the state differs, in words
	Source string
	Target string
}

// Error says where and what.
func (e *DiffError) Error() string {
	return fmt.Sprintf("migrate: source and target differ: %s: source %s, target %s", e.Where, e.Source, e.Target)
}

// Is makes every DiffError an ErrDiffer.
func (e *DiffError) Is(target error) bool { return target == ErrDiffer }
