package core

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/session"
)

// The patrol of a running broker comes to every session, a few at a time, and
// finds what Check finds of it.
func TestPatrol(t *testing.T) {
	breaks := []struct {
		name, says string
		spoil      func(m *Machine, s *session.Session)
	}{
		{"identifier twice", "in use twice", func(_ *Machine, s *session.Session) {
			in := s.Out.Inflight()
			in[1].PID = in[0].PID
		}},
		{"reference to nothing", "is gone", func(m *Machine, s *session.Session) {
			m.messages.delete(s.Out.Inflight()[0].Msg)
		}},
		{"no reference counted", "is gone", func(m *Machine, s *session.Session) {
			m.messages.get(s.Out.Inflight()[0].Msg).refs = 0
		}},
		{"bytes miscounted", "bytes queued", func(_ *Machine, s *session.Session) { s.QueuedBytes++ }},
	}
	for _, tt := range breaks {
		t.Run(tt.name, func(t *testing.T) {
			m, last := patrolled(t)
			if visits, err := rounds(m, 10); err != nil || visits < 4 {
				t.Fatalf("a sound state: %d visits, %v", visits, err)
			}
			tt.spoil(m, last)
			if _, err := rounds(m, 10); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("the patrol says %v, want something with %q", err, tt.says)
			}
			if next, err := m.Patrol(0, 0); next != 0 || err != nil {
				t.Errorf("with no budget: %d, %v", next, err)
			}
		})
	}
}

// quiet keeps a rig from checking, at the end, what the test has spoiled.
type quiet struct{ testing.TB }

// patrolled returns a machine with some sessions that have messages in flight,
// and the last of them.
func patrolled(t *testing.T) (*Machine, *session.Session) {
	r := newRig(quiet{t})
	var last *session.Session
	for i := range 8 {
		c := r.connect(fmt.Sprint("c", i))
		c.subscribe("a/#", 1)
		last = r.m.SessionOf(fmt.Sprint("c", i))
	}
	for range 3 {
		r.publish("a/b", "x", 1)
	}
	if len(last.Out.Inflight()) < 2 {
		t.Fatal("nothing in flight")
	}
	return r.m, last
}

// rounds patrols the whole state once.
func rounds(m *Machine, budget int) (visits int, err error) {
	for at := uint32(0); ; visits++ {
		if at, err = m.Patrol(at, budget); at == 0 || err != nil {
			return visits, err
		}
	}
}

// A reference that nobody has is never given back in silence.
func TestReferencesNeverBelowZero(t *testing.T) {
	m, s := patrolled(t)
	id := s.Out.Inflight()[0].Msg
	m.messages.get(id).refs = 0
	defer func() {
		if p := fmt.Sprint(recover()); !strings.Contains(p, "below zero") || !strings.Contains(p, fmt.Sprint(id)) {
			t.Errorf("panic %q, want one that names message %d", p, id)
		}
	}()
	m.unref(id)
}

// What a running broker pays every two seconds.
func BenchmarkPatrol(b *testing.B) {
	r := newRig(quiet{b})
	for i := range 100 {
		r.connect(fmt.Sprint("c", i)).subscribe("a", 1)
	}
	for range 100 {
		r.publish("a", "x", 1)
	}
	b.ReportAllocs()
	for at := uint32(0); b.Loop(); {
		var err error
		if at, err = r.m.Patrol(at, 4096); err != nil {
			b.Fatal(err)
		}
	}
}
