package broker

import (
	"cmp"
	"hash/maphash"
	"slices"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// The match cache of a connection: routesMax bounds it, and beyond routesFree
// topics only one that comes again soon is kept. A publisher to a great many
// topics would throw each route away before its topic returns.
const (
	routesMax  = 1024
	routesFree = 16
)

// sightings remembers topics that were published to lately, by their hash: a
// place for each of routesMax topics, which the next one with the same place
// takes over.
type sightings [routesMax]uint16

// again reports whether a topic was seen lately, and remembers it.
func (t *sightings) again(hash uint64) bool {
	at, tag := &t[hash%routesMax], uint16(hash>>48)|1
	if *at == tag {
		return true
	}
	*at = tag
	return false
}

// route is where messages of one topic go, as of one generation of the
// subscription index.
type route struct {
	name       string // in the cache
	generation uint64
	durable    bool // QoS 1 and 2 must be logged: a durable session or group matches
	denied     bool // the publisher may not publish here
	targets    []target
	groups     []groupRoute
}

// target is a connected client that gets messages without the log: one
// without a durable session, or a durable one whose grant is QoS 0.
type target struct {
	conn   *conn
	qos    byte
	retain bool // Retain As Published
	ids    []uint32
	// With noLocal, the client's own messages go by own, or not at all when
	// own is nil [MQTT-3.8.3-3].
	noLocal bool
	own     *target
}

// groupRoute is a shared group that matches.
type groupRoute struct {
	key     *core.GroupKey
	durable bool
	members []member
}

// member is a connected member of a group.
type member struct {
	conn *conn
	sid  uint64 // of a durable session, else 0
	opts topic.Options
	id   uint32
}

// route returns where messages of a topic go, from the cache when the index
// has not changed. It is valid until the next call.
func (c *conn) route(name []byte) (*route, error) {
	gen := c.srv.generation.Load()
	if r := c.in.latest; r != nil && r.generation == gen && r.name == string(name) {
		return r, nil
	}
	if r := c.in.routes[string(name)]; r != nil && (r.generation == gen || r.denied) {
		c.in.latest = r
		return r, nil
	}
	if err := c.checkTopic(name); err != nil {
		return nil, err
	}
	if a := c.srv.opts.Authenticator; a != nil && !a.Authorize(c.info(), string(name), true) {
		return &route{denied: true}, nil
	}
	if !c.worthKeeping(name) {
		c.srv.matchInto(name, &c.in.found, &c.in.matches)
		return &c.in.found, nil
	}
	r := c.srv.match(name)
	if c.in.routes == nil || len(c.in.routes) >= routesMax {
		c.in.routes = make(map[string]*route)
	}
	r.name = string(name)
	c.in.routes[r.name], c.in.latest = r, r
	return r, nil
}

// worthKeeping reports whether the route of a topic that is not in the cache,
// or outdated there, goes into it.
func (c *conn) worthKeeping(name []byte) bool {
	in := &c.in
	if len(in.routes) < routesFree || in.routes[string(name)] != nil {
		return true
	}
	if in.seen == nil {
		in.seen = new(sightings)
	}
	return in.seen.again(maphash.Bytes(c.srv.seed, name))
}

// outdated reports whether the index changed since the route was found.
func (c *conn) outdated(r *route) bool { return r.generation != c.srv.generation.Load() }

// match looks a topic up in the index. It may be called from any goroutine.
func (s *Server) match(name []byte) *route {
	var r route
	s.matchInto(name, &r, new(topic.Matches))
	return &r
}

// matchInto is match with memory that was used before.
func (s *Server) matchInto(name []byte, r *route, m *topic.Matches) {
	s.indexMu.RLock()
	defer s.indexMu.RUnlock()
	*r = route{generation: s.generation.Load(), targets: r.targets[:0], groups: r.groups[:0]}
	s.machine.Index().Match(name, m)
	if m.Filters > 1 {
		slices.SortStableFunc(m.Subs, func(a, b topic.Sub) int { return cmp.Compare(a.Ref, b.Ref) })
	}
	for subs := m.Subs; len(subs) > 0; {
		n := 1
		for n < len(subs) && subs[n].Ref == subs[0].Ref {
			n++
		}
		r.add(s, subs[:n])
		subs = subs[n:]
	}
	for _, g := range m.Groups {
		r.addGroup(s, g)
	}
}

// forget lets go of what a route refers to and keeps its memory.
func (r *route) forget() {
	clear(r.targets)
	clear(r.groups)
	r.targets, r.groups = r.targets[:0], r.groups[:0]
}

// add adds a client by the subscriptions of it that match.
func (r *route) add(s *Server, subs []topic.Sub) {
	c := s.clients.at(subs[0].Ref)
	durable := s.machine.Session(subs[0].Ref) != nil
	t := combine(c, subs, func(topic.Options) bool { return true })
	if durable && t.qos > 0 {
		r.durable = true
	}
	if c == nil {
		return
	}
	local := func(o topic.Options) bool { return !o.NoLocal() }
	if t.noLocal = slices.ContainsFunc(subs, func(s topic.Sub) bool { return s.Opts.NoLocal() }); t.noLocal {
		if slices.ContainsFunc(subs, func(s topic.Sub) bool { return local(s.Opts) }) {
			own := combine(c, subs, local)
			t.own = &own
		}
	}
	if durable { // QoS 1 and 2 for it go through the log
		t.qos = 0
		if t.own != nil {
			t.own.qos = 0
		}
	}
	r.targets = append(r.targets, t)
}

// combine makes one delivery of the subscriptions that count [MQTT-3.3.4-2].
func combine(c *conn, subs []topic.Sub, counts func(topic.Options) bool) target {
	t := target{conn: c}
	for _, sub := range subs {
		if !counts(sub.Opts) {
			continue
		}
		t.qos = max(t.qos, sub.Opts.QoS())
		t.retain = t.retain || sub.Opts.RetainAsPublished()
		if sub.ID != 0 {
			t.ids = append(t.ids, sub.ID)
		}
	}
	return t
}

func (r *route) addGroup(s *Server, g *topic.Group) {
	gr := groupRoute{key: &core.GroupKey{Share: g.Share, Filter: g.Filter}}
	gr.durable = s.machine.HasDurable(*gr.key)
	for _, m := range g.Members {
		c := s.clients.at(m.Ref)
		if c == nil {
			continue
		}
		mem := member{conn: c, opts: m.Opts, id: m.ID}
		if sess := s.machine.Session(m.Ref); sess != nil {
			mem.sid = sess.ID
		}
		gr.members = append(gr.members, mem)
	}
	r.durable = r.durable || gr.durable
	r.groups = append(r.groups, gr)
}

// pick chooses a connected member, round-robin and those whose outbox has
// room first; nil when none is connected.
func (g *groupRoute) pick(turn *uint32) *member {
	n := uint32(len(g.members))
	if n == 0 {
		return nil
	}
	*turn++
	for i := range n {
		if m := &g.members[(*turn+i)%n]; m.conn.ready() {
			return m
		}
	}
	return &g.members[*turn%n]
}

// ready reports whether the connection takes more at once.
func (c *conn) ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed && c.out.size() < c.srv.opts.Limits.OutboxBytes/2
}

// choose records a member for each group with durable state; a group without
// a connected member keeps the message.
func choose(list []record.Choice, r *route, turn *uint32) []record.Choice {
	for i := range r.groups {
		g := &r.groups[i]
		if !g.durable {
			continue
		}
		ch := record.Choice{Share: []byte(g.key.Share), Filter: []byte(g.key.Filter)}
		if m := g.pick(turn); m != nil {
			if ch.Session = m.sid; m.sid == 0 {
				ch.Epoch, ch.QoS = m.conn.epoch, m.opts.QoS()
			}
		}
		list = append(list, ch)
	}
	return list
}

// deliverAll delivers a bypass publish and returns how many clients it is for.
func (c *conn) deliverAll(p *packets.Publish, name []byte, r *route) int {
	if len(r.targets)+len(r.groups) == 0 {
		return 0
	}
	out := delivery{
		srv: c.srv, qos: p.QoS, retain: p.Retain,
		hasExpiry: p.Props.HasExpiry, expiry: p.Props.Expiry, touched: &c.in.touched,
		cache: c.in.cache[:0], single: len(r.targets)+len(r.groups) == 1,
	}
	out.msg, c.in.encoded = p.AsMessage(c.in.encoded, name)
	if p.QoS == 0 && !p.Retain && p.Props.TopicAlias == 0 && !p.Props.HasExpiry {
		out.packet, out.version = c.in.packet, c.version
	}
	n := 0
	for i := range r.targets {
		t := &r.targets[i]
		if t.noLocal && t.conn == c {
			if t = t.own; t == nil {
				continue
			}
		}
		n++
		out.to(t.conn, t.qos, p.Retain && t.retain, t.ids, ownership{})
	}
	for i := range r.groups {
		if m := r.groups[i].pick(&c.in.turn); m != nil {
			n++
			out.toMember(m, r.groups[i].key)
		}
	}
	c.in.cache = out.cache
	return n
}
