package broker

import (
	"fmt"

	"github.com/wind-c/comqtt/v3/broker/failpoint"
	"github.com/wind-c/comqtt/v3/wal"
)

// round is a frame on its way from the committer to the apply loop.
type round struct {
	first uint64 // index of its first record
	time  int64  // log time, unix ms
	body  []byte
	items []item
	n     int // records
}

// commitLoop turns what waits in the lane into frames, one after another. It
// is the only writer of the log.
func (s *Server) commitLoop() {
	defer close(s.rounds)
	var b batch
	for range s.lane.wake {
		for {
			more := s.lane.take(&b)
			if len(b.items) > 0 && !s.commit(&b) {
				return
			}
			if !more {
				return
			}
			if len(b.items) == 0 {
				break
			}
			b = s.fresh(&b)
		}
	}
}

// commit makes one frame durable and hands it to the apply loop.
func (s *Server) commit(b *batch) bool {
	r := &round{time: s.logTime(), body: b.body, items: b.items, n: b.records}
	if failpoint.Fault(failpoint.FaultAckBeforeSync) && b.records > 0 {
		r.first = s.log.Last() + 1
		s.hand(r)
	}
	if b.records > 0 {
		f := wal.Frame{Count: uint32(b.records), Time: r.time, Term: 1, Body: b.body}
		if err := s.log.Commit(&f); err != nil {
			s.fail(fmt.Errorf("broker: write the log: %w", err))
			return false
		}
		s.stats.frames.Add(1)
		s.stats.records.Add(uint64(b.records))
		if failpoint.Fault(failpoint.FaultAckBeforeSync) {
			return true
		}
		r.first = f.First
	}
	return s.hand(r)
}

// hand gives a round to the apply loop; it reports false when that has ended.
func (s *Server) hand(r *round) bool {
	select {
	case s.rounds <- r:
		return true
	case <-s.stopped:
		return false
	}
}

// fresh returns the buffers for the next batch. The body of a frame with
// records belongs to the message cache now; a new one is allocated, about as
// large as the last.
func (s *Server) fresh(b *batch) batch {
	var next batch
	select {
	case next.items = <-s.spareItems:
	default:
		next.items = make([]item, 0, cap(b.items))
	}
	if b.records == 0 {
		next.body = b.body[:0]
	} else {
		next.body = make([]byte, 0, min(len(b.body)+len(b.body)/2+512, 2*s.opts.Limits.LaneBytes))
	}
	return next
}

// logTime is the time of the next frame: it follows the monotonic clock and
// never goes back, neither within a run nor against the log's past.
func (s *Server) logTime() int64 {
	now := s.clock()
	if now > s.lastTime {
		s.lastTime = now
	}
	return s.lastTime
}
