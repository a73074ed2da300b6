package recovery

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// The backends that Options.Backend names.
const (
	BackendBbolt  = "bbolt"
	BackendBadger = "badger"
	BackendMemory = "memory"
)

// Defaults of Options.
const (
	DefaultCacheBytes  = 256 << 20
	DefaultInterval    = 2 * time.Second
	DefaultBytes       = 64 << 20
	DefaultRecords     = 500_000
	DefaultBatchBytes  = 4 << 20
	DefaultCollect     = 16_384
	DefaultFoldBytes   = 256 << 20
	DefaultRetry       = 100 * time.Millisecond
	retryMax           = 10 * time.Second
	defaultFloorEvery  = 10 * time.Second
	timeJumpMin        = 24 * time.Hour
	forever            = 1<<32 - 1
	defaultInflight    = 256
	defaultQueue       = 1_000_000
	defaultQueueBytes  = 1 << 30
	defaultGraceSecond = 30
)

// Options says what Open opens and how. Dir is required.
type Options struct {
	// Dir is the data directory. It is created if missing, readable by its
	// owner only.
	Dir string
	// Backend is BackendBbolt, BackendBadger or BackendMemory; "" is
	// BackendBbolt. With BackendMemory the log is the only copy: it is never shortened, and every
	// start replays all of it.
	Backend string
	// Sync says when the log's frames reach stable storage.
	Sync wal.SyncMode
	// Limits are the limits of the state machine. If they differ from those in
	// force, Open logs a Config record. The zero value keeps what is in force,
	// and gives a new store DefaultLimits.
	Limits record.Limits
	// SegmentSize is the size of a log segment in bytes, 0 = the log's default.
	SegmentSize int64
	// Clock returns the wall clock in unix milliseconds. nil = time.Now.
	Clock func() int64
	// Logger gets warnings that need somebody's attention. nil = none.
	Logger *slog.Logger
	// Progress is called during the replay with the bytes of records replayed
	// and to be replayed, about once a mebibyte, and at the end. May be nil.
	Progress func(done, total int64)
	// Checkpoint says when the state is written to the backend.
	Checkpoint CheckpointOptions
	// WAL is where the options of the log that Open does not set itself come
	// from: hooks, engine, compression, idle mark. Dir, StoreID, Floor, Need,
	// Next, Sync and SegmentSize are overwritten.
	WAL wal.Options
	// WrapStore, if not nil, is given the open backend and returns what is used
	// in its place: for measuring, and for tests that make it fail.
	WrapStore func(backends.Store) backends.Store
	// Mirror is a second target beside the backend. Not with BackendMemory.
	Mirror MirrorOptions
	// Archive says whether what leaves the log is kept, and how long.
	Archive ArchiveOptions
	// CacheBytes is the memory for message bodies, 0 = DefaultCacheBytes.
	CacheBytes int64
}

// CheckpointOptions says when changes go to the backend: when Interval has
// passed, or so many bytes or records were logged since, whatever is first.
// Zero values are defaults.
type CheckpointOptions struct {
	Interval time.Duration // DefaultInterval; the unit of Compactor.Ticks too
	Bytes    uint64        // bytes of log, DefaultBytes
	Records  uint64        // DefaultRecords
	// BatchBytes bounds the message bodies in one transaction of the backend:
	// what is more goes ahead in transactions of this size. DefaultBatchBytes.
	BatchBytes int
	// Collect is the number of changed entries after which the apply loop
	// should collect them, so that it never takes long. DefaultCollect.
	Collect int
	// FoldBytes is how much memory the changes that wait for the backend may
	// take before Lag.Over asks the broker to hold publishers back.
	// DefaultFoldBytes.
	FoldBytes int64
	// Retry is the pause after a failed attempt, doubled with each further one
	// up to 10 s. DefaultRetry.
	Retry time.Duration
}

// DefaultLimits are the limits of a new store whose Options name none.
func DefaultLimits() record.Limits {
	return record.Limits{
		MaxInflight: defaultInflight, QueueMessages: defaultQueue, QueueBytes: defaultQueueBytes,
		SessionExpiryMax: forever, RestartGrace: defaultGraceSecond,
	}
}

func (o *Options) fill() error {
	if o.Dir == "" {
		return errors.New("recovery: options: no data directory")
	}
	if o.Backend == "" {
		o.Backend = BackendBbolt
	}
	if !slices.Contains([]string{BackendBbolt, BackendBadger, BackendMemory}, o.Backend) {
		return fmt.Errorf("recovery: options: unknown backend %q: want %s, %s or %s", o.Backend, BackendBbolt, BackendBadger, BackendMemory)
	}
	if o.Mirror.URL != "" && o.Backend == BackendMemory {
		return errors.New("recovery: options: a mirror needs a backend on disk")
	}
	if o.Limits != (record.Limits{}) && o.Limits.MaxInflight == 0 {
		return errors.New("recovery: options: limits without a maximum of messages in flight")
	}
	if o.Clock == nil {
		o.Clock = func() int64 { return time.Now().UnixMilli() }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	o.Checkpoint.fill()
	return nil
}

func (c *CheckpointOptions) fill() {
	if c.Interval <= 0 {
		c.Interval = DefaultInterval
	}
	if c.Bytes == 0 {
		c.Bytes = DefaultBytes
	}
	if c.Records == 0 {
		c.Records = DefaultRecords
	}
	if c.BatchBytes <= 0 {
		c.BatchBytes = DefaultBatchBytes
	}
	if c.Collect <= 0 {
		c.Collect = DefaultCollect
	}
	if c.FoldBytes <= 0 {
		c.FoldBytes = DefaultFoldBytes
	}
	if c.Retry <= 0 {
		c.Retry = DefaultRetry
	}
}
