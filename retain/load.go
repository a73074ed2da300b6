package retain

// A Loader fills an empty Store with many topics at once, at about a third of
// the cost of setting each: they share allocations by groups of one page, and the table
// of topics is made when it is known how large it has to be. Topics that come
// in level order, as nearly all do that a backend lists in the order of their
// bytes, are appended without a search.
//
// The memory of a group is given back when all of its topics are gone.
type Loader struct {
	s     *Store
	items []*item
	group []item // of the group that is being filled; never moves
	names []byte // their topics
	ends  []int  // where each of them ends
}

// NewLoader returns a loader for a store that is empty. The store may be used
// after Finish.
func NewLoader(s *Store) *Loader { return &Loader{s: s} }

// Add adds a topic, which has not been added before; it is copied.
func (l *Loader) Add(topic []byte, e Entry) {
	if l.group == nil {
		l.group = make([]item, 0, pageMax)
	}
	l.group = append(l.group, item{entry: e})
	l.names = append(l.names, topic...)
	l.ends = append(l.ends, len(l.names))
	if len(l.group) == pageMax {
		l.flush()
	}
}

// flush puts a group into the order.
func (l *Loader) flush() {
	names, from := string(l.names), 0
	for i, end := range l.ends {
		it := &l.group[i]
		it.topic = names[from:end]
		from = end
		l.s.topics.append(it)
		l.s.due.update(it)
		l.s.bytes += it.entry.Bytes
		l.items = append(l.items, it)
	}
	l.group, l.names, l.ends = nil, l.names[:0], l.ends[:0]
}

// Finish makes the store ready.
func (l *Loader) Finish() {
	l.flush()
	l.s.byTopic = make(map[string]*item, len(l.items))
	for _, it := range l.items {
		l.s.byTopic[it.topic] = it
	}
	l.s.peak = len(l.items)
	l.items = nil
}

// append is insert for an item that is probably the last.
func (o *order) append(it *item) {
	if n := len(o.pages); n > 0 {
		pg := &o.pages[n-1]
		if compare(pg.items[len(pg.items)-1].topic, it.topic) >= 0 {
			o.insert(it)
			return
		}
		if len(pg.items) < pageMax {
			pg.items = append(pg.items, it)
			return
		}
	}
	items := make([]*item, 1, pageMax)
	items[0] = it
	o.pages = append(o.pages, page{it.topic, items})
}
