package main

import "sort"

// seqSet is a set of sequence numbers kept as disjoint spans in rising order.
// Numbers that come nearly in order make few spans, so a set that remembers a
// whole run stays small. Not safe for concurrent use.
type seqSet struct {
	spans []span
}

type span struct{ lo, hi uint32 } // both inclusive

// has reports whether n is in the set.
func (s *seqSet) has(n uint32) bool {
	i := s.search(n)
	return i < len(s.spans) && s.spans[i].lo <= n
}

// search returns the first span that ends at or after n.
func (s *seqSet) search(n uint32) int {
	if k := len(s.spans); k > 0 && s.spans[k-1].hi < n {
		return k // the common case: past the end
	}
	return sort.Search(len(s.spans), func(i int) bool { return s.spans[i].hi >= n })
}

// add puts n into the set and reports whether it was new.
func (s *seqSet) add(n uint32) bool {
	i := s.search(n)
	if i < len(s.spans) && s.spans[i].lo <= n {
		return false
	}
	joinsLeft := i > 0 && s.spans[i-1].hi+1 == n
	joinsRight := i < len(s.spans) && s.spans[i].lo == n+1
	switch {
	case joinsLeft && joinsRight:
		s.spans[i-1].hi = s.spans[i].hi
		s.spans = append(s.spans[:i], s.spans[i+1:]...)
	case joinsLeft:
		s.spans[i-1].hi = n
	case joinsRight:
		s.spans[i].lo = n
	default:
		s.spans = append(s.spans, span{})
		copy(s.spans[i+1:], s.spans[i:])
		s.spans[i] = span{n, n}
	}
	return true
}

// max returns the greatest number in the set, 0 if it is empty.
func (s *seqSet) max() uint32 {
	if len(s.spans) == 0 {
		return 0
	}
	return s.spans[len(s.spans)-1].hi
}
