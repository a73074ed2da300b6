package retain

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// fataler is what *testing.T and *rapid.T share.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// levelOrder is the order of topics written down: by list of levels.
func levelOrder(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

// checkStore checks what must hold inside a store between two changes.
func checkStore(t fataler, s *Store) {
	t.Helper()
	var all []string
	bytes, due := 0, 0
	for i, pg := range s.topics.pages {
		if len(pg.items) == 0 || len(pg.items) > pageMax || pg.low != pg.items[0].topic {
			t.Fatalf("page %d has %d items, begins with %q", i, len(pg.items), pg.low)
		}
		for _, it := range pg.items {
			all = append(all, it.topic)
			bytes += it.entry.Bytes
			if s.byTopic[it.topic] != it {
				t.Fatalf("%q is not in the map", it.topic)
			}
			if (it.due != 0) != (it.entry.Deadline != 0) {
				t.Fatalf("%q: deadline %d, place in the heap %d", it.topic, it.entry.Deadline, it.due)
			}
			if it.due != 0 {
				due++
				if s.due[it.due-1] != it {
					t.Fatalf("%q is not at its place in the heap", it.topic)
				}
			}
		}
	}
	for i := 1; i < len(s.topics.pages); i++ {
		// A page emptied by removals is joined with a neighbour in time.
		if n := len(s.topics.pages[i-1].items) + len(s.topics.pages[i].items); n <= pageMax/2-2 {
			t.Fatalf("pages %d and %d have %d items together", i-1, i, n)
		}
	}
	if !slices.IsSortedFunc(all, levelOrder) {
		t.Fatalf("topics are not in order: %q", all)
	}
	if len(all) != s.Len() || len(slices.Compact(all)) != s.Len() || bytes != s.Bytes() || due != len(s.due) {
		t.Fatalf("%d topics, Len %d; %d bytes, Bytes %d; %d in the heap of %d", len(all), s.Len(), bytes, s.Bytes(), due, len(s.due))
	}
	for i := range s.due {
		if i > 0 && s.due.less(i, (i-1)/2) {
			t.Fatalf("heap: %d before its parent", i)
		}
	}
}

// matched returns the topics that match, in the order of the calls.
func matched(s *Store, filter string) []string {
	out := []string{}
	s.Match(filter, func(topic string, _ Entry) bool {
		out = append(out, topic)
		return true
	})
	return out
}

// A retained message replaces the one before it.
func TestSet_MQTT_3_3_1_5_Replaces(t *testing.T) {
	s := New()
	first, second := Entry{Message: 1, QoS: 1, Time: 5, Deadline: 9, Bytes: 10}, Entry{Message: 2, Time: 6, Bytes: 3}
	if old, had := s.Set("a/b", first); had || old != (Entry{}) {
		t.Errorf("first Set: %+v, %t", old, had)
	}
	if got, ok := s.Get("a/b"); !ok || got != first {
		t.Errorf("Get = %+v, %t", got, ok)
	}
	if old, had := s.Set("a/b", second); !had || old != first {
		t.Errorf("second Set: %+v, %t", old, had)
	}
	if old, had := s.SetBytes([]byte("a/b"), first); !had || old != second {
		t.Errorf("SetBytes: %+v, %t", old, had)
	}
	if s.Len() != 1 || s.Bytes() != 10 {
		t.Errorf("Len %d, Bytes %d, want 1 and 10", s.Len(), s.Bytes())
	}
	for _, other := range []string{"a", "a/b/", "A/b", "a/b/c", ""} {
		if _, ok := s.Get(other); ok {
			t.Errorf("Get(%q) finds something", other)
		}
		if _, ok := s.Delete(other); ok {
			t.Errorf("Delete(%q) finds something", other)
		}
	}
	checkStore(t, s)
}

// An empty payload removes the retained message: the store's part of it.
func TestDelete_MQTT_3_3_1_6_Removes(t *testing.T) {
	s := New()
	s.Set("a", Entry{Message: 1, Bytes: 4, Deadline: 1})
	s.Set("a/b", Entry{Message: 2, Bytes: 5})
	if e, ok := s.Delete("a"); !ok || e.Message != 1 {
		t.Errorf("Delete = %+v, %t", e, ok)
	}
	if _, ok := s.Get("a"); ok || s.Len() != 1 || s.Bytes() != 5 || !slices.Equal(matched(s, "#"), []string{"a/b"}) {
		t.Errorf("after Delete: Len %d, Bytes %d, %q", s.Len(), s.Bytes(), matched(s, "#"))
	}
	if _, ok := s.Delete("a"); ok {
		t.Error("Delete of nothing")
	}
	if _, _, ok := s.Earliest(); ok {
		t.Error("a removed message still has a deadline")
	}
	checkStore(t, s)
	s.Delete("a/b")
	if checkStore(t, s); s.Len() != 0 || s.Bytes() != 0 || len(matched(s, "#")) != 0 {
		t.Error("not empty")
	}
}

func TestSetBytesCopies(t *testing.T) {
	s := New()
	topic := []byte("a/b")
	s.SetBytes(topic, Entry{Message: 7})
	copy(topic, "xxx")
	if e, ok := s.Get("a/b"); !ok || e.Message != 7 || !slices.Equal(matched(s, "#"), []string{"a/b"}) {
		t.Errorf("the store changed with the caller's bytes: %q", matched(s, "#"))
	}
}

// Examples of §4.7 over one set of topics; results in level order.
func TestMatch_MQTT_4_7(t *testing.T) {
	s := New()
	topics := []string{
		"/", "/finance", "//", "a", "a-x", "a b", "a/", "a//b", "a/b", "a/b/c", "a/b/c/d", "a/c", "b", "b/b",
		"sport", "sport/", "sports", "sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player2",
		"$", "$SYS", "$SYS/monitor/Clients", "$SYS/uptime", "%", "#not", "\u00e9/b", "~",
	}
	for _, topic := range topics {
		s.Set(topic, Entry{Message: 1})
	}
	for _, c := range []struct {
		filter string
		want   []string
	}{
		{"sport/#", []string{"sport", "sport/", "sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player2"}},
		{"sport/tennis/player1/#", []string{"sport/tennis/player1", "sport/tennis/player1/ranking"}},
		{"sport/tennis/+", []string{"sport/tennis/player1", "sport/tennis/player2"}},
		{"sport/+", []string{"sport/"}},
		{"+", []string{"#not", "%", "a", "a b", "a-x", "b", "sport", "sports", "~"}},
		{"+/+", []string{"/", "/finance", "a/", "a/b", "a/c", "b/b", "sport/", "\u00e9/b"}},
		{"/+", []string{"/", "/finance"}},
		{"/#", []string{"/", "//", "/finance"}},
		{"+/b/#", []string{"a/b", "a/b/c", "a/b/c/d", "b/b", "\u00e9/b"}},
		{"a/+/#", []string{"a/", "a//b", "a/b", "a/b/c", "a/b/c/d", "a/c"}},
		{"a/+/b", []string{"a//b"}},
		{"+/+/+", []string{"//", "a//b", "a/b/c", "sport/tennis/player1", "sport/tennis/player2"}},
		{"+/b/c/#", []string{"a/b/c", "a/b/c/d"}},
		{"a/b", []string{"a/b"}},
		{"a/x", []string{}},
		{"A/#", []string{}},
		{"nobody/+/x", []string{}},
		{"~/+", []string{}},
		{"$SYS/#", []string{"$SYS", "$SYS/monitor/Clients", "$SYS/uptime"}},
		{"$SYS/monitor/+", []string{"$SYS/monitor/Clients"}},
		{"+/monitor/Clients", []string{}}, // [MQTT-4.7.2-1]
		{"$/#", []string{"$"}},
		{"+/uptime/#", []string{}},
	} {
		if got := matched(s, c.filter); !slices.Equal(got, c.want) {
			t.Errorf("Match(%q) = %q, want %q", c.filter, got, c.want)
		}
	}
	visible := slices.DeleteFunc(slices.Clone(topics), func(s string) bool { return s[0] == '$' })
	slices.SortFunc(visible, levelOrder)
	for _, filter := range []string{"#", "+/#"} { // [MQTT-4.7.2-1]
		if got := matched(s, filter); !slices.Equal(got, visible) {
			t.Errorf("Match(%q) = %q, want %q", filter, got, visible)
		}
	}
	slices.SortFunc(topics, levelOrder)
	var all []string
	s.All(func(topic string, _ Entry) bool {
		all = append(all, topic)
		return true
	})
	if !slices.Equal(all, topics) {
		t.Errorf("All = %q, want %q", all, topics)
	}
}

func TestStopEarly(t *testing.T) {
	s := New()
	for i := range 1000 {
		s.Set(fmt.Sprintf("a/%03d", i), Entry{Message: uint64(i)})
	}
	for name, walk := range map[string]func(func(string, Entry) bool){
		"Match": func(fn func(string, Entry) bool) { s.Match("a/+", fn) },
		"All":   s.All,
	} {
		calls := 0
		walk(func(string, Entry) bool {
			calls++
			return calls < 3
		})
		if calls != 3 {
			t.Errorf("%s: %d calls, want 3", name, calls)
		}
	}
	next, done := s.MatchFrom("a/#", "", 500, func(topic string, _ Entry) bool { return topic < "a/007" })
	if next != "a/007" || done {
		t.Errorf("MatchFrom stopped by fn: %q, %t, want a/007, false", next, done)
	}
	for after, want := range map[string]int{"": 1, "a/006": 1, "a": 1, "a/007": 0, "a/007/x": 0, "b": 0} {
		calls := 0
		if _, done := s.MatchFrom("a/007", after, 1, func(string, Entry) bool { calls++; return true }); !done || calls != want {
			t.Errorf("MatchFrom a literal filter behind %q: %d calls, done %t, want %d", after, calls, done, want)
		}
	}
}

// A walk in slices sees what stays exactly once, whatever comes and goes.
func TestMatchFromSurvivesChanges(t *testing.T) {
	s := New()
	const n = 1000
	for i := range n {
		s.Set(fmt.Sprintf("a/%04d/x", i), Entry{Message: uint64(i)})
		s.Set(fmt.Sprintf("a/%04d/y", i), Entry{Message: uint64(i)})
	}
	var seen []uint64
	next, done := "", false
	calls := 0
	for ; !done; calls++ {
		before := len(seen)
		next, done = s.MatchFrom("a/+/x", next, 10, func(_ string, e Entry) bool {
			seen = append(seen, e.Message)
			return true
		})
		if len(seen)-before > 10 {
			t.Fatalf("%d matches in a slice of 10", len(seen)-before)
		}
		// Where the walk stands, what it has seen, and what is far ahead.
		s.Delete(next)
		s.Delete(fmt.Sprintf("a/%04d/x", calls))
		s.Set(fmt.Sprintf("a/%04d/new", calls), Entry{})
		s.Set("a/9999/x", Entry{Message: 9999})
		checkStore(t, s)
	}
	var want []uint64
	for i := range uint64(n) {
		want = append(want, i)
	}
	want = append(want, 9999)
	// Each call deletes a/{calls}/x, always behind the walk, and where it stands.
	if !slices.Equal(seen, want) {
		t.Errorf("saw %d messages, want %d: %v", len(seen), len(want), seen)
	}
	if calls > 2*n/10+2 {
		t.Errorf("%d calls for %d matches", calls, n)
	}
}

// A match must not look at the topics it can know not to match.
func TestMatchExaminesFewTopics(t *testing.T) {
	s := New()
	for i := range 100 {
		for j := range 100 {
			s.Set(fmt.Sprintf("a/%02d/%02d/temp", i, j), Entry{})
			s.Set(fmt.Sprintf("$SYS/%02d/%02d", i, j), Entry{})
		}
	}
	s.Set("b", Entry{})
	for i := range 100 {
		s.Set(fmt.Sprintf("p/%02d", i), Entry{})
		for j := range 10 {
			s.Set(fmt.Sprintf("p/%02d/%d", i, j), Entry{})
		}
	}
	for _, c := range []struct {
		filter         string
		matches, looks int
	}{
		{"b/#", 1, 3},
		{"#", 11_101, 11_101 + 2},
		{"+", 1, 4},
		{"a/17/#", 100, 100 + 3},
		{"a/17/+/temp", 100, 100 + 3},
		{"a/+/42/temp", 100, 2*100 + 3},
		{"a/+/42/#", 100, 3*100 + 3},
		{"a/+", 0, 100 + 3},
		{"a/+/+/hum", 0, 10_000 + 3},
		{"a/17/+", 0, 100 + 3},
		{"$SYS/42/+", 100, 100 + 3},
		{"c/+", 0, 3},
		{"p/+", 100, 100 + 3},
		{"p/+/7", 100, 2*100 + 3},
		{"p/+/7/x", 0, 3*100 + 3},
		{"p/+/+", 1000, 1100 + 3},
	} {
		got := 0
		if _, done := s.MatchFrom(c.filter, "", c.looks, func(string, Entry) bool { got++; return true }); !done || got != c.matches {
			t.Errorf("%s: %d matches within %d topics (done %t), want %d", c.filter, got, c.looks, done, c.matches)
		}
	}
}

// Pages split, empty and join through random insertions and removals.
func TestPages(t *testing.T) {
	const n = 20 * pageMax
	rnd := rand.New(rand.NewPCG(1, 2))
	topics := make([]string, n)
	for i := range topics {
		topics[i] = fmt.Sprintf("t/%d/%c", i/3, 'a'+i%3)
	}
	orders := map[string]func(){
		"sorted":   func() { slices.SortFunc(topics, levelOrder) },
		"reversed": func() { slices.SortFunc(topics, func(a, b string) int { return levelOrder(b, a) }) },
		"random":   func() { rnd.Shuffle(n, func(i, j int) { topics[i], topics[j] = topics[j], topics[i] }) },
	}
	for in, fill := range orders {
		for out, drain := range orders {
			s := New()
			fill()
			for i, topic := range topics {
				s.Set(topic, Entry{Message: uint64(i), Bytes: i, Deadline: int64(i % 7)})
			}
			checkStore(t, s)
			if in == "sorted" && len(s.topics.pages) != n/pageMax {
				t.Errorf("%d topics in order fill %d pages", n, len(s.topics.pages))
			}
			drain()
			for i, topic := range topics {
				if _, ok := s.Delete(topic); !ok {
					t.Fatalf("%s, %s: %q is gone", in, out, topic)
				}
				if i%500 == 0 || i > n-10 {
					checkStore(t, s)
				}
			}
		}
	}
}

// Earliest is the order of expiry: by deadline, then by topic, whatever the
// order of insertion was.
func TestEarliest(t *testing.T) {
	want := []string{"b", "a", "a/x", "a-x", "c"}
	deadlines := map[string]int64{"b": -1, "a": 5, "a/x": 5, "a-x": 5, "c": 6, "never": 0}
	for shift := range len(want) {
		s := New()
		s.Set("never", Entry{})
		for i := range want {
			topic := want[(i+shift)%len(want)]
			s.Set(topic, Entry{Deadline: 100 - int64(i)})
			s.Set(topic, Entry{Deadline: deadlines[topic]})
			checkStore(t, s)
		}
		for _, topic := range want {
			got, e, ok := s.Earliest()
			if !ok || got != topic || e.Deadline != deadlines[topic] {
				t.Fatalf("Earliest = %q, %+v, %t, want %q", got, e, ok, topic)
			}
			s.Delete(got)
		}
		if _, _, ok := s.Earliest(); ok || s.Len() != 1 {
			t.Error("a message without deadline has one")
		}
	}
}

// heap returns the bytes in use on the heap.
func heap() int {
	var ms runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&ms)
	return int(ms.HeapAlloc)
}

func TestBytesPerTopic(t *testing.T) {
	const n, limit = 100_000, 220
	before := heap()
	s := New()
	for i := range n { // the topics, made here, count
		s.Set(fmt.Sprintf("site/%d/dev/%d/temp", i%1000, i), Entry{Deadline: int64(i)})
	}
	per := (heap() - before) / n
	t.Logf("%d bytes per topic", per)
	if per > limit {
		t.Errorf("%d bytes per topic, want at most %d", per, limit)
	}
	for i := range n {
		s.Delete(fmt.Sprintf("site/%d/dev/%d/temp", i%1000, i))
	}
	if left := heap() - before; left > per*n/100 {
		t.Errorf("%d bytes are left of %d", left, per*n)
	}
	runtime.KeepAlive(s)
}

func TestAllocs(t *testing.T) {
	s := New()
	for i := range 1000 {
		s.Set(fmt.Sprintf("site/%d/dev/%d/temp", i%10, i), Entry{})
	}
	topic, found := []byte("site/7/dev/17/temp"), 0
	count := func(string, Entry) bool { found++; return true }
	for what, fn := range map[string]func(){
		"Match":     func() { s.Match("site/+/dev/+/temp", count); s.Match("site/7/#", count); s.Match("#", count) },
		"MatchFrom": func() { s.MatchFrom("site/+/dev/#", "site/3", 10, count) },
		"literal":   func() { s.Match("site/7/dev/17/temp", count) },
		"SetBytes":  func() { s.SetBytes(topic, Entry{Message: 1}) },
		"Get":       func() { s.Get(string(topic)) },
		"Earliest":  func() { s.Earliest() },
	} {
		if n := testing.AllocsPerRun(20, fn); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	if found == 0 {
		t.Error("nothing matched")
	}
}
