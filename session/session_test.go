package session

import (
	"maps"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/wind-c/comqtt/v3/session/topic"
)

// The session ends the expiry after the disconnect, at once with 0, never with
// the greatest, and not while the client is connected (MQTT 5 section
// 3.1.2.11.2) [MQTT-4.1.0-1].
func TestExpiresAt_MQTT_4_1_0_1(t *testing.T) {
	for name, c := range map[string]struct {
		s    Session
		at   int64
		ends bool
	}{
		"connected":       {Session{Epoch: 1, Expiry: 0}, 0, false},
		"at once":         {Session{Expiry: 0, Disconnected: 5000}, 5000, true},
		"after an hour":   {Session{Expiry: 3600, Disconnected: 5000}, 3_605_000, true},
		"longest but one": {Session{Expiry: Forever - 1, Disconnected: 5000}, 5000 + (Forever-1)*1000, true},
		"never":           {Session{Expiry: Forever, Disconnected: 5000}, 0, false},
	} {
		if at, ends := c.s.ExpiresAt(); at != c.at || ends != c.ends {
			t.Errorf("%s: %d, %v, want %d, %v", name, at, ends, c.at, c.ends)
		}
	}
}

// The window is the smaller of what the client and the broker allow, and
// never closed [MQTT-3.3.4-9].
func TestWindow_MQTT_3_3_4_9(t *testing.T) {
	for _, c := range []struct {
		client, broker uint16
		want           int
	}{{20, 256, 20}, {65535, 256, 256}, {65535, 65535, 65535}, {0, 256, 1}, {5, 0, 1}} {
		s := Session{ReceiveMaximum: c.client}
		if got := s.Window(c.broker); got != c.want {
			t.Errorf("client %d, broker %d: %d, want %d", c.client, c.broker, got, c.want)
		}
	}
}

// Subscriptions and received identifiers behave like a map and a set, and
// what the change methods tell leads a backend to the same.
func TestSessionModel(t *testing.T) {
	filters := []string{"a", "a/#", "+/b", "$share/g/a", "$share/g/#", "$share/h/a", "$share/odd"}
	rapid.Check(t, func(t *rapid.T) {
		s := &Session{ID: 7}
		subs, storedSubs := map[string]Subscription{}, map[string]Subscription{}
		recv, storedRecv := map[uint16]bool{}, map[uint16]bool{}
		drawPID := rapid.OneOf(rapid.Uint16Range(1, 6), rapid.Just(uint16(math.MaxUint16)))
		collect := func(t *rapid.T) {
			s.SubscriptionChanges(func(f string, sub Subscription, held bool) {
				if held {
					storedSubs[f] = sub
				} else {
					delete(storedSubs, f)
				}
			})
			s.ReceivedChanges(func(pid uint16, held bool) {
				if storedRecv[pid] == held {
					t.Fatalf("identifier %d told to be %v, which it was", pid, held)
				}
				storedRecv[pid] = held
			})
			maps.DeleteFunc(storedRecv, func(_ uint16, held bool) bool { return !held })
			if !maps.Equal(storedSubs, subs) || !maps.Equal(storedRecv, recv) {
				t.Fatalf("stored %v, %v, want %v, %v", storedSubs, storedRecv, subs, recv)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"subscribe": func(t *rapid.T) {
				f := rapid.SampledFrom(filters).Draw(t, "filter")
				sub := Subscription{Options: topic.Options(rapid.Uint8Max(2).Draw(t, "qos")), ID: rapid.Uint32Max(3).Draw(t, "id")}
				_, had := subs[f]
				if s.Subscribe(f, sub) != had {
					t.Fatalf("%q: existed %v", f, had)
				}
				subs[f] = sub
			},
			"unsubscribe": func(t *rapid.T) {
				f := rapid.SampledFrom(filters).Draw(t, "filter")
				_, had := subs[f]
				if s.Unsubscribe(f) != had {
					t.Fatalf("%q: existed %v", f, had)
				}
				delete(subs, f)
			},
			"receive": func(t *rapid.T) {
				pid := drawPID.Draw(t, "pid")
				if s.Receive(pid) == recv[pid] {
					t.Fatalf("identifier %d new, known %v", pid, recv[pid])
				}
				recv[pid] = true
			},
			"release": func(t *rapid.T) {
				pid := drawPID.Draw(t, "pid")
				if s.Release(pid) != recv[pid] {
					t.Fatalf("identifier %d released, known %v", pid, recv[pid])
				}
				delete(recv, pid)
			},
			"collect": collect,
			"restart": func(t *rapid.T) {
				collect(t)
				s = &Session{ID: 7}
				for f, sub := range storedSubs {
					s.RestoreSubscription(f, sub)
				}
				for pid := range storedRecv {
					s.RestoreReceived(pid)
				}
			},
			"": func(t *rapid.T) {
				if err := s.Check(); err != nil {
					t.Fatal(err)
				}
				if got, want := s.Filters(), slices.Sorted(maps.Keys(subs)); !slices.Equal(got, want) || s.Subscriptions() != len(want) {
					t.Fatalf("filters %q, want %q", got, want)
				}
				for f, want := range subs {
					if got, ok := s.Subscription(f); !ok || got != want {
						t.Fatalf("%q: %v, %v, want %v", f, got, ok, want)
					}
				}
				var shared []string
				for _, f := range s.Filters() {
					if _, _, ok := topic.SplitShare(f); ok {
						shared = append(shared, f)
					}
				}
				if !slices.Equal(s.Shared(), shared) {
					t.Fatalf("shared %q, want %q", s.Shared(), shared)
				}
				if got, want := s.Received(), slices.Sorted(maps.Keys(recv)); !slices.Equal(got, want) {
					t.Fatalf("received %v, want %v", got, want)
				}
			},
		})
	})
}

// A QoS 2 publish costs no allocation for its receipt.
func TestReceiptsDoNotAllocate(t *testing.T) {
	var s Session
	pid := uint16(0)
	turn := func() {
		for range 100 {
			pid++
			s.Receive(pid)
			s.Release(pid)
		}
	}
	turn()
	if n := testing.AllocsPerRun(50, turn); n != 0 {
		t.Errorf("%v allocations in 100 receipts", n)
	}
	s.ReceivedChanges(func(pid uint16, _ bool) { t.Errorf("identifier %d came and went", pid) })
}
