package recovery

import (
	"fmt"
	"time"
)

// Report says what Open found and did, for the banner.
type Report struct {
	Created bool   // the data directory was new
	Clean   bool   // the last run ended in good order
	Applied uint64 // record index that the backend's state reached to
	Last    uint64 // index of the last record now in the log
	Boot    uint32 // number of this start

	Frames  uint64 // replayed
	Records uint64 // replayed
	Bytes   int64  // of replayed records
	Hashes  int    // state hashes compared during the replay and at the load

	Sessions, Subscriptions, Retained, Messages, Queued, Inflight int

	LogFirst uint64 // index of the first record in the log
	LogBytes int64  // of all segments
	Segments int

	TornBytes int64    // bytes of a torn tail that were cut off
	TornAt    string   // where they began: segment:offset
	TornErr   error    // why they are no frame
	Saved     []string // files that hold them

	LogTime  int64         // log time of this start, unix ms: the broker's clock goes on from here
	TimeJump time.Duration // wall clock against the last log time, if more than 24 h either way, else 0
	Duration time.Duration // of Open
	Warnings []string
}

// String returns one line for a log or banner.
func (r *Report) String() string {
	if r.Created {
		return "new store"
	}
	s := fmt.Sprintf("state at record %d", r.Applied)
	if r.Records > 0 {
		s += fmt.Sprintf(", %d records (%d bytes) replayed", r.Records, r.Bytes)
	}
	s += fmt.Sprintf(" in %v: %d sessions, %d retained, %d queued", r.Duration.Round(time.Millisecond), r.Sessions, r.Retained, r.Queued)
	if r.Clean {
		s += "; last stop was clean"
	}
	if r.TornBytes > 0 {
		s += fmt.Sprintf("; torn tail at %s (%v): %d bytes saved to %v and cut off", r.TornAt, r.TornErr, r.TornBytes, r.Saved)
	}
	return s
}
