package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	dirPerm  = 0o700 // messages are nobody else's business
	filePerm = 0o600

	brokenDir = "broken"    // saved torn tails
	tempName  = "tail.tmp"  // the last segment while it is rewritten
	spareName = "spare.tmp" // the next segment while it is prepared
)

// segmentName returns the file name of the segment that begins with the entry.
func segmentName(number uint64) string { return fmt.Sprintf("%020d", number) }

// parseSegmentName is the inverse of segmentName.
func parseSegmentName(name string) (uint64, bool) {
	if len(name) != 20 || strings.Trim(name, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(name, 10, 64)
	return n, err == nil && n > 0
}

// isTruncation says whether name is what the engine's library makes while it
// truncates, which it is never asked to.
func isTruncation(name string) bool {
	base, ok := strings.CutSuffix(name, ".START")
	if !ok {
		base, ok = strings.CutSuffix(name, ".END")
	}
	_, isSegment := parseSegmentName(base)
	return ok && isSegment
}

// createSegment creates an empty segment. Syncing the directory is left to the
// caller.
func createSegment(dir string, number uint64) error {
	f, err := os.OpenFile(filepath.Join(dir, segmentName(number)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, filePerm)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("wal: create segment: %w", err)
	}
	return nil
}

// syncPath syncs the file or directory at path.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// makeDir creates dir and its parents and makes their names durable.
func makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, dirPerm); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncPath(parent)
}
