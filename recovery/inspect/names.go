package inspect

import "github.com/wind-c/comqtt/v3/wal/record"

// namesKept is how many connections and sessions a dump knows the client of:
// the latest, so that its memory does not grow with the log.
const namesKept = 1 << 16

// names knows which client is behind a session or connection.
type names struct {
	recent cache
	// wanted, if not empty, is the client whose every session and connection is
	// kept, however old.
	wanted  string
	session map[uint64]bool
	epoch   map[record.Epoch]bool
}

func newNames(wanted string) *names {
	return &names{
		recent: cache{byKey: make(map[nameKey]string)}, wanted: wanted,
		session: make(map[uint64]bool), epoch: make(map[record.Epoch]bool),
	}
}

// connect notes a Connect record: the session may be a new one, of its index.
func (n *names) connect(index uint64, epoch record.Epoch, client string) {
	n.note(index, epoch, client)
}

// note notes that a session, a connection, or both, are of a client.
func (n *names) note(session uint64, epoch record.Epoch, client string) {
	if client == n.wanted && client != "" {
		if session != 0 {
			n.session[session] = true
		}
		if epoch != 0 {
			n.epoch[epoch] = true
		}
		return
	}
	if session != 0 {
		n.recent.put(nameKey{session: session}, client)
	}
	if epoch != 0 {
		n.recent.put(nameKey{epoch: epoch}, client)
	}
}

// of returns the client behind a session or connection, empty if not known.
func (n *names) of(session uint64, epoch record.Epoch) string {
	if n.is(session, epoch) {
		return n.wanted
	}
	if session != 0 {
		if name, ok := n.recent.byKey[nameKey{session: session}]; ok {
			return name
		}
	}
	if epoch != 0 {
		return n.recent.byKey[nameKey{epoch: epoch}]
	}
	return ""
}

// is reports whether a session or connection is the wanted client's. Once one
// of the two is known, so is the other.
func (n *names) is(session uint64, epoch record.Epoch) bool {
	if session != 0 && n.session[session] || epoch != 0 && n.epoch[epoch] {
		if session != 0 {
			n.session[session] = true
		}
		return true
	}
	return false
}

type nameKey struct {
	session uint64
	epoch   record.Epoch
}

// cache forgets the oldest of its keys.
type cache struct {
	byKey map[nameKey]string
	ring  []nameKey
	at    int
}

func (c *cache) put(k nameKey, name string) {
	if _, had := c.byKey[k]; !had {
		if len(c.ring) < namesKept {
			c.ring = append(c.ring, k)
		} else {
			delete(c.byKey, c.ring[c.at])
			c.ring[c.at] = k
			c.at = (c.at + 1) % namesKept
		}
	}
	c.byKey[k] = name
}
