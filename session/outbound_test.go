package session

import (
	"testing"
)

// fill pushes and assigns n messages.
func fill(o *Outbound[uint64], n int) {
	for i := range n {
		o.Push(Entry[uint64]{Msg: uint64(i + 1), QoS: 1}, nil, "")
		o.Assign()
	}
}

// An identifier in use is never given again, however often the others go
// round while one delivery is stuck [MQTT-2.2.1-4].
func TestOutboundStuck_MQTT_2_2_1_4(t *testing.T) {
	var o Outbound[uint64]
	fill(&o, 3) // identifiers 1, 2, 3
	o.Remove(2)
	want := uint16(3)
	for i := range 2*65535 + 10 {
		want++
		if want == 0 {
			want = 1
		}
		for want == 1 || want == 3 {
			want++
		}
		o.Push(Entry[uint64]{Msg: 9, QoS: 2}, nil, "")
		if e := o.Assign(); e.PID != want {
			t.Fatalf("message %d got identifier %d, want %d", i, e.PID, want)
		}
		if e := o.Find(want); e == nil || e.PID != want {
			t.Fatalf("identifier %d is not found", want)
		}
		if _, ok := o.Remove(want); !ok {
			t.Fatalf("identifier %d can't be removed", want)
		}
	}
	if o.Find(1) == nil || o.Find(3) == nil || o.Find(2) != nil || len(o.Inflight()) != 2 {
		t.Fatalf("in flight: %+v", o.Inflight())
	}
	if err := o.Check(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []uint16{1, 3} {
		if _, ok := o.Remove(pid); !ok || o.window.old < 0 {
			t.Fatalf("stuck identifier %d: removed %v", pid, ok)
		}
	}
	if fill(&o, 70_000-4465); o.window.old != 0 { // nobody is passed over
		t.Errorf("%d old entries without one", o.window.old)
	}
}

// All 65 534 identifiers but one may be in use: the free one is found, in a
// window that was put back as well.
func TestOutboundWholeWindow(t *testing.T) {
	var o Outbound[uint64]
	fill(&o, 65535)
	if o.LastPID != 65535 {
		t.Fatalf("last identifier %d", o.LastPID)
	}
	for _, free := range []uint16{1, 30_000, 10, 65535, 2, 65534, 40_000, 40_001, 39_999} {
		if _, ok := o.Remove(free); !ok {
			t.Fatalf("identifier %d is not there", free)
		}
		o.Push(Entry[uint64]{Msg: 1, QoS: 1}, nil, "")
		if got := o.Assign().PID; got != free {
			t.Fatalf("got identifier %d, the only free one is %d", got, free)
		}
		var back Outbound[uint64]
		for _, e := range o.Inflight() {
			back.Restore(e, nil, "")
		}
		back.Restored(o.Tail(), o.LastPID)
		back.Remove(7)
		back.Push(Entry[uint64]{Msg: 1, QoS: 1}, nil, "")
		if got := back.Assign().PID; got != 7 {
			t.Fatalf("after a restore: got identifier %d, the only free one is 7", got)
		}
		if err := back.Check(); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Check(); err != nil {
		t.Fatal(err)
	}
}

// In steady state neither queue nor window allocates: not when each message
// is acknowledged at once, not with a standing window that is acknowledged in
// order or from the middle, not with a standing backlog.
func TestOutboundDoesNotAllocate(t *testing.T) {
	ids := []uint32{4}
	for name, c := range map[string]struct{ inflight, queued, ack int }{
		"at once":           {1, 0, 0},
		"window of 20":      {20, 0, 0},
		"window of 256":     {256, 0, 0},
		"newest ack first":  {20, 0, 19},
		"acks in between":   {200, 0, 77},
		"small backlog":     {1, 5, 0},
		"window and queue":  {16, 1000, 3},
		"many chunks":       {16, 10_000, 0},
		"one in the middle": {3, 64, 1},
	} {
		var o Outbound[uint64]
		for range c.inflight + c.queued {
			o.Push(Entry[uint64]{Msg: 7, QoS: 1}, ids, "")
		}
		for range c.inflight {
			o.Assign()
		}
		turn := func() {
			for range 500 {
				o.Remove(o.Inflight()[c.ack].PID)
				o.Push(Entry[uint64]{Msg: 7, QoS: 1}, ids, "")
				o.Assign()
			}
		}
		for range 100 { // into the steady state
			turn()
		}
		if n := testing.AllocsPerRun(20, turn); n != 0 {
			t.Errorf("%s: %v allocations in 500 messages", name, n)
		}
		if err := o.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The memory of a backlog goes with it.
func TestOutboundDrained(t *testing.T) {
	var o Outbound[uint64]
	for range 100_000 {
		o.Push(Entry[uint64]{Msg: 7, QoS: 1}, nil, "")
	}
	for o.Queued() > 0 {
		o.Remove(o.Assign().PID)
	}
	if n := len(o.queue.chunks) - o.queue.front; n != 1 {
		t.Errorf("%d chunks for an empty queue", n)
	}
	for i := range o.queue.front {
		if o.queue.chunks[i].q != nil {
			t.Fatalf("chunk %d of a drained queue is kept", i)
		}
	}
}

// A gap between sequence numbers that no chunk can span is one all the same.
func TestOutboundFarApart(t *testing.T) {
	var o Outbound[uint64]
	seqs := []uint64{1, 2, 1 << 24, 1<<24 + 1, 1 << 40, 1<<40 + 1<<23}
	for i, seq := range seqs {
		o.Restore(Entry[uint64]{Msg: uint64(i), Seq: seq, QoS: 1}, nil, "")
	}
	o.Restored(1<<41, 0)
	if err := o.Check(); err != nil {
		t.Fatal(err)
	}
	for i, seq := range seqs {
		if e := o.Assign(); e.Seq != seq || e.Msg != uint64(i) {
			t.Fatalf("%+v, want %d at %d", e, i, seq)
		}
	}
	if got := o.Push(Entry[uint64]{QoS: 1}, nil, ""); got != 1<<41+1 {
		t.Errorf("next number %d", got)
	}
}

func BenchmarkOutbound(b *testing.B) {
	b.Run("push assign remove", func(b *testing.B) {
		b.ReportAllocs()
		var o Outbound[uint64]
		for b.Loop() {
			o.Push(Entry[uint64]{Msg: 1, QoS: 1}, nil, "")
			o.Remove(o.Assign().PID)
		}
	})
	b.Run("deliver remove", func(b *testing.B) {
		b.ReportAllocs()
		var o Outbound[uint64]
		for b.Loop() {
			o.Remove(o.Deliver(Entry[uint64]{Msg: 1, QoS: 1}, nil, "").PID)
		}
	})
	b.Run("window 256", func(b *testing.B) {
		b.ReportAllocs()
		var o Outbound[uint64]
		fill(&o, 255)
		for b.Loop() {
			o.Deliver(Entry[uint64]{Msg: 1, QoS: 1}, nil, "")
			o.Remove(o.Inflight()[0].PID)
		}
	})
	b.Run("window 256 unordered", func(b *testing.B) {
		b.ReportAllocs()
		var o Outbound[uint64]
		fill(&o, 255)
		i := 0
		for b.Loop() {
			o.Deliver(Entry[uint64]{Msg: 1, QoS: 1}, nil, "")
			i = (i + 101) % 256
			o.Remove(o.Inflight()[i].PID)
		}
	})
	b.Run("backlog", func(b *testing.B) {
		b.ReportAllocs()
		var o Outbound[uint64]
		for range 100_000 {
			o.Push(Entry[uint64]{Msg: 1, QoS: 1}, nil, "")
		}
		for b.Loop() {
			o.Push(Entry[uint64]{Msg: 1, QoS: 1}, nil, "")
			o.Remove(o.Assign().PID)
		}
	})
}
