// Package retain owns the retained messages of the broker: for each topic at
// most one, its last PUBLISH with the RETAIN flag (§3.3.1.3). It holds where
// the message is (the index of its record) and when it ends, not its body.
//
// # The picture
//
//	byTopic: map[topic]*item ───┐ Set, Get, Delete: one lookup
//	                            ▼
//	        item{topic, Entry, place in the heap}
//	          ▲            ▲               ▲
//	          │            │               └─ due: heap of those with a deadline
//	  pages ─ [a, a/b, a/b/c] [a/c, a-x, b] …   all topics in level order
//
// Topics are kept in level order: compared level by level, bytes within a
// level, a topic before those below it. So "a" < "a/b" < "a/b/c" < "a-x" (the
// separator sorts before every other byte), and the topics below a level are
// one run of the list. The list is cut into pages of up to 128 pointers; an
// insertion moves at most one page's worth, and every so often the list of
// pages.
//
// A filter is answered by walking the list: while topics match, one step each;
// at a topic that does not match, the comparison says at which level it failed,
// hence which topic is the smallest that could match next, and a search jumps
// there. "a/b/#" is one search and a run; "a/+/c" costs one search for each
// topic directly below "a", as the walk of a tree would. The alternative, a
// tree of maps, needs an allocation or two per level of each topic and has to
// sort each of its nodes to give an order; here order is what the structure is,
// and the place where a walk stopped is a topic: MatchFrom goes on from there
// whatever has been changed meanwhile.
//
// # Concurrency, determinism and durability
//
// Pure and without locks: the apply loop owns the Store. Get, Match and the
// other readers change nothing and may run together, a change runs alone, and a
// callback must not change the Store. All orders are functions of the content
// alone, not of its history: a Store rebuilt from a snapshot answers with the
// same bytes. Nothing is stored from here; the state machine writes the entries.
package retain
