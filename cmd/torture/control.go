package main

import "sync"

type mode byte

const (
	modeSetUp mode = iota // connect and subscribe, publish nothing yet
	modeRun               // everything, with reconnects and changes of mind
	modeDrain             // finish what was begun, answer at once, stay connected
	modeQuit              // disconnect in order and end
)

// control tells all clients what to do. A change wakes everybody who waits.
type control struct {
	mu      sync.Mutex
	mode    mode
	up      bool // the broker may be dialled
	changed chan struct{}
	links   int           // live connections
	idle    chan struct{} // closed when links falls to 0; nil if nobody waits
}

func newControl() *control { return &control{changed: make(chan struct{})} }

// now returns the mode, whether the broker is up, and a channel that is closed
// at the next change.
func (c *control) now() (mode, bool, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mode, c.up, c.changed
}

func (c *control) setMode(m mode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mode = m
	c.wake()
}

func (c *control) setUp(up bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up = up
	c.wake()
}

func (c *control) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// linked counts a connection that begins (+1) or has been read to its end (-1).
func (c *control) linked(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.links += n
	if c.links == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

// unlinked returns a channel that is closed as soon as no connection is left.
func (c *control) unlinked() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan struct{})
	if c.links == 0 {
		close(ch)
		return ch
	}
	if c.idle == nil {
		c.idle = ch
	}
	return c.idle
}
