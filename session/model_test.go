package session

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// item is an entry as the model keeps it, with everything in one place.
type item struct {
	Msg    uint64
	Seq    uint64
	PID    uint16
	QoS    uint8
	Phase  Phase
	Retain bool
	Resend bool
	IDs    []uint32
	Group  string
}

// model is what Outbound promises, in slices and plain searches.
type model struct {
	queue, inflight []item
	tail            uint64
	lastPID         uint16
	sent            int
}

func (m *model) push(it item) {
	m.tail++
	it.Seq = m.tail
	m.queue = append(m.queue, it)
}

func (m *model) used(pid uint16) bool {
	return slices.ContainsFunc(m.inflight, func(it item) bool { return it.PID == pid })
}

func (m *model) assign() item {
	it := m.queue[0]
	m.queue = m.queue[1:]
	for it.PID = m.lastPID + 1; it.PID == 0 || m.used(it.PID); it.PID++ {
	}
	m.lastPID = it.PID
	m.inflight = append(m.inflight, it)
	return it
}

func (m *model) remove(pid uint16) (item, bool) {
	i := slices.IndexFunc(m.inflight, func(it item) bool { return it.PID == pid })
	if i < 0 {
		return item{}, false
	}
	it := m.inflight[i]
	m.inflight = slices.Delete(m.inflight, i, i+1)
	if i < m.sent {
		m.sent--
	}
	return it, true
}

func (m *model) all() []item { return slices.Concat(m.inflight, m.queue) }

// itemOf reads an entry of o with its notes.
func itemOf(o *Outbound[uint64], e *Entry[uint64]) item {
	it := item{Msg: e.Msg, Seq: e.Seq, PID: e.PID, QoS: e.QoS, Phase: e.Phase, Retain: e.Retain, Resend: e.Resend}
	if e.Many {
		it.IDs = slices.Clone(o.SubIDs[e.Seq])
	} else if e.SubID != 0 {
		it.IDs = []uint32{e.SubID}
	}
	if e.Group {
		it.Group = o.GroupOf[e.Seq]
	}
	return it
}

// outboundTest drives an Outbound and the model side by side. stored is the
// backend: what Changes said so far.
type outboundTest struct {
	o      *Outbound[uint64]
	m      model
	stored map[uint64]item
	msg    uint64
}

func (s *outboundTest) draw(t *rapid.T) (e Entry[uint64], it item) {
	s.msg++
	it = item{
		Msg: s.msg, QoS: rapid.Uint8Range(1, 2).Draw(t, "qos"), Retain: rapid.Bool().Draw(t, "retain"),
		IDs:   rapid.SliceOfN(rapid.Uint32Range(1, 9), 0, 3).Draw(t, "ids"),
		Group: rapid.SampledFrom([]string{"", "", "$share/a/x", "$share/b/x"}).Draw(t, "group"),
	}
	return Entry[uint64]{Msg: it.Msg, QoS: it.QoS, Retain: it.Retain}, it
}

func (s *outboundTest) push(t *rapid.T) {
	for range rapid.SampledFrom([]int{1, 1, 3, 70}).Draw(t, "burst") {
		e, it := s.draw(t)
		s.m.push(it)
		if got := s.o.Push(e, it.IDs, it.Group); got != s.m.tail {
			t.Fatalf("pushed as %d, want %d", got, s.m.tail)
		}
	}
}

func (s *outboundTest) deliver(t *rapid.T) {
	if len(s.m.queue) > 0 {
		t.Skip("the queue comes first")
	}
	e, it := s.draw(t)
	s.m.push(it)
	want := s.m.assign()
	if got := itemOf(s.o, s.o.Deliver(e, it.IDs, it.Group)); !equal(got, want) {
		t.Fatalf("delivered %+v, want %+v", got, want)
	}
}

func (s *outboundTest) assign(t *rapid.T) {
	for range rapid.SampledFrom([]int{1, 5, 40}).Draw(t, "burst") {
		if len(s.m.queue) == 0 {
			return
		}
		want := s.m.assign()
		if got := itemOf(s.o, s.o.Assign()); !equal(got, want) {
			t.Fatalf("assigned %+v, want %+v", got, want)
		}
	}
}

// drawPID picks an identifier, mostly one in use.
func (s *outboundTest) drawPID(t *rapid.T) uint16 {
	if n := len(s.m.inflight); n > 0 && rapid.IntRange(0, 9).Draw(t, "known") > 0 {
		return s.m.inflight[rapid.IntRange(0, n-1).Draw(t, "place")].PID
	}
	return rapid.Uint16().Draw(t, "any pid")
}

func (s *outboundTest) remove(t *rapid.T) {
	for range rapid.SampledFrom([]int{1, 2, 50}).Draw(t, "burst") {
		pid := s.drawPID(t)
		want, ok := s.m.remove(pid)
		e := s.o.Find(pid)
		if (e != nil) != ok {
			t.Fatalf("find %d: %v, want %v", pid, e, ok)
		}
		got, had := s.o.Remove(pid)
		if had != ok || got.Msg != want.Msg || got.Seq != want.Seq {
			t.Fatalf("removed %+v, %v, want %+v, %v", got, had, want, ok)
		}
	}
}

func (s *outboundTest) removeInOrder(t *rapid.T) {
	for range rapid.IntRange(0, 100).Draw(t, "acks") {
		if len(s.m.inflight) == 0 {
			return
		}
		pid := s.m.inflight[0].PID
		s.m.remove(pid)
		if _, had := s.o.Remove(pid); !had {
			t.Fatalf("identifier %d is not there", pid)
		}
	}
}

func (s *outboundTest) release(t *rapid.T) {
	e := s.o.Find(s.drawPID(t))
	if e == nil || e.QoS != 2 {
		t.Skip("no QoS 2 delivery")
	}
	i := slices.IndexFunc(s.m.inflight, func(it item) bool { return it.PID == e.PID })
	s.m.inflight[i].Phase = PhaseRelease
	s.o.Released(e)
}

func (s *outboundTest) dropHead(t *rapid.T) {
	head, ok := s.o.Head()
	if ok != (len(s.m.queue) > 0) {
		t.Fatalf("head %v with %d queued", ok, len(s.m.queue))
	}
	if !ok {
		t.Skip("nothing queued")
	}
	want := s.m.queue[0]
	s.m.queue = s.m.queue[1:]
	if got := itemOf(s.o, &head); !equal(got, want) {
		t.Fatalf("head %+v, want %+v", got, want)
	}
	if got := s.o.DropHead(); got.Seq != want.Seq || got.Msg != want.Msg {
		t.Fatalf("dropped %+v, want %+v", got, want)
	}
}

// extract takes what came through a group, everywhere or in the queue alone.
func (s *outboundTest) extract(t *rapid.T) {
	group := rapid.SampledFrom([]string{"", "$share/a/x", "$share/b/x"}).Draw(t, "of")
	every := rapid.SampledFrom([]uint64{1, 2, 7}).Draw(t, "every")
	queue := rapid.Bool().Draw(t, "queue only")
	n := 1 << 30
	if queue {
		n = rapid.IntRange(0, 100).Draw(t, "at most")
	}
	match := func(seq uint64, g string) bool { return g == group && seq%every == 0 }
	var want, got []item
	keep := func(list []item, n int, gone func(i int)) (kept []item) {
		for i, it := range list {
			if match(it.Seq, it.Group) && n > 0 {
				n--
				want = append(want, it)
				gone(i)
				continue
			}
			kept = append(kept, it)
		}
		return kept
	}
	if !queue {
		sent := s.m.sent
		s.m.inflight = keep(s.m.inflight, n, func(i int) {
			if i < sent {
				s.m.sent--
			}
		})
	}
	s.m.queue = keep(s.m.queue, n, func(int) {})

	m := func(e *Entry[uint64]) bool { return match(e.Seq, s.o.GroupOf[e.Seq]) }
	take := func(e Entry[uint64]) { got = append(got, itemOf(s.o, &e)) }
	if queue {
		s.o.ExtractQueued(n, m, take)
	} else {
		s.o.Extract(m, take)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("extracted (-want +got):\n%s", d)
	}
}

// changes brings the backend up to date: it must hold the model then, and
// every put must say truly whether it is new.
func (s *outboundTest) changes(t *rapid.T) {
	held := func(c uint64) (seqs []uint64) {
		for seq := range s.stored {
			if seq/ChunkLen == c {
				seqs = append(seqs, seq)
			}
		}
		return seqs
	}
	s.o.Changes(func(c uint64, isNew bool) {
		old := held(c)
		if (len(old) > 0) == isNew {
			t.Fatalf("put %d as new %v, stored before: %v", c, isNew, old)
		}
		for _, seq := range old {
			delete(s.stored, seq)
		}
		s.o.Chunk(c, func(e *Entry[uint64]) {
			it := itemOf(s.o, e)
			it.Resend = false
			s.stored[e.Seq] = it
		})
		if len(held(c)) == 0 {
			t.Fatalf("put %d, which is empty", c)
		}
	}, func(c uint64) {
		old := held(c)
		if len(old) == 0 {
			t.Fatalf("deleted %d, which was not stored", c)
		}
		for _, seq := range old {
			delete(s.stored, seq)
		}
	})
	s.o.Changes(func(c uint64, _ bool) { t.Fatalf("%d changed again by itself", c) },
		func(c uint64) { t.Fatalf("%d is gone again", c) })
	s.sameAsStored(t)
}

func (s *outboundTest) sameAsStored(t *rapid.T) {
	want := make(map[uint64]item)
	for _, it := range s.m.all() {
		it.Resend = false // no state
		want[it.Seq] = it
	}
	if !maps.EqualFunc(want, s.stored, equal) {
		t.Fatalf("backend (-model +stored):\n%s", cmp.Diff(want, s.stored, cmpopts.EquateEmpty()))
	}
}

// restart loads a new Outbound from the backend.
func (s *outboundTest) restart(t *rapid.T) {
	s.changes(t)
	o := new(Outbound[uint64])
	for _, it := range s.m.all() { // in sequence order
		b := s.stored[it.Seq]
		o.Restore(Entry[uint64]{Msg: b.Msg, Seq: b.Seq, PID: b.PID, QoS: b.QoS, Phase: b.Phase, Retain: b.Retain}, b.IDs, b.Group)
	}
	o.Restored(s.m.tail, s.m.lastPID)
	s.o = o
	s.o.Restarted()
	for i := range s.m.inflight {
		s.m.inflight[i].Resend = true
	}
	s.m.sent = 0
}

// turn lets the identifiers go round to just before one that is in use.
func (s *outboundTest) turn(t *rapid.T) {
	if len(s.m.inflight) == 0 {
		t.Skip("nothing in flight")
	}
	s.m.lastPID = s.drawPID(t) - rapid.Uint16Range(0, 4).Draw(t, "before")
	s.restart(t)
}

func (s *outboundTest) reconnect(*rapid.T) {
	s.o.Reconnected()
	for i := range s.m.inflight[:s.m.sent] {
		s.m.inflight[i].Resend = true
	}
	s.m.sent = 0
}

func (s *outboundTest) send(t *rapid.T) {
	for range rapid.IntRange(1, 50).Draw(t, "packets") {
		e := s.o.Next()
		if (e == nil) != (s.m.sent == len(s.m.inflight)) {
			t.Fatalf("next %v, cursor at %d of %d", e, s.m.sent, len(s.m.inflight))
		}
		if e == nil {
			return
		}
		if got := itemOf(s.o, e); !equal(got, s.m.inflight[s.m.sent]) {
			t.Fatalf("next %+v, want %+v", got, s.m.inflight[s.m.sent])
		}
		s.o.Sent()
		s.m.sent++
	}
}

func (s *outboundTest) check(t *rapid.T) {
	if err := s.o.Check(); err != nil {
		t.Fatal(err)
	}
	var got []item
	s.o.All(func(e *Entry[uint64]) bool {
		got = append(got, itemOf(s.o, e))
		return true
	})
	if want := s.m.all(); !slices.EqualFunc(want, got, equal) {
		t.Fatalf("entries (-model +outbound):\n%s", cmp.Diff(want, got, cmpopts.EquateEmpty()))
	}
	if s.o.Queued() != len(s.m.queue) || len(s.o.Inflight()) != len(s.m.inflight) || s.o.Tail() != s.m.tail {
		t.Fatalf("%d queued, %d in flight, tail %d, want %d, %d, %d", s.o.Queued(), len(s.o.Inflight()), s.o.Tail(),
			len(s.m.queue), len(s.m.inflight), s.m.tail)
	}
	if s.o.LastPID != s.m.lastPID || s.o.Unsent() != len(s.m.inflight)-s.m.sent {
		t.Fatalf("last identifier %d, unsent %d, want %d, %d", s.o.LastPID, s.o.Unsent(), s.m.lastPID, len(s.m.inflight)-s.m.sent)
	}
	var want []uint64
	for _, it := range s.m.queue[:min(3, len(s.m.queue))] {
		want = append(want, it.Msg)
	}
	if got := s.o.Upcoming(nil, 3); !slices.Equal(got, want) {
		t.Fatalf("upcoming %v, want %v", got, want)
	}
}

func equal(a, b item) bool {
	return a.Msg == b.Msg && a.Seq == b.Seq && a.PID == b.PID && a.QoS == b.QoS && a.Phase == b.Phase &&
		a.Retain == b.Retain && a.Resend == b.Resend && slices.Equal(a.IDs, b.IDs) && a.Group == b.Group
}

// Outbound behaves like two slices, whatever happens to it, and what Changes
// stores gives it back.
func TestOutboundModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &outboundTest{o: new(Outbound[uint64]), stored: make(map[uint64]item)}
		// Beginning near the last identifier makes them go round.
		s.m.lastPID = rapid.SampledFrom([]uint16{0, 65530, 65400}).Draw(t, "last pid")
		s.o.Restored(0, s.m.lastPID)
		t.Repeat(map[string]func(*rapid.T){
			"push": s.push, "deliver": s.deliver, "assign": s.assign, "assign2": s.assign, "remove": s.remove,
			"acks": s.removeInOrder, "release": s.release, "dropHead": s.dropHead, "extract": s.extract,
			"changes": s.changes, "restart": s.restart, "turn": s.turn, "reconnect": s.reconnect, "send": s.send, "": s.check,
		})
	})
}
