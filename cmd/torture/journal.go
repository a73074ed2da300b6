package main

import (
	"sync"
	"time"
)

// A Journal puts the events of all clients into one true order, keeps the last
// ones as evidence and hands each to the checker. It is the only thing the
// clients share. Its methods may be called from any goroutine.
type Journal struct {
	mu      sync.Mutex
	start   time.Time
	tick    uint64
	ring    []Event // the last len(ring) events, ring[tick % len]
	checker *Checker
	trigger trigger
	found   chan struct{} // closed at the first finding
}

// trigger is what a planned kill waits for: the n-th event of a kind at a durable
// client.
type trigger struct {
	kind Kind
	sent bool
	left int
	fire func()
}

// NewJournal returns an empty journal that keeps the last n events.
func NewJournal(n int) *Journal {
	return &Journal{start: time.Now(), ring: make([]Event, n), checker: NewChecker(), found: make(chan struct{})}
}

// Add notes an event, which it may complete, and judges it.
func (j *Journal) Add(e *Event) {
	j.mu.Lock()
	j.tick++
	e.Tick, e.At = j.tick, time.Since(j.start).Milliseconds()
	j.checker.Observe(e)
	j.ring[j.tick%uint64(len(j.ring))] = *e
	j.announce()
	var fire func()
	if t := &j.trigger; t.fire != nil && t.kind == e.Kind && t.sent == e.Sent && !j.checker.peer(e.Client).reader() {
		if t.left--; t.left <= 0 {
			fire, t.fire = t.fire, nil
		}
	}
	j.mu.Unlock()
	if fire != nil {
		fire()
	}
}

func (j *Journal) announce() {
	if len(j.checker.findings) > 0 {
		select {
		case <-j.found:
		default:
			close(j.found)
		}
	}
}

// Arm makes fire run, once, in the goroutine that notes the n-th event of the
// kind at a durable client from now on. A nil fire disarms.
func (j *Journal) Arm(kind Kind, sent bool, n int, fire func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.trigger = trigger{kind: kind, sent: sent, left: n, fire: fire}
}

// Report adds a finding that does not come from the history.
func (j *Journal) Report(f Finding) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.checker.report(f)
	j.announce()
}

// Found is closed at the first finding.
func (j *Journal) Found() <-chan struct{} { return j.found }

// Outstanding, Owed, Stats and Findings ask the checker.
func (j *Journal) Outstanding() Outstanding {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.checker.Outstanding()
}

// TotalOwed returns how many deliveries are owed to anybody.
func (j *Journal) TotalOwed() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, t := range j.checker.targets {
		n += t.pending
	}
	return n
}

// Missing returns how many retained values a reader still has to get.
func (j *Journal) Missing(client string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.checker.Missing(client)
}

// Owed returns how many deliveries are owed to one client.
func (j *Journal) Owed(client string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.checker.Owed(client)
}

// Stats returns the checker's counts.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.checker.Stats()
}

// Findings returns what was found so far, and how many more were only counted.
func (j *Journal) Findings() ([]Finding, int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.checker.Findings()
}

// Finish lets the checker judge the end.
func (j *Journal) Finish() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.checker.Finish()
	j.announce()
}

// Evidence returns the events that bear on a finding, oldest first: those of
// its message, and the connections, subscriptions and deaths between them. The
// journal has forgotten what is older than its ring.
func (j *Journal) Evidence(f *Finding) []Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	var events []Event
	first := uint64(1)
	if n := uint64(len(j.ring)); j.tick > n {
		first = j.tick - n + 1
	}
	for tick := first; tick <= j.tick; tick++ {
		e := &j.ring[tick%uint64(len(j.ring))]
		if f.concerns(e) {
			events = append(events, *e)
		}
	}
	return events
}

// concerns reports whether e belongs into the story of f.
func (f *Finding) concerns(e *Event) bool {
	switch e.Kind {
	case Kill, Stop, Ready:
		return true
	case Connect, Connack, Disconnect, End, Subscribe, Suback, Unsubscribe, Unsuback, Read:
		return e.Client == f.Client || f.Msg.Seq != 0 && e.Client == f.Msg.Publisher
	}
	if f.Msg.Seq != 0 && e.Msg == f.Msg {
		return true
	}
	// What else went under the same identifier.
	return f.Event.ID != 0 && e.ID == f.Event.ID && e.Client == f.Event.Client
}

// Last returns the last n events.
func (j *Journal) Last(n int) []Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	n = min(n, len(j.ring), int(j.tick))
	events := make([]Event, 0, n)
	for tick := j.tick - uint64(n) + 1; tick <= j.tick; tick++ {
		events = append(events, j.ring[tick%uint64(len(j.ring))])
	}
	return events
}

// lenient tells the checker that the disk may be full.
func (j *Journal) lenient() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.checker.full = true
}
