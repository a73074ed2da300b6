package badger

import (
	"errors"
	"os"
	"syscall"
)

// The values of lseek's whence for sparse files.
const (
	seekData = 3
	seekHole = 4
)

// dataAt returns the next piece of a file behind at that is not a hole.
func dataAt(f *os.File, at, size int64) (start, end int64) {
	start, err := f.Seek(at, seekData)
	if errors.Is(err, syscall.ENXIO) {
		return size, size // nothing but a hole
	}
	if err != nil {
		return at, size
	}
	if end, err = f.Seek(start, seekHole); err != nil || end <= start {
		return start, size
	}
	return start, end
}
