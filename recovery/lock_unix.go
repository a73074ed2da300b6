//go:build unix && !solaris && !illumos && !aix

package recovery

import (
	"errors"
	"os"
	"syscall"
)

// flock locks f without waiting; errTaken if somebody else has it.
func flock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errTaken
	}
	return err
}
