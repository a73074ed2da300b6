package wal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Replay calls fn for the frames that hold the records from index on, in
// order, up to the last record there is when it is called; 0 = from the first.
// Records below index are cut off the first frame, and marks are left out.
// Every checksum and the order are verified: damage gives a *CorruptError. The
// frame and its body are reused when fn returns. An error from fn ends the
// replay and is returned.
//
// It reads the files on its own, in large pieces, and may run beside Commit.
// If DropBefore overtakes it, it ends with ErrNotFound; it also gives that for
// an index that is not in the log and is not Last+1.
func (l *Log) Replay(index uint64, fn func(f *Frame) error) error {
	if index == 0 {
		index = l.First()
	}
	spans, err := l.idx.spans(index)
	if err != nil {
		return err
	}
	r := replay{log: l, index: index, fn: fn}
	for i := range spans {
		if err := r.span(&spans[i]); err != nil {
			return err
		}
	}
	return nil
}

// replay is one walk over the records of a log.
type replay struct {
	log   *Log
	index uint64 // of the next record
	fn    func(f *Frame) error
	win   window
	entry entry
	frame Frame  // given to fn
	buf   []byte // for decompressed bodies
}

// span reads one segment.
func (r *replay) span(s *span) error {
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %d was dropped during the replay", ErrNotFound, r.index)
	}
	if err != nil {
		return fmt.Errorf("wal: replay: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	r.win.reset(f, s.size)
	for off := s.off; ; off += r.entry.size {
		err := r.next(off)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return r.describe(s, off, err)
		}
		if r.entry.Count == 0 {
			continue
		}
		r.frame = r.entry.Frame // fn may change it
		r.index += uint64(r.frame.Count)
		if err := r.fn(&r.frame); err != nil {
			return err
		}
	}
}

// next reads the entry at off, without the records below index.
func (r *replay) next(off int64) error {
	e := &r.entry
	if _, err := r.win.entry(off, e); err != nil {
		return err
	}
	switch {
	case e.store != r.log.opt.StoreID:
		return ErrForeign
	case e.Count == 0:
		return nil
	case e.First > r.index, e.Last() < r.index:
		return ErrOrder
	}
	var err error
	if r.buf, err = e.load(r.buf, e.body, int(e.raw)); err != nil {
		return err
	}
	return e.skip(uint32(r.index - e.First))
}

// describe tells damage from a failure to read.
func (r *replay) describe(s *span, off int64, err error) error {
	var failed *ioError
	if errors.As(err, &failed) {
		return fmt.Errorf("wal: replay %s: %w", filepath.Base(s.path), failed.err)
	}
	return &CorruptError{
		Segment: filepath.Base(s.path), Offset: off, Index: r.index, Durable: r.log.Durable(), Err: err,
	}
}
