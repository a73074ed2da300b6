package retain

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/wind-c/comqtt/v3/session/topic"
)

// A model is a store as a Go map; topic.Match, which has its own model, says
// what matches.
type model map[string]Entry

func (m model) match(filter string) []string {
	out := []string{}
	for name := range m {
		if topic.Match(filter, name) {
			out = append(out, name)
		}
	}
	slices.SortFunc(out, levelOrder)
	return out
}

func (m model) earliest() (name string, ok bool) {
	for n, e := range m {
		first := !ok || e.Deadline < m[name].Deadline || e.Deadline == m[name].Deadline && levelOrder(n, name) < 0
		if e.Deadline != 0 && first {
			name, ok = n, true
		}
	}
	return name, ok
}

// Few words, so that topics meet: empty ones, ones that are the beginning of
// another, with bytes before and behind '/', around '$'.
var drawWord = rapid.SampledFrom([]string{"a", "b", "", "a-x", "a b", "a0", "$", "$a", "%", "é", "\U0010ffff"})

func drawTopic(t *rapid.T) string {
	name := strings.Join(rapid.SliceOfN(drawWord, 1, 4).Draw(t, "topic"), "/")
	if name == "" {
		return "/"
	}
	return name
}

func drawFilter(t *rapid.T) string {
	levels := strings.Split(drawTopic(t), "/")
	for i := range levels {
		if rapid.IntRange(0, 1).Draw(t, "plus") == 0 {
			levels[i] = "+"
		}
	}
	if rapid.IntRange(0, 2).Draw(t, "hash") == 0 {
		levels[len(levels)-1] = "#"
	}
	return strings.Join(levels, "/")
}

func drawEntry(t *rapid.T) Entry {
	return Entry{
		Message:  rapid.Uint64().Draw(t, "message"),
		Deadline: rapid.Int64Range(0, 3).Draw(t, "deadline"),
		Bytes:    rapid.IntRange(0, 100).Draw(t, "bytes"),
	}
}

func TestRapidStore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, want := New(), model{}
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				for range rapid.IntRange(1, 20).Draw(t, "times") {
					name, e := drawTopic(t), drawEntry(t)
					wantOld, wantHad := want[name]
					want[name] = e
					set := s.Set
					if rapid.Bool().Draw(t, "bytes") {
						set = func(name string, e Entry) (Entry, bool) { return s.SetBytes([]byte(name), e) }
					}
					if old, had := set(name, e); old != wantOld || had != wantHad {
						t.Fatalf("Set(%q) = %+v, %t, want %+v, %t", name, old, had, wantOld, wantHad)
					}
				}
			},
			"delete": func(t *rapid.T) {
				name := drawTopic(t)
				wantOld, wantHad := want[name]
				delete(want, name)
				if old, had := s.Delete(name); old != wantOld || had != wantHad {
					t.Fatalf("Delete(%q) = %+v, %t, want %+v, %t", name, old, had, wantOld, wantHad)
				}
			},
			"expire": func(t *rapid.T) {
				wantName, wantOK := want.earliest()
				name, e, ok := s.Earliest()
				if name != wantName || ok != wantOK || e != want[name] {
					t.Fatalf("Earliest = %q, %+v, %t, want %q, %t", name, e, ok, wantName, wantOK)
				}
				s.Delete(name)
				delete(want, name)
			},
			"match": func(t *rapid.T) {
				filter := drawFilter(t)
				if got := matched(s, filter); !slices.Equal(got, want.match(filter)) {
					t.Fatalf("Match(%q) = %q, want %q", filter, got, want.match(filter))
				}
			},
			"": func(t *rapid.T) {
				checkStore(t, s)
				got := model{}
				s.All(func(name string, e Entry) bool { got[name] = e; return true })
				if !maps.Equal(got, want) {
					t.Fatalf("holds %v, want %v", got, want)
				}
			},
		})
	})
}

// A walk in slices, with changes in between, sees each topic that was there
// throughout exactly once, none twice and none that never was there.
func TestRapidMatchFrom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New()
		ever := map[string]bool{}
		set := func(name string) { s.Set(name, Entry{}); ever[name] = true }
		for range rapid.IntRange(0, 60).Draw(t, "topics") {
			set(drawTopic(t))
		}
		filter := drawFilter(t)
		stay := matched(s, filter)
		seen := []string{}
		for next, done := "", false; !done; {
			limit := rapid.IntRange(1, 7).Draw(t, "limit")
			calls := 0
			next, done = s.MatchFrom(filter, next, limit, func(name string, _ Entry) bool {
				calls++
				seen = append(seen, name)
				return rapid.IntRange(0, 9).Draw(t, "stop") > 0
			})
			if calls > limit {
				t.Fatalf("%d calls, limit %d", calls, limit)
			}
			if rapid.Bool().Draw(t, "set") {
				set(drawTopic(t))
			}
			if gone := drawTopic(t); rapid.Bool().Draw(t, "delete") {
				s.Delete(gone)
				stay = slices.DeleteFunc(stay, func(name string) bool { return name == gone && !slices.Contains(seen, gone) })
			}
		}
		if !slices.IsSortedFunc(seen, levelOrder) || len(slices.Compact(slices.Clone(seen))) != len(seen) {
			t.Fatalf("not in order, or twice: %q", seen)
		}
		for _, name := range seen {
			if !ever[name] || !topic.Match(filter, name) {
				t.Fatalf("saw %q", name)
			}
		}
		for _, name := range stay {
			if !slices.Contains(seen, name) {
				t.Fatalf("%q was there throughout and not seen: %q", name, seen)
			}
		}
	})
}

// FuzzMatch takes a filter and topics in one string, separated by line feeds.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{
		"a/+\na/b\na/c\na", "#\n$a\na\n/", "+/b/#\na/b\na/b/c\nb/b\nb", "a\na", "$/+\n$/a\n$", "+/+\na-x/b\na/b\na b/b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		filter, rest, _ := strings.Cut(in, "\n")
		if _, _, shared := topic.SplitShare(filter); shared || topic.ValidateFilter([]byte(filter)) != nil {
			return
		}
		s, want := New(), model{}
		names := strings.Split(rest, "\n")
		for _, name := range names {
			if topic.ValidateName([]byte(name)) == nil {
				s.Set(name, Entry{Bytes: 1})
				want[name] = Entry{Bytes: 1}
			}
		}
		compare := func() {
			checkStore(t, s)
			if got := matched(s, filter); !slices.Equal(got, want.match(filter)) {
				t.Fatalf("Match(%q) = %q, want %q", filter, got, want.match(filter))
			}
			var slow []string
			for next, done := "", false; !done; {
				next, done = s.MatchFrom(filter, next, 1, func(name string, _ Entry) bool {
					slow = append(slow, name)
					return true
				})
			}
			if !slices.Equal(slow, matched(s, filter)) {
				t.Fatalf("MatchFrom(%q), one by one = %q, want %q", filter, slow, matched(s, filter))
			}
		}
		compare()
		for _, name := range names[:len(names)/2] {
			s.Delete(name)
			delete(want, name)
		}
		compare()
	})
}
