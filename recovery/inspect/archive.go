package inspect

import (
	"context"
	"errors"

	"github.com/wind-c/comqtt/v3/wal"
)

// ArchiveInfo is how far back the archive reaches.
type ArchiveInfo struct {
	Index uint64 `json:"index"` // oldest record that the state can be restored to
	Time  Time   `json:"time"`
	Bytes int64  `json:"bytes"`
	Bases int    `json:"bases"`
}

// archiveInfo looks into the archive, if there is one.
func (d *Dir) archiveInfo() (*ArchiveInfo, error) { return nil, nil }

// checkArchive checks the archive, if there is one.
func (c *verifier) checkArchive() error { return nil }

// history walks over all records there are from index on, those of the archive
// before those of the log. stopped says that visit ended it with errStop; the
// Inspection then knows only what was read.
func (d *Dir) history(ctx context.Context, s logScan, _ uint64) (in *wal.Inspection, stopped bool, err error) {
	in, err = d.scan(ctx, s)
	if errors.Is(err, errStop) {
		return in, true, nil
	}
	return in, false, err
}
