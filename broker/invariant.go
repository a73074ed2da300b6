package broker

import (
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/wind-c/comqtt/v3/broker/failpoint"
	"github.com/wind-c/comqtt/v3/wal"
)

// These checks run in every broker. They cost nothing that can be measured, and
// what they find cannot be repaired by going on: the broker stops, says what it
// found and leaves state and backend alone. The log holds everything that was
// acknowledged; the next start rebuilds the state from it.

// InvariantError says that the broker's own state contradicts itself. It is a
// defect of the broker, not of the disk or of a client.
type InvariantError struct {
	Record uint64 // index of the last record that was applied
	What   string // the rule and the values that break it
}

func (e *InvariantError) Error() string {
	return fmt.Sprintf("broker: invariant broken after record %d: %s", e.Record, e.What)
}

// patrolEntries bounds what one step of the patrol looks at: well under a
// millisecond, every checkpointInterval.
const patrolEntries = 4096

// checkRound verifies of a round that is about to be applied that the log has
// it and that time does not go back: nothing may leave the broker before that.
func (s *Server) checkRound(r *round) error {
	if r.n == 0 {
		return nil
	}
	last := r.first + uint64(r.n) - 1
	switch {
	case r.time < s.machine.Now():
		return s.broken("log time %d of record %d is before %d", r.time, r.first, s.machine.Now())
	case failpoint.Fault(failpoint.FaultAckBeforeSync): // breaks just this
		return nil
	case last > s.log.Last():
		return s.broken("record %d is to be applied, the log ends with %d", last, s.log.Last())
	case s.opts.Sync == wal.SyncAlways && last > s.log.Durable():
		return s.broken("record %d is to be applied, only %d are durable", last, s.log.Durable())
	}
	return nil
}

// patrol verifies the next part of the state: identifiers, order, references.
func (s *Server) patrol() {
	next, err := s.machine.Patrol(s.patrolled, patrolEntries)
	if err != nil {
		s.fail(s.broken("%v", err))
	}
	s.patrolled = next
}

func (s *Server) broken(format string, args ...any) *InvariantError {
	return &InvariantError{Record: s.machine.Applied(), What: fmt.Sprintf(format, args...)}
}

// evidence logs what was being applied when the state machine gave up, which it
// does by a panic, and lets that end the process: after it nothing may touch the
// state, or leave.
func (s *Server) evidence(r *round) {
	p := recover()
	if p == nil {
		return
	}
	s.opts.Logger.Error("invariant broken: the broker ends at once; the log holds everything that was acknowledged",
		slog.Any("what", p), slog.Uint64("applied", s.machine.Applied()),
		slog.Uint64("frame", r.first), slog.Int("records", r.n), slog.String("stack", string(debug.Stack())))
	panic(p)
}
