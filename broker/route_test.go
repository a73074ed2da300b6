package broker

import (
	"fmt"
	"hash/maphash"
	"testing"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// routed returns a connection of a server whose index has a subscription for
// each of n topics, and the topics.
func routed(n int) (*conn, [][]byte) {
	s := &Server{machine: core.New(), seed: maphash.MakeSeed()}
	c := &conn{srv: s}
	c.in.work = &work{}
	s.opts.Limits = DefaultLimits()
	ref := s.machine.Attach(record.NewEpoch(1, 1))
	s.clients.set(ref, c)
	names := make([][]byte, n)
	for i := range names {
		names[i] = fmt.Appendf(nil, "site/%d/temperature", i)
		s.machine.Index().Subscribe(fmt.Sprintf("site/%d/+", i), topic.Sub{Ref: ref})
	}
	return c, names
}

// A publisher to very many topics in turn finds each route without a trace.
func TestRouteOfManyTopicsDoesNotAllocate(t *testing.T) {
	c, names := routed(10 * routesMax)
	next := func() {
		name := names[0]
		names = append(names[1:], name)
		r, err := c.route(name)
		if err != nil || len(r.targets) != 1 || r.targets[0].conn != c {
			t.Fatal(r, err)
		}
	}
	names = append(make([][]byte, 0, 4*len(names)), names...)
	for range len(names) {
		next()
	}
	kept := len(c.in.routes)
	if n := testing.AllocsPerRun(len(names), next); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if len(c.in.routes) > kept+routesFree { // now and then a tag is taken for another
		t.Errorf("%d routes kept, then %d", kept, len(c.in.routes))
	}
}

// One to a few hundred topics has them all in the cache the second time, and
// those found again go by what the index holds now.
func TestRoutesThatComeAgainAreKept(t *testing.T) {
	c, names := routed(200)
	for range 3 {
		for _, name := range names {
			if _, err := c.route(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(c.in.routes); n < len(names)*3/4 { // some share a place
		t.Errorf("%d of %d routes kept", n, len(names))
	}
	c.srv.machine.Index().Unsubscribe("site/7/+", 0)
	c.srv.generation.Add(1)
	if r, err := c.route([]byte("site/7/temperature")); err != nil || len(r.targets) != 0 {
		t.Errorf("route after the unsubscribe: %v, %v", r, err)
	}
}
