package inspect_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/recovery/inspect"
	"github.com/wind-c/comqtt/v3/recovery/inspect/inspecttest"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// ask returns every outcome as "RECORD RESULT MESSAGE: REASON", and the fates.
func ask(t *testing.T, dir string, q inspect.Question) (outcomes []string, story *inspect.Story) {
	t.Helper()
	looking(t, dir, func(d *inspect.Dir) {
		var err error
		story, err = d.Why(background, &q, func(e *inspect.Event) error {
			for _, o := range e.Outcomes {
				outcomes = append(outcomes, fmt.Sprintf("%d %s %d: %s", e.Index, o.Result, o.Message, o.Reason))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if story.Damage != nil {
			t.Fatal(story.Damage)
		}
	})
	return outcomes, story
}

func wants(t *testing.T, outcomes []string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !slices.ContainsFunc(outcomes, func(o string) bool { return strings.Contains(o, w) }) {
			t.Errorf("no outcome %q in\n%s", w, strings.Join(outcomes, "\n"))
		}
	}
}

// steps runs until the first error.
func steps(list ...func() error) error {
	for _, s := range list {
		if err := s(); err != nil {
			return err
		}
	}
	return nil
}

// A reason for everything that may happen to a message.
func TestWhy_Reasons(t *testing.T) {
	var b *inspecttest.Builder
	pub := func(name string, qos uint8, change func(p *record.Publish)) func() error {
		return func() error {
			_, err := b.Publish(name, "x", qos, change)
			return err
		}
	}
	connect := func(client string, change func(c *record.Connect)) func() error {
		return func() error { return b.Connect(client, change) }
	}
	subscribe := func(client, filter string, o topic.Options) func() error {
		return func() error { return b.Subscribe(client, filter, o, 0) }
	}
	gone := func(client string) func() error { return func() error { return b.Disconnect(client) } }
	ack := func(client string, n int) func() error { return func() error { return b.Ack(client, n) } }
	clean := func(c *record.Connect) { c.CleanStart = true }
	for name, tt := range map[string]struct {
		limits record.Limits
		topic  string
		steps  func() []func() error
		want   []string
	}{
		"acknowledged": {topic: "a", steps: func() []func() error {
			return []func() error{connect("c", nil), subscribe("c", "a", 1), pub("a", 1, nil), ack("c", 1)}
		}, want: []string{"5 in-flight 5", "6 acknowledged 5: by the client"}},
		"QoS 2": {topic: "a", steps: func() []func() error {
			return []func() error{connect("c", nil), subscribe("c", "a", 2), pub("a", 2, nil), ack("c", 1), ack("c", 1)}
		}, want: []string{"6 received 5: by the client", "7 acknowledged 5: by the client"}},
		"no subscription": {topic: "a", steps: func() []func() error {
			return []func() error{connect("c", nil), subscribe("c", "b", 1), pub("a", 1, func(p *record.Publish) { p.Retain = true })}
		}, want: []string{"5 retained 5", "5 not-delivered 5: no matching subscription"}},
		"no session": {topic: "a", steps: func() []func() error {
			return []func() error{pub("a", 1, func(p *record.Publish) { p.Retain = true }), connect("c", nil)}
		}, want: []string{"3 not-delivered 3: the client had no durable session then"}},
		"No Local": {topic: "a", steps: func() []func() error {
			return []func() error{connect("c", nil), subscribe("c", "a", 1|topic.NoLocal), pub("a", 1, func(p *record.Publish) {
				s := b.State.Machine.SessionOf("c")
				p.Session, p.Epoch = s.ID, s.Epoch
			})}
		}, want: []string{"5 published 5", "5 not-delivered 5: the client's own message, and No Local"}},
		"away, QoS 0": {topic: "a", steps: func() []func() error {
			return []func() error{connect("c", nil), subscribe("c", "a", 0), gone("c"), pub("a", 1, func(p *record.Publish) { p.Retain = true })}
		}, want: []string{"6 not-delivered 6: QoS 0, and the client was away"}},
		"QoS 0": {topic: "a", steps: func() []func() error {
			return []func() error{connect("c", nil), subscribe("c", "a", 0), pub("a", 1, func(p *record.Publish) { p.Retain = true })}
		}, want: []string{"5 sent 5: nothing is kept of it"}},
		"expired": {topic: "a", steps: func() []func() error {
			return []func() error{
				connect("c", nil), subscribe("c", "a", 1), gone("c"),
				pub("a", 1, func(p *record.Publish) { p.HasExpiry, p.Expiry = true, 3 }),
				func() error { b.Now += 10_000; return b.Connect("c", nil) },
			}
		}, want: []string{"6 queued 6: the client is away", "7 dropped 6: it expired"}},
		"queue full": {limits: record.Limits{MaxInflight: 10, QueueMessages: 1, SessionExpiryMax: 9999}, topic: "a", steps: func() []func() error {
			return []func() error{connect("c", nil), subscribe("c", "a", 1), gone("c"), pub("a", 1, nil), pub("a", 1, nil)}
		}, want: []string{"6 queued 6", "7 dropped 7: the queue is full"}},
		"oldest dropped": {limits: record.Limits{MaxInflight: 10, QueueMessages: 1, SessionExpiryMax: 9999, DropOldest: true}, topic: "a", steps: func() []func() error {
			return []func() error{connect("c", nil), subscribe("c", "a", 1), gone("c"), pub("a", 1, nil), pub("a", 1, nil)}
		}, want: []string{"7 dropped 6: the queue is full", "7 queued 7"}},
		"window": {topic: "a", steps: func() []func() error {
			return []func() error{
				connect("c", func(c *record.Connect) { c.ReceiveMaximum = 1 }), subscribe("c", "a", 1), pub("a", 1, nil), pub("a", 1, nil), ack("c", 1),
			}
		}, want: []string{"6 queued 6: the window of messages in flight is full", "7 acknowledged 5", "7 in-flight 6"}},
		"clean start": {topic: "a", steps: func() []func() error {
			return []func() error{connect("c", nil), subscribe("c", "a", 1), gone("c"), pub("a", 1, nil), connect("c", clean)}
		}, want: []string{"7 session-ended 0: the client asked for a clean start", "7 dropped 6: the session ended", "7 session-begun 0"}},
		"removed": {topic: "a", steps: func() []func() error {
			return []func() error{connect("c", nil), subscribe("c", "a", 1), gone("c"), pub("a", 1, nil), func() error {
				r := record.SessionRemove{ClientID: []byte("c"), By: []byte("admin")}
				_, err := b.Log(r.AppendTo(nil))
				return err
			}}
		}, want: []string{"7 session-ended 0: it was removed", "7 dropped 6: the session ended"}},
		"refused": {topic: "a", steps: func() []func() error {
			return []func() error{connect("c", nil), subscribe("c", "a", 2), pub("a", 2, nil), func() error {
				s := b.State.Machine.SessionOf("c")
				r := record.Rec{Session: s.ID, Epoch: s.Epoch, PacketID: 1, Code: 0x87}
				_, err := b.Log(r.AppendTo(nil))
				return err
			}}
		}, want: []string{"6 acknowledged 5: refused by the client with code 0x87"}},
		"too large": {topic: "a", steps: func() []func() error {
			return []func() error{connect("c", nil), subscribe("c", "a", 1), pub("a", 1, nil), func() error {
				s := b.State.Machine.SessionOf("c")
				r := record.Ack{Session: s.ID, Epoch: s.Epoch, Reason: record.AckTooLarge}
				r.Add(1)
				_, err := b.Log(r.AppendTo(nil))
				return err
			}}
		}, want: []string{"6 dropped 5: larger than the client's maximum packet size"}},
		"takeover": {topic: "a", steps: func() []func() error {
			var old record.Epoch
			return []func() error{connect("c", nil), subscribe("c", "a", 1), pub("a", 1, nil), func() error {
				old = b.State.Machine.SessionOf("c").Epoch
				return b.Connect("c", nil)
			}, func() error {
				r := record.Ack{Session: b.State.Machine.SessionOf("c").ID, Epoch: old}
				r.Add(1)
				_, err := b.Log(r.AppendTo(nil))
				return err
			}}
		}, want: []string{"6 session-resumed 0: it takes over from connection", "7 ignored 5: it came from a connection"}},
		"retained on subscribe": {topic: "a", steps: func() []func() error {
			return []func() error{pub("a", 1, func(p *record.Publish) { p.Retain = true }), connect("c", nil), subscribe("c", "a", 1)}
		}, want: []string{"5 in-flight 3"}},
		"shared": {topic: "a", steps: func() []func() error {
			return []func() error{
				connect("c", nil), subscribe("c", "$share/g/a", 1), connect("other", nil), subscribe("other", "$share/g/a", 1),
				pub("a", 1, func(p *record.Publish) {
					p.Choices = []record.Choice{{Share: []byte("g"), Filter: []byte("a"), Session: b.State.Machine.SessionOf("other").ID}}
				}),
				pub("a", 1, func(p *record.Publish) {
					p.Choices = []record.Choice{{Share: []byte("g"), Filter: []byte("a"), Session: b.State.Machine.SessionOf("c").ID}}
				}),
				pub("a", 1, nil),
			}
		}, want: []string{"7 not-delivered 7: the shared group $share/g/a gave it to other", "8 in-flight 8", "9 not-delivered 9: it waits in the shared group"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := build(t, inspecttest.Options{Limits: tt.limits, Records: func(x *inspecttest.Builder) error {
				b = x
				return steps(tt.steps()...)
			}})
			outcomes, _ := ask(t, dir, inspect.Question{Client: "c", Topic: tt.topic})
			wants(t, outcomes, tt.want...)
			// Without a topic: the same but for what the client has nothing to do with.
			all, _ := ask(t, dir, inspect.Question{Client: "c"})
			for _, w := range tt.want {
				if !strings.Contains(w, "no matching") && !strings.Contains(w, "no durable session") && !strings.Contains(w, "5 retained 5") {
					wants(t, all, w)
				}
			}
		})
	}
}

// What Why says became of the messages of each client is what the state says,
// for random traffic, from the log's first record and from the backend's state.
func TestWhy_FatesAreTheState(t *testing.T) {
	for seed := range uint64(12) {
		o := inspecttest.Options{SegmentSize: 1024, Clean: seed%2 == 0, Limits: record.Limits{
			MaxInflight: 3, QueueMessages: 5, SessionExpiryMax: 1 << 20, DropOldest: seed%3 == 0,
		}}
		o.Records = func(b *inspecttest.Builder) error { return traffic(b, rand.New(rand.NewPCG(seed, 1)), 150) }
		dir, _ := build(t, o)
		trial := copyTree(t, dir)
		for _, client := range []string{"c0", "c1", "c2"} {
			_, story := ask(t, dir, inspect.Question{Client: client})
			got := map[uint64]bool{}
			for _, f := range story.Fates {
				if f.Result == inspect.Queued || f.Result == inspect.InFlight || f.Result == inspect.Received {
					got[f.Message] = true
				}
			}
			want := held(t, trial, client)
			if !maps.Equal(got, want) {
				t.Fatalf("seed %d, client %s, from record %d: the story ends with %v, the state with %v", seed, client, story.From,
					slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
			}
		}
	}
}

// held returns the messages that a client's session has.
func held(t *testing.T, dir, client string) map[uint64]bool {
	t.Helper()
	s, err := recovery.Open(background, recovery.Options{Dir: dir, Clock: func() int64 { return inspecttest.Start }})
	if err != nil {
		t.Fatal(err)
	}
	list := map[uint64]bool{}
	if x := s.Machine.SessionOf(client); x != nil {
		x.Out.All(func(e *session.Entry[uint64]) bool {
			list[e.Msg] = true
			return true
		})
	}
	if err := s.Close(background); err != nil {
		t.Fatal(err)
	}
	return list
}

// traffic makes n random records.
func traffic(b *inspecttest.Builder, r *rand.Rand, n int) error {
	clients := []string{"c0", "c1", "c2"}
	names := []string{"a", "a/b", "x"}
	filters := []string{"a/#", "a", "#", "x"}
	for range n {
		c := clients[r.IntN(len(clients))]
		s := b.State.Machine.SessionOf(c)
		var err error
		switch k := r.IntN(12); {
		case s == nil || !s.Connected() && k < 6:
			err = b.Connect(c, func(x *record.Connect) { x.CleanStart = r.IntN(8) == 0 })
		case k < 5:
			_, err = b.Publish(names[r.IntN(len(names))], "x", uint8(r.IntN(3)), func(p *record.Publish) { p.Retain = r.IntN(4) == 0 })
		case k < 7 && s.Connected():
			err = b.Subscribe(c, filters[r.IntN(len(filters))], topic.Options(r.IntN(3)), 0)
		case k < 10 && s.Connected():
			err = b.Ack(c, min(len(s.Out.Inflight()), 2))
		case k == 10 && s.Connected():
			err = b.Disconnect(c)
		case k == 11:
			err = b.Flush()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// One message, by its record.
func TestWhy_Message(t *testing.T) {
	dir, _ := build(t, inspecttest.Options{})
	lines, _ := dump(t, dir, inspect.Filter{Topic: "room/t3", Kinds: map[record.Kind]bool{record.KindPublish: true}})
	id := lines[0].Index
	_, story := ask(t, dir, inspect.Question{Client: "alice", Message: id})
	if len(story.Fates) != 1 || story.Fates[0].Result != inspect.Dropped || story.Fates[0].Reason != "it expired" || story.From != 0 {
		t.Errorf("%+v", story)
	}
	for _, wrong := range []uint64{1, 99_999} {
		_, err := open(t, dir).Why(background, &inspect.Question{Client: "alice", Message: wrong}, nil)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprint(wrong)) {
			t.Errorf("message %d: %v", wrong, err)
		}
	}
}
