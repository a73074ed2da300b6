package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"time"

	"github.com/wind-c/comqtt/v3/wal"
)

// removeSpent removes what a crash left.
func (a *Archive) removeSpent() error {
	for _, path := range a.cat.spent {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	a.cat.spent = nil
	return nil
}

// take moves a segment of the log into the archive as it is: a rename, whatever
// its size. It may be longer than its frames, which are what is kept.
func (a *Archive) take(s *Segment, path string, valid int64) error {
	if err := os.Truncate(path, valid); err != nil {
		return fmt.Errorf("archive: take segment: %w", err)
	}
	to := a.path(segmentName(s))
	if err := os.Rename(path, to); err != nil {
		return fmt.Errorf("archive: take segment: %w", err)
	}
	s.Path, s.Size = to, valid
	if err := syncDir(a.opt.Dir); err != nil {
		return fmt.Errorf("archive: take segment: %w", err)
	}
	return nil
}

// compress writes a compressed copy of the segment at path, whose frames take
// size bytes, and verifies every frame on the way.
func (a *Archive) compress(s *Segment, path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("archive: compress segment: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	sum, err := wal.ReadSegment(s.Path, f, size, a.opt.StoreID, nil)
	if err != nil && !wholeBefore(err, &sum, s.Last) {
		return fmt.Errorf("archive: compress segment: %w", err)
	}
	size = sum.Bytes
	if sum.First != s.First || sum.Last != s.Last {
		return fmt.Errorf("archive: compress segment: it holds records %d to %d, not %d to %d", sum.First, sum.Last, s.First, s.Last)
	}
	to := a.path(segmentName(s))
	n, err := writeFile(to, func(w io.Writer) error {
		a.enc.Reset(w)
		if _, err := io.Copy(a.enc, io.NewSectionReader(f, 0, size)); err != nil {
			return err
		}
		return a.enc.Close()
	})
	if err != nil {
		return fmt.Errorf("archive: compress segment: %w", err)
	}
	s.Path, s.Size = to, n
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stats.Compressed++
	a.stats.BytesIn += uint64(size)
	a.stats.BytesOut += uint64(n)
	return nil
}

// wholeBefore says whether all records up to last were read before the error: a
// segment that was moved here may, after a power cut, have its unused end again.
func wholeBefore(err error, sum *wal.SegmentSummary, last uint64) bool {
	var corrupt *wal.CorruptError
	return errors.As(err, &corrupt) && sum.Entries > 0 && sum.Last >= last
}

// writeFile makes a file durable under its name, all or nothing: temporary
// file, sync, rename, sync of the directory.
func writeFile(path string, fill func(w io.Writer) error) (size int64, err error) {
	temp := path + tempExt
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, filePerm)
	if err != nil {
		return 0, err
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		var info os.FileInfo
		if info, err = f.Stat(); err == nil {
			size = info.Size()
		}
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil { // leave no room taken on a full disk
		return 0, errors.Join(err, os.Remove(temp))
	}
	return size, syncDir(dirOf(path))
}

// compressRaw compresses the oldest segment that was moved here at a busy time,
// if it is quiet and the pause after the one before is over.
func (a *Archive) compressRaw() {
	i, s, ok := a.firstRaw()
	if !ok || a.busy() || a.stopping() || time.Now().Before(a.restAt) {
		return
	}
	begin := time.Now()
	raw := s.Path
	s.Raw = false
	if err := a.compress(&s, raw, s.Size); err != nil {
		a.fail("a segment stays as it is", err)
		a.restAt = time.Now().Add(a.opt.Rest)
		return
	}
	if err := os.Remove(raw); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.fail("a segment could not be removed", err)
	}
	a.mu.Lock()
	a.cat.Segments[i] = s
	a.mu.Unlock()
	a.restAt = time.Now().Add(pauseFactor * time.Since(begin))
}

func (a *Archive) stopping() bool {
	select {
	case <-a.quit:
		return true
	default:
		return false
	}
}

// firstRaw returns the oldest segment that is not compressed. Only the
// archive's goroutine changes the list of segments.
func (a *Archive) firstRaw() (int, Segment, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.cat.Segments {
		if a.cat.Segments[i].Raw {
			return i, a.cat.Segments[i], true
		}
	}
	return 0, Segment{}, false
}

// NewBase writes a base of the state that h names; fill gives its entries and
// bodies. The base is there when it returns, or not at all.
func (a *Archive) NewBase(h *Header, fill func(w *BaseWriter) error) error {
	b := Base{Applied: h.Applied, LogTime: h.LogTime}
	b.Path = a.path(baseName(&b))
	size, err := writeBase(b.Path, h, a.room(), fill)
	if err != nil {
		return err
	}
	b.Size = size
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cat.addBase(b)
	a.stats.Bases++
	a.stats.LastError = nil
	return nil
}

// ErrRoom says that a base would take more than its share of the free disk.
var ErrRoom = errors.New("archive: a base would take more than an eighth of the free disk")

// room is how many bytes a base may take.
func (a *Archive) room() int64 {
	if a.opt.Free != nil {
		if free, err := a.opt.Free(a.opt.Dir); err == nil {
			return free / freeShare
		}
	}
	return math.MaxInt64
}

// limited is a writer with an end.
type limited struct {
	w    io.Writer
	room int64
}

func (l *limited) Write(b []byte) (int, error) {
	if l.room -= int64(len(b)); l.room < 0 {
		return 0, ErrRoom
	}
	return l.w.Write(b)
}

// WriteBase writes a base file, durably and all or nothing.
func WriteBase(path string, h *Header, fill func(w *BaseWriter) error) (size int64, err error) {
	return writeBase(path, h, math.MaxInt64, fill)
}

func writeBase(path string, h *Header, room int64, fill func(w *BaseWriter) error) (size int64, err error) {
	size, err = writeFile(path, func(w io.Writer) error {
		b, err := NewBaseWriter(&limited{w, room}, h)
		if err != nil {
			return err
		}
		if err := fill(b); err != nil {
			return err
		}
		return b.Finish()
	})
	if err != nil {
		return 0, fmt.Errorf("archive: write base at record %d: %w", h.Applied, err)
	}
	return size, nil
}

// BaseFile returns the path of the base of a state in an archive directory.
func BaseFile(dir string, h *Header) string {
	return dir + string(os.PathSeparator) + baseName(&Base{Applied: h.Applied, LogTime: h.LogTime})
}
