package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// owedMax bounds the deliveries owed to all sessions together. Publishers pause
// above it, so neither the broker's queues nor the checker's memory grow
// without bound.
const owedMax = 20_000

// A fleet is all clients of a run.
type fleet struct {
	clients []*client
	readers []*reader
	journal *Journal
	control *control
	ready   sync.WaitGroup // clients that have not yet had all their first subscriptions
	wg      sync.WaitGroup
}

// newFleet makes the clients. Topics: t/ plain, g/ for the shared group, c/ for
// those who change their minds, e/ for the session that expires, b/ for clients
// that publish and subscribe under one identifier, r/ retained, w/ wills.
func newFleet(seed uint64, addr string, journal *Journal) *fleet {
	f := &fleet{journal: journal, control: newControl()}
	n := uint64(0)
	rnd := func() *rand.Rand {
		n++
		return rand.New(rand.NewPCG(seed, n))
	}
	calm := habits{drop: 6, leave: 3, takeover: 3, offline: [2]time.Duration{0, 300 * time.Millisecond}, lag: 24, burst: 6}
	add := func(id string, v packets.Version, h habits, sources []*source, wishes ...*wish) *client {
		c := &client{
			id: id, version: v, expiry: NeverExpires, window: 16, maxima: []uint16{0, 10, 40, 200}, habits: h, sources: sources, wishes: wishes,
			addr: addr, journal: journal, control: f.control, ready: &f.ready, rnd: rnd(),
			ids: map[uint16]struct{}{}, asked: map[uint16][]*wish{},
		}
		f.ready.Add(1)
		f.clients = append(f.clients, c)
		return c
	}
	from := func(id string, topics ...string) []*source { return sources(id, topics) }

	add("p0", packets.V5, calm, from("p0", "1 t/a/0", "2 t/a/1", "2 t/a/0"))
	add("p1", packets.V311, calm, from("p1", "1 t/b/0", "2 t/b/1", "0 t/b/2"))
	add("p2", packets.V5, calm, from("p2", "1 g/0", "2 g/1", "1 c/0", "2 c/1"))
	add("p3", packets.V311, calm, from("p3", "1 c/2", "2 t/c/0", "1 e/0"))

	slow := calm
	slow.burst = 2
	counter := add("r0", packets.V5, slow, from("r0", "1 r/m/0", "2 r/m/1", "1 r/c/0", "2 r/c/1"))
	counter.window = 4
	for _, s := range counter.sources {
		s.retain = true
		s.clears = s.stream.Topic[2] == 'c' // r/m/ only ever counts, r/c/ is emptied now and then
	}

	away := calm
	away.leave, away.offline = 8, [2]time.Duration{50 * time.Millisecond, 900 * time.Millisecond}
	add("s0", packets.V5, calm, nil, want("t/#", 2), want("r/m/#", 2), want("w/#", 2))
	add("s1", packets.V311, away, nil, want("t/#", 2))
	add("s2", packets.V5, away, nil, want("t/#", 1))
	add("s3", packets.V31, calm, nil, want("t/+/1", 2), want("t/b/2", 0))

	both := calm
	both.burst = 3
	add("b0", packets.V5, both, from("b0", "1 b/0", "2 b/0"), want("b/1", 2), want("t/a/#", 1))
	add("b1", packets.V311, both, from("b1", "1 b/1", "2 b/1"), want("b/0", 2), want("c/0", 2))

	fickle := calm
	fickle.rethink = 400
	add("c0", packets.V5, fickle, nil, maybe("c/+", 2), maybe("t/a/0", 1), maybe("b/#", 2))
	add("c1", packets.V311, fickle, nil, maybe("c/0", 1), maybe("c/1", 2), maybe("c/2", 2), maybe("t/c/+", 2))

	add("g0", packets.V5, away, nil, want("$share/g/g/#", 2))
	add("g1", packets.V5, away, nil, want("$share/g/g/#", 2))

	mortal := calm
	mortal.leave, mortal.drop, mortal.offline = 10, 10, [2]time.Duration{0, 5 * time.Second}
	add("e0", packets.V5, mortal, nil, want("e/#", 2)).expiry = 2

	doomed := calm
	doomed.drop, doomed.leave, doomed.takeover, doomed.offline = 150, 50, 50, [2]time.Duration{0, 200 * time.Millisecond}
	add("w0", packets.V5, doomed, nil).will = &Stream{"w0", "w/0", 2}
	doomed.offline[1] = 1500 * time.Millisecond // sometimes longer than the restart grace
	add("w1", packets.V311, doomed, nil).will = &Stream{"w1", "w/1", 1}

	reborn := calm
	reborn.restart = 20
	add("x0", packets.V311, reborn, nil, want("c/#", 2))
	add("x1", packets.V5, reborn, nil, want("c/1", 2), want("e/0", 1))

	for i := range 2 {
		f.readers = append(f.readers, &reader{
			id: fmt.Sprintf("l%d", i), filter: "r/#", addr: addr, journal: journal, control: f.control, rnd: rnd(),
		})
	}
	return f
}

// sources reads "qos topic".
func sources(id string, topics []string) []*source {
	var list []*source
	for _, t := range topics {
		list = append(list, &source{stream: Stream{Publisher: id, QoS: t[0] - '0', Topic: t[2:]}})
	}
	return list
}

func want(filter string, qos byte) *wish { return &wish{filter: filter, qos: qos, on: true} }
func maybe(filter string, qos byte) *wish {
	return &wish{filter: filter, qos: qos, on: true, optional: true}
}

// start lets every client live until modeQuit or the end of ctx.
func (f *fleet) start(ctx context.Context) {
	for _, c := range f.clients {
		f.wg.Go(func() { c.run(ctx) })
	}
	for _, r := range f.readers {
		f.wg.Go(func() { r.run(ctx) })
	}
}

// settled is closed once every client is connected with its first subscriptions.
func (f *fleet) settled() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		f.ready.Wait()
		close(done)
	}()
	return done
}

// quit lets all clients disconnect in order and waits for them.
func (f *fleet) quit() {
	f.control.setMode(modeQuit)
	f.wg.Wait()
}

// calm reports whether every client is connected and has nothing open.
func (f *fleet) calm() bool {
	for _, c := range f.clients {
		if !c.calm.Load() {
			return false
		}
	}
	return true
}

// remove takes clients out of a fleet that has not started.
func (f *fleet) remove(ids ...string) {
	f.clients = slices.DeleteFunc(f.clients, func(c *client) bool {
		if !slices.Contains(ids, c.id) {
			return false
		}
		f.ready.Done()
		return true
	})
}
