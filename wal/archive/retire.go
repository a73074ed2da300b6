package archive

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

func dirOf(path string) string { return filepath.Dir(path) }

// addBase adds a base in its place.
func (c *Catalog) addBase(b Base) {
	i, found := slices.BinarySearchFunc(c.Bases, b.Applied, func(b Base, applied uint64) int {
		switch {
		case b.Applied < applied:
			return -1
		case b.Applied > applied:
			return 1
		}
		return 0
	})
	if found {
		c.Bases[i] = b
		return
	}
	c.Bases = slices.Insert(c.Bases, i, b)
}

// bytesBetween returns the bytes of the segments with records in a range.
func (c *Catalog) bytesBetween(after, upto uint64) (n int64) {
	for i := range c.Segments {
		if s := &c.Segments[i]; s.Last > after && s.First <= upto {
			n += s.Size
		}
	}
	return n
}

// limit is how many bytes the segments may take now.
func (a *Archive) limit() int64 {
	limit := a.opt.Bytes
	if a.opt.Free == nil {
		return limit
	}
	free, err := a.opt.Free(a.opt.Dir)
	if err != nil {
		return limit
	}
	a.mu.Lock()
	own, bases := a.cat.Bytes(), a.cat.BaseBytes()
	a.mu.Unlock()
	return max(0, min(limit, (free+own+bases)/freeShare-bases))
}

// retire removes what is too old or too much: the oldest segments, up to a base
// if there is one, because what is left of them would lead nowhere.
func (a *Archive) retire() {
	limit, oldest := a.limit(), a.opt.Clock()-a.opt.Age.Milliseconds()
	a.mu.Lock()
	gone := a.cat.excess(limit, oldest)
	gone = append(gone, a.cat.crowded(limit/thinShare, a.opt.Age.Milliseconds()/thinShare)...)
	a.mu.Unlock()
	for _, path := range gone {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.fail("an old file could not be removed", err)
		}
	}
	a.mu.Lock()
	a.stats.Removed += uint64(len(gone))
	a.mu.Unlock()
}

// excess takes out of c, and returns the paths of, what is beyond the limits.
func (c *Catalog) excess(limit, oldest int64) (gone []string) {
	for len(c.Segments) > 0 {
		next := -1 // the first base that the oldest segment leads to
		for i := range c.Bases {
			if c.Bases[i].Applied >= c.Segments[0].Last {
				next = i
				break
			}
		}
		tooMuch := c.Bytes() > limit
		tooOld := next >= 0 && c.Bases[next].LogTime < oldest
		if !tooMuch && !tooOld {
			break
		}
		upto := c.Segments[0].Last
		if next >= 0 {
			upto = max(upto, c.Bases[next].Applied)
		}
		for len(c.Segments) > 0 && c.Segments[0].Last <= upto {
			gone = append(gone, c.Segments[0].Path)
			c.Segments = c.Segments[1:]
		}
	}
	// Bases that nothing follows, but for the newest, are of no use.
	for len(c.Bases) > 1 && len(c.Segments) > 0 && c.Bases[0].Applied+1 < c.Segments[0].First {
		gone = append(gone, c.Bases[0].Path)
		c.Bases = c.Bases[1:]
	}
	return gone
}

// crowded takes out of c the second newest base if the one before it is close
// enough to the newest: restarts must not fill the disk.
func (c *Catalog) crowded(bytes, ms int64) (gone []string) {
	n := len(c.Bases)
	if n < 3 {
		return nil
	}
	first, mid, last := &c.Bases[n-3], &c.Bases[n-2], &c.Bases[n-1]
	if c.bytesBetween(first.Applied, last.Applied) > bytes || last.LogTime-first.LogTime > ms {
		return nil
	}
	gone = append(gone, mid.Path)
	c.Bases = slices.Delete(c.Bases, n-2, n-1)
	return gone
}

// base makes a base when one is due.
func (a *Archive) base() {
	since, anchored := a.sinceBase()
	busy := a.busy()
	how := a.opt.Next
	switch {
	case !anchored: // nothing leads here: only the live state can
		how = a.opt.Fresh
		if a.tooSoon() {
			return
		}
	case since.segments == 0:
		return
	case !busy && (since.bytes > a.limit()/baseShare || since.age > a.opt.Age/baseShare):
		if time.Since(a.triedAt) < freshFactor*a.took {
			return
		}
	case busy && since.bytes > a.limit()/2: // it will not be quiet in time
		how = a.opt.Fresh
		if a.tooSoon() {
			return
		}
	default:
		return
	}
	if how == nil || a.stopping() {
		return
	}
	begin := time.Now()
	err := how(a.ctx)
	a.triedAt, a.took = time.Now(), time.Since(begin)
	if err != nil {
		a.took = a.opt.Rest / freshFactor // what failed may cost more often, but not at once
		a.fail("no base snapshot could be made", err)
	}
}

// tooSoon says whether the last base was made too short a time ago for another
// one from the live state.
func (a *Archive) tooSoon() bool {
	return !a.triedAt.IsZero() && time.Since(a.triedAt) < max(a.opt.Rest, freshFactor*a.took)
}

type sinceBase struct {
	segments int
	bytes    int64
	age      time.Duration
}

// sinceBase says how much came since the last base, and whether the log can be
// reached from one, or from record 1.
func (a *Archive) sinceBase() (s sinceBase, anchored bool) {
	h := a.History()
	last := h.Last()
	start, err := h.StartFor(last)
	if last == 0 {
		return s, true
	}
	if err != nil {
		return s, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.cat.Segments {
		if seg := &a.cat.Segments[i]; seg.Last >= start.From {
			s.segments++
			s.bytes += seg.Size
			began := seg.LastTime
			if start.Base != nil {
				began = start.Base.LogTime
			}
			if s.age == 0 {
				s.age = time.Duration(a.opt.Clock()-began) * time.Millisecond
			}
		}
	}
	return s, true
}
