//go:build unix && !solaris && !illumos && !aix

package wal

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockDir opens dir and locks it against other logs, also of this process: the
// lock belongs to the open directory. File systems that cannot lock a directory
// (NFS) are left to the lock file of the data directory.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("wal: open directory: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case err == nil, errors.Is(err, syscall.EBADF), errors.Is(err, syscall.ENOLCK),
		errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.EINVAL):
		return f, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = fmt.Errorf("%w: %s", ErrLocked, dir)
	default:
		err = fmt.Errorf("wal: lock directory: %w", err)
	}
	return nil, errors.Join(err, f.Close())
}
