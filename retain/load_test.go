package retain

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A loaded store is the store that Set makes of the same topics, in whatever
// order they come, and goes on like it.
func TestLoader(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		level := rapid.SampledFrom([]string{"a", "b", "a-", "a.b", "", "é", "zz"})
		topics := rapid.SliceOfDistinct(rapid.Custom(func(t *rapid.T) string {
			name := level.Draw(t, "level")
			for range rapid.IntRange(0, 4).Draw(t, "levels") {
				name += "/" + level.Draw(t, "level")
			}
			return name
		}), func(s string) string { return s }).Draw(t, "topics")
		if rapid.Bool().Draw(t, "as a backend lists them") {
			slices.Sort(topics)
		}
		loaded, set := New(), New()
		l := NewLoader(loaded)
		for i, topic := range topics {
			e := Entry{Message: uint64(i), Bytes: i, Deadline: int64(i % 3)}
			name := []byte(topic)
			l.Add(name, e)
			clear(name)
			set.Set(topic, e)
		}
		l.Finish()
		for i, topic := range append(topics, "more", "a/b/c/d/e/f") {
			if i%2 == 0 {
				loaded.Delete(topic)
				set.Delete(topic)
			} else {
				loaded.Set(topic, Entry{Message: 1000})
				set.Set(topic, Entry{Message: 1000})
			}
			all := func(s *Store) (list []string) {
				s.All(func(topic string, e Entry) bool {
					if got, ok := s.Get(topic); !ok || got != e {
						t.Fatalf("%q: listed %v, got %v", topic, e, got)
					}
					list = append(list, topic)
					return true
				})
				return list
			}
			if got, want := all(loaded), all(set); !slices.Equal(got, want) || loaded.Len() != set.Len() || loaded.Bytes() != set.Bytes() {
				t.Fatalf("loaded %q, %d bytes, want %q, %d", got, loaded.Bytes(), want, set.Bytes())
			}
			gotTopic, got, _ := loaded.Earliest()
			if wantTopic, want, _ := set.Earliest(); gotTopic != wantTopic || got != want {
				t.Fatalf("earliest %q, want %q", gotTopic, wantTopic)
			}
		}
	})
}
