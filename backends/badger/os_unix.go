//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package badger

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/wind-c/comqtt/v3/backends"
)

// taken says whether another process, or another Open, holds badger's lock,
// which is one on the directory.
func taken(dir string, shared bool) bool {
	d, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	how := syscall.LOCK_EX | syscall.LOCK_NB
	if shared {
		how = syscall.LOCK_SH | syscall.LOCK_NB
	}
	return errors.Is(syscall.Flock(int(d.Fd()), how), syscall.EWOULDBLOCK)
}

// room says whether there is disk space for so many bytes more. They are
// written to the log of the memory table, and again as a table.
func (s *Store) room(bytes int64) error {
	if s.reserve < 0 {
		return nil
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.path, &st); err != nil {
		return fmt.Errorf("badger: free space of %s: %w", s.path, err)
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	if need := 2*bytes + s.reserve; free < need {
		return fmt.Errorf("badger: commit to %s: %d bytes are free, %d needed: %w", s.path, free, need, backends.ErrFull)
	}
	return nil
}
