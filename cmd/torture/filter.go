package main

import "strings"

// matches reports whether an MQTT topic filter matches a topic name. It is
// written here a second time, plainly, because a checker that borrowed the
// broker's own index would share its mistakes.
func matches(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && (strings.HasPrefix(filter, "+") || strings.HasPrefix(filter, "#")) {
		return false // [MQTT-4.7.2-1]
	}
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		switch {
		case level == "#":
			return true // also the parent level [MQTT-4.7.1.2]
		case i >= len(t):
			return false
		case level != "+" && level != t[i]:
			return false
		}
	}
	return len(f) == len(t)
}

// splitShare splits $share/group/filter; ok is false for any other filter.
func splitShare(filter string) (group, inner string, ok bool) {
	rest, ok := strings.CutPrefix(filter, "$share/")
	if !ok {
		return "", filter, false
	}
	group, inner, ok = strings.Cut(rest, "/")
	if !ok {
		return "", filter, false
	}
	return group, inner, true
}
