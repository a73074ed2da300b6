package retain

import "strings"

// Match calls fn for each message whose topic matches the filter (§4.7), in
// level order, until fn returns false. The filter is a valid one without
// $share/: shared subscriptions get no retained messages (§4.8.2). Topics that
// begin with '$' do not match a filter that begins with a wildcard
// [MQTT-4.7.2-1].
//
// fn must not change the store: what has to, collects topics first, or goes by
// MatchFrom. The cost is one step per match, and one search, O(log n), per run of topics
// that a tree walk would have to enter and leave again.
func (s *Store) Match(filter string, fn func(topic string, e Entry) bool) {
	s.MatchFrom(filter, "", s.Len(), fn)
}

// MatchFrom is Match in slices: it goes on behind the topic after ("" at the
// start) and looks at no more than limit topics, matching or not; limit is 1 or
// more. It returns the topic to go on behind, or done = true when there is
// nothing left. If fn returns false, the walk stops behind that topic.
//
// The store may change between two calls. Messages that stay are seen exactly
// once; those that come or go meanwhile are seen if they are there when the walk
// passes them.
func (s *Store) MatchFrom(filter, after string, limit int, fn func(topic string, e Entry) bool) (next string, done bool) {
	if !strings.ContainsAny(filter, "+#") {
		if it := s.byTopic[filter]; it != nil && compare(after, filter) < 0 {
			fn(it.topic, it.entry)
		}
		return "", true
	}
	below := "" // what all matches but one begin with, if "#" is the only wildcard
	if len(filter) > 1 && strings.IndexByte(filter, '+') < 0 {
		below = filter[:len(filter)-1]
	}
	p := s.topics.seek(bound{kind: behind, base: after})
	for range limit {
		it := s.topics.at(p)
		if it == nil {
			return "", true
		}
		after = it.topic
		if below != "" && strings.HasPrefix(after, below) {
			if !fn(after, it.entry) {
				return after, false
			}
			p = s.topics.next(p)
			continue
		}
		v := examine(filter, it.topic)
		if v.match && !fn(it.topic, it.entry) {
			return after, false
		}
		switch {
		case v.end:
			return "", true
		case v.to.kind == behind:
			p = s.topics.next(p)
		default:
			p = s.topics.seekFrom(p, v.to)
		}
	}
	return after, s.topics.at(p) == nil
}

// A verdict is what examine finds out about a filter and a topic.
type verdict struct {
	match bool
	end   bool  // no topic behind this one matches
	to    bound // otherwise: no topic between this one and the bound does
}

// examine compares a topic with a filter that has a wildcard, level by level.
func examine(filter, topic string) verdict {
	if strings.HasPrefix(topic, "$") && (filter[0] == '+' || filter[0] == '#') {
		return verdict{to: bound{base: string(rune('$' + 1))}} // behind all of $…
	}
	wild := -1 // end of the last topic level that a '+' matched
	for f, t := 0, 0; ; {
		level, more := cut(filter[f:])
		if level == "#" {
			return verdict{match: true, to: bound{kind: behind, base: topic}}
		}
		have, deeper := cut(topic[t:])
		switch {
		case level == "+":
			wild = t + len(have)
		case have < level:
			return verdict{to: bound{base: topic[:t], rest: level}}
		case have > level:
			return skip(false, topic, wild)
		}
		f, t = f+len(level), t+len(have)
		switch {
		case !more:
			return skip(!deeper, topic, wild)
		case !deeper:
			return below(filter[f:], topic)
		}
		f, t = f+1, t+1
	}
}

// skip goes on behind everything that begins like topic up to the last level
// that a '+' matched: up to there it can vary, what follows is fixed.
func skip(match bool, topic string, wild int) verdict {
	if wild < 0 {
		return verdict{match: match, end: true}
	}
	return verdict{match: match, to: bound{kind: past, base: topic[:wild]}}
}

// below handles a topic that matches the beginning of a filter: rest is what
// remains of the filter, with its separator.
func below(rest, topic string) verdict {
	level, _ := cut(rest[1:])
	switch level {
	case "#": // matches the parent level too (§4.7.1.2)
		return verdict{match: true, to: bound{kind: behind, base: topic}}
	case "+":
		return verdict{to: bound{kind: behind, base: topic}}
	}
	return verdict{to: bound{base: topic, rest: rest[:1+len(level)]}}
}

// cut returns the first level of s and whether there are more.
func cut(s string) (level string, more bool) {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return s[:i], true
	}
	return s, false
}
