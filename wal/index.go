package wal

import (
	"fmt"
	"os"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
)

// openFilesMax is how many segments are kept open for ReadRecord.
const openFilesMax = 64

// loc is where a frame with records lies: 16 bytes, no pointer.
type loc struct {
	first uint64 // index of its first record
	off   uint32 // of the frame in the segment, behind the entry's length
	size  uint32 // bytes of the frame
}

// segment is a segment file of a running log.
type segment struct {
	number  uint64
	path    string
	first   uint64 // index of its first record; without records, of the next one
	last    uint64 // index of its last record; without records first-1
	entries uint64
	records uint64
	size    int64 // bytes of complete entries
	time    int64 // log time of the last entry
	frames  []loc
	gone    bool // being unlinked

	file *os.File      // open for reading, or nil
	used atomic.Uint64 // clock of the last use of file
}

// index knows the segments of a running log and where each frame lies. The
// writer, DropBefore and any number of readers share it.
type index struct {
	mu    sync.RWMutex
	segs  []*segment // by number; never empty in an open log
	bytes int64
	open  int           // files open
	clock atomic.Uint64 // of uses
	done  bool          // closed
}

// begin adds a new last segment whose first record will be next.
func (x *index) begin(number uint64, path string, next uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.trim()
	x.segs = append(x.segs, &segment{number: number, path: path, first: next, last: next - 1})
}

// trim frees the spare room of the last segment, which is complete.
func (x *index) trim() {
	if n := len(x.segs); n > 0 {
		x.segs[n-1].frames = append([]loc(nil), x.segs[n-1].frames...)
	}
}

// add adds an entry with a frame of frameSize bytes to the last segment.
func (x *index) add(frameSize int, f *Frame) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.bytes += x.segs[len(x.segs)-1].add(frameSize, f)
}

// add counts an entry and returns its bytes.
func (s *segment) add(frameSize int, f *Frame) int64 {
	size := entrySize(frameSize)
	s.entries++
	s.size += size
	s.time = f.Time
	if f.Count > 0 {
		s.records += uint64(f.Count)
		s.last = f.Last()
		s.frames = append(s.frames, loc{
			first: f.First, off: uint32(s.size - int64(frameSize)), size: uint32(frameSize),
		})
	}
	return size
}

// infos describes the segments.
func (x *index) infos() []SegmentInfo {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]SegmentInfo, len(x.segs))
	for i, s := range x.segs {
		out[i] = s.info()
		out[i].Sealed = i < len(x.segs)-1
	}
	return out
}

func (s *segment) info() SegmentInfo {
	return SegmentInfo{
		Name: segmentName(s.number), Path: s.path, Number: s.number, Size: s.size, Valid: s.size,
		Entries: s.entries, Records: s.records, First: s.first, Last: s.last, LastTime: s.time,
	}
}

// find returns the position of the last segment that begins at or before the
// record. Caller holds mu.
func (x *index) find(record uint64) int {
	return sort.Search(len(x.segs), func(i int) bool { return x.segs[i].first > record }) - 1
}

// locate returns the place of the frame with the record and its open file. The
// file may be closed at any time: a read that fails with os.ErrClosed has to
// locate again.
func (x *index) locate(record uint64) (*segment, loc, *os.File, error) {
	x.mu.RLock()
	s, at, err := x.lookup(record)
	var f *os.File
	if err == nil {
		if f = s.file; f != nil {
			s.used.Store(x.clock.Add(1))
		}
	}
	x.mu.RUnlock()
	if err != nil || f != nil {
		return s, at, f, err
	}

	x.mu.Lock()
	defer x.mu.Unlock()
	if s, at, err = x.lookup(record); err != nil { // dropped meanwhile
		return nil, loc{}, nil, err
	}
	if s.file == nil {
		if s.file, err = os.Open(s.path); err != nil {
			s.file = nil
			return nil, loc{}, nil, fmt.Errorf("wal: read record %d: %w", record, err)
		}
		x.open++
		s.used.Store(x.clock.Add(1))
		x.evict()
	}
	return s, at, s.file, nil
}

// lookup finds the frame with the record. Caller holds mu.
func (x *index) lookup(record uint64) (*segment, loc, error) {
	if x.done {
		return nil, loc{}, ErrClosed
	}
	i := x.find(record)
	if i < 0 || record > x.segs[i].last || x.segs[i].gone {
		return nil, loc{}, fmt.Errorf("%w: %d", ErrNotFound, record)
	}
	s := x.segs[i]
	k := sort.Search(len(s.frames), func(k int) bool { return s.frames[k].first > record }) - 1
	return s, s.frames[k], nil
}

// evict closes the file used longest ago if too many are open. Reads in
// progress end undisturbed. Caller holds mu.
func (x *index) evict() {
	if x.open <= openFilesMax {
		return
	}
	var oldest *segment
	for _, s := range x.segs {
		if s.file != nil && (oldest == nil || s.used.Load() < oldest.used.Load()) {
			oldest = s
		}
	}
	x.closeFile(oldest)
}

// closeFile closes a file that was only read: there is no error to learn from.
// Caller holds mu.
func (x *index) closeFile(s *segment) {
	if s.file != nil {
		_ = s.file.Close()
		s.file = nil
		x.open--
	}
}

// close closes all files; later look-ups give ErrClosed.
func (x *index) close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.done = true
	for _, s := range x.segs {
		x.closeFile(s)
	}
}

// claim takes the first segment out of use, for unlinking, if all its records
// are below record and a later segment has a frame that is durable (entries up
// to synced are). Else it returns nil.
func (x *index) claim(record, synced uint64) *segment {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.segs) < 2 {
		return nil
	}
	s, next := x.segs[0], x.segs[1]
	if s.last >= record || next.entries == 0 || next.number > synced {
		return nil
	}
	s.gone = true
	return s
}

// restore undoes claim.
func (x *index) restore(s *segment) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s.gone = false
}

// drop forgets the first segment and returns the first record index of the
// log.
func (x *index) drop(s *segment) (first uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.segs[0] != s {
		panic(fmt.Sprintf("wal: drop of segment %d, first is %d", s.number, x.segs[0].number))
	}
	x.closeFile(s)
	x.bytes -= s.size
	x.segs = slices.Delete(x.segs, 0, 1)
	return x.segs[0].first
}

// span is a part of a segment that Replay reads.
type span struct {
	path string
	off  int64 // where the first entry begins
	size int64 // where the last one ends
}

// spans returns what to read for the records from record on, as of now.
func (x *index) spans(record uint64) ([]span, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.done {
		return nil, ErrClosed
	}
	if record == x.segs[len(x.segs)-1].last+1 {
		return nil, nil
	}
	_, at, err := x.lookup(record)
	if err != nil {
		return nil, err
	}
	var out []span
	for _, s := range x.segs[x.find(record):] {
		out = append(out, span{path: s.path, size: s.size})
	}
	// Begin at the frame, not at the segment.
	out[0].off = int64(at.off) - int64(uvarintLen(uint64(at.size)))
	return out, nil
}
