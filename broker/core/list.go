package core

import (
	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
)

// This file is for lists of what a running broker holds: taken in pieces, so
// that none of them holds the apply loop up.

// SessionIDs appends the ids of all durable sessions to dst, in no order: a few
// nanoseconds each.
func (m *Machine) SessionIDs(dst []uint64) []uint64 {
	for id := range m.sessions {
		dst = append(dst, id)
	}
	return dst
}

// SessionByID returns a durable session, nil if it is gone.
func (m *Machine) SessionByID(id uint64) *session.Session { return m.sessions[id] }

// RetainedMessage returns the retained message of a topic.
func (m *Machine) RetainedMessage(name string) (retain.Entry, bool) { return m.retained.Get(name) }

// RetainedPage is MatchRetained in slices, see retain.Store.MatchFrom.
func (m *Machine) RetainedPage(filter, after string, limit int, fn func(topic string, e retain.Entry) bool) (next string, done bool) {
	return m.retained.MatchFrom(filter, after, limit, fn)
}
