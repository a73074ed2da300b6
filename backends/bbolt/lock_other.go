//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package bbolt

import (
	"os"
	"time"
)

// lock leaves locking to bbolt: on these systems the check before runs under
// the lock of the data directory alone.
func lock(*os.File, bool, time.Duration) error { return nil }

// unlock does nothing.
func unlock(*os.File) error { return nil }

// syncDir does nothing: directories cannot be synced on these systems.
func syncDir(string) error { return nil }
