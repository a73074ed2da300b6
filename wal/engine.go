package wal

import "fmt"

// Engine appends entries to segment files and does nothing else. It is the
// seam behind which the segment appender can be replaced: everything that
// reads (Scan, Replay, ReadRecord) goes by the format below, not by who wrote.
//
// Format of a segment: a sequence of entries, each a uvarint length and that
// many bytes, one frame. The file name is the number of its first entry in 20
// decimal digits; entries are numbered without gaps, the first one of a log
// is 1. The last segment may go on with zeros, which are no entries; the others
// end with their last entry.
//
// Append, Roll and Close are called by one goroutine at a time; Sync and Tail
// may run beside them. After any error only Close is called.
type Engine interface {
	// Append writes entry, a frame behind its length, at the end of the last
	// segment and returns where it begins. If that brings the segment to the
	// segment size or more, the engine syncs the segment and begins the next
	// one before it returns. Syncing the directory is the caller's duty. entry
	// is not kept.
	Append(entry []byte) (Position, error)

	// Sync returns when everything that was appended before the call is on
	// stable storage.
	Sync() error

	// Roll syncs and ends the last segment, if it is not empty, and begins the
	// next one. Syncing the directory is the caller's duty.
	Roll() error

	// Tail returns where the next entry will go.
	Tail() Position

	// Close releases files. It does not promise to sync.
	Close() error
}

// Position is a place in the log's files.
type Position struct {
	Segment uint64 // number of the first entry of the segment: the file name
	Offset  int64  // in bytes
	Entry   uint64 // number of the entry
}

// OpenEngine opens an engine on dir, which holds an intact log that ends at
// tail: that is the end of the last segment, which may be empty and has no
// zeros behind its entries. segmentSize is in bytes.
type OpenEngine func(dir string, tail Position, segmentSize int64) (Engine, error)

// The engines by name.
const (
	EngineTidwall = "tidwall" // OpenTidwall
	EngineNative  = "native"  // OpenNative
)

// EngineNamed returns the engine of that name; "" is the default.
func EngineNamed(name string) (OpenEngine, error) {
	switch name {
	case EngineTidwall, "":
		return OpenTidwall, nil
	case EngineNative:
		return OpenNative, nil
	}
	return nil, fmt.Errorf("wal: no engine %q: have %s and %s", name, EngineTidwall, EngineNative)
}
