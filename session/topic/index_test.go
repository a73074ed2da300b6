package topic

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// match returns what m holds after a match.
func match(x *Index, topic string) *Matches {
	m := new(Matches)
	x.Match([]byte(topic), m)
	return m
}

func refs(subs []Sub) []uint32 {
	out := []uint32{}
	for _, s := range subs {
		out = append(out, s.Ref)
	}
	return out
}

func wantRefs(t *testing.T, what string, subs []Sub, want ...uint32) {
	t.Helper()
	if got := refs(subs); !slices.Equal(got, want) {
		t.Errorf("%s: refs %v, want %v", what, got, want)
	}
}

// wantEmpty fails if anything of past subscriptions is left.
func wantEmpty(t fataler, x *Index) {
	t.Helper()
	checkIndex(t, x)
	if x.Len() != 0 || x.Filters() != 0 || len(x.groups.m) != 0 || len(x.exact.m) != 0 || len(x.trie.ids.m) != 0 ||
		len(x.trie.edges.m) != 0 || x.trie.nodes.used != 1 || x.trie.words.used != 1 || x.leaves.used != 1 ||
		x.lists.used != 1 || x.shared.used != 1 || !x.trie.empty() {
		t.Fatalf("something is left: %d subscriptions, %d filters, %d groups, %d nodes, %d words, %d edges",
			x.Len(), x.Filters(), len(x.groups.m), x.trie.nodes.used-1, x.trie.words.used-1, len(x.trie.edges.m))
	}
}

// A second SUBSCRIBE with an identical filter replaces the subscription.
func TestSubscribe_MQTT_3_8_4_3_Replaces(t *testing.T) {
	for _, filter := range []string{"a/b", "a/+", "a/#", "$share/g/a/b", "$share/g/a/#"} {
		t.Run(filter, func(t *testing.T) {
			x := NewIndex()
			for ref := range uint32(50) {
				if x.Subscribe(filter, Sub{Ref: ref, ID: 1, Opts: 1}) {
					t.Fatalf("first Subscribe of %d says replaced", ref)
				}
				before := x.Generation()
				if !x.Subscribe(filter, Sub{Ref: 0, ID: ref + 10, Opts: 2}) {
					t.Fatalf("second Subscribe of 0 does not say replaced")
				}
				if x.Generation() == before {
					t.Fatal("a change of options leaves the generation")
				}
				before = x.Generation()
				if !x.Subscribe(filter, Sub{Ref: 0, ID: ref + 10, Opts: 2}) || x.Generation() != before {
					t.Fatal("the same subscription again is a change")
				}
				if x.Len() != int(ref)+1 || x.Subscribers(filter) != int(ref)+1 {
					t.Fatalf("Len %d, Subscribers %d, want %d", x.Len(), x.Subscribers(filter), ref+1)
				}
				m := match(x, "a/b")
				subs := m.Subs
				if len(m.Groups) > 0 {
					subs = m.Groups[0].Members
				}
				if want := (Sub{Ref: 0, ID: ref + 10, Opts: 2}); subs[0] != want {
					t.Fatalf("first is %v, want %v in its old place", subs[0], want)
				}
				checkIndex(t, x)
			}
		})
	}
}

// Filters must be compared byte by byte: only the identical one is removed.
func TestUnsubscribe_MQTT_3_10_4_1_ExactFilter(t *testing.T) {
	x := NewIndex()
	all := []string{"a/b", "a/+", "a/#", "+/b", "#", "$share/g/a/b", "$share/g/a/#", "$share/h/a/b"}
	for i, f := range all {
		x.Subscribe(f, Sub{Ref: uint32(i)})
	}
	for _, f := range []string{
		"a", "b", "a/B", "a/b/", "a/b/c", "+", "+/+", "a/+/#", "/#", "b/#", "b/+", "a/b/#",
		"$share/g/a/+", "$share/i/a/b", "$share/g/b/+", "$share/g/#",
	} {
		for ref := range uint32(len(all)) {
			if x.Unsubscribe(f, ref) {
				t.Errorf("Unsubscribe(%q, %d) found something", f, ref)
			}
		}
		if n := x.Subscribers(f); n != 0 {
			t.Errorf("Subscribers(%q) = %d", f, n)
		}
	}
	for i, f := range all {
		before := x.Generation()
		if x.Unsubscribe(f, uint32(i)+1) || x.Generation() != before {
			t.Errorf("Unsubscribe(%q) of a stranger did something", f)
		}
		if !x.Unsubscribe(f, uint32(i)) || x.Generation() == before {
			t.Errorf("Unsubscribe(%q) did nothing", f)
		}
		if x.Unsubscribe(f, uint32(i)) {
			t.Errorf("Unsubscribe(%q) twice", f)
		}
		if x.Len() != len(all)-1-i {
			t.Errorf("Len %d after %d removals", x.Len(), i+1)
		}
		checkIndex(t, x)
	}
	wantEmpty(t, x)
}

func TestMatchCountsFilters(t *testing.T) {
	x := NewIndex()
	x.Subscribe("a/b", Sub{Ref: 1})
	x.Subscribe("a/b", Sub{Ref: 2})
	x.Subscribe("$share/g/a/b", Sub{Ref: 1})
	x.Subscribe("$share/g/a/+", Sub{Ref: 1})
	m := match(x, "a/b")
	if m.Filters != 1 || len(m.Groups) != 2 {
		t.Errorf("Filters %d, Groups %d, want 1 and 2", m.Filters, len(m.Groups))
	}
	wantRefs(t, "a/b", m.Subs, 1, 2)

	x.Subscribe("a/#", Sub{Ref: 2})
	x.Subscribe("+/b", Sub{Ref: 3})
	x.Match([]byte("a/b"), m)
	if m.Filters != 3 || m.Subs[0].Ref != 1 || m.Subs[1].Ref != 2 {
		t.Errorf("Filters %d, want 3; the equal filter first: %v", m.Filters, m.Subs)
	}
	slices.SortFunc(m.Subs, func(a, b Sub) int { return int(a.Ref) - int(b.Ref) })
	wantRefs(t, "a/b with wildcards", m.Subs, 1, 2, 2, 3)

	x.Match([]byte("nobody"), m)
	if len(m.Subs) != 0 || len(m.Groups) != 0 || m.Filters != 0 {
		t.Errorf("m is not reset: %+v", m)
	}
}

// §4.8.2: a shared subscription is identified by share name and filter; members
// with the same of both are one group, whatever else matches.
func TestGroups_MQTT_4_8_2(t *testing.T) {
	x := NewIndex()
	x.Subscribe("$share/consumer1/sport/tennis/+", Sub{Ref: 1, ID: 5, Opts: 1})
	x.Subscribe("$share/consumer2/sport/tennis/+", Sub{Ref: 1, Opts: 2})
	x.Subscribe("$share/consumer1/sport/#", Sub{Ref: 1})
	x.Subscribe("$share/consumer1//finance", Sub{Ref: 1})
	x.Subscribe("$share/consumer1/sport/tennis/+", Sub{Ref: 2})

	g := x.Group("consumer1", "sport/tennis/+")
	if g == nil || g.Share != "consumer1" || g.Filter != "sport/tennis/+" {
		t.Fatalf("Group = %+v", g)
	}
	if want := []Sub{{Ref: 1, ID: 5, Opts: 1}, {Ref: 2}}; !slices.Equal(g.Members, want) {
		t.Errorf("Members %v, want %v", g.Members, want)
	}
	m := match(x, "sport/tennis/player1")
	if len(m.Groups) != 3 || m.Filters != 0 || len(m.Subs) != 0 || !slices.Contains(m.Groups, g) {
		t.Errorf("groups %v filters %d subs %v", m.Groups, m.Filters, m.Subs)
	}
	if m = match(x, "/finance"); len(m.Groups) != 1 || m.Groups[0] != x.Group("consumer1", "/finance") {
		t.Errorf("/finance: %v", m.Groups)
	}
	if m = match(x, "finance"); len(m.Groups) != 0 {
		t.Errorf("finance: %v", m.Groups)
	}
	if x.Len() != 5 || x.Filters() != 3 {
		t.Errorf("Len %d, Filters %d, want 5 and 3", x.Len(), x.Filters())
	}

	// The pointer is stable while there are members, and new after.
	x.Unsubscribe("$share/consumer1/sport/tennis/+", 1)
	if x.Group("consumer1", "sport/tennis/+") != g {
		t.Error("pointer changed while the group has a member")
	}
	wantRefs(t, "members", g.Members, 2)
	x.Unsubscribe("$share/consumer1/sport/tennis/+", 2)
	if x.Group("consumer1", "sport/tennis/+") != nil || x.Subscribers("$share/consumer1/sport/tennis/+") != 0 {
		t.Error("group without members is still there")
	}
	if x.Group("nobody", "sport/#") != nil || x.Group("consumer1", "sport") != nil {
		t.Error("Group of something that is not there")
	}
	checkIndex(t, x)
}

// $share and [MQTT-4.7.2-1] together: the rule is about the inner filter.
func TestGroups_MQTT_4_7_2_1(t *testing.T) {
	x := NewIndex()
	x.Subscribe("$share/g/#", Sub{Ref: 1})
	x.Subscribe("$share/g/+/a", Sub{Ref: 1})
	x.Subscribe("$share/g/$SYS/#", Sub{Ref: 1})
	if m := match(x, "$SYS/a"); len(m.Groups) != 1 || m.Groups[0].Filter != "$SYS/#" {
		t.Errorf("groups of $SYS/a: %v", m.Groups)
	}
	if m := match(x, "x/a"); len(m.Groups) != 2 {
		t.Errorf("groups of x/a: %v", m.Groups)
	}
	if m := match(x, "$share/g/x/a"); len(m.Groups) != 0 {
		t.Errorf("groups of $share/g/x/a: %v", m.Groups)
	}
}

// Order: arrival, and the last one moves into the gap; through growth into a
// map of positions and back.
func TestListOrder(t *testing.T) {
	for _, filter := range []string{"a", "$share/g/a"} {
		x := NewIndex()
		var want []uint32
		list := func() []Sub {
			if m := match(x, "a"); len(m.Groups) > 0 {
				return m.Groups[0].Members
			} else {
				return m.Subs
			}
		}
		for ref := range uint32(200) {
			x.Subscribe(filter, Sub{Ref: ref})
			want = append(want, ref)
		}
		wantRefs(t, "full", list(), want...)
		for len(want) > 0 {
			i := len(want) * 5 / 8
			if !x.Unsubscribe(filter, want[i]) {
				t.Fatalf("%d not found among %d", want[i], len(want))
			}
			want[i] = want[len(want)-1]
			want = want[:len(want)-1]
			wantRefs(t, fmt.Sprintf("%d left", len(want)), list(), want...)
			checkIndex(t, x)
		}
		wantEmpty(t, x)
	}
}

func TestManySubscribersOfOneFilter(t *testing.T) {
	const n = 100_000
	for _, filter := range []string{"a/+", "$share/g/a/b"} {
		x := NewIndex()
		for ref := range uint32(n) {
			x.Subscribe(filter, Sub{Ref: ref})
		}
		m := match(x, "a/b")
		if got := len(m.Subs) + x.Subscribers("$share/g/a/b"); got != n {
			t.Fatalf("%d subscribers, want %d", got, n)
		}
		for ref := range uint32(n) { // oldest first: the worst order for a search
			if !x.Unsubscribe(filter, ref) {
				t.Fatalf("%d not found", ref)
			}
		}
		wantEmpty(t, x)
	}
}

// Many groups and a plain subscription on one filter; groups leave in any order.
func TestManyGroupsOfOneFilter(t *testing.T) {
	x := NewIndex()
	x.Subscribe("a/b", Sub{Ref: 7})
	for i := range 100 {
		x.Subscribe(fmt.Sprintf("$share/g%d/a/b", i), Sub{Ref: 1})
	}
	if x.Filters() != 1 {
		t.Errorf("Filters %d, want 1", x.Filters())
	}
	for i := range 100 {
		if m := match(x, "a/b"); len(m.Groups) != 100-i || m.Filters != 1 {
			t.Fatalf("%d groups, want %d", len(m.Groups), 100-i)
		}
		if !x.Unsubscribe(fmt.Sprintf("$share/g%d/a/b", i*37%100), 1) {
			t.Fatal("group not found")
		}
		checkIndex(t, x)
	}
	x.Unsubscribe("a/b", 7)
	wantEmpty(t, x)
}

// As deep as a filter can be: no recursion, and everything comes back.
func TestDeepest(t *testing.T) {
	x := NewIndex()
	deep := strings.Repeat("/", MaxBytes-2) + "/#"
	plus := strings.Repeat("+/", MaxBytes/2) + "+"
	for _, f := range []string{deep, plus} {
		if err := ValidateFilter([]byte(f)); err != nil {
			t.Fatal(err)
		}
		x.Subscribe(f, Sub{Ref: 1})
	}
	checkIndex(t, x)
	if m := match(x, strings.Repeat("/", MaxBytes)); len(m.Subs) != 1 {
		t.Errorf("topic of 65536 empty levels: %v", m.Subs)
	}
	if m := match(x, strings.Repeat("/", MaxBytes/2)); len(m.Subs) != 1 {
		t.Errorf("topic of 32768 empty levels: %v", m.Subs)
	}
	x.Unsubscribe(deep, 1)
	x.Unsubscribe(plus, 1)
	wantEmpty(t, x)
}

// Words may outgrow the node that has them first; edges come and go.
func TestTrieEdges(t *testing.T) {
	x := NewIndex()
	const n = 1000
	for i := range n {
		x.Subscribe(fmt.Sprintf("a/%d/+", i), Sub{Ref: uint32(i)})
		x.Subscribe(fmt.Sprintf("%d/#", i), Sub{Ref: uint32(i)})
	}
	checkIndex(t, x)
	for i := range n {
		wantRefs(t, "a/i/x", match(x, fmt.Sprintf("a/%d/x", i)).Subs, uint32(i))
		wantRefs(t, "i/x", match(x, fmt.Sprintf("%d/x", i)).Subs, uint32(i))
	}
	for i := range n {
		// The child kept in the node goes first, then a new one takes its place.
		x.Unsubscribe(fmt.Sprintf("a/%d/+", i), uint32(i))
		x.Subscribe(fmt.Sprintf("a/%d/+", n+i), Sub{Ref: 1})
		wantRefs(t, "gone", match(x, fmt.Sprintf("a/%d/x", i)).Subs)
		wantRefs(t, "new", match(x, fmt.Sprintf("a/%d/x", n+i)).Subs, 1)
	}
	checkIndex(t, x)
	for i := range n {
		x.Unsubscribe(fmt.Sprintf("a/%d/+", n+i), 1)
		x.Unsubscribe(fmt.Sprintf("%d/#", i), uint32(i))
	}
	wantEmpty(t, x)
}

// A match reports a group that has ended no more, and does not keep it alive.
func TestMatchesForgetsGroups(t *testing.T) {
	x, m := NewIndex(), new(Matches)
	x.Subscribe("$share/g/a", Sub{Ref: 1})
	x.Match([]byte("a"), m)
	x.Unsubscribe("$share/g/a", 1)
	x.Match([]byte("a"), m)
	if len(m.Groups) != 0 || m.Groups[:1][0] != nil {
		t.Errorf("groups %v, in memory %v", m.Groups, m.Groups[:1])
	}
}

// The results must be the same for the same changes, to the order: Go's maps
// have a different order in each of the two indexes.
func TestSameChangesSameOrder(t *testing.T) {
	build := func() *Index {
		x := NewIndex()
		for i := range uint32(2000) {
			x.Subscribe(fmt.Sprintf("s/%d/+", i%50), Sub{Ref: i})
			x.Subscribe(fmt.Sprintf("s/+/%d", i%3), Sub{Ref: i})
			x.Subscribe(fmt.Sprintf("$share/g%d/s/#", i%70), Sub{Ref: i})
			x.Subscribe("s/1/1", Sub{Ref: i})
			if i%3 == 0 {
				x.Unsubscribe(fmt.Sprintf("s/%d/+", i/2%50), i/2)
				x.Unsubscribe(fmt.Sprintf("$share/g%d/s/#", i/2%70), i/2)
				x.Unsubscribe("s/1/1", i/2)
			}
		}
		return x
	}
	a, b := match(build(), "s/1/1"), match(build(), "s/1/1")
	if len(a.Subs) < 100 || !slices.Equal(a.Subs, b.Subs) {
		t.Errorf("subscriptions differ (%d, %d)", len(a.Subs), len(b.Subs))
	}
	for i := range a.Groups {
		ga, gb := a.Groups[i], b.Groups[i]
		if ga.Share != gb.Share || !reflect.DeepEqual(ga.Members, gb.Members) {
			t.Fatalf("group %d differs: %s %v, %s %v", i, ga.Share, ga.Members, gb.Share, gb.Members)
		}
	}
}

// When the last entry leaves, the memory of the peak goes, but a small table is
// not made anew each time.
func TestTableGivesMemoryBack(t *testing.T) {
	tab := newTable[int, uint32]()
	for _, n := range []int{tableKeep, tableKeep + 1} {
		for i := range n {
			tab.set(i, 1)
		}
		for i := range n {
			tab.remove(i)
		}
		if kept := tab.peak != 0; kept != (n == tableKeep) {
			t.Errorf("after %d entries: map kept %t", n, kept)
		}
	}
}

// All comes back after 350 000 subscriptions of all kinds have ended.
func TestIndexGivesMemoryBack(t *testing.T) {
	const n = 50_000
	x := NewIndex()
	before := heap()
	each := func(fn func(filter string, ref uint32)) {
		for _, k := range filterKinds {
			for i := range n {
				fn(k.make(i), uint32(i))
			}
		}
	}
	each(func(f string, ref uint32) { x.Subscribe(f, Sub{Ref: ref}) })
	full := heap() - before
	each(func(f string, ref uint32) { x.Unsubscribe(f, ref) })
	wantEmpty(t, x)
	if left := heap() - before; left > full/100 {
		t.Errorf("%d of %d bytes are left", left, full)
	}
	runtime.KeepAlive(x)
}

// A word that stays must not keep the long filter that brought it.
func TestWordsDoNotKeepFilters(t *testing.T) {
	const n = 100
	x := NewIndex()
	before := heap()
	for i := range uint32(n) {
		long := fmt.Sprintf("w%d/%s/+", i, strings.Repeat("x", 60_000))
		x.Subscribe(long, Sub{Ref: 1})
		x.Subscribe(fmt.Sprintf("w%d/+", i), Sub{Ref: 1})
		x.Unsubscribe(long, 1)
	}
	if left := heap() - before; left > n*6000 {
		t.Errorf("%d short filters cost %d bytes", n, left)
	}
	runtime.KeepAlive(x)
}

func TestArenaGivesMemoryBack(t *testing.T) {
	a := newArena[node]()
	ids := make([]uint32, 0, 10*chunkLen)
	for range cap(ids) {
		ids = append(ids, a.alloc())
	}
	held := func() (n int) {
		for _, c := range a.chunks {
			if c != nil {
				n++
			}
		}
		return n
	}
	if held() != 11 {
		t.Fatalf("%d chunks for %d elements", held(), a.used)
	}
	for _, id := range ids[chunkLen:] { // ids from 257 on
		a.at(id).parent = 1
		a.release(id)
	}
	if held() != 2 {
		t.Errorf("%d chunks held for %d elements", held(), a.used)
	}
	for range 5 * chunkLen {
		if n := a.at(a.alloc()); *n != (node{}) {
			t.Fatalf("element is not zero: %+v", *n)
		}
	}
	if a.top != 10*chunkLen+1 {
		t.Errorf("released numbers are not used again: top %d", a.top)
	}
}

// Matches may run together. What this proves it proves under -race.
func TestConcurrentMatches(t *testing.T) {
	x := NewIndex()
	for i := range uint32(100) {
		x.Subscribe(fmt.Sprintf("a/%d/#", i), Sub{Ref: i})
		x.Subscribe("a/+/x", Sub{Ref: i})
		x.Subscribe("a/1/x", Sub{Ref: i})
		x.Subscribe("$share/g/a/#", Sub{Ref: i})
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			m := new(Matches)
			for range 100 {
				x.Match([]byte("a/1/x"), m)
				if len(m.Subs) != 201 || len(m.Groups) != 1 || m.Filters != 3 || x.Group("g", "a/#") != m.Groups[0] {
					t.Errorf("%d subscriptions, %d groups, %d filters", len(m.Subs), len(m.Groups), m.Filters)
				}
			}
		})
	}
	wg.Wait()
}
