package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

const (
	cacheFrames  = 4       // decoded frames kept by ReadRecord
	cacheBodyMax = 1 << 20 // larger bodies are not kept
)

// ReadRecord appends the record to dst and returns the result. It reads the
// frame by its location and verifies it; the last few frames stay decoded, so
// neighbours cost a copy. It may run beside everything else, and takes no lock
// of the writer's. ErrNotFound: not written yet, or dropped. A *CorruptError
// means that the disk has lost what was durable.
func (l *Log) ReadRecord(index uint64, dst []byte) ([]byte, error) {
	if index < l.First() {
		return dst, fmt.Errorf("%w: %d", ErrNotFound, index)
	}
	if out, ok := l.read.get(index, dst); ok {
		return out, nil
	}
	d := l.read.take()
	for {
		s, at, f, err := l.idx.locate(index)
		if err != nil {
			l.read.free(d)
			return dst, err
		}
		err = d.load(f, at, &l.opt.StoreID)
		if errors.Is(err, os.ErrClosed) {
			continue // evicted or dropped since
		}
		if err == nil && !d.has(index) {
			err = ErrOrder
		}
		if err != nil {
			l.read.free(d)
			return dst, l.describeRead(s, at, index, err)
		}
		return l.read.put(d, index, dst), nil
	}
}

func (l *Log) describeRead(s *segment, at loc, index uint64, err error) error {
	var failed *ioError
	name := filepath.Base(s.path)
	if errors.As(err, &failed) {
		return fmt.Errorf("wal: read record %d in %s: %w", index, name, failed.err)
	}
	return &CorruptError{Segment: name, Offset: int64(at.off), Index: index, Durable: l.Durable(), Err: err}
}

// decoded is a frame in memory, with the place of each record.
type decoded struct {
	first uint64
	ends  []uint32 // where each record ends in body
	heads []uint32 // where each record begins in body
	disk  []byte   // as read
	raw   []byte   // decompressed, if it was compressed
	body  []byte   // aliases one of the two
	used  uint64
}

// load reads the frame at the place.
func (d *decoded) load(f *os.File, at loc, store *[16]byte) error {
	d.disk = grow(d.disk[:0], int(at.size))[:at.size]
	if _, err := f.ReadAt(d.disk, int64(at.off)); err != nil {
		return &ioError{err}
	}
	var e entry
	if err := decodeHeader(d.disk, &e.header); err != nil {
		return err
	}
	switch {
	case e.frameSize() != len(d.disk):
		return ErrFrame
	case !e.verify(d.disk):
		return ErrChecksum
	case e.store != *store:
		return ErrForeign
	case e.First != at.first:
		return ErrOrder
	}
	var err error
	if d.raw, err = e.load(d.raw, e.body, int(e.raw)); err != nil {
		return err
	}
	return d.split(&e.Frame)
}

// split notes where the records are.
func (d *decoded) split(f *Frame) error {
	d.first, d.heads, d.ends = f.First, d.heads[:0], d.ends[:0]
	b := f.Body
	for range f.Count {
		rec, rest, ok := nextRecord(b)
		if !ok {
			return ErrBody
		}
		end := len(f.Body) - len(rest)
		d.heads = append(d.heads, uint32(end-len(rec)))
		d.ends = append(d.ends, uint32(end))
		b = rest
	}
	if len(b) > 0 {
		return ErrBody
	}
	d.body = f.Body
	return nil
}

// has says whether the record is in the frame.
func (d *decoded) has(index uint64) bool {
	return index >= d.first && index-d.first < uint64(len(d.ends))
}

// record appends the record to dst.
func (d *decoded) record(index uint64, dst []byte) []byte {
	i := index - d.first
	return append(dst, d.body[d.heads[i]:d.ends[i]]...)
}

// frameCache keeps the last frames that ReadRecord decoded. Records are copied
// out under the lock, so that buffers can be reused.
type frameCache struct {
	mu    sync.Mutex
	kept  []*decoded
	spare []*decoded
	clock uint64
}

// get appends the record to dst if its frame is kept.
func (c *frameCache) get(index uint64, dst []byte) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.kept {
		if d.has(index) {
			c.clock++
			d.used = c.clock
			return d.record(index, dst), true
		}
	}
	return dst, false
}

// take returns a buffer to decode into.
func (c *frameCache) take() *decoded {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.spare)
	if n == 0 {
		return &decoded{}
	}
	d := c.spare[n-1]
	c.spare = c.spare[:n-1]
	return d
}

// free gives a buffer back.
func (c *frameCache) free(d *decoded) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.release(d)
}

func (c *frameCache) release(d *decoded) {
	if cap(d.disk)+cap(d.raw) <= 4*cacheBodyMax && len(c.spare) < cacheFrames {
		c.spare = append(c.spare, d)
	}
}

// put appends the record to dst and keeps the frame, unless it is large.
func (c *frameCache) put(d *decoded, index uint64, dst []byte) []byte {
	if len(d.body) > cacheBodyMax {
		return d.record(index, dst) // without the lock; d is left to the collector
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	dst = d.record(index, dst)
	c.clock++
	d.used = c.clock
	for _, k := range c.kept {
		if k.first == d.first { // another reader was faster
			c.release(d)
			return dst
		}
	}
	if len(c.kept) < cacheFrames {
		c.kept = append(c.kept, d)
		return dst
	}
	oldest := 0
	for i, k := range c.kept {
		if k.used < c.kept[oldest].used {
			oldest = i
		}
	}
	c.release(c.kept[oldest])
	c.kept[oldest] = d
	return dst
}
