package broker

import "github.com/wind-c/comqtt/v3/broker/core"

// SetFreeSpace lets a test play a file system of n bytes free. Call it before
// Serve.
func (s *Server) SetFreeSpace(n func() int64) {
	s.free = func(string) (int64, error) { return n(), nil }
}

// CheckSpace looks at the free space at once.
func (s *Server) CheckSpace() { s.checkSpace() }

// CheckRound judges a frame as the apply loop does before it applies it: so many
// records behind the last applied one, so many behind the last one in the log,
// and log time that many milliseconds after the state's.
func (s *Server) CheckRound(ahead uint64, later int64) error {
	s.lane.applying.Lock()
	defer s.lane.applying.Unlock()
	return s.checkRound(&round{first: s.machine.Applied() + 1, n: int(ahead), time: s.machine.Now() + later})
}

// Spoil lets a test break the state.
func (s *Server) Spoil(fn func(m *core.Machine)) { s.asApplier(func() { fn(s.machine) }) }

// Patrol goes once through the whole state.
func (s *Server) Patrol() {
	s.asApplier(func() {
		for s.patrol(); s.patrolled != 0; s.patrol() {
		}
	})
}

// Applying does fn as the apply loop applies a frame of two records from the
// fifth on.
func (s *Server) Applying(fn func()) {
	s.lane.applying.Lock()
	defer s.lane.applying.Unlock()
	defer s.evidence(&round{first: 5, n: 2})
	fn()
}
