package broker_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/packets"
)

// What is applied is in the log, in `sync: always` durably, and log time does not
// go back: a frame for which that is not so is refused before anything of it is
// applied.
func TestInvariant_AppliedIsDurable(t *testing.T) {
	r := start(t, broker.Options{DataDir: t.TempDir()})
	c := dial(t, r, packets.V5, "c", true, 60)
	c.send(&packets.Publish{QoS: 1, PacketID: 1, Topic: []byte("a"), Payload: []byte("x"), Retain: true})
	c.receive()
	var broken *broker.InvariantError
	for _, tt := range []struct {
		name  string
		ahead uint64
		later int64
		says  string
	}{
		{"nothing", 0, -1, ""},
		{"a record that is not in the log", 1, 0, "the log ends with"},
		{"time that goes back", 1, -1, "is before"},
	} {
		err := r.CheckRound(tt.ahead, tt.later)
		switch {
		case tt.says == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.says != "" && (!errors.As(err, &broken) || !strings.Contains(err.Error(), tt.says)):
			t.Errorf("%s: %v, want something with %q", tt.name, err, tt.says)
		}
	}
	r.stop(t)
}

// A state that contradicts itself stops the broker, with the evidence, and does
// not reach the backend: the next start has the state that the log tells.
func TestInvariant_BrokenStateStops(t *testing.T) {
	dir := t.TempDir()
	r := start(t, broker.Options{DataDir: dir})
	c := dial(t, r, packets.V5, "c", true, 60)
	c.send(&packets.Subscribe{PacketID: 1, Filters: []packets.Subscription{{Filter: []byte("a"), Options: 1}}})
	c.receive()
	c.send(&packets.Publish{QoS: 1, PacketID: 1, Topic: []byte("a"), Payload: []byte("x")})
	for got := 0; got < 2; got++ { // PUBACK and PUBLISH
		c.receive()
	}
	r.Patrol()
	select {
	case err := <-r.Fatal():
		t.Fatalf("a sound state: %v", err)
	default:
	}
	r.Spoil(func(m *core.Machine) { m.SessionOf("c").QueuedBytes = 7 })
	r.Patrol()
	var broken *broker.InvariantError
	if err := <-r.Fatal(); !errors.As(err, &broken) || !strings.Contains(err.Error(), "7") {
		t.Errorf("fatal: %v, want the values that contradict each other", err)
	}
	if err := <-r.done; !errors.As(err, &broken) {
		t.Errorf("serve: %v", err)
	}
	r = start(t, broker.Options{DataDir: dir})
	c = dial(t, r, packets.V5, "c", false, 60)
	if p, ok := c.receive().(*packets.Publish); !ok || string(p.Payload) != "x" || !p.Dup {
		t.Errorf("after the restart came %+v, want the message again", p)
	}
	r.Patrol()
	r.stop(t)
}

// When the state machine gives up, by a panic, the log of the broker says what
// was being applied, and the panic goes on.
func TestInvariant_PanicLeavesEvidence(t *testing.T) {
	var out bytes.Buffer // the handler has a lock of its own
	r := start(t, broker.Options{DataDir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelError}))})
	dial(t, r, packets.V5, "c", true, 0) // serves
	const why = "core: reference count of message 3 below zero"
	p := func() (p any) {
		defer func() { p = recover() }()
		r.Applying(func() { panic(why) })
		return nil
	}()
	if p != why {
		t.Errorf("the panic became %v", p)
	}
	for _, want := range []string{why, "frame=5", "records=2", "stack=", "applied="} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log does not have %q:\n%s", want, &out)
		}
	}
	r.stop(t)
}
