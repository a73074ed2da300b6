package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/wal/archive"
)

// ErrExists says that the directory to be made is there already, and not empty.
var ErrExists = errors.New("restore: the target exists and is not empty")

// ErrNoData says that there is no data directory to read.
var ErrNoData = errors.New("restore: no data directory")

// Options says what to restore, and to where.
type Options struct {
	Dir string // the data directory to read
	To  string // the data directory to make; it must not exist, or be empty
	// Index is the record whose state is wanted; 0 = Time decides.
	Index uint64
	// Time is the moment whose state is wanted, unix milliseconds of log time;
	// 0 and Index 0 = the newest state.
	Time int64
	// Live says that a broker runs on Dir and holds its files: no lock is taken.
	Live bool
	// Base is a base outside the archive that the history may begin with: what a
	// running broker gives whose archive does not reach back. May be empty.
	Base string
	// Progress is called with a step and the bytes done and to be done in it. May
	// be nil.
	Progress func(step string, done, total int64)
}

// Report is what Restore made.
type Report struct {
	To       string   `json:"to"`
	Index    uint64   `json:"index"` // last record in the state
	Time     string   `json:"time"`  // log time of it, RFC 3339
	StoreID  string   `json:"store_id"`
	From     uint64   `json:"base"` // record of the base it began with; 0 = none
	Records  uint64   `json:"records"`
	Hash     string   `json:"state_hash"`
	Compared int      `json:"hashes_compared"` // recorded state hashes that agreed
	Sessions int      `json:"sessions"`
	Retained int      `json:"retained"`
	Queued   int      `json:"queued"`
	Inflight int      `json:"inflight"`
	Warnings []string `json:"warnings,omitempty"`
}

// Restore makes a data directory with the state as it was. Errors:
// archive.ErrReach if archive and log do not reach so far back, ErrExists,
// ErrNoData, those of recovery.
func Restore(ctx context.Context, o Options) (*Report, error) {
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if err := free(o.To); err != nil {
		return nil, err
	}
	m, warning, err := manifestOf(o.Dir)
	if err != nil {
		return nil, err
	}
	if !o.Live {
		l, err := recovery.LockShared(o.Dir)
		if err != nil {
			return nil, err
		}
		defer l.Release() //nolint:errcheck // only read
	}
	o.Progress("read the log", 0, 0)
	h, err := archive.OpenHistory(recovery.ArchiveDir(o.Dir), recovery.LogDir(o.Dir), m.StoreID)
	if err != nil {
		return nil, err
	}
	if err := addBase(h, o.Base); err != nil {
		return nil, err
	}
	index, err := wanted(ctx, h, &o)
	if err != nil {
		return nil, err
	}
	p, err := recovery.OpenPast(ctx, recovery.PastOptions{
		History: h, Index: index, HashKey: m.HashKey,
		Progress: func(done, total int64) { o.Progress("replay", done, total) },
	})
	if err != nil {
		return nil, err
	}
	defer p.Close() //nolint:errcheck // only read
	o.Progress("write", 0, 0)
	r, err := build(ctx, p, o.To)
	if err == nil && warning != "" {
		r.Warnings = append(r.Warnings, warning)
	}
	return r, err
}

// manifestOf reads the manifest of a data directory that has to exist.
func manifestOf(dir string) (recovery.Manifest, string, error) {
	m, warning, err := recovery.ReadManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return m, "", fmt.Errorf("%w: %s has no MANIFEST", ErrNoData, dir)
	}
	return m, warning, err
}

// addBase adds a base file to a history.
func addBase(h *archive.History, path string) error {
	if path == "" {
		return nil
	}
	b, err := archive.OpenBase(path)
	if err != nil {
		return err
	}
	h.AddBase(archive.Base{Path: path, Applied: b.Applied, LogTime: b.LogTime})
	return b.Close()
}

// wanted returns the record whose state is wanted.
func wanted(ctx context.Context, h *archive.History, o *Options) (uint64, error) {
	last := h.Last()
	switch {
	case o.Index > last:
		return 0, fmt.Errorf("%w: record %d is not written yet, the last one is %d", archive.ErrReach, o.Index, last)
	case o.Index > 0:
		return o.Index, nil
	case o.Time > 0:
		index, err := h.IndexAt(ctx, o.Time)
		if errors.Is(err, archive.ErrReach) {
			return 0, fmt.Errorf("%w: nothing there is as old as %s", archive.ErrReach, formatTime(o.Time))
		}
		return index, err
	case last == 0:
		return 0, fmt.Errorf("%w: there is no record", archive.ErrReach)
	}
	return last, nil
}

func formatTime(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }

// free says whether a directory may be made at path.
func free(path string) error {
	names, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", recovery.ErrCreate, err)
	case len(names) > 0:
		return fmt.Errorf("%w: %s", ErrExists, path)
	}
	return nil
}

// build makes the data directory at to with a state.
func build(ctx context.Context, p *recovery.Past, to string) (*Report, error) {
	to = filepath.Clean(to)
	parent := filepath.Dir(to)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, fmt.Errorf("%w: %w", recovery.ErrCreate, err)
	}
	temp, err := os.MkdirTemp(parent, filepath.Base(to)+".partial-")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", recovery.ErrCreate, err)
	}
	m, err := p.WriteDir(ctx, temp)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = os.Rename(temp, to)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(temp))
	}
	if err := recovery.SyncDir(parent); err != nil {
		return nil, err
	}
	c, head := p.Machine.Counts(), p.Header(m.StoreID)
	return &Report{
		To: to, Index: head.Applied, Time: formatTime(head.LogTime), StoreID: fmt.Sprintf("%x", m.StoreID),
		From: p.From, Records: p.Records, Hash: fmt.Sprintf("%x", head.Hash), Compared: p.Hashes,
		Sessions: c.Sessions, Retained: c.Retained, Queued: c.Queued, Inflight: c.Inflight,
	}, nil
}
