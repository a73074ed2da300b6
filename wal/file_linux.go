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

// writeBack writes n bytes of f from off on to the disk and waits for it. They
// are not durable by that: neither the metadata nor the disk's cache is flushed.
func writeBack(f *os.File, off, n int64) error {
	const writeAndWait = 1 | 2 | 4 // SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE, _WAIT_AFTER
	for {
		err := syscall.SyncFileRange(int(f.Fd()), off, n, writeAndWait)
		switch err { //nolint:errorlint // a plain errno
		case nil, syscall.ENOSYS, syscall.EINVAL, syscall.ESPIPE:
			return nil
		case syscall.EINTR:
		default:
			return &os.PathError{Op: "sync_file_range", Path: f.Name(), Err: err}
		}
	}
}

// allocate reserves the blocks of n bytes of f from off on, so that a full disk
// is found before anything is written, and they lie together. The size changes
// with it. File systems that cannot do it are let go on.
func allocate(f *os.File, off, n int64) error {
	for {
		err := syscall.Fallocate(int(f.Fd()), 0, off, n)
		switch err { //nolint:errorlint // a plain errno
		case nil, syscall.EOPNOTSUPP, syscall.ENOSYS:
			return nil
		case syscall.EINTR:
		default:
			return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
		}
	}
}
