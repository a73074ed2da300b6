package topic

// Bounds between which a list searches its subscriptions one by one; above, it
// has a map of positions. Two of them, so that a list at the border does not
// build a map at every other change.
const (
	listMapAbove = 32
	listMapBelow = 16
)

// A list holds the subscriptions of one filter or group, each Ref once. Order:
// arrival, and a removal moves the last one into the gap.
type list struct {
	subs []Sub
	at   map[uint32]uint32 // position of each Ref; nil while the list is short
}

// find returns the position of ref, -1 if it is not there.
func (l *list) find(ref uint32) int {
	if l.at != nil {
		if i, ok := l.at[ref]; ok {
			return int(i)
		}
		return -1
	}
	for i := range l.subs {
		if l.subs[i].Ref == ref {
			return i
		}
	}
	return -1
}

// put adds s. If its Ref is there already, it replaces that subscription in
// its place and returns the old one.
func (l *list) put(s Sub) (old Sub, replaced bool) {
	if i := l.find(s.Ref); i >= 0 {
		old, l.subs[i] = l.subs[i], s
		return old, true
	}
	l.subs = append(l.subs, s)
	switch {
	case l.at != nil:
		l.at[s.Ref] = uint32(len(l.subs) - 1)
	case len(l.subs) > listMapAbove:
		l.at = make(map[uint32]uint32, 2*listMapAbove)
		for i := range l.subs {
			l.at[l.subs[i].Ref] = uint32(i)
		}
	}
	return Sub{}, false
}

// remove takes ref out and reports whether it was there.
func (l *list) remove(ref uint32) bool {
	i := l.find(ref)
	if i < 0 {
		return false
	}
	last := len(l.subs) - 1
	moved := l.subs[last]
	l.subs[i] = moved
	l.subs = l.subs[:last]
	if l.at != nil {
		l.at[moved.Ref] = uint32(i)
		delete(l.at, ref) // after the line above: ref may be the last itself
		if last < listMapBelow {
			l.at = nil
		}
	}
	if c := cap(l.subs); c > 2*listMapAbove && last < c/4 {
		l.subs = append(make([]Sub, 0, c/2), l.subs...)
	}
	return true
}
