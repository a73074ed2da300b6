package topic

import "strings"

// Match reports whether the topic name matches the filter (§4.7). The filter is
// one without $share/ (see SplitShare); both are taken to be valid. It is meant
// for single questions, such as an access rule: for many filters at once there
// is Index, for many topics retain.Store. It does not allocate.
func Match(filter, topic string) bool {
	if topic != "" && topic[0] == '$' && filter != "" && (filter[0] == '+' || filter[0] == '#') {
		return false // [MQTT-4.7.2-1]
	}
	for {
		if filter == "#" {
			return true
		}
		f, frest, fmore := strings.Cut(filter, "/")
		t, trest, tmore := strings.Cut(topic, "/")
		switch {
		case f != "+" && f != t:
			return false
		case !fmore:
			return !tmore
		case !tmore:
			return frest == "#" // the parent level: "sport/#" matches "sport"
		}
		filter, topic = frest, trest
	}
}

// Levels returns the number of levels of a name or filter: one more than it has
// '/'. The $share/ and group of a shared filter count as two.
func Levels[S ~string | ~[]byte](s S) int {
	n := 1
	for i := range len(s) {
		if s[i] == '/' {
			n++
		}
	}
	return n
}

// hasWildcard reports whether a valid filter has a wildcard.
func hasWildcard(filter string) bool {
	return strings.IndexByte(filter, '+') >= 0 || strings.IndexByte(filter, '#') >= 0
}
