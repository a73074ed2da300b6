package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/wind-c/comqtt/v3/wal"
)

// Dir is the archive's directory in a data directory.
const Dir = "archive"

// Defaults of Options.
const (
	DefaultAge   = 24 * time.Hour
	DefaultBytes = 1 << 30
	DefaultTick  = time.Second
	DefaultBusy  = 8 << 20
	DefaultRest  = 5 * time.Second
)

const (
	freeShare   = 8           // the archive takes at most one part in so many of the free disk
	pauseFactor = 4           // a raw segment is compressed in this share of the time
	baseShare   = 4           // a base is due when segments of this share of the limits came since the last
	thinShare   = 8           // bases closer together than this share are thinned out
	freshFactor = 20          // and so many times as long as the last one took
	warnEvery   = time.Minute // between two warnings about failures
)

// HoldMax is how many bytes of log break a hold.
const HoldMax = 2 << 30

// Options configures an Archive. Dir, StoreID and Log are required.
type Options struct {
	Dir     string // of the archive: DATA/archive
	StoreID [16]byte
	Log     *wal.Log
	// Age is how far back the archive reaches at least, if Bytes allows it.
	// 0 = DefaultAge.
	Age time.Duration
	// Bytes bounds all segments together, bases not counted. 0 = DefaultBytes.
	Bytes int64
	// Free returns the bytes free on the file system of a directory: segments
	// and bases take at most an eighth of what is free without them. nil = no
	// such bound.
	Free func(dir string) (int64, error)
	// Next makes the next base out of the last one and the archived segments,
	// with NewBase. It is called in idle time.
	Next func(ctx context.Context) error
	// Fresh makes a base out of the live state, with NewBase. It is called when
	// there is nothing that Next could begin with, or no idle time.
	Fresh func(ctx context.Context) error
	// Dropped is told how many bytes have left the log. May be nil.
	Dropped func(bytes int64)
	// Began is given the archive before its work begins. May be nil.
	Began func(a *Archive)
	// Clock returns the log time of now, unix milliseconds. nil = the wall clock.
	Clock  func() int64
	Logger *slog.Logger
	// Busy is how many bytes of log a second are too many for work that can wait:
	// segments are moved into the archive as they are then, and compressed later.
	// 0 = DefaultBusy.
	Busy int64
	// Rest is the least time between two bases of the live state, and after work
	// that failed. 0 = DefaultRest.
	Rest time.Duration
	// Tick is how often the archive looks for work that nobody announces.
	// 0 = DefaultTick.
	Tick time.Duration
}

// Stats are counters of an Archive since it was opened.
type Stats struct {
	Compressed uint64 // segments
	Taken      uint64 // segments moved into the archive as they are, at a busy time
	BytesIn    uint64 // of compressed segments, before
	BytesOut   uint64 // and after
	Bases      uint64 // made
	Removed    uint64 // segments that were too old or too many
	Failed     uint64 // segments or bases that could not be archived
	LastError  error  // of the last failure, nil once something worked again

	Segments     int   // now
	SegmentBytes int64 // now
	BaseFiles    int   // now
	BaseBytes    int64 // now
	Held         int   // holds in force
}

// Archive keeps what leaves a log. All methods may be called concurrently.
type Archive struct {
	opt Options
	log *slog.Logger
	enc *zstd.Encoder // of the goroutine

	target atomic.Uint64 // every target has the records up to it
	wake   chan struct{}
	steps  chan chan struct{}
	quit   chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	load    float64 // bytes released within about the last second; of the goroutine
	loadAt  time.Time
	restAt  time.Time // when a raw segment may be compressed next
	triedAt time.Time // of the last base, made or not
	took    time.Duration
	warned  time.Time

	mu    sync.Mutex
	cat   Catalog
	stats Stats
	holds int
}

var _ wal.Keeper = (*Archive)(nil)

// Open opens the archive of a log and becomes its Keeper: from now on Passed
// decides what leaves the log, and nobody else calls DropBefore. What a crash
// left half done is removed.
//
// An error says that the directory cannot be used. The log is as it was then,
// and the broker can do without an archive.
func Open(o Options) (*Archive, error) {
	a := &Archive{opt: o, log: o.Logger, wake: make(chan struct{}, 1), steps: make(chan chan struct{}), quit: make(chan struct{})}
	a.opt.fill()
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if err := makeDir(o.Dir); err != nil {
		return nil, fmt.Errorf("archive: open: %w", err)
	}
	c, err := List(o.Dir)
	if err != nil {
		return nil, err
	}
	a.cat = *c
	if a.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1)); err != nil {
		return nil, fmt.Errorf("archive: open: %w", err)
	}
	if err := a.removeSpent(); err != nil {
		return nil, fmt.Errorf("archive: open: %w", err)
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	if o.Began != nil {
		o.Began(a)
	}
	o.Log.SetKeeper(a)
	a.wg.Go(a.run)
	return a, nil
}

func (o *Options) fill() {
	if o.Age <= 0 {
		o.Age = DefaultAge
	}
	if o.Bytes <= 0 {
		o.Bytes = DefaultBytes
	}
	if o.Clock == nil {
		o.Clock = func() int64 { return time.Now().UnixMilli() }
	}
	if o.Tick <= 0 {
		o.Tick = DefaultTick
	}
	if o.Busy <= 0 {
		o.Busy = DefaultBusy
	}
	if o.Rest <= 0 {
		o.Rest = DefaultRest
	}
	if o.Dropped == nil {
		o.Dropped = func(int64) {}
	}
}

// Passed says that every target has the records up to index: segments with no
// others may leave the log. It returns at once.
func (a *Archive) Passed(index uint64) {
	for old := a.target.Load(); old < index; old = a.target.Load() {
		if a.target.CompareAndSwap(old, index) {
			break
		}
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Hold keeps everything where it is until release is called: nothing leaves the
// log and nothing leaves the archive. So a History can be read beside a running
// broker. A hold is broken when the log grows beyond 2 GiB.
func (a *Archive) Hold() (release func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holds++
	var once sync.Once
	return func() {
		once.Do(func() {
			a.mu.Lock()
			a.holds--
			a.mu.Unlock()
			a.Passed(0)
		})
	}
}

func (a *Archive) held() bool {
	a.mu.Lock()
	holds := a.holds
	a.mu.Unlock()
	return holds > 0 && a.opt.Log.Bytes() <= HoldMax
}

// Stats returns counters.
func (a *Archive) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.stats
	s.Segments, s.SegmentBytes = len(a.cat.Segments), a.cat.Bytes()
	s.BaseFiles, s.BaseBytes = len(a.cat.Bases), a.cat.BaseBytes()
	s.Held = a.holds
	return s
}

// Catalog returns what is in the archive now.
func (a *Archive) Catalog() *Catalog {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.cat
	c.Segments = append([]Segment(nil), c.Segments...)
	c.Bases = append([]Base(nil), c.Bases...)
	return &c
}

// History returns what can be read now: archive and log.
func (a *Archive) History() *History {
	c := a.Catalog()
	return NewHistory(a.opt.StoreID, c, a.opt.Log.Segments())
}

// Close stops the archive's work; what is half done is removed. Segments that
// every target has passed may be left in the log: the next Open takes them.
func (a *Archive) Close() error {
	select {
	case <-a.quit:
	default:
		close(a.quit)
		a.cancel()
	}
	a.wg.Wait()
	a.opt.Log.SetKeeper(nil)
	return nil
}

// run is the archive's goroutine.
func (a *Archive) run() {
	lowerPriority() // of this goroutine's thread, which ends with it
	tick := time.NewTicker(a.opt.Tick)
	defer tick.Stop()
	for {
		var done chan struct{}
		select {
		case <-a.wake:
		case <-tick.C:
		case done = <-a.steps:
		case <-a.quit:
			return
		}
		a.step()
		if done != nil {
			close(done)
		}
	}
}

// Step does the work that waits now, or a part of it, and returns when that is
// done.
func (a *Archive) Step() {
	done := make(chan struct{})
	select {
	case a.steps <- done:
		<-done
	case <-a.quit:
	}
}

func (a *Archive) step() {
	a.release()
	if a.held() {
		return
	}
	a.base() // before retire cuts its branch off
	a.retire()
	a.compressRaw()
}

// release lets the log drop what every target has. Release decides about each
// segment.
func (a *Archive) release() {
	before := a.opt.Log.Bytes()
	if err := a.opt.Log.DropBefore(a.target.Load() + 1); err != nil && !errors.Is(err, wal.ErrClosed) {
		a.fail("segments could not be removed from the log", err)
	}
	// What was appended meanwhile hides a part of it: the number steers, it
	// does not count.
	a.opt.Dropped(max(0, before-a.opt.Log.Bytes()))
}

// Release implements wal.Keeper. It runs on the archive's goroutine.
func (a *Archive) Release(s wal.SegmentInfo) wal.Fate {
	if a.held() {
		return wal.FateHeld
	}
	busy := a.busy()
	a.load += float64(s.Valid)
	if s.Records == 0 || a.has(&s) {
		return wal.FateDrop
	}
	seg := Segment{First: s.First, Last: s.Last, LastTime: s.LastTime}
	var err error
	fate := wal.FateDrop
	if busy {
		seg.Raw, fate = true, wal.FateTaken
		err = a.take(&seg, s.Path, s.Valid)
	} else {
		err = a.compress(&seg, s.Path, s.Valid)
	}
	if err != nil { // never the log's problem: it goes on without an archive
		a.fail("a log segment is lost to the archive", err)
		return wal.FateDrop
	}
	a.add(seg)
	return fate
}

// busy says whether the log is too fast for work that can wait.
func (a *Archive) busy() bool {
	now := time.Now()
	a.load *= max(0, 1-now.Sub(a.loadAt).Seconds())
	a.loadAt = now
	return a.load > float64(a.opt.Busy)
}

// has says whether a segment is in the archive: a crash came before it left the
// log.
func (a *Archive) has(s *wal.SegmentInfo) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := len(a.cat.Segments) - 1; i >= 0; i-- {
		if h := &a.cat.Segments[i]; h.First <= s.First && h.Last >= s.Last {
			return true
		}
	}
	return false
}

func (a *Archive) add(s Segment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cat.Segments = append(a.cat.Segments, s)
	if s.Raw {
		a.stats.Taken++
	}
	a.stats.LastError = nil
}

// fail counts a failure and says so, not too often.
func (a *Archive) fail(what string, err error) {
	if a.ctx.Err() != nil {
		return
	}
	a.mu.Lock()
	a.stats.Failed++
	a.stats.LastError = err
	n := a.stats.Failed
	a.mu.Unlock()
	if time.Since(a.warned) < warnEvery {
		return
	}
	a.warned = time.Now()
	a.log.Error("archive: "+what, "directory", a.opt.Dir, "error", err, "failures", n,
		"consequence", "the broker goes on; what came before cannot be restored to")
}

func (a *Archive) path(name string) string { return filepath.Join(a.opt.Dir, name) }
