//go:build !unix || solaris || illumos || aix

package wal

import (
	"fmt"
	"os"
)

// lockDir opens dir. There is no lock on this system: the lock file of the data
// directory has to do.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("wal: open directory: %w", err)
	}
	return f, nil
}
