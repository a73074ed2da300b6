package topic

import "bytes"

// A leaf is what the index knows about one filter. Its subscriptions are in
// one, or, from the second one on, in a list.
type leaf struct {
	one    Sub
	single bool   // one is a subscription
	list   uint32 // number of the list, 0 if none
	groups uint32 // number of the groups that share the filter, 0 if none
}

// groupKey names a group.
type groupKey struct{ share, filter string }

// An Index finds the subscriptions whose filter matches a topic. See the
// package documentation for its structure, and for its rules of concurrency:
// readers may run together, a change runs alone.
type Index struct {
	exact  table[string, uint32] // leaf of each filter without wildcard
	trie   trie                  // leaves of the others
	leaves arena[leaf]
	lists  arena[list]
	shared arena[[]*Group] // groups of a leaf
	groups table[groupKey, *Group]
	subs   int    // subscriptions
	gen    uint64 // changes
}

// NewIndex returns an empty index.
func NewIndex() *Index {
	return &Index{
		exact:  newTable[string, uint32](),
		trie:   newTrie(),
		leaves: newArena[leaf](),
		lists:  newArena[list](),
		shared: newArena[[]*Group](),
		groups: newTable[groupKey, *Group](),
	}
}

// Len returns the number of subscriptions, members of groups included.
func (x *Index) Len() int { return x.subs }

// Filters returns the number of distinct filters. A filter which is subscribed
// to with and without $share/, or in several groups, counts once.
func (x *Index) Filters() int { return x.leaves.used - 1 }

// Generation returns a number that is different after each change of what a
// match could return. Results of Match may be cached until it changes.
func (x *Index) Generation() uint64 { return x.gen }

// Subscribe adds a subscription. If the Ref has one with the same filter
// already, that one is replaced [MQTT-3.8.4-3] in its place in the order, and
// Subscribe returns true. The filter, which may be a shared one, has passed
// ValidateFilter. The index keeps the string: it should own its memory rather
// than be a part of something larger.
func (x *Index) Subscribe(filter string, s Sub) (replaced bool) {
	share, inner, shared := SplitShare(filter)
	id := x.grow(inner)
	var old Sub
	if shared {
		old, replaced = x.join(share, inner, id, s)
	} else {
		old, replaced = x.put(x.leaves.at(id), s)
	}
	if !replaced {
		x.subs++
	}
	if !replaced || old != s {
		x.gen++
	}
	return replaced
}

// grow returns the leaf of a filter, a new one if need be.
func (x *Index) grow(filter string) uint32 {
	if hasWildcard(filter) {
		slot := x.trie.slot(x.trie.grow(filter))
		if *slot == 0 {
			*slot = x.leaves.alloc()
		}
		return *slot
	}
	id := x.exact.m[filter]
	if id == 0 {
		id = x.leaves.alloc()
		x.exact.set(filter, id)
	}
	return id
}

// put adds s to the subscriptions of a leaf.
func (x *Index) put(l *leaf, s Sub) (old Sub, replaced bool) {
	switch {
	case l.list != 0:
		return x.lists.at(l.list).put(s)
	case !l.single:
		l.one, l.single = s, true
		return Sub{}, false
	case l.one.Ref == s.Ref:
		old, l.one = l.one, s
		return old, true
	}
	l.list = x.lists.alloc()
	many := x.lists.at(l.list)
	many.subs = append(many.subs, l.one, s)
	l.one, l.single = Sub{}, false
	return Sub{}, false
}

// join adds s to a group of the leaf.
func (x *Index) join(share, filter string, leafID uint32, s Sub) (old Sub, replaced bool) {
	key := groupKey{share, filter}
	g := x.groups.m[key]
	if g == nil {
		l := x.leaves.at(leafID)
		if l.groups == 0 {
			l.groups = x.shared.alloc()
		}
		all := x.shared.at(l.groups)
		g = &Group{Share: share, Filter: filter, leaf: leafID, slot: len(*all)}
		*all = append(*all, g)
		x.groups.set(key, g)
	}
	members := list{g.Members, g.at}
	old, replaced = members.put(s)
	g.Members, g.at = members.subs, members.at
	return old, replaced
}

// Unsubscribe removes the subscription of ref with exactly this filter
// [MQTT-3.10.4-1], which may be a shared one, and reports whether there was
// one. What only this subscription needed is freed.
func (x *Index) Unsubscribe(filter string, ref uint32) bool {
	share, inner, shared := SplitShare(filter)
	id, node, hash := x.find(inner)
	if id == 0 {
		return false
	}
	l := x.leaves.at(id)
	if shared && !x.leave(groupKey{share, inner}, l, ref) || !shared && !x.remove(l, ref) {
		return false
	}
	x.subs--
	x.gen++
	if l.single || l.list != 0 || l.groups != 0 {
		return true
	}
	x.leaves.release(id)
	if hasWildcard(inner) {
		*x.trie.slot(node, hash) = 0
		x.trie.prune(node)
		return true
	}
	x.exact.remove(inner)
	return true
}

// find returns the leaf of a filter, 0 if none, and its place in the trie if it
// has a wildcard.
func (x *Index) find(filter string) (id, node uint32, hash bool) {
	if !hasWildcard(filter) {
		return x.exact.m[filter], 0, false
	}
	node, hash, ok := x.trie.find(filter)
	if !ok {
		return 0, 0, false
	}
	return *x.trie.slot(node, hash), node, hash
}

// remove takes ref out of the subscriptions of a leaf.
func (x *Index) remove(l *leaf, ref uint32) bool {
	if l.list == 0 {
		if !l.single || l.one.Ref != ref {
			return false
		}
		l.one, l.single = Sub{}, false
		return true
	}
	many := x.lists.at(l.list)
	if !many.remove(ref) {
		return false
	}
	if len(many.subs) == 1 {
		l.one, l.single = many.subs[0], true
		x.lists.release(l.list)
		l.list = 0
	}
	return true
}

// leave takes ref out of a group of the leaf, and the last member takes the
// group with it.
func (x *Index) leave(key groupKey, l *leaf, ref uint32) bool {
	g := x.groups.m[key]
	if g == nil {
		return false
	}
	members := list{g.Members, g.at}
	ok := members.remove(ref)
	g.Members, g.at = members.subs, members.at
	if len(g.Members) > 0 {
		return ok
	}
	x.groups.remove(key)
	all := x.shared.at(l.groups)
	last := len(*all) - 1
	moved := (*all)[last]
	(*all)[g.slot], moved.slot = moved, g.slot
	(*all)[last] = nil
	*all = (*all)[:last]
	if last == 0 {
		x.shared.release(l.groups)
		l.groups = 0
	}
	return ok
}

// Group returns the group of a share name and a filter (without $share/), or
// nil if it has no members.
func (x *Index) Group(share, filter string) *Group {
	return x.groups.m[groupKey{share, filter}]
}

// Subscribers returns the number of subscriptions with exactly this filter,
// which may be a shared one.
func (x *Index) Subscribers(filter string) int {
	share, inner, shared := SplitShare(filter)
	if shared {
		if g := x.Group(share, inner); g != nil {
			return len(g.Members)
		}
		return 0
	}
	id, _, _ := x.find(inner)
	l := x.leaves.at(id)
	switch {
	case l.list != 0:
		return len(x.lists.at(l.list).subs)
	case l.single:
		return 1
	}
	return 0
}

// Match sets m to the subscriptions whose filter matches the topic name, which
// has passed ValidateName. The filter that equals the topic comes first;
// the order of the rest is fixed by the sequence of changes. Match does not
// allocate if m has grown large enough, does not keep topic, and changes
// nothing but m.
func (x *Index) Match(topic []byte, m *Matches) {
	m.reset()
	if id := x.exact.m[string(topic)]; id != 0 {
		x.collect(id, m)
	}
	if x.trie.empty() {
		return
	}
	// Filters that begin with a wildcard do not see topics that begin with '$'
	// [MQTT-4.7.2-1].
	hidden := len(topic) > 0 && topic[0] == '$'
	m.here = append(m.here[:0], 0)
	for more := true; more && len(m.here) > 0; hidden = false {
		level := topic
		i := bytes.IndexByte(topic, '/')
		if more = i >= 0; more {
			level, topic = topic[:i], topic[i+1:]
		}
		x.step(level, hidden, m)
		m.here, m.next = m.next, m.here
	}
	for _, id := range m.here { // nodes whose path matches the whole topic
		n := x.trie.nodes.at(id)
		if n.leaf != 0 {
			x.collect(n.leaf, m)
		}
		if n.hash != 0 {
			x.collect(n.hash, m) // "#" includes the parent level (§4.7.1.2)
		}
	}
}

// step takes the nodes of m.here over one topic level, to m.next, and collects
// the filters that end with "#" at this level. If hidden, filters whose wildcard
// would match this level are left out.
func (x *Index) step(level []byte, hidden bool, m *Matches) {
	t := &x.trie
	next := m.next[:0]
	known, w := false, uint32(0)
	for _, id := range m.here {
		n := t.nodes.at(id)
		if !hidden {
			if n.hash != 0 {
				x.collect(n.hash, m)
			}
			if n.plus != 0 {
				next = append(next, n.plus)
			}
		}
		if n.kid == 0 && n.more == 0 {
			continue
		}
		if n.more == 0 && len(m.here) == 1 { // one word to compare with is sooner compared than hashed
			if t.words.at(n.kidWord).text == string(level) {
				next = append(next, n.kid)
			}
			continue
		}
		if !known {
			known, w = true, t.ids.m[string(level)]
		}
		if w == 0 {
			continue // no filter has this word
		}
		if c := t.child(id, n, w); c != 0 {
			next = append(next, c)
		}
	}
	m.next = next
}

// collect adds what a leaf has to m.
func (x *Index) collect(id uint32, m *Matches) {
	l := x.leaves.at(id)
	switch {
	case l.list != 0:
		m.Subs = append(m.Subs, x.lists.at(l.list).subs...)
		m.Filters++
	case l.single:
		m.Subs = append(m.Subs, l.one)
		m.Filters++
	}
	if l.groups != 0 {
		m.Groups = append(m.Groups, *x.shared.at(l.groups)...)
	}
}
