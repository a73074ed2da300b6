package wal

import (
	"fmt"
	"strings"
	"time"
)

// Limits and defaults.
const (
	// MaxBody is the greatest body of a frame in bytes: the greatest MQTT
	// packet (256 MB) and 1 MiB for the record around it.
	MaxBody = 268_435_455 + 1<<20

	// DefaultSegmentSize is where a segment ends. Small segments keep an
	// engine's copies, the zeros beforehand and the rewrite of the last segment at
	// start small.
	DefaultSegmentSize = 4 << 20

	// DefaultIdleMark is how long the log is idle before a mark is written.
	DefaultIdleMark = 50 * time.Millisecond

	segmentSizeMin = 1 << 10
	segmentSizeMax = 1 << 30
	syncEveryMin   = time.Millisecond
	syncEveryMax   = time.Hour
)

// Options configures a Log. Dir is required, everything else has a default.
type Options struct {
	// Dir is the directory of the segments. It is created if missing.
	Dir string
	// StoreID is in every frame; a log with another id is refused. Any value is
	// an id, zero too.
	StoreID [16]byte
	// Floor is the greatest record index known from elsewhere (manifest,
	// backends) to have been durable in this log. A log that ends below it has
	// lost data and is refused.
	Floor uint64
	// Need is the lowest record index the caller cannot do without (applied
	// index of the backend + 1). A log that begins above it is refused.
	// 0 = no such check.
	Need uint64
	// Next is the index of the first record of a new log, 0 = 1.
	Next uint64

	// SegmentSize in bytes: a segment ends with the frame that brings it to
	// this size. 1 KiB to 1 GiB, 0 = DefaultSegmentSize.
	SegmentSize int64
	// Sync says when frames reach stable storage. Zero value = always.
	Sync SyncMode
	// Compress says whether bodies are compressed. Zero value = CompressOff.
	Compress CompressMode
	// FrameMax is the greatest body that Commit accepts, in bytes.
	// 0 = MaxBody, which is also the limit.
	FrameMax int
	// IdleMark is how long after the last Commit a mark is written that says
	// that everything before it was durable. 0 = DefaultIdleMark, negative =
	// no marks. There are none with SyncNever.
	IdleMark time.Duration
	// OnFailure is called, at most once and without locks held, when background
	// work (interval sync, idle mark) fails and so poisons the log, or finds it
	// poisoned by a failed Commit. It must not call Close: Close waits for the
	// goroutine that is in OnFailure.
	OnFailure func(error)
	// Engine opens the segment appender. nil = the default, see
	// EngineNamed.
	Engine OpenEngine
	// Hooks are failpoints for tests. nil in production.
	Hooks *Hooks
}

// Hooks are called at the dangerous moments of a commit. index is the last
// record index of the frame in work. A returned error counts as a failure of
// the step and poisons the log. Any of them may be nil.
type Hooks struct {
	BeforeWrite  func(index uint64) error // before the frame is given to the engine
	AfterWrite   func(index uint64) error // written, not synced
	BeforeSync   func(index uint64) error // before each sync, also in the background
	AfterSync    func(index uint64) error // synced, the caller does not know yet
	BeforeRotate func(index uint64) error // before the write that ends a segment
	AfterRotate  func(index uint64) error // new segment exists, directory not synced
	Synced       func(end Position) error // before AfterSync: everything before end is durable
	BeforeUnlink func(index uint64) error // DropBefore: before each unlink; index = last of the segment
}

func (o *Options) validate() error {
	if o.Dir == "" {
		return fmt.Errorf("wal: options: no directory")
	}
	if o.Next == 0 {
		o.Next = 1
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = DefaultSegmentSize
	}
	if o.SegmentSize < segmentSizeMin || o.SegmentSize > segmentSizeMax {
		return fmt.Errorf("wal: options: segment size %d not in %d to %d",
			o.SegmentSize, segmentSizeMin, segmentSizeMax)
	}
	if o.Sync > 0 && (o.Sync < SyncMode(syncEveryMin) || o.Sync > SyncMode(syncEveryMax)) {
		return fmt.Errorf("wal: options: sync interval %v not in %v to %v",
			time.Duration(o.Sync), syncEveryMin, syncEveryMax)
	}
	o.Sync = max(o.Sync, SyncNever)
	if o.FrameMax == 0 {
		o.FrameMax = MaxBody
	}
	if o.FrameMax < 0 || o.FrameMax > MaxBody {
		return fmt.Errorf("wal: options: frame limit %d not in 1 to %d", o.FrameMax, MaxBody)
	}
	if o.Compress > CompressAuto {
		return fmt.Errorf("wal: options: unknown compression %d", o.Compress)
	}
	if o.IdleMark == 0 {
		o.IdleMark = DefaultIdleMark
	}
	if o.Engine == nil {
		o.Engine, _ = EngineNamed("")
	}
	if o.Hooks == nil {
		o.Hooks = &Hooks{}
	}
	return nil
}

// SyncMode says when a frame reaches stable storage: SyncAlways before Commit
// returns, SyncNever only at rotation, Sync and Close, and a positive value is
// the interval, a time.Duration, at which a background goroutine syncs.
type SyncMode time.Duration

// The two modes that are not an interval.
const (
	SyncAlways SyncMode = 0
	SyncNever  SyncMode = -1
)

// SyncEvery returns the mode that syncs at interval d (1 ms to 1 h).
func SyncEvery(d time.Duration) SyncMode { return SyncMode(d) }

// Interval returns the interval of an interval mode, else 0.
func (m SyncMode) Interval() time.Duration { return max(0, time.Duration(m)) }

// String returns "always", "never" or the interval, as ParseSyncMode reads it.
func (m SyncMode) String() string {
	switch {
	case m == SyncAlways:
		return "always"
	case m < 0:
		return "never"
	}
	return time.Duration(m).String()
}

// ParseSyncMode reads "always", "never" or an interval such as "100ms" or
// "every 100ms".
func ParseSyncMode(s string) (SyncMode, error) {
	switch s {
	case "always":
		return SyncAlways, nil
	case "never":
		return SyncNever, nil
	}
	d, err := time.ParseDuration(strings.TrimSpace(strings.TrimPrefix(s, "every")))
	if err != nil {
		return SyncAlways, fmt.Errorf("wal: sync mode %q: want always, never or an interval such as 100ms", s)
	}
	if d < syncEveryMin || d > syncEveryMax {
		return SyncAlways, fmt.Errorf("wal: sync mode %q: interval not in %v to %v", s, syncEveryMin, syncEveryMax)
	}
	return SyncMode(d), nil
}

// MarshalText implements encoding.TextMarshaler.
func (m SyncMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *SyncMode) UnmarshalText(text []byte) (err error) {
	*m, err = ParseSyncMode(string(text))
	return err
}

// CompressMode says whether frame bodies are compressed. Compressed frames are
// read in either mode.
type CompressMode uint8

const (
	// CompressOff never compresses. It is the default: measured with JSON
	// telemetry of 256 bytes a record, compression saves 60 % of the log but costs
	// about 0.3 µs of processor time a record, a tenth of what the broker spends
	// on a message, makes replay half as fast, and a random read from a frame of
	// 256 kB take 0.6 instead of 0.1 ms.
	CompressOff CompressMode = iota
	// CompressAuto compresses bodies above 4 KiB when that saves more than
	// 12 %, and tries less and less often while it does not. For disks that are
	// slow, metered or small.
	CompressAuto
)
