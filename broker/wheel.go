package broker

import (
	"sync"
	"time"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// wheel watches the keep-alive of all connections with one goroutine and one
// timer: a ring of seconds, each with the connections to look at then. A
// connection is looked at about once in its keep-alive time, however much it
// sends.
type wheel struct {
	srv  *Server
	mu   sync.Mutex
	ring [wheelSlots]*conn // first of each slot
	done chan struct{}
	once sync.Once
}

// watched is a connection's place in the wheel, under the wheel's mu.
type watched struct {
	in         bool
	at         int64 // second whose slot it is in
	prev, next *conn
}

const (
	wheelSlots = 256
	// writeStuck is how many seconds one write may take before the connection
	// is given up.
	writeStuck = 120
)

func newWheel(s *Server) *wheel {
	return &wheel{srv: s, done: make(chan struct{})}
}

// add begins to watch a connection.
func (w *wheel) add(c *conn) {
	now := w.srv.clock() / 1000
	c.lastRead.Store(now)
	w.mu.Lock()
	w.put(c, now+c.patience())
	w.mu.Unlock()
}

// patience is one and a half times the keep-alive, in whole seconds, or the
// time in which a write that does not move is noticed [MQTT-3.1.2-22].
func (c *conn) patience() int64 {
	if c.keepAlive == 0 {
		return writeStuck
	}
	return (int64(c.keepAlive)*3+1)/2 + 1
}

// put places a connection; the caller holds mu. A time farther than the ring
// reaches is looked at on the way.
func (w *wheel) put(c *conn, at int64) {
	at = min(at, w.srv.coarse.Load()+wheelSlots-1)
	slot := &w.ring[at%wheelSlots]
	c.watched = watched{in: true, at: at, next: *slot}
	if *slot != nil {
		(*slot).watched.prev = c
	}
	*slot = c
}

// remove ends the watch.
func (w *wheel) remove(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &c.watched
	if !p.in {
		return
	}
	if p.next != nil {
		p.next.watched.prev = p.prev
	}
	if p.prev != nil {
		p.prev.watched.next = p.next
	} else {
		w.ring[p.at%wheelSlots] = p.next
	}
	*p = watched{}
}

// run advances the coarse clock and looks at the connections whose time has
// come.
func (w *wheel) run() {
	defer w.srv.loops.Done()
	tick := time.NewTicker(time.Second / 4)
	defer tick.Stop()
	last := w.srv.coarse.Load()
	for {
		select {
		case <-w.done:
			return
		case <-tick.C:
		}
		now := w.srv.clock() / 1000
		late := max(now-w.srv.coarse.Load()-1, 0) // readers may be as late with what has come
		w.srv.coarse.Store(now)
		for last < now {
			last++
			w.look(last, now, late)
		}
	}
}

// look handles one slot. A wheel that comes late, on a machine that is too busy,
// gives connections that time.
func (w *wheel) look(slot, now, late int64) {
	var silent []*conn
	w.mu.Lock()
	next := w.ring[slot%wheelSlots]
	w.ring[slot%wheelSlots] = nil
	for next != nil {
		c := next
		next = c.watched.next
		c.watched = watched{}
		due := c.lastRead.Load() + c.patience() + late
		if c.keepAlive != 0 && now >= due || c.stuck(now) {
			silent = append(silent, c)
			continue
		}
		if c.keepAlive == 0 {
			due = now + writeStuck
		}
		w.put(c, max(due, now+1))
	}
	w.mu.Unlock()
	for _, c := range silent {
		w.srv.stats.timeouts.Add(1)
		c.expire()
	}
}

// stuck reports whether a write has not moved for too long.
func (c *conn) stuck(now int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.since != 0 && now-c.out.since > writeStuck
}

// expire ends a connection that was silent for too long, or that takes nothing.
func (c *conn) expire() {
	c.mu.Lock()
	c.reason = packets.CodeKeepAliveTimeout
	stuck := c.out.since != 0
	c.mu.Unlock()
	if !stuck {
		c.violated(&packets.Error{Code: packets.CodeKeepAliveTimeout, Reason: "silent for too long", Statement: "MQTT-3.1.2-22"})
	}
	c.disconnect(packets.CodeKeepAliveTimeout)
}

func (w *wheel) stop() { w.once.Do(func() { close(w.done) }) }
