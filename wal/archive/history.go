package archive

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/wind-c/comqtt/v3/wal"
)

// ErrReach says that the archive and the log do not hold what was asked for.
var ErrReach = errors.New("archive: out of reach")

// History is what of the past can be read: the bases, the archived segments and
// the log that follows them. It is a list of names, made by OpenHistory or
// NewHistory; the files are read when they are needed, and their contents are
// verified then. It is not safe for concurrent use.
type History struct {
	Store [16]byte
	Bases []Base // by Applied
	// Log is what the scan of the log found, nil if there was none to scan.
	Log *wal.Inspection

	parts []part // by first
	dec   *zstd.Decoder
	buf   bytes.Buffer
	out   []byte
}

// part is one segment, archived or of the log.
type part struct {
	path        string
	first, last uint64
	lastTime    int64
	size        int64 // bytes that are frames; of a compressed one, of the file
	zip         bool
}

// OpenHistory lists the archive and scans the log. A directory that does not
// exist counts as empty. Of a damaged log it takes what comes before the
// damage; History.Log says where that is. Beside a running broker the archive
// has to be held, see Archive.Hold.
func OpenHistory(archiveDir, logDir string, store [16]byte) (*History, error) {
	c, err := List(archiveDir)
	if err != nil {
		return nil, err
	}
	in, err := wal.Scan(logDir, store, nil)
	if errors.Is(err, fs.ErrNotExist) {
		in, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	var segs []wal.SegmentInfo
	if in != nil {
		segs = in.Segments
	}
	h := NewHistory(store, c, segs)
	h.Log = in
	return h, nil
}

// NewHistory puts an archive and the segments of a log together.
func NewHistory(store [16]byte, c *Catalog, log []wal.SegmentInfo) *History {
	h := &History{Store: store, Bases: slices.Clone(c.Bases)}
	for i := range c.Segments {
		s := &c.Segments[i]
		h.parts = append(h.parts, part{path: s.Path, first: s.First, last: s.Last, lastTime: s.LastTime, size: s.Size, zip: !s.Raw})
	}
	for i := range log {
		s := &log[i]
		if s.Records > 0 {
			h.parts = append(h.parts, part{path: s.Path, first: s.First, last: s.Last, lastTime: s.LastTime, size: s.Valid})
		}
	}
	slices.SortStableFunc(h.parts, func(a, b part) int { return cmp.Compare(a.first, b.first) })
	return h
}

// Last returns the index of the last record there is, 0 for none.
func (h *History) Last() (last uint64) {
	for i := range h.parts {
		last = max(last, h.parts[i].last)
	}
	if n := len(h.Bases); n > 0 {
		last = max(last, h.Bases[n-1].Applied)
	}
	return last
}

// Until returns up to which index the records from from on are there without a
// gap; from-1 if the first one is missing.
func (h *History) Until(from uint64) uint64 {
	next := from
	for i := range h.parts {
		if p := &h.parts[i]; p.first <= next && p.last >= next {
			next = p.last + 1
		}
	}
	return next - 1
}

// Start is where a replay can begin: a base, or nothing before record 1.
type Start struct {
	Base *Base // nil: the empty state
	From uint64
}

// StartFor returns the nearest point at or before index from which the state at
// index can be built. ErrReach if there is none: the error says what there is.
func (h *History) StartFor(index uint64) (Start, error) {
	for i := len(h.Bases) - 1; i >= 0; i-- {
		if b := &h.Bases[i]; b.Applied <= index && h.Until(b.Applied+1) >= index {
			return Start{Base: b, From: b.Applied + 1}, nil
		}
	}
	if h.Until(1) >= index {
		return Start{From: 1}, nil
	}
	return Start{}, fmt.Errorf("%w: the state at record %d cannot be built: %s", ErrReach, index, h.describe())
}

// describe says which states can be built.
func (h *History) describe() string {
	var b bytes.Buffer
	span := func(from, to uint64) {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d to %d", from, to)
	}
	end := uint64(0)
	if last := h.Until(1); last > 0 {
		span(1, last)
		end = last
	}
	for i := range h.Bases {
		from := h.Bases[i].Applied
		if to := max(from, h.Until(from+1)); to > end {
			span(max(from, end+1), to)
			end = to
		}
	}
	if b.Len() == 0 {
		return "there is no base and no log from record 1"
	}
	return "those that can be are " + b.String()
}

// Reach returns the earliest index from which on every state up to the last
// record can be built, and its log time; 1 and 0 if that is all of them. ok is
// false if there is none.
func (h *History) Reach() (index uint64, time int64, ok bool) {
	last := h.Last()
	if h.Until(1) >= last {
		return min(1, last), 0, true
	}
	for i := range h.Bases {
		if b := &h.Bases[i]; h.Until(b.Applied+1) >= last {
			return b.Applied, b.LogTime, true
		}
	}
	return 0, 0, false
}

// IndexAt returns the last record whose log time is not after t (unix
// milliseconds). ErrReach if everything there is is later.
func (h *History) IndexAt(ctx context.Context, t int64) (uint64, error) {
	index, found := uint64(0), false
	for i := range h.Bases {
		if h.Bases[i].LogTime <= t {
			index, found = h.Bases[i].Applied, true
		}
	}
	for i := range h.parts {
		p := &h.parts[i]
		if p.last <= index {
			continue
		}
		if p.lastTime <= t {
			index, found = p.last, true
			continue
		}
		err := h.read(ctx, p, func(f *wal.Frame) error {
			if f.Time > t {
				return errStop
			}
			index, found = max(index, f.Last()), true
			return nil
		})
		if errors.Is(err, errStop) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if !found {
		return 0, fmt.Errorf("%w: nothing is as old as that", ErrReach)
	}
	return index, nil
}

var errStop = errors.New("stop")

// Replay calls fn for the frames with the records from from to to, in order.
// Records outside are cut off the first and the last frame. Everything is
// verified; a gap is ErrReach. The frame is reused when fn returns.
func (h *History) Replay(ctx context.Context, from, to uint64, fn func(f *wal.Frame) error) error {
	next := from
	for i := range h.parts {
		p := &h.parts[i]
		if next > to {
			break
		}
		if p.first > next || p.last < next {
			continue
		}
		err := h.read(ctx, p, func(f *wal.Frame) error {
			if f.Last() < next {
				return nil
			}
			if next > to {
				return errStop
			}
			if err := f.Trim(next, to); err != nil {
				return err
			}
			next = f.Last() + 1
			return fn(f)
		})
		if err != nil && !errors.Is(err, errStop) {
			return err
		}
	}
	if next <= to {
		return fmt.Errorf("%w: record %d is missing", ErrReach, next)
	}
	return nil
}

// read reads the frames of a segment.
func (h *History) read(ctx context.Context, p *part, fn func(f *wal.Frame) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := os.Open(p.path)
	if err != nil {
		return fmt.Errorf("archive: read segment: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	var r io.ReaderAt = f
	size := p.size
	if p.zip {
		b, err := h.unzip(f, p)
		if err != nil {
			return err
		}
		r, size = bytes.NewReader(b), int64(len(b))
	}
	sum, err := wal.ReadSegment(filepath.Base(p.path), r, size, h.Store, fn)
	if err != nil && !p.zip && wholeBefore(err, &sum, p.last) {
		return nil
	}
	return err
}

// unzip returns the bytes of a compressed segment, valid until the next call.
func (h *History) unzip(f *os.File, p *part) ([]byte, error) {
	if h.dec == nil {
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*wal.MaxBody))
		if err != nil {
			return nil, fmt.Errorf("archive: read segment: %w", err)
		}
		h.dec = dec
	}
	h.buf.Reset()
	if _, err := h.buf.ReadFrom(f); err != nil {
		return nil, fmt.Errorf("archive: read segment: %w", err)
	}
	out, err := h.dec.DecodeAll(h.buf.Bytes(), h.out[:0])
	if err != nil {
		return nil, &wal.CorruptError{Segment: filepath.Base(p.path), Index: p.first, Err: err}
	}
	h.out = out
	return out, nil
}

// Bytes returns about how many bytes of files a replay from from to to reads.
func (h *History) Bytes(from, to uint64) (n int64) {
	for i := range h.parts {
		if p := &h.parts[i]; p.last >= from && p.first <= to {
			n += p.size
		}
	}
	return n
}

// RemoveBase takes a base out of the history: one that turned out to be damaged.
func (h *History) RemoveBase(path string) {
	h.Bases = slices.DeleteFunc(h.Bases, func(b Base) bool { return b.Path == path })
}

// AddBase adds a base that is not in the archive.
func (h *History) AddBase(b Base) {
	c := Catalog{Bases: h.Bases}
	c.addBase(b)
	h.Bases = c.Bases
}

// ReplayRest calls fn for every frame from the record from on that can still be
// read, in order: segments that are damaged end early, and what is missing is
// missing. The caller sees it by the indexes. An error from fn ends it.
func (h *History) ReplayRest(ctx context.Context, from uint64, fn func(f *wal.Frame) error) error {
	next := from
	for i := range h.parts {
		p := &h.parts[i]
		if p.last < next {
			continue
		}
		var own error
		err := h.read(ctx, p, func(f *wal.Frame) error {
			if f.Last() < next {
				return nil
			}
			if own = f.Trim(next, f.Last()); own == nil {
				next = f.Last() + 1
				own = fn(f)
			}
			return own
		})
		if own != nil {
			return own
		}
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}
