package bbolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/wind-c/comqtt/v3/backends"
)

// The driver's own bucket; every other bucket is a table and is named by its
// byte.
var (
	metaBucket = []byte{'!'}
	markKey    = []byte(backends.MarkKey)
	formatKey  = []byte("!format")
)

// formatVersion is the version of the use this package makes of a bbolt file:
// which buckets there are and what is in them.
const formatVersion = 1

const (
	// DefaultTimeout is how long Open waits for the lock on the file.
	DefaultTimeout = time.Second

	// DefaultPreread is the default of Options.Preread.
	DefaultPreread = 1 << 30

	// defaultMmap is the default of Options.InitialMmap where addresses have 64
	// bits: it costs address space only, and saves the growing file from being
	// mapped anew, which waits for readers, until it is that large.
	defaultMmap = 1 << 30
)

// Options say how to open a file. The zero Options open an existing one.
type Options struct {
	// Create makes the file if it is not there. Without it a missing file is an
	// error that is fs.ErrNotExist. An empty file is damage, never a new store:
	// files are made under another name and renamed.
	Create bool

	// ReadOnly opens for reading, with a shared lock: for tools, while no
	// broker runs. Nothing is written, not even the settling commit.
	ReadOnly bool

	// Timeout is how long to wait for the lock; 0 means DefaultTimeout.
	Timeout time.Duration

	// Preread is the size in bytes up to which Open reads the whole file once,
	// in order, and checks every page and every seal. It pays for itself: bbolt
	// maps the file for random access, so that a cold scan costs one disk read
	// a page. Of a larger file only the branch pages are checked: its pairs are
	// verified as they are read, but a leaf whose rotten header claims to be a
	// branch page or to own millions of pages can still drive bbolt round in
	// circles or out of memory. Run Check once the broker is up. 0 means
	// DefaultPreread, a negative number never to read all.
	Preread int64

	// InitialMmap is how many bytes of address space to map from the start; 0
	// means 1 GiB (nothing where addresses have 32 bits), a negative number the
	// size of the file.
	InitialMmap int

	// MaxSize is the size in bytes that the file may not outgrow; a Commit that
	// needs more is ErrFull. bbolt grows a file by 16 MiB, so the limit is
	// reached that much earlier. 0 means no limit.
	MaxSize int
}

func (o *Options) fill() {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Preread == 0 {
		o.Preread = DefaultPreread
	}
	if o.InitialMmap == 0 && strconv.IntSize == 64 {
		o.InitialMmap = defaultMmap
	}
}

// Open opens the store in the file at path. It checks the file as far as
// Options.Preread says, before bbolt sees it.
//
// A store opened for writing begins with an empty, synced commit, the settling
// commit. After a crash of the process between the write of a meta page and its
// sync, and after a failed sync, the page cache may show a mark that the disk
// does not hold; whoever believes it could drop log segments too early. Since
// bbolt syncs data pages before it writes the meta page, one more commit makes
// everything durable that a reader can see.
//
// Errors: fs.ErrNotExist, *CorruptError (several, joined, if there is more than
// one finding), ErrLocked, ErrNotStore, ErrSchema and ErrSyncFailed of package
// backends.
func Open(path string, o Options) (*Store, error) {
	o.fill()
	if o.Create && !o.ReadOnly {
		if err := create(path); err != nil {
			return nil, err
		}
	}
	s := &Store{path: path, readOnly: o.ReadOnly}
	if err := s.open(o); err != nil {
		return nil, errors.Join(err, s.giveUp())
	}
	if o.ReadOnly {
		return s, nil
	}
	if err := s.update(func(*bolt.Tx) error { return nil }); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// open locks and checks the file and hands it to bbolt.
func (s *Store) open(o Options) (err error) {
	defer s.guard(&err, nil, func() {})()
	var checked error
	db, err := bolt.Open(s.path, 0o600, &bolt.Options{
		Timeout:         o.Timeout,
		FreelistType:    bolt.FreelistMapType,
		ReadOnly:        o.ReadOnly,
		InitialMmapSize: max(o.InitialMmap, 0),
		MaxSize:         o.MaxSize,
		NoStatistics:    true,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			s.file, checked = s.openChecked(name, flag&^os.O_CREATE, mode, o)
			return s.file, checked
		},
	})
	switch {
	case checked != nil:
		return checked
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("bbolt: open %s: %w", s.path, backends.ErrLocked)
	case err != nil:
		return fmt.Errorf("bbolt: open %s: %w", s.path, err)
	}
	s.db = db
	return nil
}

// openChecked opens, locks and checks the file. bbolt takes the same lock again,
// which changes nothing.
func (s *Store) openChecked(name string, flag int, mode os.FileMode, o Options) (*os.File, error) {
	f, err := os.OpenFile(name, flag, mode)
	if err != nil {
		return nil, fmt.Errorf("bbolt: open: %w", err)
	}
	if err = lock(f, !o.ReadOnly, o.Timeout); err == nil {
		err = examine(f, name, o.Preread)
	} else {
		err = fmt.Errorf("bbolt: lock %s: %w", name, err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// examine checks the file before anything trusts it.
func examine(f *os.File, path string, preread int64) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("bbolt: stat %s: %w", path, err)
	}
	c, err := newChecker(context.Background(), f, path, info.Size())
	if err != nil {
		return err
	}
	c.deep = info.Size() <= preread
	var readErr error
	var wg sync.WaitGroup
	if c.deep {
		// The check follows the tree; reading in order, a little ahead of it, is
		// what the disk and the page cache like.
		wg.Go(func() {
			all := io.NewSectionReader(f, 0, int64(c.meta.pages)*int64(c.meta.pageSize))
			_, readErr = io.Copy(onlyWriter{io.Discard}, all)
		})
	}
	err = c.check()
	wg.Wait()
	if readErr != nil {
		return &backends.CorruptError{Store: path, Offset: -1, Err: fmt.Errorf("read: %w", readErr)}
	}
	return err
}

// onlyWriter hides io.Discard's ReadFrom, which reads in pieces of 8 KiB.
type onlyWriter struct{ io.Writer }

// giveUp closes what a failed open left behind: the file, if bbolt panicked over
// it and did not close it itself.
func (s *Store) giveUp() error {
	if s.file == nil || s.file.Fd() == ^uintptr(0) {
		return nil
	}
	if err := errors.Join(unlock(s.file), s.file.Close()); err != nil {
		return fmt.Errorf("bbolt: close %s: %w", s.path, err)
	}
	return nil
}

// create makes an empty store at path unless there is a file.
func create(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("bbolt: create: %w", err)
	}
	b, err := newBuilder(path)
	if err != nil {
		return err
	}
	return b.finish()
}

// builder makes a store file under a temporary name, without syncs, and gives
// it its name when it is complete and durable.
type builder struct {
	path, tmp string
	db        *bolt.DB
}

// newBuilder begins a file that will be renamed to path.
func newBuilder(path string) (*builder, error) {
	b := &builder{path: path, tmp: path + ".new"}
	if err := os.Remove(b.tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("bbolt: remove unfinished file: %w", err)
	}
	db, err := bolt.Open(b.tmp, 0o600, &bolt.Options{
		Timeout:      DefaultTimeout,
		FreelistType: bolt.FreelistMapType,
		NoStatistics: true,
		NoSync:       true,
		NoGrowSync:   true,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			return os.OpenFile(name, flag|os.O_EXCL, mode)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("bbolt: create %s: %w", b.tmp, err)
	}
	b.db = db
	err = db.Update(func(tx *bolt.Tx) error {
		m, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		return m.Put(formatKey, backends.Seal(nil, formatKey, []byte{formatVersion}))
	})
	if err != nil {
		return nil, b.abort(fmt.Errorf("bbolt: create %s: %w", b.tmp, err))
	}
	return b, nil
}

// finish syncs the file and gives it its name, durably.
func (b *builder) finish() error {
	if err := b.db.Sync(); err != nil {
		return b.abort(fmt.Errorf("bbolt: sync %s: %w: %w", b.tmp, backends.ErrSyncFailed, err))
	}
	if err := b.db.Close(); err != nil {
		return b.abort(fmt.Errorf("bbolt: close %s: %w", b.tmp, err))
	}
	if err := os.Rename(b.tmp, b.path); err != nil {
		return b.abort(fmt.Errorf("bbolt: rename: %w", err))
	}
	if err := syncDir(filepath.Dir(b.path)); err != nil {
		return fmt.Errorf("bbolt: sync directory of %s: %w: %w", b.path, backends.ErrSyncFailed, err)
	}
	return nil
}

// abort removes the unfinished file and returns err.
func (b *builder) abort(err error) error {
	return errors.Join(err, b.db.Close(), os.Remove(b.tmp))
}

// checkFormat decodes the value of formatKey.
func checkFormat(stored []byte) error {
	_, val, err := backends.Unseal(formatKey, stored)
	if err != nil {
		return err
	}
	if !bytes.Equal(val, []byte{formatVersion}) {
		return fmt.Errorf("file format %v, this version knows %d: %w", val, formatVersion, backends.ErrSchema)
	}
	return nil
}
