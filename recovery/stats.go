package recovery

import (
	"sync/atomic"
	"time"

	"github.com/wind-c/comqtt/v3/backends"
)

// Stats are counters since the start.
type Stats struct {
	Commits      uint64        // checkpoints that reached the backend
	Failures     uint64        // attempts that did not
	Transactions uint64        // transactions of the backend, those for bodies included
	Operations   uint64        // puts and deletes in them
	Bytes        uint64        // of keys and values in them
	Bodies       uint64        // message bodies written
	Dropped      uint64        // bytes of log segments removed
	Last         time.Duration // of the last checkpoint
	Longest      time.Duration // of a checkpoint

	// Of Bodies.Load: where bodies that were not in memory came from.
	LogReads, StoreReads uint64
	// CacheBytes is the memory that bodies take.
	CacheBytes int64
}

type statsCounters struct {
	commits, failures, transactions, operations, bytes, bodies, dropped atomic.Uint64
	last, longest                                                       atomic.Int64
}

func (s *statsCounters) done(begin time.Time, err error) {
	d := int64(time.Since(begin))
	s.last.Store(d)
	s.longest.Store(max(d, s.longest.Load())) // one writer
	if err != nil {
		s.failures.Add(1)
	} else {
		s.commits.Add(1)
	}
}

func (s *statsCounters) batch(b *backends.Batch) {
	s.transactions.Add(1)
	s.operations.Add(uint64(b.Len()))
	s.bytes.Add(uint64(b.Bytes()))
}

// Stats returns the counters.
func (c *Compactor) Stats() Stats {
	s, b := &c.commit.stats, c.commit.bodies
	return Stats{
		Commits: s.commits.Load(), Failures: s.failures.Load(), Transactions: s.transactions.Load(),
		Operations: s.operations.Load(), Bytes: s.bytes.Load(), Bodies: s.bodies.Load(), Dropped: s.dropped.Load(),
		Last: time.Duration(s.last.Load()), Longest: time.Duration(s.longest.Load()),
		LogReads: b.logReads.Load(), StoreReads: b.storeReads.Load(), CacheBytes: b.Memory(),
	}
}
