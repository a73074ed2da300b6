//go:build unix && !solaris && !illumos && !aix

package recovery

import (
	"errors"
	"os"
	"syscall"
)

// flock locks f without waiting; errTaken if somebody else has it.
func flock(f *os.File) error {
	return flockAs(f, syscall.LOCK_EX)
}

// flockShared is flock for those who only read. A file system that cannot lock
// a directory (NFS) is left to the lock file.
func flockShared(f *os.File) error {
	err := flockAs(f, syscall.LOCK_SH)
	if info, serr := f.Stat(); err != nil && !errors.Is(err, errTaken) && serr == nil && info.IsDir() {
		return nil
	}
	return err
}

func flockAs(f *os.File, how int) error {
	err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errTaken
	}
	return err
}
