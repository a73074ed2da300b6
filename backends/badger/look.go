package badger

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/wind-c/comqtt/v3/backends"
)

// After a crash badger has to cut the ends of its own logs, and to remove
// unfinished tables, before it can read anything. Whoever only looks must not write, so it works on a copy then: links to
// the tables, which never change, and copies of everything else.

// mustRepair says whether badger may refuse to read for that reason.
func mustRepair(err error) bool {
	return err != nil && !errors.Is(err, backends.ErrLocked) && !errors.Is(err, backends.ErrDamaged)
}

// privateCopy makes the copy in a directory for temporary files.
func privateCopy(path string) (dir string, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("badger: copy: %w", err)
	}
	if dir, err = os.MkdirTemp("", "comqtt-badger-"); err != nil {
		return "", fmt.Errorf("badger: copy: %w", err)
	}
	names, err := os.ReadDir(path)
	for _, d := range names {
		from, to := filepath.Join(path, d.Name()), filepath.Join(dir, d.Name())
		switch {
		case err != nil || d.IsDir():
		case filepath.Ext(d.Name()) == ".sst":
			err = os.Symlink(from, to)
		default:
			err = copySparse(from, to)
		}
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("badger: copy %s: %w", path, err), os.RemoveAll(dir))
	}
	return dir, nil
}

// copySparse copies a file and leaves its zeros out: badger's logs are mapped,
// and much longer than what is in them.
func copySparse(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 && filepath.Ext(from) == ".vlog" { // one that badger had no time to begin
		return nil
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	for at := int64(0); at < info.Size() && err == nil; {
		var start, end int64
		if start, end = dataAt(in, at, info.Size()); start >= end {
			break
		}
		if _, err = out.Seek(start, io.SeekStart); err == nil {
			_, err = io.Copy(out, io.NewSectionReader(in, start, end-start))
		}
		at = end
	}
	if err == nil {
		err = out.Truncate(info.Size())
	}
	return errors.Join(err, out.Close())
}
