package broker

import "slices"

// This file spares connections without a durable session the way through
// committer and apply loop. Their CONNECT, SUBSCRIBE, UNSUBSCRIBE and end are
// commands without a record; what orders them is that they run one after another
// with the records. While nothing is under way, the reader runs its command
// itself, in the place of the apply loop: no goroutine is woken for it.

// claim makes the caller the apply loop for one command of a connection, with
// indexMu held, if everything that went to the lane before is applied. After it
// comes settleClaim.
func (s *Server) claim() bool {
	if !s.lane.applying.TryLock() {
		return false
	}
	if !s.lane.idle() {
		s.lane.applying.Unlock()
		return false
	}
	s.fx.Reset()
	s.indexMu.Lock()
	return true
}

// settleClaim carries out the effects of a command that c has run. What is to
// be written to c itself waits for the end of the reader's round.
func (s *Server) settleClaim(c *conn) {
	s.indexChanged()
	s.carryOut()
	s.runLater()
	if c.in.work != nil {
		s.touched.conns = slices.DeleteFunc(s.touched.conns, func(other *conn) bool {
			if other == c {
				c.in.touched.conns = append(c.in.touched.conns, c)
			}
			return other == c
		})
	}
	s.touched.flush(s)
	s.lane.applying.Unlock()
}

// filterSet is a set of filters. Most clients have one, which needs no map.
type filterSet struct {
	one  string
	only bool // one is the only one; else they are in more
	more map[string]struct{}
}

func (f *filterSet) len() int {
	if f.only {
		return 1
	}
	return len(f.more)
}

func (f *filterSet) has(name []byte) bool {
	if f.only {
		return f.one == string(name)
	}
	_, had := f.more[string(name)]
	return had
}

func (f *filterSet) add(name string) {
	switch {
	case f.only && f.one == name:
		return
	case f.only:
		f.more = map[string]struct{}{f.one: {}, name: {}}
		f.one, f.only = "", false
	case len(f.more) == 0:
		f.one, f.only, f.more = name, true, nil
	default:
		f.more[name] = struct{}{}
	}
}

func (f *filterSet) remove(name []byte) {
	if f.only && f.one == string(name) {
		f.one, f.only = "", false
	}
	delete(f.more, string(name))
}

// list returns the filters.
func (f *filterSet) list() []string {
	if f.only {
		return []string{f.one}
	}
	names := make([]string, 0, len(f.more))
	for name := range f.more {
		names = append(names, name)
	}
	return names
}
