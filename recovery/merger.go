package recovery

import "time"

// merger is the state of the compactor's first goroutine: it merges what
// Checkpoint collected and decides when it goes to the backend.
type merger struct {
	c     *Compactor
	next  *fold // what the next commit takes
	busy  *fold // what the committer works on, nil if it does not
	spare *fold

	applied uint64        // record index of the last commit that is finished
	wanted  bool          // commit as soon as possible
	retryAt time.Time     // not before, zero = any time
	backoff time.Duration // after the next failure
	since   time.Time     // of the last commit
	lastErr error         // of the last attempt
	fatal   error
	flushes []*flush
	deltas  []*delta
	stale   bool // nothing was collected since the last tick
}

func (m *merger) run() {
	c := m.c
	tick := time.NewTicker(c.opt.Interval)
	defer tick.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	m.since, m.applied = time.Now(), c.commit.applied.Load()
	for {
		select {
		case <-c.wake:
		case <-retry.C:
		case <-tick.C:
			m.wanted = m.wanted || m.stale // the apply loop is idle
			m.stale = true
			c.due.Store(true)
			poke(c.ticks)
		case err := <-c.results:
			m.finished(err)
		case f := <-c.flushes:
			m.flushes = append(m.flushes, f)
		case <-c.quit:
			m.end()
			return
		}
		m.merge()
		c.lag.Store(&lag{changes: m.changes(), bytes: m.bytes(), since: m.since, err: m.lastErr})
		m.consider()
		if m.busy == nil && !m.retryAt.IsZero() {
			retry.Reset(time.Until(m.retryAt))
		}
	}
}

func (m *merger) changes() int {
	n := m.next.live
	if m.busy != nil {
		n += m.busy.live
	}
	return n
}

func (m *merger) bytes() int64 {
	n := m.next.bytes()
	if m.busy != nil {
		n += m.busy.bytes()
	}
	return n
}

// merge takes what was collected.
func (m *merger) merge() {
	m.deltas = m.c.takePending(m.deltas[:0])
	for i, d := range m.deltas {
		if m.fatal == nil {
			m.next.merge(d)
			m.wanted = m.wanted || d.timed
			m.stale = false
		}
		m.c.giveBack(d)
		m.deltas[i] = nil
	}
}

// consider starts a commit if it is time.
func (m *merger) consider() {
	m.answer()
	if m.busy != nil || m.fatal != nil || m.next.applied <= m.applied {
		return
	}
	if !m.wanted && !m.large() && len(m.flushes) == 0 {
		return
	}
	if !m.retryAt.IsZero() && time.Now().Before(m.retryAt) {
		return
	}
	if m.next.live == 0 && len(m.flushes) == 0 && !m.c.commit.worthAdvancing(m.next.applied) {
		m.wanted = false
		return
	}
	m.wanted, m.retryAt = false, time.Time{}
	m.busy, m.next = m.next, m.spare
	m.spare = nil
	m.c.jobs <- m.busy
}

// large says whether enough has come together for a commit before the interval
// has passed.
func (m *merger) large() bool {
	c := m.c
	return m.next.applied-m.applied >= c.opt.Records ||
		m.next.bytes() >= c.opt.FoldBytes/4 || c.commit.logged() >= int64(c.opt.Bytes)
}

// finished takes the result of a commit.
func (m *merger) finished(err error) {
	done := m.busy
	m.busy = nil
	if err == nil {
		done.reset()
		m.spare, m.applied = done, m.c.commit.applied.Load()
		m.since, m.backoff, m.lastErr = time.Now(), 0, nil
		return
	}
	m.lastErr = err
	// What failed comes first, what was merged since is added to it.
	done.mergeFold(m.next)
	m.next.reset()
	m.next, m.spare = done, m.next
	if isFinal(err) {
		m.fail(err)
		return
	}
	m.wanted = true
	m.backoff = min(max(2*m.backoff, m.c.opt.Retry), max(m.c.opt.Retry, retryMax))
	m.retryAt = time.Now().Add(m.backoff)
	m.c.logger.Warn("checkpoint failed, will be tried again", "error", err, "in", m.backoff,
		"changes", m.next.live, "applied", m.applied, "collected", m.next.applied)
}

// fail ends the work: nothing is committed any more.
func (m *merger) fail(err error) {
	m.fatal = err
	m.c.failed.Store(true)
	m.c.fatal <- err
}

// answer answers the flushes that are done.
func (m *merger) answer() {
	left := m.flushes[:0]
	for _, f := range m.flushes {
		switch {
		case f.upto <= m.applied:
			f.done <- nil
		case m.fatal != nil:
			f.done <- m.fatal
		default:
			left = append(left, f)
		}
	}
	clear(m.flushes[len(left):])
	m.flushes = left
}

// end waits for the commit in progress and sends everybody home.
func (m *merger) end() {
	if m.busy != nil {
		if err := <-m.c.results; err == nil {
			m.applied = m.c.commit.applied.Load()
		}
	}
	m.answer()
	for _, f := range m.flushes {
		f.done <- ErrClosed
	}
}
