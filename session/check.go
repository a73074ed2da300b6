package session

import (
	"fmt"
	"slices"
)

// Check verifies what must hold of a session's own state: the order of its
// entries, identifiers in use once, notes that belong to entries. It walks
// all of it and is meant for tests and tools.
func (s *Session) Check() error {
	if err := s.Out.Check(); err != nil {
		return fmt.Errorf("session %d: %w", s.ID, err)
	}
	for i := 1; i < len(s.received); i++ {
		if s.received[i-1] >= s.received[i] {
			return fmt.Errorf("session %d: received identifiers %d, %d out of order", s.ID, s.received[i-1], s.received[i])
		}
	}
	for _, f := range s.shared {
		if _, ok := s.subs[f]; !ok {
			return fmt.Errorf("session %d: shared filter %q without a subscription", s.ID, f)
		}
	}
	if !slices.IsSorted(s.shared) {
		return fmt.Errorf("session %d: shared filters out of order: %q", s.ID, s.shared)
	}
	return nil
}

// Check verifies the invariants of queue and window.
func (o *Outbound[M]) Check() error {
	if err := o.window.check(); err != nil {
		return err
	}
	in := o.Inflight()
	if o.sent < 0 || o.sent > len(in) {
		return fmt.Errorf("cursor at %d of %d in flight", o.sent, len(in))
	}
	var last uint64
	many, group, n := 0, 0, 0
	var err error
	o.All(func(e *Entry[M]) bool {
		_, hasMany := o.SubIDs[e.Seq]
		_, hasGroup := o.GroupOf[e.Seq]
		switch {
		case e.Seq <= last || e.Seq > o.tail:
			err = fmt.Errorf("entry %d after %d, newest %d", e.Seq, last, o.tail)
		case e.QoS != 1 && e.QoS != 2 || e.Phase == PhaseRelease && (e.QoS != 2 || e.PID == 0):
			err = fmt.Errorf("entry %d with identifier %d has QoS %d in phase %d", e.Seq, e.PID, e.QoS, e.Phase)
		case hasMany != e.Many || hasGroup != e.Group:
			err = fmt.Errorf("entry %d: notes of subscription identifiers %v, group %v do not match its flags", e.Seq, hasMany, hasGroup)
		case n >= len(in) && e.PID != 0:
			err = fmt.Errorf("queued entry %d has identifier %d", e.Seq, e.PID)
		}
		if e.Many {
			many++
		}
		if e.Group {
			group++
		}
		last = e.Seq
		n++
		return err == nil
	})
	switch {
	case err != nil:
		return err
	case n != len(in)+o.queue.length:
		return fmt.Errorf("%d entries, counted %d in flight and %d queued", n, len(in), o.queue.length)
	case many != len(o.SubIDs) || group != len(o.GroupOf):
		return fmt.Errorf("%d notes of identifiers and %d of groups for %d and %d entries", len(o.SubIDs), len(o.GroupOf), many, group)
	}
	return o.queue.check()
}

func (w *window[M]) check() error {
	in := w.entries()
	if w.old < 0 || w.old > len(in) {
		return fmt.Errorf("%d old entries of %d", w.old, len(in))
	}
	var used [1 << 16 / 64]uint64
	for i := range in {
		pid := in[i].PID
		if pid == 0 || used[pid/64]>>(pid%64)&1 != 0 {
			return fmt.Errorf("identifier %d is zero or in use twice", pid)
		}
		used[pid/64] |= 1 << (pid % 64)
		if w.old > oldSearch && i%1009 != 0 {
			continue // a search costs a step for each old entry
		}
		if j := w.find(pid); j != i {
			return fmt.Errorf("identifier %d is in place %d, found in %d", pid, i, j)
		}
	}
	return nil
}

func (o *queue[M]) check() error {
	for i := o.front; i < len(o.chunks)-1; i++ {
		if len(o.chunks[i].q) == 0 {
			return fmt.Errorf("empty chunk %d of %d", i, len(o.chunks))
		}
	}
	if o.length == 0 && len(o.chunks)-o.front > 1 {
		return fmt.Errorf("an empty queue has %d chunks", len(o.chunks)-o.front)
	}
	return nil
}
