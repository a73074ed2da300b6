// Package topic owns what MQTT says about topics: the syntax of topic names and
// topic filters, shared subscriptions ($share), the matching rules, and the
// index which finds the subscribers of a published message.
//
// # Words
//
// A name is what a message is published to ("sport/tennis/player1"); it has no
// wildcards. A filter is what a client subscribes to ("sport/+/player1",
// "sport/#"). Both are lists of levels separated by '/', an empty level is a
// level, and everything is compared byte for byte: no case folding and no
// normalization [MQTT-4.7.3-4]. A shared filter, $share/{group}/{filter}, is a
// filter plus a group whose members divide the messages among themselves.
// Section numbers are those of MQTT 5.0; 3.1.1 has the same rules under
// slightly different numbers, and $share/ works for its clients too.
//
// # The index
//
//	         filter without wildcard          filter with wildcard
//	         "site/7/temp"                    "site/+/temp", "site/#"
//	              │                                │
//	exact: map[filter]leaf            root ─site─► node ─┬─ '+' ─► node ─temp─► node
//	              │                                      └─ '#' ─► leaf          │
//	              ▼                                                              ▼
//	            leaf ◄──────────────────────────────────────────────────────── leaf
//	 one Sub, or a list of them; groups of $share on the same filter
//
// A filter without wildcard costs a match one map lookup, however many there
// are. Filters with wildcards live in a trie that Match walks breadth first,
// one topic level at a time: the words of the trie are interned, so that a
// level is hashed once per match and not once per node, and the set of nodes
// reached so far lives in the caller's Matches: no recursion, no allocation.
// The walk visits only nodes whose whole path matches the beginning of the
// topic: the cost is that of the matching filters and of the beginnings they
// share with filters which fail further down. Each level can at most double the
// set, so the broker's limit on topic levels bounds what a hostile set of
// filters ("a/+/a/+/…" in all its variants) can cost.
//
// Nodes and leaves are free of Go pointers and refer to each other by 32-bit
// numbers into chunked arenas: 32 bytes a node, 24 a leaf, and nothing for the
// garbage collector to trace. The first named child of a node is kept in the
// node; further ones are in one map keyed by (node, word).
//
// Subscribers of one filter are a slice in order of arrival, where a removal
// moves the last one into the gap. Beyond 32 of them a map from Ref to position
// makes every operation constant in time.
//
// # Concurrency, determinism and durability
//
// Nothing here locks. Match and the other readers may run at the same time as
// each other but not as a change: the owner has one RWMutex, or one goroutine.
// The order of a result depends on the sequence of changes alone, never on the
// order of a Go map. The index is derived state: it is rebuilt from the
// sessions at start-up and nothing of it is stored.
package topic
