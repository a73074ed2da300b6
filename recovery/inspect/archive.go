package inspect

// ArchiveInfo is how far back the archive reaches.
type ArchiveInfo struct {
	Index uint64 `json:"index"` // oldest record that the state can be restored to
	Time  Time   `json:"time"`
	Bytes int64  `json:"bytes"`
	Bases int    `json:"bases"`
}

// archiveInfo looks into the archive, if there is one.
func (d *Dir) archiveInfo() (*ArchiveInfo, error) { return nil, nil }
