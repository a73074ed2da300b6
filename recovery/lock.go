package recovery

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	lockName = "LOCK"
	dirPerm  = 0o700
	filePerm = 0o600
)

// lock is the data directory's lock, held as long as the file is open.
type lock struct{ f *os.File }

// acquire takes the lock of the data directory and writes the process id into
// the lock file, for those who find it taken.
func acquire(dir string) (*lock, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, filePerm)
	if err != nil {
		return nil, fmt.Errorf("%w: lock file: %w", ErrCreate, err)
	}
	if err := flock(f); err != nil {
		if errors.Is(err, errTaken) {
			err = &LockedError{Path: path, PID: holder(f)}
			if flockShared(f) == nil { // held by those who only read: they leave no number
				err = &LockedError{Path: path}
			}
		} else {
			err = fmt.Errorf("recovery: lock %s: %w", path, err)
		}
		return nil, errors.Join(err, f.Close())
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("recovery: write %s: %w", path, err), f.Close())
	}
	return &lock{f}, nil
}

// holder reads the process id in the lock file, 0 if there is none.
func holder(f *os.File) int {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

// release gives the lock back. The file stays: removing it would let two
// processes lock two files of one name.
func (l *lock) release() error {
	if err := l.f.Close(); err != nil {
		return fmt.Errorf("recovery: unlock: %w", err)
	}
	return nil
}

// errTaken says that another open file holds the lock.
var errTaken = errors.New("taken")
