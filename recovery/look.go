package recovery

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// LogDir returns the directory of the log in a data directory.
func LogDir(dir string) string { return filepath.Join(dir, walName) }

// BackendFile returns the file of the bbolt backend in a data directory.
func BackendFile(dir string) string { return filepath.Join(dir, boltName) }

// Advice says what to run on a damaged data directory.
func Advice(dir string) string {
	if strings.ContainsAny(dir, " \t'\"\\$&;()<>|*?[]#~`") {
		dir = "'" + strings.ReplaceAll(dir, "'", `'\''`) + "'"
	}
	return "comqtt recover repair --dry-run --data " + dir + " says what can be saved, and changes nothing"
}

// Look is the lock of those who only read a data directory: any number of them
// share it, and no broker starts meanwhile.
type Look struct {
	files []*os.File
}

// LockShared locks the data directory for reading. It changes nothing: where
// there is no lock file, as in a copy, it locks the directory of the log
// instead. A *LockedError says that a broker, or a tool that writes, has it.
func LockShared(dir string) (*Look, error) {
	l := &Look{}
	for _, path := range []string{filepath.Join(dir, lockName), LogDir(dir)} {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("recovery: lock: %w", err), l.Release())
		}
		l.files = append(l.files, f)
		if err := flockShared(f); err != nil {
			if errors.Is(err, errTaken) {
				err = &LockedError{Path: path, PID: holder(f)}
			} else {
				err = fmt.Errorf("recovery: lock %s: %w", path, err)
			}
			return nil, errors.Join(err, l.Release())
		}
	}
	return l, nil
}

// Release gives the lock back.
func (l *Look) Release() error {
	var errs []error
	for _, f := range l.files {
		if err := f.Close(); err != nil {
			errs = append(errs, fmt.Errorf("recovery: unlock: %w", err))
		}
	}
	l.files = nil
	return errors.Join(errs...)
}
