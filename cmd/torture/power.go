package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// sector is the unit a disk writes as a whole.
const sector = 512

// A cut is what a simulated power failure did to the log.
type cut struct {
	segment string // the one that held the durable end
	synced  int64  // bytes of it on stable storage
	size    int64  // bytes it had, without the zeros at the end of a preallocated one
	kept    int64  // bytes of these that it has now
	file    int64  // bytes of the file
	torn    bool   // a sector before kept was lost
	removed int    // newer segments that vanished
}

func (c *cut) String() string {
	if c == nil {
		return ""
	}
	if c.size == c.synced && c.removed == 0 {
		return "power (nothing unsynced)"
	}
	s := fmt.Sprintf("power (kept %d of %d unsynced bytes", c.kept-c.synced, c.size-c.synced)
	if c.torn {
		s += ", torn"
	}
	if c.removed > 0 {
		s += fmt.Sprintf(", %d new segments gone", c.removed)
	}
	return s + ")"
}

// cutPower does to the log what a power failure may do after a SIGKILL, which
// alone loses nothing: the page cache survives it. Of the bytes that were not
// synced any number may be missing from the end, a sector among the rest may
// hold zeros, and a file that was created and never synced may not exist.
// syncedFile names the segment and how many of its bytes are durable; without
// it nothing is known to be unsynced, and nothing is cut.
func cutPower(walDir, syncedFile string, rnd *rand.Rand) (*cut, error) {
	c, err := readSynced(syncedFile)
	if err != nil || c == nil {
		return c, err
	}
	entries, err := os.ReadDir(walDir)
	if err != nil {
		return nil, fmt.Errorf("torture: read log directory: %w", err)
	}
	for _, e := range entries { // sorted; names are numbers of one width
		name := e.Name()
		if e.IsDir() || !isSegment(name) || len(name) != len(c.segment) || name <= c.segment {
			continue
		}
		if err := c.newer(filepath.Join(walDir, name), rnd); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(walDir, c.segment)
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil // dropped after a checkpoint: everything in it is elsewhere
	}
	if err != nil {
		return nil, fmt.Errorf("torture: %w", err)
	}
	if c.file = info.Size(); c.file < c.synced {
		return nil, fmt.Errorf("torture: %s has %d bytes, %d are said to be synced", c.segment, c.file, c.synced)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("torture: %w", err)
	}
	c.size = c.synced + int64(len(bytes.TrimRight(content[c.synced:], "\x00")))
	c.kept = c.size
	if c.size == c.synced {
		return c, nil
	}
	return c, c.shorten(path, rnd)
}

// shorten cuts the unsynced end of the segment, and sometimes tears the rest.
func (c *cut) shorten(path string, rnd *rand.Rand) error {
	switch rnd.IntN(4) {
	case 0: // everything unsynced is gone
		c.kept = c.synced
	case 1: // whole sectors only
		c.kept = c.synced + rnd.Int64N(c.size-c.synced+1)
		c.kept = max(c.synced, c.kept/sector*sector)
	default:
		c.kept = c.synced + rnd.Int64N(c.size-c.synced+1)
	}
	if c.file > c.size { // preallocated: neither size nor blocks were changed
		if err := zero(path, c.kept, c.size); err != nil {
			return err
		}
	} else if err := os.Truncate(path, c.kept); err != nil {
		return fmt.Errorf("torture: cut power: %w", err)
	}
	if c.kept-c.synced > sector && rnd.IntN(2) == 0 {
		c.torn = true
		from := c.synced + rnd.Int64N(c.kept-c.synced)
		to := min(c.kept, (from/sector+1)*sector)
		return zero(path, max(from/sector*sector, c.synced), to)
	}
	return nil
}

// newer treats a segment that was created after the last sync.
func (c *cut) newer(path string, rnd *rand.Rand) error {
	if rnd.IntN(3) > 0 {
		c.removed++
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("torture: cut power: %w", err)
		}
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("torture: cut power: %w", err)
	}
	if err := os.Truncate(path, rnd.Int64N(info.Size()+1)); err != nil {
		return fmt.Errorf("torture: cut power: %w", err)
	}
	return nil
}

func zero(path string, from, to int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("torture: cut power: %w", err)
	}
	_, err = f.WriteAt(make([]byte, to-from), from)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("torture: cut power: %w", err)
	}
	return nil
}

// readSynced reads "segment-name synced-bytes\n"; nil if the file is not there.
func readSynced(path string) (*cut, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(b) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("torture: %w", err)
	}
	line, _, whole := bytes.Cut(b, []byte("\n"))
	name, n, ok := strings.Cut(strings.TrimSpace(string(line)), " ")
	bytes, err := strconv.ParseInt(strings.TrimSpace(n), 10, 64)
	if !whole || !ok || err != nil || name == "" {
		return nil, fmt.Errorf("torture: %s: want \"segment bytes\", have %q", path, line)
	}
	return &cut{segment: filepath.Base(name), synced: bytes}, nil
}

func isSegment(name string) bool {
	return name != "" && !slices.ContainsFunc([]byte(name), func(b byte) bool { return b < '0' || b > '9' })
}
