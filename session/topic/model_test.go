package topic

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// fataler is what *testing.T and *rapid.T share.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// checkIndex checks what must hold inside an index between two changes.
func checkIndex(t fataler, x *Index) {
	t.Helper()
	tr := &x.trie
	leaves := map[uint32]bool{0: true}
	for _, id := range x.exact.m {
		leaves[id] = true
	}
	wordRefs := map[uint32]uint32{}
	seen := walkNodes(t, x, 0, 0, leaves, wordRefs)
	if seen != tr.nodes.used {
		t.Fatalf("%d nodes reachable, %d in use", seen, tr.nodes.used)
	}
	if len(leaves) != x.leaves.used {
		t.Fatalf("%d leaves reachable, %d in use", len(leaves), x.leaves.used)
	}
	if len(tr.ids.m) != tr.words.used-1 || len(wordRefs) != len(tr.ids.m) {
		t.Fatalf("%d words known, %d used by nodes, %d in use", len(tr.ids.m), len(wordRefs), tr.words.used-1)
	}
	for text, id := range tr.ids.m {
		if w := tr.words.at(id); w.text != text || w.refs != wordRefs[id] {
			t.Fatalf("word %q is %q with %d references, want %d", text, w.text, w.refs, wordRefs[id])
		}
	}
	subs, lists, shared, groups := 0, 1, 1, 0
	for id := range leaves {
		l := x.leaves.at(id)
		if id != 0 && !l.single && l.list == 0 && l.groups == 0 {
			t.Fatalf("leaf %d is empty", id)
		}
		if l.single {
			subs++
		}
		if l.list != 0 {
			lists++
			many := x.lists.at(l.list)
			if l.single || len(many.subs) < 2 {
				t.Fatalf("leaf %d: single %t and a list of %d", id, l.single, len(many.subs))
			}
			checkList(t, many)
			subs += len(many.subs)
		}
		if l.groups != 0 {
			shared++
			all := *x.shared.at(l.groups)
			if slices.ContainsFunc(all[len(all):cap(all)], func(g *Group) bool { return g != nil }) {
				t.Fatalf("leaf %d keeps a group that has ended", id)
			}
			for i, g := range all {
				if g.slot != i || g.leaf != id || len(g.Members) == 0 || x.groups.m[groupKey{g.Share, g.Filter}] != g {
					t.Fatalf("group %s of %s is at %d, says %d", g.Share, g.Filter, i, g.slot)
				}
				checkList(t, &list{g.Members, g.at})
				groups++
				subs += len(g.Members)
			}
		}
	}
	if subs != x.Len() || lists != x.lists.used || shared != x.shared.used || groups != len(x.groups.m) {
		t.Fatalf("%d subscriptions, Len %d; lists %d of %d; shared %d of %d; groups %d of %d",
			subs, x.Len(), lists, x.lists.used, shared, x.shared.used, groups, len(x.groups.m))
	}
}

// walkNodes counts the nodes from id on, collects their leaves and counts the
// references to words. It uses a stack of its own: tries can be deep.
func walkNodes(t fataler, x *Index, id, parent uint32, leaves map[uint32]bool, words map[uint32]uint32) int {
	t.Helper()
	tr := &x.trie
	kids := map[uint32][]uint32{}
	for e, c := range tr.edges.m {
		kids[uint32(e>>32)] = append(kids[uint32(e>>32)], c)
	}
	type step struct{ id, parent uint32 }
	seen := 0
	for todo := []step{{id, parent}}; len(todo) > 0; {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		seen++
		n := tr.nodes.at(s.id)
		if n.parent != s.parent {
			t.Fatalf("node %d has parent %d, want %d", s.id, n.parent, s.parent)
		}
		if s.id != 0 && n.leaf == 0 && n.hash == 0 && n.plus == 0 && n.kid == 0 && n.more == 0 {
			t.Fatalf("node %d is needed by nothing", s.id)
		}
		if int(n.more) != len(kids[s.id]) {
			t.Fatalf("node %d has %d edges, says %d", s.id, len(kids[s.id]), n.more)
		}
		for _, leaf := range []uint32{n.leaf, n.hash} {
			if leaf != 0 && leaves[leaf] {
				t.Fatalf("leaf %d has two places", leaf)
			}
			leaves[leaf] = true
		}
		below := kids[s.id]
		if n.kid != 0 {
			below = append(below, n.kid)
		}
		for _, c := range below {
			w := tr.nodes.at(c).word
			words[w]++
			if tr.child(s.id, n, w) != c {
				t.Fatalf("node %d is not the child of %d for its word", c, s.id)
			}
		}
		if n.plus != 0 {
			below = append(below, n.plus)
			if tr.nodes.at(n.plus).word != plusWord {
				t.Fatalf("node %d does not know that it is for +", n.plus)
			}
		}
		for _, c := range below {
			todo = append(todo, step{c, s.id})
		}
	}
	return seen
}

func checkList(t fataler, l *list) {
	t.Helper()
	if l.at == nil && len(l.subs) > listMapAbove || l.at != nil && len(l.subs) < listMapBelow {
		t.Fatalf("list of %d: map of positions %t", len(l.subs), l.at != nil)
	}
	if l.at != nil && len(l.at) != len(l.subs) {
		t.Fatalf("list of %d has %d positions", len(l.subs), len(l.at))
	}
	for i, s := range l.subs {
		if l.find(s.Ref) != i {
			t.Fatalf("ref %d is at %d, found at %d", s.Ref, i, l.find(s.Ref))
		}
	}
}

// A model is an index as a list of subscriptions.
type model map[modelKey]Sub

type modelKey struct {
	filter string
	ref    uint32
}

// modelMatch is a result in a form to compare: everything sorted.
type modelMatch struct {
	subs    []Sub
	filters int
	groups  map[string][]Sub
}

func compareSubs(a, b Sub) int {
	return cmp.Or(cmp.Compare(a.Ref, b.Ref), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Opts, b.Opts))
}

func (m model) match(topic string) modelMatch {
	out := modelMatch{groups: map[string][]Sub{}}
	filters := map[string]bool{}
	for k, s := range m {
		rest, shared := strings.CutPrefix(k.filter, "$share/")
		if !shared {
			if naiveMatch(k.filter, topic) {
				out.subs = append(out.subs, s)
				filters[k.filter] = true
			}
			continue
		}
		if _, inner, _ := strings.Cut(rest, "/"); naiveMatch(inner, topic) {
			out.groups[k.filter] = append(out.groups[k.filter], s)
		}
	}
	out.filters = len(filters)
	slices.SortFunc(out.subs, compareSubs)
	for _, g := range out.groups {
		slices.SortFunc(g, compareSubs)
	}
	return out
}

// asModel brings a result of the index into the form of the model's.
func asModel(m *Matches) modelMatch {
	out := modelMatch{subs: slices.Clone(m.Subs), filters: m.Filters, groups: map[string][]Sub{}}
	slices.SortFunc(out.subs, compareSubs)
	for _, g := range m.Groups {
		key := "$share/" + g.Share + "/" + g.Filter
		out.groups[key] = append(out.groups[key], g.Members...) // twice the same group would show
		slices.SortFunc(out.groups[key], compareSubs)
	}
	return out
}

func (a modelMatch) equal(b modelMatch) bool {
	return a.filters == b.filters && slices.Equal(a.subs, b.subs) && maps.EqualFunc(a.groups, b.groups, slices.Equal)
}

// Few words, so that filters meet: one that is the beginning of another, an
// empty one, one with '$', one longer than its topic.
var drawWord = rapid.SampledFrom([]string{"a", "b", "c", "", "$a", "ab", "é"})

func drawTopic(t *rapid.T) string {
	return strings.Join(rapid.SliceOfN(drawWord, 1, 5).Draw(t, "topic"), "/")
}

func drawFilter(t *rapid.T) string {
	var levels []string
	for range rapid.IntRange(1, 5).Draw(t, "levels") {
		level := drawWord.Draw(t, "level")
		if rapid.IntRange(0, 2).Draw(t, "plus") == 0 {
			level = "+"
		}
		levels = append(levels, level)
	}
	if rapid.IntRange(0, 3).Draw(t, "hash") == 0 {
		levels[len(levels)-1] = "#"
	}
	filter := strings.Join(levels, "/")
	if filter == "" {
		filter = "/"
	}
	if rapid.IntRange(0, 3).Draw(t, "shared") == 0 {
		filter = "$share/" + rapid.SampledFrom([]string{"g", "h", "$a"}).Draw(t, "share") + "/" + filter
	}
	return filter
}

func TestRapidMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, filter, _ := SplitShare(drawFilter(t))
		topic := drawTopic(t)
		if err := ValidateFilter([]byte(filter)); err != nil {
			t.Fatalf("filter %q: %v", filter, err)
		}
		if got, want := Match(filter, topic), naiveMatch(filter, topic); got != want {
			t.Fatalf("Match(%q, %q) = %t, want %t", filter, topic, got, want)
		}
	})
}

// Random changes: each result is that of the model, the inside is sound after
// each, twins agree to the order, and after the end nothing is left.
func TestRapidIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, twin, want := NewIndex(), NewIndex(), model{}
		known := []string{"a/+"}
		drawKnown := func(t *rapid.T) string { return rapid.SampledFrom(known).Draw(t, "known filter") }
		m, m2 := new(Matches), new(Matches)
		t.Repeat(map[string]func(*rapid.T){
			"subscribe": func(t *rapid.T) {
				filter := drawFilter(t)
				if rapid.Bool().Draw(t, "known") {
					filter = drawKnown(t)
				}
				known = append(known, filter)
				s := Sub{Ref: rapid.Uint32Range(0, 9).Draw(t, "ref"), ID: rapid.Uint32Range(0, 3).Draw(t, "id"), Opts: 1}
				key := modelKey{filter, s.Ref}
				_, had := want[key]
				want[key] = s
				if got := x.Subscribe(filter, s); got != had {
					t.Fatalf("Subscribe(%q, %v) = %t, want %t", filter, s, got, had)
				}
				twin.Subscribe(filter, s)
			},
			"fill": func(t *rapid.T) { // past the border to a map of positions
				filter := drawKnown(t)
				for ref := range rapid.Uint32Range(0, 60).Draw(t, "refs") {
					s := Sub{Ref: ref}
					want[modelKey{filter, ref}] = s
					x.Subscribe(filter, s)
					twin.Subscribe(filter, s)
				}
			},
			"unsubscribe": func(t *rapid.T) {
				filter := drawKnown(t)
				for range rapid.IntRange(1, 30).Draw(t, "times") {
					ref := rapid.Uint32Range(0, 60).Draw(t, "ref")
					key := modelKey{filter, ref}
					_, had := want[key]
					delete(want, key)
					if got := x.Unsubscribe(filter, ref); got != had {
						t.Fatalf("Unsubscribe(%q, %d) = %t, want %t", filter, ref, got, had)
					}
					twin.Unsubscribe(filter, ref)
				}
			},
			"match": func(t *rapid.T) {
				topic := drawTopic(t)
				x.Match([]byte(topic), m)
				if got, want := asModel(m), want.match(topic); !got.equal(want) {
					t.Fatalf("Match(%q) = %+v, want %+v", topic, got, want)
				}
				twin.Match([]byte(topic), m2)
				sameGroup := func(a, b *Group) bool { return a.Share == b.Share && slices.Equal(a.Members, b.Members) }
				if !slices.Equal(m.Subs, m2.Subs) || !slices.EqualFunc(m.Groups, m2.Groups, sameGroup) {
					t.Fatalf("Match(%q): twins differ: %v, %v", topic, m, m2)
				}
			},
			"": func(t *rapid.T) {
				if x.Len() != len(want) {
					t.Fatalf("Len %d, want %d", x.Len(), len(want))
				}
				checkIndex(t, x)
			},
		})
		for _, k := range slices.SortedFunc(maps.Keys(want), func(a, b modelKey) int {
			return cmp.Or(cmp.Compare(a.ref, b.ref), cmp.Compare(a.filter, b.filter))
		}) {
			if !x.Unsubscribe(k.filter, k.ref) {
				t.Fatalf("Unsubscribe(%q, %d) found nothing", k.filter, k.ref)
			}
		}
		wantEmpty(t, x)
	})
}
