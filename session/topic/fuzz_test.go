package topic

import (
	"slices"
	"strings"
	"testing"
)

// naiveValid is §4.7 and §4.8.2 written down level by level.
func naiveValid(filter string) bool {
	if filter == "" || len(filter) > 65535 || strings.Contains(filter, "\x00") {
		return false
	}
	levels := strings.Split(filter, "/")
	if levels[0] == "$share" && len(levels) > 1 {
		if len(levels) < 3 || levels[1] == "" || strings.ContainsAny(levels[1], "+#") {
			return false
		}
		levels = levels[2:]
		if len(levels) == 1 && levels[0] == "" || levels[0] == "$share" && len(levels) > 1 {
			return false
		}
	}
	for i, level := range levels {
		if strings.Contains(level, "#") && (level != "#" || i != len(levels)-1) {
			return false
		}
		if strings.Contains(level, "+") && level != "+" {
			return false
		}
	}
	return true
}

func FuzzValidateFilter(f *testing.F) {
	for _, s := range []string{"", "a/+/#", "#/a", "a#", "$share/g/a", "$share//a", "$share/g", "$share", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		err := ValidateFilter([]byte(s))
		if (err == nil) != naiveValid(s) {
			t.Fatalf("ValidateFilter(%q) = %v, want valid %t", s, err, naiveValid(s))
		}
		nameErr := ValidateName([]byte(s))
		if wantName := naiveValid("x/"+s) && s != "" && len(s) <= 65535 && !strings.ContainsAny(s, "+#"); len(s) < 65000 && (nameErr == nil) != wantName {
			t.Fatalf("ValidateName(%q) = %v, want valid %t", s, nameErr, wantName)
		}
		share, inner, shared := SplitShare(s)
		if shared && "$share/"+share+"/"+inner != s || !shared && (share != "" || inner != s) {
			t.Fatalf("SplitShare(%q) = %q, %q, %t", s, share, inner, shared)
		}
		if err == nil && shared != strings.HasPrefix(s, "$share/") {
			t.Fatalf("SplitShare of the valid %q: shared %t", s, shared)
		}
	})
}

// FuzzMatch takes a topic and a few filters in one string, separated by line
// feeds, and compares the index with the model, before and after each second
// subscription has ended.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{
		"a/b", "a/b\n+/b\na/#\n#\na/b", "$SYS/x\n#\n+/x\n$SYS/#", "/\n+/+\n/#\n/+", "a\n$share/g/a\n$share/g/+\na/#",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		topic, rest, _ := strings.Cut(s, "\n")
		if ValidateName([]byte(topic)) != nil {
			return
		}
		x, want := NewIndex(), model{}
		var keys []modelKey
		for i, filter := range strings.Split(rest, "\n") {
			if ValidateFilter([]byte(filter)) != nil {
				continue
			}
			s := Sub{Ref: uint32(i % 3), ID: uint32(i)}
			k := modelKey{filter, s.Ref}
			x.Subscribe(filter, s)
			want[k] = s
			if !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
			if _, inner, _ := SplitShare(filter); Match(inner, topic) != naiveMatch(inner, topic) {
				t.Fatalf("Match(%q, %q) = %t", inner, topic, !naiveMatch(inner, topic))
			}
		}
		m := new(Matches)
		compare := func() {
			checkIndex(t, x)
			x.Match([]byte(topic), m)
			if got, want := asModel(m), want.match(topic); !got.equal(want) {
				t.Fatalf("Match(%q) = %+v, want %+v", topic, got, want)
			}
		}
		compare()
		for i, k := range keys {
			if i%2 == 0 {
				x.Unsubscribe(k.filter, k.ref)
				delete(want, k)
			}
		}
		compare()
		for k := range want {
			x.Unsubscribe(k.filter, k.ref)
		}
		wantEmpty(t, x)
	})
}
