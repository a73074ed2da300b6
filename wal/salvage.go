package wal

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
)

// Remains are the intact frames that a damaged log still has, wherever they
// lie. FindRemains makes it.
type Remains struct {
	Segments []SegmentInfo
	frames   []remain
}

// remain is one intact frame with records.
type remain struct {
	first, last uint64
	segment     int
	off         int64
	size        int
}

// FindRemains looks for intact frames of a store in every segment, also behind
// damage, in files that are misplaced, and in an order that no log has. It
// trusts nothing but checksums and the store id. Of two frames with the same
// first record the one in the later segment counts.
func FindRemains(dir string, store [16]byte) (*Remains, error) {
	s := scanner{in: &Inspection{Dir: dir}}
	if err := s.list(dir); err != nil {
		return nil, fmt.Errorf("wal: salvage: %w", err)
	}
	r := &Remains{Segments: s.in.Segments}
	for i := range r.Segments {
		if err := r.search(i, store); err != nil {
			return nil, fmt.Errorf("wal: salvage %s: %w", r.Segments[i].Name, err)
		}
	}
	slices.SortStableFunc(r.frames, func(a, b remain) int { return cmp.Compare(a.first, b.first) })
	out := r.frames[:0]
	for _, f := range r.frames {
		if n := len(out); n > 0 && out[n-1].first == f.first {
			out[n-1] = f
			continue
		}
		out = append(out, f)
	}
	r.frames = out
	return r, nil
}

// search finds the frames of one segment.
func (r *Remains) search(i int, store [16]byte) error {
	seg := &r.Segments[i]
	f, err := os.Open(seg.Path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	seg.Size = info.Size()
	var win window
	win.reset(f, seg.Size)
	for off := int64(0); off < seg.Size; {
		b, err := win.at(off, windowSize)
		if err != nil {
			return err
		}
		at := bytes.Index(b, magicBytes)
		if at < 0 {
			off += int64(max(1, len(b)-len(magicBytes)+1))
			continue
		}
		off += int64(at)
		e, ok, err := frameAt(&win, off)
		if err != nil {
			return err
		}
		if !ok || e.store != store {
			off++
			continue
		}
		if e.Count > 0 {
			r.frames = append(r.frames, remain{first: e.First, last: e.Last(), segment: i, off: off, size: e.frameSize()})
		}
		off += int64(e.frameSize())
	}
	return nil
}

// frameAt reads a whole frame; ok is false if there is none at off.
func frameAt(win *window, off int64) (e entry, ok bool, err error) {
	b, err := win.at(off, headerSizeMax)
	if err != nil || decodeHeader(b, &e.header) != nil {
		return e, false, err
	}
	if b, err = win.at(off, e.frameSize()); err != nil || len(b) != e.frameSize() {
		return e, false, err
	}
	return e, e.verify(b), nil
}

// Each calls fn for the frames with records from from on, in the order of their
// records. Records below from, and those that an earlier frame had, are cut off.
// What is missing is missing: the caller sees it by the indexes. The frame is
// reused when fn returns.
func (r *Remains) Each(from uint64, fn func(f *Frame) error) error {
	var (
		file *os.File
		open = -1
		win  window
		buf  []byte
	)
	defer func() {
		if file != nil {
			_ = file.Close() // only read
		}
	}()
	for i := range r.frames {
		at := &r.frames[i]
		if at.last < from {
			continue
		}
		if open != at.segment {
			next, err := os.Open(r.Segments[at.segment].Path)
			if err != nil {
				return fmt.Errorf("wal: salvage: %w", err)
			}
			if file != nil {
				_ = file.Close() // only read
			}
			file, open = next, at.segment
			win.reset(file, r.Segments[open].Size)
		}
		e, ok, err := frameAt(&win, at.off)
		if err != nil || !ok {
			return fmt.Errorf("wal: salvage: frame of record %d: %w", at.first, errors.Join(err, ErrChecksum))
		}
		f := e.Frame
		if buf, err = f.load(buf, e.body, int(e.raw)); err != nil {
			continue // a fault of its writer: as good as lost
		}
		if f.First < from {
			if err := f.skip(uint32(from - f.First)); err != nil {
				continue
			}
		}
		from = f.Last() + 1
		if err := fn(&f); err != nil {
			return err
		}
	}
	return nil
}

// Last returns the greatest record index in the remains, 0 for none.
func (r *Remains) Last() (last uint64) {
	for i := range r.frames {
		last = max(last, r.frames[i].last)
	}
	return last
}

// First returns the lowest record index in the remains, 0 for none.
func (r *Remains) First() uint64 {
	if len(r.frames) == 0 {
		return 0
	}
	return r.frames[0].first
}
