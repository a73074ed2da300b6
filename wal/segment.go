package wal

import (
	"errors"
	"fmt"
	"io"
)

// SegmentSummary is what ReadSegment found in the bytes of one segment.
type SegmentSummary struct {
	First     uint64 // index of its first record; without records, of the next one
	Last      uint64 // index of its last record; without records First-1
	Records   uint64
	Entries   uint64 // frames and marks
	FirstTime int64  // log time of the first frame or mark, unix milliseconds
	LastTime  int64  // log time of the last one
	Bytes     int64  // from the begin to the end of the last intact frame
	Before    uint32 // CRC of the frame that came before the first one
	End       uint32 // CRC of the last frame
}

// ReadSegment reads the size bytes of a whole segment from r, which need not be
// a file of a log, and calls fn for each frame with records. It checks what Scan
// checks: every checksum, the store, the order and the chain. Everything in r up
// to size has to be frames; what is not gives a *CorruptError with name as its
// segment. The frame and its body are reused when fn returns; an error from fn
// ends the reading and is returned. fn may be nil.
func ReadSegment(name string, r io.ReaderAt, size int64, store [16]byte, fn func(f *Frame) error) (SegmentSummary, error) {
	var (
		sum SegmentSummary
		win window
		e   entry
		buf []byte
	)
	win.reset(r, size)
	for off := int64(0); off < size; off += e.size {
		_, err := win.entry(off, &e)
		if err == nil {
			err = sum.place(&e, store)
		}
		f := e.Frame
		if err == nil && fn != nil && e.Count > 0 {
			buf, err = f.load(buf, e.body, int(e.raw))
		}
		var failed *ioError
		switch {
		case errors.As(err, &failed):
			return sum, fmt.Errorf("wal: read segment %s: %w", name, failed.err)
		case err != nil:
			return sum, &CorruptError{Segment: name, Offset: off, Index: sum.Last + 1, Durable: e.Durable, Err: err}
		}
		sum.take(&e)
		if fn == nil || e.Count == 0 {
			continue
		}
		if err := fn(&f); err != nil {
			return sum, err
		}
	}
	return sum, nil
}

// place checks that an intact frame belongs where it is.
func (s *SegmentSummary) place(e *entry, store [16]byte) error {
	switch {
	case e.store != store:
		return ErrForeign
	case s.Entries == 0:
		return nil
	case e.First != s.Last+1:
		return fmt.Errorf("%w: it begins with record %d", ErrOrder, e.First)
	case e.prev != s.End:
		return fmt.Errorf("%w: another frame came before it", ErrOrder)
	}
	return nil
}

func (s *SegmentSummary) take(e *entry) {
	if s.Entries == 0 {
		s.First, s.Before, s.FirstTime = e.First, e.prev, e.Time
	}
	s.Entries++
	s.Bytes += e.size
	s.Records += uint64(e.Count)
	s.Last, s.LastTime, s.End = e.Last(), e.Time, e.crc
}

// Trim cuts the records below from and above to off the frame, which holds at
// least one in between.
func (f *Frame) Trim(from, to uint64) error {
	if f.First < from {
		if err := f.skip(uint32(from - f.First)); err != nil {
			return err
		}
	}
	if f.Last() <= to {
		return nil
	}
	keep := uint32(to + 1 - f.First)
	b := f.Body
	for range keep {
		_, rest, ok := nextRecord(b)
		if !ok {
			return ErrBody
		}
		b = rest
	}
	f.Body, f.Count = f.Body[:len(f.Body)-len(b)], keep
	return nil
}
