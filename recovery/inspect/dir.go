package inspect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/wal"
)

// ErrNothing is what every *NothingError is.
var ErrNothing = errors.New("inspect: nothing to look at")

// NothingError says that what is to be looked at is not there.
type NothingError struct {
	What string // in words
	Near string // what may have been meant, or empty
}

func (e *NothingError) Error() string {
	if e.Near != "" {
		return e.What + "; did you mean " + e.Near + "?"
	}
	return e.What
}

// Is makes every NothingError an ErrNothing.
func (e *NothingError) Is(target error) bool { return target == ErrNothing }

// Progress is told how many bytes of a step are dealt with, of how many; total
// 0 = not known. It is called often.
type Progress func(step string, done, total int64)

// Dir is a data directory that is being looked into.
type Dir struct {
	path     string
	progress Progress
	look     *recovery.Look

	manifest    recovery.Manifest
	warning     string // MANIFEST.old had to do
	manifestErr error  // neither can be read
}

// Open locks the directory for looking and reads its manifest. A directory
// without a readable manifest, but with a log or a backend, can be looked into
// too; Verify and Overview report it.
//
// Errors: a *NothingError if there is no data, a *recovery.LockedError if a
// broker has it, ErrVersion of package recovery, or one of the file system.
func Open(path string, progress Progress) (*Dir, error) {
	if progress == nil {
		progress = func(string, int64, int64) {}
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &NothingError{What: "there is no directory " + path}
	case err != nil:
		return nil, fmt.Errorf("inspect: open: %w", err)
	case !info.IsDir():
		return nil, &NothingError{What: path + " is not a directory"}
	}
	d := &Dir{path: path, progress: progress}
	if d.look, err = recovery.LockShared(path); err != nil {
		return nil, err
	}
	if err := d.identify(); err != nil {
		return nil, errors.Join(err, d.look.Release())
	}
	return d, nil
}

// identify reads the manifest and decides whether this is a data directory.
func (d *Dir) identify() error {
	var err error
	d.manifest, d.warning, err = recovery.ReadManifest(d.path)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, recovery.ErrVersion):
		return err
	case errors.Is(err, recovery.ErrDamaged):
		d.manifestErr = err
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("inspect: read manifest: %w", err)
	}
	if !exists(d.backendFile()) && !exists(recovery.LogDir(d.path)) {
		return &NothingError{What: d.path + " holds no data of a broker: no MANIFEST, no log, no backend"}
	}
	d.manifestErr = &recovery.DamageError{
		File: filepath.Join(d.path, "MANIFEST"), What: "missing",
		Lost: "the identities and the key that prove that log and backend belong together",
		Do:   "put back MANIFEST or MANIFEST.old from a backup of this directory, of any age",
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Close gives the lock back.
func (d *Dir) Close() error { return d.look.Release() }

// backendFile returns the path of the backend, whether it is there or not.
func (d *Dir) backendFile() string {
	_, path := recovery.StoreFile(d.path, &d.manifest)
	return path
}

// memoryBackend says that the log is the only copy of the state.
func (d *Dir) memoryBackend() bool { return d.manifest.Backend == recovery.BackendMemory }

// errStop ends a scan early, without an error.
var errStop = errors.New("stop")

// logScan is one walk over the log's segments.
type logScan struct {
	step string
	// visit gets each intact frame, marks included, up to the first damage. The
	// frame's body is valid during the call. errStop ends the walk and is returned.
	visit func(seg *wal.SegmentInfo, f *wal.Frame) error
}

// scan walks over the log. Damage is part of the Inspection; a log directory
// that is not there is one without segments.
func (d *Dir) scan(ctx context.Context, s logScan) (*wal.Inspection, error) {
	dir := recovery.LogDir(d.path)
	total, err := segmentBytes(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &wal.Inspection{Dir: dir}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("inspect: look for the log: %w", err)
	}
	var before int64 // bytes of the segments before the current one
	var current *wal.SegmentInfo
	d.progress(s.step, 0, total)
	in, err := wal.Scan(dir, d.manifest.StoreID, func(seg *wal.SegmentInfo, f *wal.Frame) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if seg != current {
			if current != nil {
				before += current.Size
			}
			current = seg
		}
		d.progress(s.step, before+seg.Valid, total)
		return s.visit(seg, f)
	})
	switch {
	case err == nil:
		d.progress(s.step, total, total)
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	return in, err
}

// segmentBytes sums up the sizes of the segments.
func segmentBytes(dir string) (total int64, err error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	const digits = 20
	for _, n := range names {
		if n.IsDir() || len(n.Name()) != digits || strings.Trim(n.Name(), "0123456789") != "" {
			continue
		}
		info, err := n.Info()
		if err != nil {
			return 0, err
		}
		total += info.Size()
	}
	return total, nil
}
