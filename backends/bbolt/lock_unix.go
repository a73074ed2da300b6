//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package bbolt

import (
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/wind-c/comqtt/v3/backends"
)

// lockRetry is how long to wait between two attempts to lock.
const lockRetry = 10 * time.Millisecond

// lock takes the lock that bbolt takes, so that the check before runs under it.
func lock(f *os.File, exclusive bool, timeout time.Duration) error {
	how := syscall.LOCK_NB | syscall.LOCK_SH
	if exclusive {
		how = syscall.LOCK_NB | syscall.LOCK_EX
	}
	for start := time.Now(); ; time.Sleep(lockRetry) {
		err := syscall.Flock(int(f.Fd()), how)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return err
		case time.Since(start) >= timeout:
			return backends.ErrLocked
		}
	}
}

// unlock gives the lock back. Closing is not enough while the file is mapped.
func unlock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }

// syncDir makes the entries of the directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
