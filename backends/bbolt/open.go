package bbolt

import (
	"errors"
	"fmt"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/wind-c/comqtt/v3/backends"
)

// The bucket of the driver's own keys; every other bucket is a table and is
// named by its byte.
var (
	metaBucket = []byte{'!'}
	markKey    = []byte(backends.MarkKey)
)

// DefaultTimeout is how long Open waits for the lock on the file.
const DefaultTimeout = time.Second

// Options say how to open a file. The zero Options open an existing one.
type Options struct {
	// Create makes the file if it is not there. Without it a missing file is an
	// error that is fs.ErrNotExist.
	Create bool

	// ReadOnly opens for reading, with a shared lock: for tools, while no
	// broker runs. Nothing is written, not even by the settling commit.
	ReadOnly bool

	// Timeout is how long to wait for the lock; 0 means DefaultTimeout.
	Timeout time.Duration

	// MaxSize is the largest size of the file in bytes; a Commit beyond it is
	// ErrFull. 0 means no limit.
	MaxSize int
}

// Open opens the store in the file at path.
//
// Errors: fs.ErrNotExist, ErrLocked, ErrNotStore, ErrSchema, ErrSyncFailed and
// *CorruptError of package backends.
func Open(path string, o Options) (s *Store, err error) {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	s = &Store{path: path, readOnly: o.ReadOnly}
	defer s.guard(&err, func() {
		if s.file != nil {
			s.file.Close()
		}
	})()
	s.db, err = bolt.Open(path, 0o600, &bolt.Options{
		Timeout:      o.Timeout,
		FreelistType: bolt.FreelistMapType,
		ReadOnly:     o.ReadOnly,
		MaxSize:      o.MaxSize,
		NoStatistics: true,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			if !o.Create {
				flag &^= os.O_CREATE
			}
			f, err := os.OpenFile(name, flag, mode)
			s.file = f
			return f, err
		},
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("bbolt: open %s: %w", path, backends.ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("bbolt: open %s: %w", path, err)
	}
	if !o.ReadOnly {
		err = s.update(func(tx *bolt.Tx) error {
			_, err := tx.CreateBucketIfNotExists(metaBucket)
			return err
		})
		if err != nil {
			return nil, errors.Join(err, s.db.Close())
		}
	}
	return s, nil
}
