package broker

import "github.com/wind-c/comqtt/v3/wal/archive"

// ArchiveInfo says what the archive of a running broker holds.
type ArchiveInfo struct {
	Reaches bool   // some state of the past can be restored
	Index   uint64 // the oldest, by the index of its last record; 1 = all of them
	Time    int64  // log time of that record, unix milliseconds; 0 if unknown
	Err     error  // the last failure, nil once something worked again
	archive.Stats
}

// ArchiveInfo returns what the archive holds; ok is false before Ready and
// without an archive.
func (s *Server) ArchiveInfo() (i ArchiveInfo, ok bool) {
	if !s.ready.Load() || s.state.Archive == nil {
		return i, false
	}
	i.Stats = s.state.Archive.Stats()
	i.Err = i.LastError
	i.Index, i.Time, i.Reaches = s.state.Archive.History().Reach()
	return i, true
}
