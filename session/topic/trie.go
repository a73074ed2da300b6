package topic

import "strings"

// A node stands for the beginning of a filter. Node 0 is the root, the empty
// beginning. All numbers but parent use 0 for "none".
type node struct {
	parent uint32 // node one level up
	word   uint32 // last level of this beginning: a word, or plusWord
	leaf   uint32 // leaf of the filter that ends here
	hash   uint32 // leaf of the filter that goes on with "#" and ends
	plus   uint32 // child for "+"
	// One named child is kept here, the others (their number is more) in
	// trie.edges. So a chain of nodes, the usual end of a filter, has no edges.
	kid, kidWord uint32
	more         uint32
}

// plusWord in node.word says that the node is its parent's child for "+".
const plusWord = 1<<32 - 1

// A word is a level of a filter, stored once however many filters have it.
type word struct {
	text string
	refs uint32 // nodes which have it
}

// An edge leads from a node to its child for a word: node<<32 | word.
type edge uint64

// trie finds the leaves of filters with wildcards.
type trie struct {
	nodes arena[node]
	words arena[word]
	ids   table[string, uint32] // number of each word
	edges table[edge, uint32]
}

func newTrie() trie {
	return trie{
		nodes: newArena[node](),
		words: newArena[word](),
		ids:   newTable[string, uint32](),
		edges: newTable[edge, uint32](),
	}
}

func makeEdge(id, w uint32) edge { return edge(id)<<32 | edge(w) }

// child returns the child of node id (whose content is n) for a word, or 0.
func (t *trie) child(id uint32, n *node, w uint32) uint32 {
	if n.kidWord == w {
		return n.kid
	}
	if n.more == 0 {
		return 0
	}
	return t.edges.m[makeEdge(id, w)]
}

// find walks to filter. It returns the node the filter ends at and whether it
// ends with "#" there; !ok if the trie has no such path.
func (t *trie) find(filter string) (id uint32, hash, ok bool) {
	for more := true; more; {
		var level string
		level, filter, more = strings.Cut(filter, "/")
		n := t.nodes.at(id)
		switch {
		case level == "#" && !more:
			return id, true, true
		case level == "+":
			id = n.plus
		default:
			w := t.ids.m[level]
			if w == 0 {
				return 0, false, false
			}
			id = t.child(id, n, w)
		}
		if id == 0 {
			return 0, false, false
		}
	}
	return id, false, true
}

// grow walks to filter like find, and makes the nodes that are missing.
func (t *trie) grow(filter string) (id uint32, hash bool) {
	for more := true; more; {
		var level string
		level, filter, more = strings.Cut(filter, "/")
		switch {
		case level == "#" && !more:
			return id, true
		case level == "+":
			id = t.growPlus(id)
		default:
			id = t.growNamed(id, level)
		}
	}
	return id, false
}

func (t *trie) growPlus(id uint32) uint32 {
	n := t.nodes.at(id)
	if n.plus == 0 {
		n.plus = t.newNode(id, plusWord)
	}
	return n.plus
}

func (t *trie) growNamed(id uint32, level string) uint32 {
	n := t.nodes.at(id)
	w := t.ids.m[level]
	if w == 0 {
		w = t.words.alloc()
		// A copy: a word outlives the filter it was first seen in.
		text := strings.Clone(level)
		t.words.at(w).text = text
		t.ids.set(text, w)
	} else if c := t.child(id, n, w); c != 0 {
		return c
	}
	t.words.at(w).refs++
	c := t.newNode(id, w)
	if n.kid == 0 {
		n.kid, n.kidWord = c, w
	} else {
		t.edges.set(makeEdge(id, w), c)
		n.more++
	}
	return c
}

func (t *trie) newNode(parent, w uint32) uint32 {
	id := t.nodes.alloc()
	n := t.nodes.at(id)
	n.parent, n.word = parent, w
	return id
}

// slot returns where the leaf number of a filter found by find or grow is kept.
func (t *trie) slot(id uint32, hash bool) *uint32 {
	if hash {
		return &t.nodes.at(id).hash
	}
	return &t.nodes.at(id).leaf
}

// prune frees node id if no filter needs it, then its parent, and so on.
func (t *trie) prune(id uint32) {
	for id != 0 {
		n := *t.nodes.at(id)
		if n.leaf != 0 || n.hash != 0 || n.plus != 0 || n.kid != 0 || n.more != 0 {
			return
		}
		t.cut(id, &n)
		t.nodes.release(id)
		id = n.parent
	}
}

// cut takes node id, whose content is n, from its parent.
func (t *trie) cut(id uint32, n *node) {
	p := t.nodes.at(n.parent)
	switch {
	case n.word == plusWord:
		p.plus = 0
		return
	case p.kid == id:
		p.kid, p.kidWord = 0, 0
	default:
		t.edges.remove(makeEdge(n.parent, n.word))
		p.more--
	}
	w := t.words.at(n.word)
	w.refs--
	if w.refs == 0 {
		t.ids.remove(w.text)
		t.words.release(n.word)
	}
}

// empty reports whether the trie has no filter.
func (t *trie) empty() bool { return t.nodes.used == 1 && t.nodes.at(0).hash == 0 }
