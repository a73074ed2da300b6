package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
)

// view is the state in the words of the naive broker.
func (n *naive) view() string {
	var b strings.Builder
	for _, s := range n.sessions {
		fmt.Fprintln(&b, s.id, s.client, s.epoch, s.expiry, s.subs, slices.Sorted(maps.Keys(s.received)), "will", s.will != nil, s.willAt)
		for _, e := range slices.Concat(s.flight, s.queue) {
			fmt.Fprintln(&b, "  ", e.Msg, e.PID, e.QoS, e.Retain, e.Released, e.IDs, e.Group)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.retained)) {
		fmt.Fprintln(&b, "retained", name, n.retained[name])
	}
	for _, k := range worldShared {
		for _, p := range n.pending[k] {
			fmt.Fprintln(&b, "pending", k, p.msg, p.epoch, p.qos)
		}
	}
	for _, w := range n.wills {
		at := w.at
		if w.due || w.epoch != 0 {
			at = 0
		}
		fmt.Fprintln(&b, "will", w.id, w.client, w.epoch, w.due, at)
	}
	fmt.Fprintln(&b, "messages", slices.Sorted(maps.Keys(n.messages)))
	return b.String()
}

// viewOf is the state of a machine in the same words.
func viewOf(m *Machine) string {
	var b strings.Builder
	for _, s := range m.sorted() {
		subs := map[string]session.Subscription{}
		for _, f := range s.Filters() {
			subs[f], _ = s.Subscription(f)
		}
		fmt.Fprintln(&b, s.ID, s.ClientID, s.Epoch, s.Expiry, subs, s.Received(), "will", s.HasWill, s.WillAt)
		s.Out.All(func(e *session.Entry[uint64]) bool {
			fmt.Fprintln(&b, "  ", e.Msg, e.PID, e.QoS, e.Retain, e.Phase == session.PhaseRelease, idsOf(&s.Out, e), s.Out.GroupOf[e.Seq])
			return true
		})
	}
	var retained []string
	m.retained.All(func(name string, e retain.Entry) bool {
		retained = append(retained, fmt.Sprintln("retained", name, e.Message))
		return true
	})
	slices.Sort(retained)
	b.WriteString(strings.Join(retained, ""))
	for _, k := range worldShared {
		if g := m.groups[k]; g != nil {
			g.pending.each(func(_ pendingAt, p *pending) bool {
				fmt.Fprintln(&b, "pending", k, p.message, p.epoch, p.qos)
				return true
			})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.wills)) {
		w := m.wills[id]
		at := w.at
		if !w.waits() {
			at = 0
		}
		fmt.Fprintln(&b, "will", w.id, w.clientID, w.epoch, w.due, at)
	}
	fmt.Fprintln(&b, "messages", messageIDs(m))
	return b.String()
}

func idsOf(o *session.Outbound[uint64], e *session.Entry[uint64]) []uint32 {
	if e.Many {
		return o.SubIDs[e.Seq]
	}
	return idList(e.SubID)
}

func messageIDs(m *Machine) (ids []uint64) {
	m.messages.each(func(id uint64, _ *message) { ids = append(ids, id) })
	return ids
}

// effectsOf lists the effects of a record as the naive broker does.
func effectsOf(m *Machine, fx *Effects) naiveEffects {
	var d naiveEffects
	sid := func(ref uint32) uint64 {
		if ref == NoRef {
			return 0
		}
		if s := m.Session(ref); s != nil {
			return s.ID
		}
		return 0
	}
	if fx.Reply.Session != 0 {
		d.add("present", fx.Reply.Present)
	}
	for i := range fx.Direct {
		if id := sid(fx.Direct[i].Ref); id != 0 {
			d.add("direct", id, fx.Direct[i].Retain, slices.Sorted(slices.Values(fx.Direct[i].IDs(fx))))
		}
	}
	for _, r := range fx.Retained {
		if id := sid(r.Ref); id != 0 {
			d.add("retained", id, r.Message, r.SubID)
		}
	}
	for _, o := range fx.Owned {
		d.add("owned", o.Group, o.Message, o.Epoch)
	}
	for _, o := range fx.Orphans {
		d.add("orphan", o.Group, o.Message)
	}
	for _, id := range fx.WillsDue {
		d.add("will", id)
	}
	for _, e := range fx.Ended {
		d.add("ended", e.Session)
	}
	for _, e := range fx.Dropped {
		d.add("drop", sid(e.Ref), e.Message, e.Reason)
	}
	for _, name := range fx.RetainedExpired {
		d.add("retained expired", name)
	}
	slices.Sort(d)
	return d
}

// The machine holds what a naive broker holds, and does what that one does,
// after every record of any history.
func TestReferenceModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t.Fatalf)
		n := newNaive()
		// The naive broker does everything at once.
		w.m.bounds = bounds{1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20}
		starts := false
		w.each = func(s *step) {
			if s.rec == nil {
				return
			}
			n.apply(w.m.Applied(), s.now, s.rec)
			if want, got := n.view(), viewOf(w.m); want != got {
				t.Fatalf("state after record %d %s (-naive +machine):\n%s", w.m.Applied(), s.note, cmp.Diff(want, got))
			}
			slices.Sort(n.did)
			if got := effectsOf(w.m, &w.fx); !slices.Equal(n.did, got) {
				t.Fatalf("effects of record %d %s (-naive +machine):\n%s", w.m.Applied(), s.note, cmp.Diff(n.did, got))
			}
			starts = true
		}
		w.begin(drawWorldLimits(t))
		w.populate(t)
		w.drawSteps(t, rapid.IntRange(1, 120).Draw(t, "steps"))
		if !starts {
			t.Fatal("nothing was compared")
		}
	})
}
