package archive

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	dirPerm  = 0o700 // messages are nobody else's business
	filePerm = 0o600

	segmentPrefix = "seg-"
	basePrefix    = "base-"
	zstExt        = ".zst"
	rawExt        = ".raw"
	baseExt       = ".cqb"
	tempExt       = ".tmp"
)

// Segment is an archived segment of the log, by its file name.
type Segment struct {
	Path     string
	First    uint64 // index of its first record
	Last     uint64 // index of its last record; a segment of marks only has First-1
	LastTime int64  // log time of its last frame, unix milliseconds
	Size     int64  // bytes of the file
	Raw      bool   // the segment as the log wrote it, not compressed (yet)
}

// Base is a base snapshot, by its file name.
type Base struct {
	Path    string
	Applied uint64 // index of the last record in the state
	LogTime int64  // log time at Applied, unix milliseconds
	Size    int64  // bytes of the file
}

func segmentName(s *Segment) string {
	ext := zstExt
	if s.Raw {
		ext = rawExt
	}
	return fmt.Sprintf("%s%020d-%020d-%d%s", segmentPrefix, s.First, s.Last, s.LastTime, ext)
}

func baseName(b *Base) string {
	return fmt.Sprintf("%s%020d-%d%s", basePrefix, b.Applied, b.LogTime, baseExt)
}

// parseSegment is the inverse of segmentName.
func parseSegment(name string) (s Segment, ok bool) {
	mid, ok := strings.CutPrefix(name, segmentPrefix)
	if !ok {
		return s, false
	}
	if mid, ok = strings.CutSuffix(mid, zstExt); !ok {
		mid, ok = strings.CutSuffix(mid, rawExt)
		s.Raw = true
	}
	n, good := numbers(mid, 3)
	if !ok || !good || n[0] == 0 || n[1] < n[0]-1 {
		return s, false
	}
	s.First, s.Last, s.LastTime = n[0], n[1], int64(n[2])
	return s, true
}

// parseBase is the inverse of baseName.
func parseBase(name string) (b Base, ok bool) {
	mid, ok := strings.CutPrefix(name, basePrefix)
	if !ok {
		return b, false
	}
	mid, ok = strings.CutSuffix(mid, baseExt)
	n, good := numbers(mid, 2)
	if !ok || !good {
		return b, false
	}
	b.Applied, b.LogTime = n[0], int64(n[1])
	return b, true
}

// numbers reads count decimal numbers with a hyphen between them.
func numbers(s string, count int) ([]uint64, bool) {
	parts := strings.Split(s, "-")
	if len(parts) != count {
		return nil, false
	}
	out := make([]uint64, count)
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 63)
		if err != nil {
			return nil, false
		}
		out[i] = n
	}
	return out, true
}

// Catalog is what an archive directory holds.
type Catalog struct {
	Dir      string
	Segments []Segment // by First; a raw one is left out if there is a compressed one of it
	Bases    []Base    // by Applied
	Others   []string  // names of files that are neither
	spent    []string  // raw files that were compressed, and temporary ones: a crash left them
}

// List reads the names in an archive directory. A directory that does not exist
// is an empty archive. The contents are not looked at.
func List(dir string) (*Catalog, error) {
	c := &Catalog{Dir: dir}
	names, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("archive: list: %w", err)
	}
	for _, n := range names {
		if err := c.add(n); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(c.Segments, func(a, b Segment) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last), cmp.Compare(btoi(a.Raw), btoi(b.Raw)))
	})
	slices.SortFunc(c.Bases, func(a, b Base) int { return cmp.Compare(a.Applied, b.Applied) })
	for i := len(c.Segments) - 1; i > 0; i-- { // compressed comes first
		if s, before := &c.Segments[i], &c.Segments[i-1]; s.Raw && s.First == before.First && s.Last == before.Last {
			c.spent = append(c.spent, s.Path)
			c.Segments = slices.Delete(c.Segments, i, i+1)
		}
	}
	return c, nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (c *Catalog) add(n fs.DirEntry) error {
	path := filepath.Join(c.Dir, n.Name())
	s, isSegment := parseSegment(n.Name())
	b, isBase := parseBase(n.Name())
	switch {
	case strings.HasSuffix(n.Name(), tempExt):
		c.spent = append(c.spent, path)
		return nil
	case n.IsDir() || !isSegment && !isBase:
		c.Others = append(c.Others, n.Name())
		return nil
	}
	info, err := n.Info()
	if os.IsNotExist(err) { // removed by the broker meanwhile
		return nil
	}
	if err != nil {
		return fmt.Errorf("archive: list: %w", err)
	}
	if isSegment {
		s.Path, s.Size = path, info.Size()
		c.Segments = append(c.Segments, s)
	} else {
		b.Path, b.Size = path, info.Size()
		c.Bases = append(c.Bases, b)
	}
	return nil
}

// Bytes returns the bytes of all segments.
func (c *Catalog) Bytes() (n int64) {
	for i := range c.Segments {
		n += c.Segments[i].Size
	}
	return n
}

// BaseBytes returns the bytes of all bases.
func (c *Catalog) BaseBytes() (n int64) {
	for i := range c.Bases {
		n += c.Bases[i].Size
	}
	return n
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// makeDir creates the archive's directory in one that exists, durably.
func makeDir(dir string) error {
	err := os.Mkdir(dir, dirPerm)
	if os.IsExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}
