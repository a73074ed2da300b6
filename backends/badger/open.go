package badger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	bdb "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/wind-c/comqtt/v3/backends"
)

var (
	markKey   = []byte(backends.MarkKey)
	formatKey = []byte("!format")
)

// formatVersion is the version of the use this package makes of a badger
// directory.
const formatVersion = 1

const (
	// DefaultPreread is the default of Options.Preread.
	DefaultPreread = 1 << 30

	// DefaultReserve is the default of Options.Reserve.
	DefaultReserve = 128 << 20

	// DefaultCleanEvery is the default of Options.CleanEvery.
	DefaultCleanEvery = 5 * time.Minute

	memTable   = 32 << 20  // badger takes transactions up to 15 % of it
	blockCache = 32 << 20  // of decompressed blocks
	indexCache = 32 << 20  // of indexes and filters of tables
	valueLimit = 256 << 10 // larger values go to the value log
	valueFile  = 1<<30 - 1 // size of a file of it; backends.MaxValue and a seal need one of their own
	cleanRatio = 0.5       // a file of the value log is rewritten if so much of it is dead
)

// Options say how to open a directory. The zero Options open an existing one.
type Options struct {
	// Create makes the directory if it is not there. Without it a missing one
	// is an error that is fs.ErrNotExist.
	Create bool

	// ReadOnly opens for reading, with a shared lock: for tools, while no
	// broker runs. After a crash badger itself needs to write: it gets a copy in
	// the directory for temporary files, of all but the tables.
	ReadOnly bool

	// Preread is the size in bytes of all tables up to which Open verifies
	// their checksums, which reads them once. 0 means DefaultPreread, a negative
	// number never.
	Preread int64

	// Reserve is the free disk space in bytes that a Commit leaves: with less
	// it is ErrFull. 0 means DefaultReserve, a negative number no check.
	Reserve int64

	// CleanEvery is the pause between two cleanings of the value log. 0 means
	// DefaultCleanEvery.
	CleanEvery time.Duration

	// Logger gets badger's warnings and errors. nil = none.
	Logger *slog.Logger

	look bool // a private copy is opened: no table may be removed
}

func (o *Options) fill() {
	if o.Preread == 0 {
		o.Preread = DefaultPreread
	}
	if o.Reserve == 0 {
		o.Reserve = DefaultReserve
	}
	if o.CleanEvery <= 0 {
		o.CleanEvery = DefaultCleanEvery
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Open opens the store in the directory at path.
//
// Errors: fs.ErrNotExist, *CorruptError, ErrLocked, ErrNotStore, ErrSchema and
// ErrSyncFailed of package backends.
func Open(path string, o Options) (*Store, error) {
	o.fill()
	if o.Create && !o.ReadOnly {
		if err := create(path, &o); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(filepath.Join(path, "MANIFEST")); err != nil {
		if _, derr := os.Stat(path); derr == nil && errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("badger: open %s: no MANIFEST: %w", path, backends.ErrNotStore)
		}
		return nil, fmt.Errorf("badger: open: %w", err)
	}
	if !o.ReadOnly {
		if err := removeUnborn(path); err != nil {
			return nil, err
		}
	}
	s := &Store{path: path, readOnly: o.ReadOnly, reserve: o.Reserve, readers: map[uint64]int{}}
	size, err := tableBytes(path)
	if err != nil {
		return nil, err
	}
	s.db, err = openDB(path, &o, size <= o.Preread)
	if o.ReadOnly && mustRepair(err) {
		if s.temp, err = privateCopy(path); err != nil {
			return nil, err
		}
		copied := o
		copied.ReadOnly, copied.look = false, true
		s.db, err = openDB(s.temp, &copied, size <= o.Preread)
	}
	if err != nil {
		return nil, errors.Join(err, s.removeTemp())
	}
	if err := s.begin(); err != nil {
		return nil, errors.Join(err, s.db.Close(), s.removeTemp())
	}
	if !o.ReadOnly {
		s.startCleaning(o.CleanEvery)
	}
	return s, nil
}

// openDB hands the directory to badger.
func openDB(path string, o *Options, verify bool) (db *bdb.DB, err error) {
	defer rescue(path, &err)
	bo := bdb.DefaultOptions(path).
		WithMemTableSize(memTable).WithNumMemtables(2).WithNumCompactors(2).
		WithBlockCacheSize(blockCache).WithIndexCacheSize(indexCache).
		WithValueThreshold(valueLimit).WithValueLogFileSize(valueFile).
		WithSyncWrites(!o.ReadOnly).WithNumVersionsToKeep(1).WithDetectConflicts(false).
		WithReadOnly(o.ReadOnly).WithMetricsEnabled(false).WithLogger(logger{o.Logger})
	if o.look {
		// A compaction would empty the tables it has replaced, through the links.
		bo = bo.WithNumCompactors(0).WithNumLevelZeroTables(1 << 20).WithNumLevelZeroTablesStall(1 << 21)
	}
	if verify {
		bo = bo.WithChecksumVerificationMode(options.OnTableRead)
	}
	db, err = bdb.OpenManaged(bo)
	switch {
	case err == nil:
		return db, nil
	case taken(path, o.ReadOnly):
		return nil, fmt.Errorf("badger: open %s: %w", path, backends.ErrLocked)
	case strings.Contains(err.Error(), "hecksum"):
		return nil, &backends.CorruptError{Store: path, Key: []byte{}, Offset: -1, Err: err}
	}
	return nil, fmt.Errorf("badger: open %s: %w", path, err)
}

// begin finds out what is there, and takes back what a crash left half done.
func (s *Store) begin() (err error) {
	defer rescue(s.path, &err)
	txn := s.db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	item, err := txn.Get(formatKey)
	if errors.Is(err, bdb.ErrKeyNotFound) {
		return fmt.Errorf("badger: open %s: %w", s.path, backends.ErrNotStore)
	}
	if err != nil {
		return s.damage(formatKey, err)
	}
	stored, err := item.ValueCopy(nil)
	if err != nil {
		return s.damage(formatKey, err)
	}
	_, val, err := backends.Unseal(formatKey, stored)
	if err != nil {
		return s.complete(err)
	}
	if len(val) != 1 || val[0] != formatVersion {
		return fmt.Errorf("badger: open %s: format %v, this version knows %d: %w", s.path, val, formatVersion, backends.ErrSchema)
	}
	version := item.Version()
	if item, err = txn.Get(markKey); err == nil {
		version = max(version, item.Version())
	} else if !errors.Is(err, bdb.ErrKeyNotFound) {
		return s.damage(markKey, err)
	}
	s.version.Store(version)
	if s.readOnly {
		return nil
	}
	if err := s.takeBack(); err != nil {
		return err
	}
	s.db.SetDiscardTs(s.version.Load())
	return nil
}

// create makes an empty store at path unless there is something.
func create(path string, o *Options) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("badger: create: %w", err)
	}
	tmp := path + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("badger: remove unfinished directory: %w", err)
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return fmt.Errorf("badger: create: %w", err)
	}
	err := build(tmp, o)
	if err == nil {
		err = syncDir(tmp)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("badger: create %s: %w", path, err), os.RemoveAll(tmp))
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("badger: sync directory of %s: %w: %w", path, backends.ErrSyncFailed, err)
	}
	return nil
}

func build(dir string, o *Options) error {
	db, err := openDB(dir, o, false)
	if err != nil {
		return err
	}
	txn := db.NewTransactionAt(0, true)
	defer txn.Discard()
	err = txn.Set(formatKey, backends.Seal(nil, formatKey, []byte{formatVersion}))
	if err == nil {
		err = txn.CommitAt(1, nil)
	}
	return errors.Join(err, db.Close())
}

// tableBytes returns the size of the tables in a directory.
func tableBytes(dir string) (int64, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return 0, fmt.Errorf("badger: open: %w", err)
	}
	var n int64
	for _, d := range names {
		if filepath.Ext(d.Name()) != ".sst" {
			continue
		}
		info, err := d.Info()
		if err != nil {
			return 0, fmt.Errorf("badger: open: %w", err)
		}
		n += info.Size()
	}
	return n, nil
}

// syncDir makes the entries of the directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// startCleaning starts the goroutine that cleans up the value log.
func (s *Store) startCleaning(every time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	s.stopCleaning = cancel
	s.cleaning.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
			for ctx.Err() == nil && s.db.RunValueLogGC(cleanRatio) == nil {
			}
		}
	})
}

// logger gives badger's words to a slog.Logger: what it does is detail, what
// goes wrong is not.
type logger struct{ l *slog.Logger }

func (l logger) Errorf(f string, a ...any)   { l.l.Error(line(f, a)) }
func (l logger) Warningf(f string, a ...any) { l.l.Warn(line(f, a)) }
func (l logger) Infof(f string, a ...any)    { l.l.Debug(line(f, a)) }
func (l logger) Debugf(string, ...any)       {}

func line(format string, args []any) string {
	return "badger: " + strings.TrimSpace(fmt.Sprintf(format, args...))
}
