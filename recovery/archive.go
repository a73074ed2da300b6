package recovery

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/archive"
)

// ArchiveOptions says whether segments that leave the log are kept, with base
// snapshots to begin a replay from. The zero value keeps nothing.
type ArchiveOptions struct {
	// On switches the archive on. With BackendMemory there is none: the log
	// keeps everything.
	On bool
	// Age and Bytes are the limits, see archive.Options. 0 = their defaults.
	Age   time.Duration
	Bytes int64
	// Free returns the bytes free on a directory's file system. nil = unknown.
	Free func(dir string) (int64, error)
	// Tick, Busy and Rest say when the archive works, see archive.Options.
	// 0 = their defaults.
	Tick, Rest time.Duration
	Busy       int64
}

// ArchiveDir returns the directory of the archive in a data directory.
func ArchiveDir(dir string) string { return filepath.Join(dir, archive.Dir) }

// openArchive gives w the archive, if there is to be one. Without it the broker
// goes on: an archive is not what an acknowledgement rests on.
func (p *opening) openArchive(w *committer) {
	o := &p.opt.Archive
	if !o.On || w.memory {
		return
	}
	a := &archiver{w: w}
	_, err := archive.Open(archive.Options{
		Dir: ArchiveDir(p.opt.Dir), StoreID: p.manifest.m.StoreID, Log: p.log, Age: o.Age, Bytes: o.Bytes, Free: o.Free,
		Next: a.next, Fresh: w.writeBase, Dropped: w.wasDropped, Clock: p.opt.Clock, Logger: p.opt.Logger, Tick: o.Tick, Busy: o.Busy, Rest: o.Rest,
		Began: func(arch *archive.Archive) { a.archive, w.archive = arch, arch },
	})
	if err != nil {
		p.warn(fmt.Sprintf("there is no archive: %v", err))
	}
}

// archiver makes bases for an archive.
type archiver struct {
	w       *committer
	archive *archive.Archive
}

// next makes the base that follows the last one, out of that and the archived
// segments: the live backend is not touched.
func (a *archiver) next(ctx context.Context) error {
	h := a.archive.History()
	index := uint64(0)
	if c := a.archive.Catalog(); len(c.Segments) > 0 {
		index = c.Segments[len(c.Segments)-1].Last
	}
	p, err := OpenPast(ctx, PastOptions{History: h, Index: index, HashKey: a.w.hashKey})
	if err != nil {
		return err
	}
	err = a.archive.NewBase(p.Header(h.Store), func(b *archive.BaseWriter) error { return p.WriteBase(ctx, b) })
	return errors.Join(err, p.Close())
}

// writeBase makes a base out of the backend, between two commits.
func (w *committer) writeBase(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mark.Applied == 0 {
		return nil
	}
	return w.archive.NewBase(w.baseHeader(), func(b *archive.BaseWriter) error {
		return storeBase(ctx, w.store, w.mark, w.hashKey, b)
	})
}

func (w *committer) baseHeader() *archive.Header {
	return &archive.Header{
		StoreID: w.mark.StoreID, HashKey: w.hashKey, Applied: w.mark.Applied, LogTime: w.mark.LogTime,
		Hash: w.mark.Hash, Schema: w.mark.Schema,
	}
}

// wasDropped is told by the archive what has left the log.
func (w *committer) wasDropped(bytes int64) {
	if bytes <= 0 {
		return
	}
	w.stats.dropped.Add(uint64(bytes))
	for {
		base := w.logBase.Load()
		if w.logBase.CompareAndSwap(base, max(0, base-bytes)) {
			return
		}
	}
}

// WriteBase writes a base of the live state to path, between two commits. It is
// for a backup of a broker whose archive does not reach back. It holds the
// backend's writer up, not the broker.
func (s *State) WriteBase(ctx context.Context, path string) (applied uint64, err error) {
	w := s.commit
	if w.memory {
		return 0, fmt.Errorf("%w: the memory backend has no state to copy; the log has everything", ErrBackend)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err = archive.WriteBase(path, w.baseHeader(), func(b *archive.BaseWriter) error {
		return storeBase(ctx, w.store, w.mark, w.hashKey, b)
	})
	return w.mark.Applied, err
}

// Hold keeps log and archive as they are until release is called, for somebody
// who reads the files beside the broker. The log is let go when it exceeds 2
// GiB, whoever holds it.
func (s *State) Hold() (release func()) {
	if s.Archive != nil {
		return s.Archive.Hold()
	}
	s.Log.SetKeeper(logHolder{s.Log})
	return func() { s.Log.SetKeeper(nil) }
}

// logHolder holds the log of a broker without an archive.
type logHolder struct{ log *wal.Log }

// Release implements wal.Keeper.
func (h logHolder) Release(wal.SegmentInfo) wal.Fate {
	if h.log.Bytes() > archive.HoldMax {
		return wal.FateDrop
	}
	return wal.FateHeld
}

// closeArchive ends the archive's work and, after a clean stop, leaves a base of
// the last state: what the next start, or somebody without a backend, can begin
// with. A base that cannot be made is said and no reason to fail.
func (s *State) closeArchive(ctx context.Context, clean bool) error {
	if s.Archive == nil {
		return nil
	}
	err := s.Archive.Close()
	if !clean || s.commit.memory || len(s.newBases()) > 0 {
		return err
	}
	if berr := s.commit.writeBase(ctx); berr != nil && ctx.Err() == nil {
		s.commit.logger.Warn("archive: no base snapshot at the stop", "error", berr)
	}
	return err
}

// newBases returns the bases that have the last state already.
func (s *State) newBases() (list []archive.Base) {
	for _, b := range s.Archive.Catalog().Bases {
		if b.Applied == s.commit.mark.Applied {
			list = append(list, b)
		}
	}
	return list
}
