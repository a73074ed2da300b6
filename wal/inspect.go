package wal

import (
	"errors"
	"fmt"
	"time"
)

// Inspection is what Scan found: the intact part of the log from its begin,
// and the first damage, if any.
type Inspection struct {
	Dir      string
	StoreID  [16]byte // of the first intact frame; zero if there is none
	Segments []SegmentInfo
	First    uint64 // index of the first record, or of the next one if there is none
	Last     uint64 // index of the last intact record, First-1 if there is none; 0 and 0 if no frame
	Frames   uint64 // intact frames with records
	Marks    uint64 // intact frames without records
	Records  uint64 // intact records
	Bytes    int64  // bytes of all segments, damaged parts included
	Durable  uint64 // greatest durable index in any intact header, also behind the damage
	LastTime int64  // log time of the last intact frame, unix milliseconds
	LastTerm uint64 // term of the last intact frame
	Clean    bool   // the log ends with a clean-close mark
	Damage   *Damage
	Ignored  []string // names in the directory that are not segments

	covered   uint64 // greatest durable index in the intact part
	group     uint32 // of the last intact frame
	lastFlags Flags  // of the last intact frame
	prev      uint32 // CRC of the last intact frame
	entry     uint64 // number of the last intact entry
}

// SegmentInfo describes one segment file.
type SegmentInfo struct {
	Name    string // file name
	Path    string
	Number  uint64 // number of its first entry = the name
	Size    int64  // bytes of the file
	Valid   int64  // bytes of intact entries from the begin; what follows is zero, unless it is damage
	Entries uint64 // intact entries: frames and marks
	Records uint64 // intact records
	First   uint64 // index of its first record; without records, of the next one; 0 if unknown
	Last    uint64 // index of its last record; without records First-1
	Sealed  bool   // not the last segment: it will not change any more
	// LastTime is the log time of its last entry, unix milliseconds; 0 if none.
	LastTime int64
}

// Damage is the first place of the log that is not an intact frame in its
// place.
type Damage struct {
	Segment string // file name
	Offset  int64  // bytes from the begin of the file
	Index   uint64 // record index expected there, 0 if unknown
	Err     error  // one of the reasons of CorruptError, or ErrForeign
	Bytes   int64  // bytes from there to the end of the log, without zeros at the end of Segment

	// Intact frames of this store behind it with records from Index on.
	LaterFrames  uint64
	LaterRecords uint64
	LaterFirst   uint64
	LaterLast    uint64

	segment int   // index in Segments
	end     int64 // where the segment goes on with zeros only, if Offset > 0
	strange bool  // behind it are records that belong before the first segment
}

// Verdict decides what the findings mean for somebody who knows from elsewhere
// that records up to floor were durable and who needs the records from need on
// (0 = does not care). torn = the damage begins above everything that was ever
// known to be durable: a crash explains it and nothing acknowledged is lost by
// cutting it off. err is a *CorruptError if durable data is damaged or gone.
// Both zero: the log is intact.
func (in *Inspection) Verdict(floor, need uint64) (torn bool, err error) {
	durable := max(in.Durable, floor)
	d := in.Damage
	if d == nil {
		switch {
		case in.Last < floor:
			return false, in.missing(in.Last+1, durable)
		case need > 0 && in.First > need:
			return false, in.missing(need, durable)
		}
		return false, nil
	}
	bad := &CorruptError{
		Segment: d.Segment, Offset: d.Offset, Index: d.Index, Durable: durable, Err: d.Err,
		LaterFrames: d.LaterFrames, LaterRecords: d.LaterRecords,
		LaterFirst: d.LaterFirst, LaterLast: d.LaterLast,
	}
	// The first frame of a log is durable before the log is used, and segments
	// are dropped only when a later one has a durable frame: so the first frame
	// that is left is durable, whatever its index.
	// Neither a foreign frame nor earlier records behind the damage come from a
	// crash: files were moved.
	if in.entry == 0 || d.Index <= durable || d.strange || errors.Is(d.Err, ErrForeign) {
		return false, bad
	}
	if need > 0 && in.First > need {
		return false, in.missing(need, durable)
	}
	return true, nil
}

// kept returns how many segments remain when the damage is cut off.
func (in *Inspection) kept() int {
	switch d := in.Damage; {
	case d == nil:
		return len(in.Segments)
	case d.Offset == 0:
		return d.segment
	default:
		return d.segment + 1
	}
}

// missing reports records that should be in the log and are not.
func (in *Inspection) missing(index, durable uint64) error {
	e := &CorruptError{Index: index, Durable: durable, Err: ErrMissing}
	if index < in.First && in.entry > 0 {
		e.Segment = in.Segments[0].Name
		e.LaterFrames, e.LaterRecords = in.Frames, in.Records
		e.LaterFirst, e.LaterLast = in.First, in.Last
	} else if n := len(in.Segments); n > 0 {
		e.Segment, e.Offset = in.Segments[n-1].Name, in.Segments[n-1].Size
	}
	return e
}

// Report is what Open found and did, for the recovery and the banner.
type Report struct {
	Segments  int
	First     uint64 // index of the first record in the log; First = Last+1 if there is none
	Last      uint64 // index of the last record
	Frames    uint64 // frames with records
	Records   uint64
	Bytes     int64         // bytes of intact entries
	LastTime  int64         // log time of the last frame, unix milliseconds, 0 if none
	Created   bool          // the directory held no log
	Clean     bool          // the log ended with a clean-close mark
	TornBytes int64         // bytes behind the last intact frame that were saved and cut off
	TornAt    string        // where they began: segment:offset
	TornErr   error         // why they are no frame; nil: nothing was torn
	Saved     []string      // files in Dir/broken that hold them
	Ignored   []string      // names in Dir that are not segments
	Duration  time.Duration // of Open
}

// String returns one line for a log or banner.
func (r *Report) String() string {
	if r.Created {
		return "new log"
	}
	s := fmt.Sprintf("%d records (%d to %d) in %d segments, %d bytes", r.Records, r.First, r.Last, r.Segments, r.Bytes)
	if r.Clean {
		s += ", closed in good order"
	}
	if r.TornErr != nil {
		s += fmt.Sprintf("; torn tail at %s (%v): %d bytes saved to %v and cut off", r.TornAt, r.TornErr, r.TornBytes, r.Saved)
	}
	return s
}
