package wal

import (
	"os"
	"syscall"
)

// syncData makes the data of f durable, and of its attributes only what is
// needed to read it back. f must not be closed meanwhile.
func syncData(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if err != syscall.EINTR { //nolint:errorlint // a plain errno
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
	}
}
