package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Scan reads every segment in dir, checks every frame and its place, and says
// what is there. It changes nothing, takes no lock, and is what Open decides
// by. Beside a running log it may see the frame that is being written as
// damage.
//
// fn, if not nil, is called for each intact frame up to the first damage,
// marks included; an error from it ends the scan and is returned. The frame's
// body aliases a buffer that is reused. A zero storeID accepts the log of any
// store.
//
// Damage is not an error but part of the Inspection; see Verdict. The error is
// ErrForeign if the log begins with an intact frame of another store,
// ErrVersion if a newer build has written it (the Inspection then reaches up
// to that place), or else an error of reading.
func Scan(dir string, storeID [16]byte, fn func(seg *SegmentInfo, f *Frame) error) (*Inspection, error) {
	anyStore := storeID == [16]byte{}
	if fn == nil {
		return scanDir(dir, storeID, anyStore, nil)
	}
	var buf []byte
	return scanDir(dir, storeID, anyStore, func(seg *SegmentInfo, e *entry) (err error) {
		f := e.Frame
		if buf, err = f.load(buf, e.body, int(e.raw)); err != nil { // intact: a fault of the writer
			return &CorruptError{Segment: seg.Name, Offset: e.off, Index: f.First, Durable: e.Durable, Err: err}
		}
		return fn(seg, &f)
	})
}

// load sets the frame's body from the bytes on disk, uncompressed. buf is the
// buffer for that.
func (f *Frame) load(buf, disk []byte, raw int) ([]byte, error) {
	if f.Flags&FlagCompressed == 0 {
		f.Body = disk
		return buf, nil
	}
	out, err := decompress(buf, disk, raw)
	if err == nil {
		f.Body = out
	}
	return out, err
}

// visitFunc is called for each intact frame.
type visitFunc func(seg *SegmentInfo, e *entry) error

// scanner is one walk over a log.
type scanner struct {
	in    *Inspection
	any   bool // accept the store of the first frame
	store [16]byte
	visit visitFunc
	win   window
	next  uint64 // record index expected, 0 before the first frame
	entry entry  // the one in work
}

func scanDir(dir string, storeID [16]byte, anyStore bool, visit visitFunc) (*Inspection, error) {
	s := scanner{in: &Inspection{Dir: dir}, any: anyStore, store: storeID, visit: visit}
	if err := s.list(dir); err != nil {
		return s.in, fmt.Errorf("wal: scan: %w", err)
	}
	for i := range s.in.Segments {
		if err := s.segment(i); err != nil {
			return s.in, err
		}
	}
	in := s.in
	if n := len(in.Segments); n > 0 && in.entry == 0 && in.Damage == nil {
		// An empty file is the end of a log, but never a log of its own.
		in.Damage = &Damage{Segment: in.Segments[0].Name, Err: ErrTruncated}
	}
	return in, nil
}

// list finds the segments.
func (s *scanner) list(dir string) error {
	names, err := os.ReadDir(dir) // sorted: by number, since names have fixed width
	if err != nil {
		return err
	}
	for _, d := range names {
		number, ok := parseSegmentName(d.Name())
		if !ok || d.IsDir() {
			if d.Name() != brokenDir && d.Name() != tempName && d.Name() != spareName {
				s.in.Ignored = append(s.in.Ignored, d.Name())
			}
			continue
		}
		s.in.Segments = append(s.in.Segments, SegmentInfo{
			Name: d.Name(), Path: filepath.Join(dir, d.Name()), Number: number, Sealed: true,
		})
	}
	if n := len(s.in.Segments); n > 0 {
		s.in.Segments[n-1].Sealed = false
	}
	return nil
}

// segment reads the i-th segment: for its frames, or behind damage for what is
// left.
func (s *scanner) segment(i int) error {
	seg := &s.in.Segments[i]
	f, err := os.Open(seg.Path)
	if err != nil {
		return fmt.Errorf("wal: scan: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("wal: scan: %w", err)
	}
	seg.Size = info.Size()
	s.in.Bytes += seg.Size
	s.win.reset(f, seg.Size)

	if s.in.Damage == nil && i > 0 && seg.Number != s.in.entry+1 {
		s.gap(i)
	}
	if s.in.Damage == nil {
		err = s.frames(i)
	}
	if d := s.in.Damage; err == nil && d != nil {
		from := int64(0)
		if d.segment == i && d.Offset > 0 {
			from = d.Offset
			d.end, err = s.win.trim(from)
			d.Bytes = d.end - from
		} else {
			d.Bytes += seg.Size
		}
		if err == nil {
			err = s.behind(from)
		}
	}
	var failed *ioError
	if errors.As(err, &failed) {
		return fmt.Errorf("wal: scan %s: %w", seg.Name, failed.err)
	}
	return err
}

// gap records that the i-th segment does not begin where the one before it
// ends. If that one goes on with zeros, they are in the place of frames.
func (s *scanner) gap(i int) {
	if before := &s.in.Segments[i-1]; before.Valid > 0 && before.Valid < before.Size {
		s.damage(i-1, before.Valid, s.next, ErrZeros)
		s.in.Damage.end = before.Valid
		return
	}
	s.damage(i, 0, s.next, fmt.Errorf("%w: %s expected", ErrMissing, segmentName(s.in.entry+1)))
}

// frames reads the intact frames of a segment, up to its end or the zeros that
// are the space it has not used.
func (s *scanner) frames(i int) error {
	seg := &s.in.Segments[i]
	seg.First, seg.Last = s.next, s.next-min(1, s.next)
	e := &s.entry
	for off := int64(0); ; {
		known, err := s.win.entry(off, e)
		if err == nil {
			err = s.place(e)
		} else if !known {
			unused, zerr := s.win.zeros(off)
			if unused || zerr != nil {
				return zerr
			}
		}
		if err != nil {
			return s.bad(i, off, e, known, err)
		}
		s.take(seg, e)
		if s.visit != nil {
			if err := s.visit(seg, e); err != nil {
				return err
			}
		}
		off += e.size
	}
}

// place checks that an intact frame belongs where it is.
func (s *scanner) place(e *entry) error {
	if s.any && s.in.entry == 0 {
		s.store = e.store
	}
	switch {
	case e.store != s.store:
		return ErrForeign
	case s.in.entry == 0: // the first one that is left may begin anywhere
		return nil
	case e.First != s.next:
		return fmt.Errorf("%w: it begins with record %d", ErrOrder, e.First)
	case e.prev != s.in.prev:
		return fmt.Errorf("%w: another frame came before it", ErrOrder)
	}
	return nil
}

// take counts an intact frame.
func (s *scanner) take(seg *SegmentInfo, e *entry) {
	in := s.in
	if in.entry == 0 {
		in.StoreID, in.First = e.store, e.First
		in.entry = seg.Number - 1
	}
	if seg.Entries == 0 {
		seg.First = e.First
	}
	in.entry++
	in.prev = e.crc
	in.Records += uint64(e.Count)
	if e.Count > 0 {
		in.Frames++
	} else {
		in.Marks++
	}
	in.Last = e.Last()
	in.LastTime, in.LastTerm, in.group = e.Time, e.Term, e.Group
	in.lastFlags, in.Clean = e.Flags, e.Flags&FlagClose != 0
	in.covered = max(in.covered, e.Durable)
	in.Durable = max(in.Durable, e.Durable)
	seg.Entries++
	seg.Records += uint64(e.Count)
	seg.Last, seg.LastTime = e.Last(), e.Time
	seg.Valid += e.size
	s.next = e.First + uint64(e.Count)
}

// bad records that there is no frame at off. The error is nil if that is
// damage, which the Inspection reports.
func (s *scanner) bad(i int, off int64, e *entry, known bool, err error) error {
	seg := &s.in.Segments[i]
	var ioErr *ioError
	switch {
	case errors.As(err, &ioErr):
		return err
	case errors.Is(err, ErrVersion) && (s.any || e.store == s.store):
		return fmt.Errorf("%w: %s:%d", ErrVersion, seg.Name, off)
	case errors.Is(err, ErrVersion):
		err = ErrForeign
	}
	if errors.Is(err, ErrForeign) && s.in.entry == 0 {
		s.in.StoreID = e.store
		return fmt.Errorf("%w: it is %x", ErrForeign, e.store)
	}
	index := s.next
	if s.in.entry == 0 && known && e.store == s.store {
		index = e.First
	}
	s.damage(i, off, index, err)
	return nil
}

func (s *scanner) damage(i int, off int64, index uint64, err error) {
	s.in.Clean = false
	s.in.Damage = &Damage{Segment: s.in.Segments[i].Name, Offset: off, Index: index, Err: err, segment: i}
}

// behind looks for what is left of the log from off of the current segment on:
// how far it was durable, and what could be saved.
func (s *scanner) behind(off int64) error {
	d := s.in.Damage
	return s.win.resync(off, func(h *header, err error) error {
		if s.any && s.store == [16]byte{} {
			s.store = h.store // nothing intact came before: trust the first that is
		}
		if h.store != s.store {
			return nil
		}
		s.in.StoreID = s.store
		if errors.Is(err, ErrVersion) {
			return fmt.Errorf("%w: it is also damaged at %s:%d", ErrVersion, d.Segment, d.Offset)
		}
		s.in.Durable = max(s.in.Durable, h.Durable)
		if err != nil || h.Count == 0 {
			return nil
		}
		d.strange = d.strange || h.First < s.in.First
		if h.First < d.Index {
			return nil
		}
		if d.LaterFirst == 0 || h.First < d.LaterFirst {
			d.LaterFirst = h.First
		}
		d.LaterFrames++
		d.LaterRecords += uint64(h.Count)
		d.LaterLast = max(d.LaterLast, h.Last())
		return nil
	})
}
