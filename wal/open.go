package wal

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"
)

// Open opens the log in o.Dir, and creates it if the directory is missing or
// holds none. It scans every segment, and then:
//
//   - damage that a crash explains (a torn tail: it begins above everything
//     that was ever known to be durable) is saved to Dir/broken, cut off and
//     reported;
//   - damage that a crash cannot explain is refused with a *CorruptError, and
//     nothing is modified;
//   - the last segment is written anew, because after a failed sync the page
//     cache may hold what the disk does not. So everything in an open log is
//     durable.
//
// Other errors: ErrLocked, ErrForeign, ErrVersion, ErrStray, or one of the
// file system.
func Open(o Options) (*Log, *Report, error) {
	start := time.Now()
	if err := o.validate(); err != nil {
		return nil, nil, err
	}
	if err := makeDir(o.Dir); err != nil {
		return nil, nil, fmt.Errorf("wal: create directory: %w", err)
	}
	dir, err := lockDir(o.Dir)
	if err != nil {
		return nil, nil, err
	}
	drop, err := os.Open(o.Dir)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("wal: open directory: %w", err), dir.Close())
	}
	l := &Log{opt: o, dir: dir, drop: drop, zip: compressor{mode: o.Compress}, quit: make(chan struct{})}
	r := &Report{}
	if err := l.open(r); err != nil {
		return nil, r, errors.Join(err, drop.Close(), dir.Close())
	}
	l.startBackground()
	r.Duration = time.Since(start)
	return l, r, nil
}

// open does the work of Open. The engine comes last, so there is none to close
// after an error.
func (l *Log) open(r *Report) error {
	in, err := scanDir(l.opt.Dir, l.opt.StoreID, false, l.idx.visit)
	if err != nil {
		return err
	}
	r.Ignored = in.Ignored
	for _, name := range in.Ignored {
		if isTruncation(name) {
			return fmt.Errorf("%w: %s", ErrStray, filepath.Join(l.opt.Dir, name))
		}
	}
	if len(in.Segments) == 0 {
		if l.opt.Floor >= l.opt.Next || l.opt.Need > 0 && l.opt.Need < l.opt.Next {
			return &CorruptError{Index: max(1, l.opt.Need), Durable: l.opt.Floor, Err: ErrMissing}
		}
		r.Created = true
		err = l.create()
	} else {
		err = l.repair(in, r)
	}
	if err != nil {
		return err
	}
	l.opened(r)
	return l.openEngine()
}

// visit builds the index during the scan.
func (x *index) visit(seg *SegmentInfo, e *entry) error {
	if seg.Valid > math.MaxUint32 {
		return fmt.Errorf("wal: segment %s is larger than any version makes", seg.Name)
	}
	if n := len(x.segs); n == 0 || x.segs[n-1].number != seg.Number {
		x.trim()
		x.segs = append(x.segs, &segment{
			number: seg.Number, path: seg.Path, first: e.First, last: e.First - 1,
		})
	}
	x.bytes += x.segs[len(x.segs)-1].add(e.frameSize(), &e.Frame)
	return nil
}

// create makes the first segment, with an opening mark: it pins the store and
// the first record index, and is durable before the log is used, so that the
// first frame of a log can never be torn.
func (l *Log) create() error {
	f := Frame{First: l.opt.Next, Durable: l.opt.Next - 1, Term: 1, Flags: FlagMark}
	if err := l.rewrite(segmentName(1), nil, 0, &f); err != nil {
		return err
	}
	l.idx.begin(1, l.segmentPath(1), f.First)
	l.noteMark(&f)
	return nil
}

// repair brings the log on disk into the state that the scan's verdict allows,
// and the Log to its end.
func (l *Log) repair(in *Inspection, r *Report) error {
	torn, err := in.Verdict(l.opt.Floor, l.opt.Need)
	if err != nil {
		return err
	}
	r.Clean = in.Clean
	if torn {
		if err := l.saveTorn(in, r); err != nil {
			return fmt.Errorf("wal: save torn tail: %w", err)
		}
	}
	if err := trimSealed(in.Segments[:in.kept()-1]); err != nil {
		return fmt.Errorf("wal: end segment: %w", err)
	}
	l.prev, l.lastTime, l.term, l.group, l.flags = in.prev, in.LastTime, in.LastTerm, in.group, in.lastFlags
	l.entry.Store(in.entry)
	l.last.Store(in.Last)
	l.first.Store(in.First)

	tail := l.lastSegment(in)
	var mark *Frame
	if in.covered < in.Last { // tell later scans that the end is durable now
		mark = &Frame{
			First: in.Last + 1, Time: in.LastTime, Durable: in.Last, Flags: FlagMark,
			Term: in.LastTerm, Group: in.group,
		}
	}
	if err := l.rewriteTail(tail, mark); err != nil {
		return err
	}
	if mark != nil {
		l.noteMark(mark)
	}
	return nil
}

// trimSealed cuts off the zeros behind the entries of sealed segments: a crash
// has lost their truncation.
func trimSealed(segs []SegmentInfo) error {
	for i := range segs {
		if segs[i].Size == segs[i].Valid {
			continue
		}
		if err := os.Truncate(segs[i].Path, segs[i].Valid); err != nil {
			return err
		}
		if err := syncPath(segs[i].Path); err != nil {
			return err
		}
	}
	return nil
}

// lastSegment returns the segment that the log goes on in, and adds it to the
// index if it is still empty.
func (l *Log) lastSegment(in *Inspection) *segment {
	end := in.Segments[in.kept()-1]
	if end.Entries == 0 {
		l.idx.begin(end.Number, end.Path, in.Last+1)
	}
	return l.idx.segs[len(l.idx.segs)-1]
}

// saveTorn moves everything from the damage on to Dir/broken: whole segments
// by renaming, the last one first, so that a crash in between leaves a torn
// tail again; the damaged part of a segment by copying, the rewrite cuts it
// off.
func (l *Log) saveTorn(in *Inspection, r *Report) error {
	d := in.Damage
	r.TornAt, r.TornErr, r.TornBytes = fmt.Sprintf("%s:%d", d.Segment, d.Offset), d.Err, d.Bytes
	broken := filepath.Join(l.opt.Dir, brokenDir)
	if err := makeDir(broken); err != nil {
		return err
	}
	if d.Offset > 0 && d.end > d.Offset {
		seg := in.Segments[d.segment]
		to, err := freeName(broken, fmt.Sprintf("%s-%d", seg.Name, d.Offset))
		if err != nil {
			return err
		}
		if err := copyPart(to, seg.Path, d.Offset, d.end); err != nil {
			return err
		}
		r.Saved = append(r.Saved, to)
	}
	for i := len(in.Segments) - 1; i >= in.kept(); i-- {
		to, err := freeName(broken, in.Segments[i].Name+"-0")
		if err != nil {
			return err
		}
		if err := os.Rename(in.Segments[i].Path, to); err != nil {
			return err
		}
		if err := syncPath(to); err != nil {
			return err
		}
		r.Saved = append(r.Saved, to)
	}
	if err := syncPath(broken); err != nil {
		return err
	}
	return l.dir.Sync()
}

// freeName returns a path in dir that is not taken.
func freeName(dir, base string) (string, error) {
	path := filepath.Join(dir, base)
	for i := 1; ; i++ {
		_, err := os.Lstat(path)
		if errors.Is(err, os.ErrNotExist) {
			return path, nil
		}
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, fmt.Sprintf("%s.%d", base, i))
	}
}

// copyPart copies the bytes from off to end into a new durable file.
func copyPart(to, from string, off, end int64) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // only read
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, filePerm)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, io.NewSectionReader(src, off, end-off))
	if err == nil {
		err = dst.Sync()
	}
	if err = errors.Join(err, dst.Close()); err != nil {
		err = errors.Join(err, os.Remove(to))
	}
	return err
}

// rewriteTail writes the last segment anew, with a mark if one is given, and
// begins the next one if it is full.
func (l *Log) rewriteTail(tail *segment, mark *Frame) error {
	src, err := os.Open(tail.path)
	if err != nil {
		return fmt.Errorf("wal: rewrite last segment: %w", err)
	}
	defer src.Close() //nolint:errcheck // only read
	return l.rewrite(filepath.Base(tail.path), src, tail.size, mark)
}

// rewrite replaces the segment by the first size bytes of src and the mark.
func (l *Log) rewrite(name string, src io.ReaderAt, size int64, mark *Frame) error {
	temp := filepath.Join(l.opt.Dir, tempName)
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_RDWR, filePerm)
	if err != nil {
		return fmt.Errorf("wal: rewrite last segment: %w", err)
	}
	if src != nil {
		_, err = io.CopyN(f, io.NewSectionReader(src, 0, size), size)
	}
	if err == nil && mark != nil {
		_, err = f.Write(l.encodeEntry(mark))
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.sameTail(f, size)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, filepath.Join(l.opt.Dir, name))
	}
	if err != nil { // leave no room taken on a full disk
		return fmt.Errorf("wal: rewrite last segment: %w", errors.Join(err, os.Remove(temp)))
	}
	if err = l.dir.Sync(); err != nil {
		return fmt.Errorf("wal: rewrite last segment: %w", err)
	}
	return nil
}

// encodeEntry returns the entry of a mark, and moves prev on.
func (l *Log) encodeEntry(mark *Frame) []byte {
	frame, crc := appendFrame(nil, mark, &l.opt.StoreID, l.prev, nil)
	l.prev = crc
	return appendEntry(nil, frame)
}

// sameTail checks that the copy f, of size bytes and perhaps a mark, is what
// the scan has seen: the copy was read later, and the bytes may have been
// fetched from the disk again since.
func (l *Log) sameTail(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var w window
	var e entry
	w.reset(f, info.Size())
	crc := l.prev
	for off := int64(0); off < info.Size(); off += e.size {
		if _, err := w.entry(off, &e); err != nil {
			return fmt.Errorf("copy differs at %d of %d: %w", off, size, err)
		}
		crc = e.crc
	}
	if crc != l.prev {
		return fmt.Errorf("copy of %d bytes differs: %w", size, ErrChecksum)
	}
	return nil
}

// noteMark counts a mark that was written by rewrite.
func (l *Log) noteMark(f *Frame) {
	l.idx.add(frameMin, f)
	l.entry.Add(1)
	l.first.CompareAndSwap(0, f.First)
	l.last.Store(f.Last())
	l.lastTime, l.term, l.group, l.flags = f.Time, f.Term, f.Group, f.Flags
}

// opened sets what an open log knows: everything in it is durable.
func (l *Log) opened(r *Report) {
	l.settle(l.entry.Load(), l.last.Load())
	r.First, r.Last, r.LastTime = l.First(), l.Last(), l.lastTime
	r.Segments, r.Bytes = len(l.idx.segs), l.idx.bytes
	for _, s := range l.idx.segs {
		r.Frames += uint64(len(s.frames))
		r.Records += s.records
	}
}

// openEngine opens the engine at the end of the log, in a new segment if the
// last one is full.
func (l *Log) openEngine() error {
	tail := l.idx.segs[len(l.idx.segs)-1]
	if tail.size >= l.opt.SegmentSize {
		number := l.entry.Load() + 1
		if err := createSegment(l.opt.Dir, number); err != nil {
			return err
		}
		if err := l.dir.Sync(); err != nil {
			return fmt.Errorf("wal: sync directory: %w", err)
		}
		l.idx.begin(number, l.segmentPath(number), l.last.Load()+1)
		tail = l.idx.segs[len(l.idx.segs)-1]
	}
	// What a killed engine has prepared is worth nothing to the next.
	if err := removeSpare(filepath.Join(l.opt.Dir, spareName)); err != nil {
		return fmt.Errorf("wal: open engine: %w", err)
	}
	want := Position{Segment: tail.number, Offset: tail.size, Entry: l.entry.Load() + 1}
	eng, err := l.opt.Engine(l.opt.Dir, want, l.opt.SegmentSize)
	if err != nil {
		return err
	}
	if at := eng.Tail(); at != want {
		return errors.Join(fmt.Errorf("wal: engine begins at %v, not at %v", at, want), eng.Close())
	}
	l.eng = eng
	return nil
}

func (l *Log) segmentPath(number uint64) string {
	return filepath.Join(l.opt.Dir, segmentName(number))
}
