package core

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// outcome is what one record did, in a form that does not depend on slots or
// on which ephemeral clients there are.
func outcome(m *Machine, fx *Effects) string {
	var b strings.Builder
	r := fx.Reply
	fmt.Fprintf(&b, "%s stale %v pid %d known %v duplicate %v codes %x message %d session %d present %v expiry %d over %d\n",
		r.Kind, r.Stale, r.PacketID, r.Known, r.Duplicate, r.Codes, r.Message, r.Session, r.Present, r.Expiry, r.TakenOver)
	sid := func(ref uint32) (uint64, bool) {
		if ref == NoRef {
			return 0, true
		}
		if s := m.Session(ref); s != nil {
			return s.ID, true
		}
		return 0, false
	}
	var direct, touched, groups, waiting, retained []string
	for i := range fx.Direct {
		if id, ok := sid(fx.Direct[i].Ref); ok {
			d := &fx.Direct[i]
			direct = append(direct, fmt.Sprint(id, d.QoS, d.Retain, slices.Sorted(slices.Values(d.IDs(fx)))))
		}
	}
	for _, ref := range fx.Touched {
		id, _ := sid(ref)
		touched = append(touched, fmt.Sprint(id))
	}
	for _, g := range fx.Groups {
		if k := (GroupKey{g.Share, g.Filter}); m.HasDurable(k) {
			groups = append(groups, k.String())
		}
	}
	for _, k := range fx.Waiting {
		waiting = append(waiting, k.String())
	}
	for _, e := range fx.Retained {
		if id, ok := sid(e.Ref); ok {
			retained = append(retained, fmt.Sprint(id, e.SubID, e.Message, e.QoS))
		}
	}
	for _, list := range []*[]string{&direct, &touched, &groups, &waiting} { // sets
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	fmt.Fprintln(&b, "direct", direct, "touched", touched, "groups", groups, "waiting", waiting, "retained", retained)
	fmt.Fprintln(&b, "owned", fx.Owned, "orphans", fx.Orphans, "wills", fx.WillsDue, "expired", fx.RetainedExpired)
	for _, e := range fx.Ended {
		fmt.Fprintln(&b, "ended", e.Session, e.ClientID, e.Epoch, e.Reason)
	}
	var drops []string
	for _, d := range fx.Dropped {
		id, _ := sid(d.Ref)
		drops = append(drops, fmt.Sprint(id, d.Message, d.Reason))
	}
	slices.Sort(drops) // by session; the order within one is checked by the model
	fmt.Fprintln(&b, "dropped", drops)
	return b.String()
}

// everything lists the state as it is in memory, so that what Export forgets is
// missed.
func everything(m *Machine) string {
	var b strings.Builder
	for _, s := range append(m.sorted(), m.released...) {
		if m.sessions[s.ID] != s { // of an ended one only the messages count
			s = &session.Session{ID: s.ID, Out: s.Out}
		}
		fmt.Fprintf(&b, "%d %s %s v%d epoch %d expiry %d max %d %d off %d will %v %v %d received %v:", s.ID, s.ClientID, s.User,
			s.Version, s.Epoch, s.Expiry, s.ReceiveMaximum, s.MaxPacket, s.Disconnected, s.HasWill, s.Will, s.WillAt, s.Received())
		fmt.Fprint(&b, " scans ", s.Scans)
		for _, f := range s.Filters() {
			sub, _ := s.Subscription(f)
			fmt.Fprint(&b, " ", f, sub)
		}
		s.Out.All(func(e *session.Entry[uint64]) bool {
			fmt.Fprint(&b, " ", e.Seq, e.PID, e.Msg, e.QoS, e.Phase, e.Retain, e.SubID, s.Out.SubIDs[e.Seq], s.Out.GroupOf[e.Seq])
			return true
		})
		fmt.Fprintln(&b)
	}
	m.messages.each(func(id uint64, msg *message) {
		was := *msg
		was.flags &^= messageStored
		fmt.Fprintln(&b, "message", id, was)
	})
	m.retained.All(func(name string, e retain.Entry) bool {
		fmt.Fprintln(&b, "retained", name, e)
		return true
	})
	for _, g := range m.sortedGroups() {
		fmt.Fprintln(&b, "group", g.key, g.durable, slices.Concat(g.pending.pages...))
	}
	for _, id := range slices.Sorted(maps.Keys(m.wills)) {
		w := *m.wills[id]
		w.place = 0
		fmt.Fprintln(&b, "will", w)
	}
	next, ok := m.NextDeadline()
	fmt.Fprintln(&b, next, ok, m.Counts(), m.limits, m.level, m.boot, m.nextWill)
	return b.String()
}

// history is a drawn history with what it did at each record.
type history struct {
	bounds   bounds
	steps    []step
	outcomes []string
	hashes   []Hash // after each record
	state    map[string][]byte
	dump     string
}

func drawHistory(t *rapid.T, check bool) *history {
	w := newWorld(t.Fatalf)
	h := &history{}
	var generation uint64
	var groups int
	w.each = func(s *step) {
		if check {
			if err := w.m.Check(); err != nil {
				t.Fatalf("%v\nafter %s", err, s.note)
			}
		}
		// What others read meanwhile changes only when it may.
		if s.rec != nil && !ChangesIndex(record.KindOf(s.rec)) {
			if w.m.index.Generation() != generation || len(w.m.groups) != groups || len(w.fx.Retained) > 0 {
				t.Fatalf("%s changes the index, or brings %v", s.note, w.fx.Retained)
			}
		}
		generation, groups = w.m.index.Generation(), len(w.m.groups)
		if s.rec != nil {
			h.outcomes = append(h.outcomes, outcome(w.m, &w.fx))
			h.hashes = append(h.hashes, w.m.Hash(&worldHashKey))
		}
	}
	w.m.bounds = drawBounds(t)
	w.begin(drawWorldLimits(t))
	w.populate(t)
	w.drawSteps(t, rapid.IntRange(1, 120).Draw(t, "steps"))
	h.bounds, h.steps = w.m.bounds, w.steps
	h.state, h.dump = exported(w.m), everything(w.m)
	return h
}

// Every history leaves a state that is sound after each step.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { drawHistory(t, true) })
}

// State = replay(records): a machine that was written down and loaded at any
// points, with any schedule of checkpoints, without the ephemeral clients of
// the original run, does the same at every record and ends as the same.
func TestReplayEquivalence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t, false)
		m, b := New(), newBackend(t.Fatalf)
		m.bounds = h.bounds
		collect := rapid.SampledFrom([]int{1, 3, 20, 1000}).Draw(t, "collect every")
		restart := rapid.SampledFrom([]int{2, 10, 40, 1000}).Draw(t, "restart every")
		var fx Effects
		at := 0
		for i := range h.steps {
			s := &h.steps[i]
			if s.rec == nil {
				continue
			}
			if err := m.Apply(m.Applied()+1, s.now, slices.Clone(s.rec), &fx); err != nil {
				t.Fatalf("%s: %v", s.note, err)
			}
			if got := outcome(m, &fx); got != h.outcomes[at] {
				t.Fatalf("record %d %s did something else (-first run +replay):\n%s", at, s.note, cmp.Diff(h.outcomes[at], got))
			}
			if got := m.Hash(&worldHashKey); got != h.hashes[at] {
				t.Fatalf("record %d %s left another state: hash %x, want %x", at, s.note, got.Bytes(), h.hashes[at].Bytes())
			}
			at++
			dies := rapid.IntRange(0, restart).Draw(t, "restart") == 0
			if dies || rapid.IntRange(0, collect).Draw(t, "collect") == 0 {
				checkCollect(t, m, b)
			}
			if dies {
				var err error
				if m, err = Load(b.scan, m.Applied(), m.Now()); err != nil {
					t.Fatalf("after %s: %v", s.note, err)
				}
				m.bounds = h.bounds
				if err := m.Check(); err != nil {
					t.Fatalf("loaded after %s: %v", s.note, err)
				}
			}
		}
		checkCollect(t, m, b)
		sameState(t, h.state, exported(m))
		if got := everything(m); got != h.dump {
			t.Fatalf("sessions (-first run +replay):\n%s", cmp.Diff(h.dump, got))
		}
	})
}

// checkCollect brings the backend up to date: it then holds the state and
// nothing else, a body for each message, and the hash kept entry by entry is
// that of the state.
func checkCollect(t *rapid.T, m *Machine, b *backend) {
	before := maps.Clone(b.entries)
	changed := m.Changed()
	m.Collect(b)
	if changed == 0 && !maps.EqualFunc(before, b.entries, bytes.Equal) {
		t.Fatalf("Changed says 0, Collect changed the backend")
	}
	if n := m.Changed(); n != 0 {
		t.Fatalf("Changed says %d after Collect", n)
	}
	sameState(t, exported(m), b.entries)
	if got := m.Hash(&worldHashKey); got != b.hash {
		t.Fatalf("hash of the state %x, kept %x", got.Bytes(), b.hash.Bytes())
	}
	if !slices.Equal(slices.Sorted(maps.Keys(b.bodies)), messageIDs(m)) {
		t.Fatalf("bodies %v of messages %v", b.bodies, messageIDs(m))
	}
	none := newBackend(t.Fatalf)
	m.Collect(none)
	if len(none.entries) > 0 {
		t.Fatalf("a second Collect puts %q", slices.Sorted(maps.Keys(none.entries)))
	}
}

func sameState(t *rapid.T, want, got map[string][]byte) {
	if !maps.EqualFunc(want, got, bytes.Equal) {
		t.Fatalf("state (-want +got):\n%s", cmp.Diff(want, got))
	}
}
