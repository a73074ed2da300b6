package record

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// Whatever is appended decodes to itself, also into a value that held another
// record before, and every cut of its bytes is noticed.
func TestDecodeAppended(t *testing.T) {
	for k := KindGenesis; Known(k); k++ {
		t.Run(k.String(), rapid.MakeCheck(func(t *rapid.T) {
			want, other := draw(t, k), draw(t, k)
			prefix := []byte("prefix")
			rec := want.AppendTo(prefix)
			if !bytes.HasPrefix(rec, prefix) {
				t.Fatalf("append overwrote what was there: %x", rec)
			}
			rec = slices.Clip(rec[len(prefix):])
			if KindOf(rec) != k {
				t.Fatalf("encoded as %s", KindOf(rec))
			}
			got := zero(k)
			for _, b := range [][]byte{other.AppendTo(nil), rec} {
				if err := got.Decode(b); err != nil {
					t.Fatalf("decode %x: %v", b, err)
				}
			}
			if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
				t.Fatalf("decoded (-appended +decoded):\n%s", d)
			}
			if again := got.AppendTo(nil); !bytes.Equal(again, rec) {
				t.Fatalf("encoded again: %x, first %x", again, rec)
			}
			checkCuts(t, k, rec)
		}))
	}
}

// checkCuts decodes every beginning of a record and the record with a byte
// too many. A Publish has no end of its own: its message takes the rest.
func checkCuts(t *rapid.T, k Kind, rec []byte) {
	open := 0
	if k == KindPublish {
		var p Publish
		if err := p.Decode(rec); err != nil {
			t.Fatal(err)
		}
		open = len(p.Message)
	}
	for n := range len(rec) - open {
		if err := zero(k).Decode(rec[:n]); !errors.Is(err, ErrTruncated) {
			t.Fatalf("first %d of %x: %v, want ErrTruncated", n, rec, err)
		}
	}
	if k == KindPublish {
		return
	}
	if err := zero(k).Decode(append(rec, 0)); !errors.Is(err, ErrTrailing) {
		t.Fatalf("%x and a zero: %v, want ErrTrailing", rec, err)
	}
}

// A record is never taken for one of another kind.
func TestDecodeOtherKind(t *testing.T) {
	for _, s := range samples() {
		rec := s.rec.AppendTo(nil)
		for k := KindGenesis; Known(k); k++ {
			if err := zero(k).Decode(rec); k != KindOf(rec) && !errors.Is(err, ErrKind) {
				t.Errorf("%s decoded as %s: %v, want ErrKind", s.name, k, err)
			}
		}
	}
}

// What no encoder of this version writes is refused and not half understood.
func TestDecodeRefuses(t *testing.T) {
	publish := (&Publish{QoS: 1, PacketID: 1, Message: sampleMessage}).AppendTo(nil)
	ack := (&Ack{Share: []byte("g"), Filter: []byte("f"), Message: 1}).AppendTo(nil)
	for name, c := range map[string]struct {
		rec  []byte
		want error
	}{
		"flag of a publish":     {with(publish, 2, publish[2]|1<<6), ErrValue},
		"QoS 3":                 {with(publish, 2, 3), ErrValue},
		"reason of an ack":      {with(ack, 2, ack[2]|4), ErrValue},
		"group ack of nothing":  {with(ack, len(ack)-1, 0), ErrValue},
		"packet id of 17 bits":  {[]byte{byte(KindPubRel), 1, 1, 1, 0x80, 0x80, 0x04}, ErrValue},
		"level of 33 bits":      {[]byte{byte(KindUpgrade), 1, 0x80, 0x80, 0x80, 0x80, 0x10}, ErrValue},
		"session of 70 bits":    {append([]byte{byte(KindPubRel), 1}, bytes.Repeat([]byte{0xff}, 12)...), ErrValue},
		"more filters than fit": {[]byte{byte(KindSubscribe), 1, 1, 1, 1, 0, 0xff, 0xff, 0x03}, ErrTruncated},
		"number not shortest":   {[]byte{byte(KindPubRel), 1, 0x81, 0, 1, 1}, ErrValue},
		"granted QoS 3":         {[]byte{byte(KindSubscribe), 1, 1, 1, 1, 0, 1, 3, 1, 'a'}, ErrValue},
		"longer than it is":     {[]byte{byte(KindRetainClear), 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 'x'}, ErrTruncated},
	} {
		if err := zero(KindOf(c.rec)).Decode(c.rec); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := new(Limits).Decode([]byte{4, 0, 0, 0, 0, 0}); !errors.Is(err, ErrValue) {
		t.Errorf("unknown flag of limits: %v, want ErrValue", err)
	}
}

func with(rec []byte, at int, b byte) []byte {
	rec = slices.Clone(rec)
	rec[at] = b
	return rec
}

// A will and limits are entries of the state too, where they stand alone.
func TestParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, l := drawWill(t), drawLimits(t)
		b := w.AppendTo(nil)
		var got Will
		if n, err := got.Decode(append(b, 1, 2, 3)); err != nil || n != len(b) {
			t.Fatalf("will: %d of %d bytes, %v", n, len(b), err)
		}
		if d := cmp.Diff(w, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
		for n := range b {
			if m, err := got.Decode(b[:n]); !errors.Is(err, ErrTruncated) || m != 0 {
				t.Fatalf("%d bytes of a will: %d, %v", n, m, err)
			}
		}
		var back Limits
		if err := back.Decode(l.AppendTo(nil)); err != nil || back != l {
			t.Fatalf("limits %+v came back as %+v, %v", l, back, err)
		}
	})
}

// Add gathers identifiers into runs that name exactly those identifiers, in
// their order.
func TestAckAdd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a Ack
		var want []uint16
		for range rapid.IntRange(0, 20).Draw(t, "bursts") {
			id := rapid.OneOf(rapid.Uint16(), rapid.Uint16Range(65500, 65535)).Draw(t, "id")
			for range rapid.IntRange(1, 40).Draw(t, "length") {
				a.Add(id)
				want = append(want, id)
				id++
			}
		}
		var got []uint16
		for _, r := range a.Runs {
			if int(r.First)+int(r.Count) > math.MaxUint16+1 || r.Count == 0 {
				t.Fatalf("run %+v passes the last identifier", r)
			}
			for i := range r.Count {
				got = append(got, r.First+i)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("runs %v are %v, want %v", a.Runs, got, want)
		}
	})
	var a Ack
	for id := uint16(1); id != 0; id++ {
		a.Add(id)
	}
	if len(a.Runs) != 1 || a.Runs[0] != (Run{1, 65535}) {
		t.Errorf("all identifiers in order are %v, want one run", a.Runs)
	}
}

func TestEpoch(t *testing.T) {
	e := NewEpoch(7, 9)
	if e.Boot() != 7 || e.Connection() != 9 {
		t.Errorf("%d, %d, want 7, 9", e.Boot(), e.Connection())
	}
}

// The kinds of the busy path neither allocate when appended nor when decoded.
func TestHotKindsDoNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 1024)
	for _, s := range samples() {
		switch KindOf(s.rec.AppendTo(nil)) {
		case KindPublish, KindPubRel, KindAck, KindRec:
		default:
			continue
		}
		rec := s.rec.AppendTo(nil)
		into := zero(KindOf(rec))
		if err := into.Decode(rec); err != nil { // makes room for choices and runs
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() {
			buf = s.rec.AppendTo(buf[:0])
			if err := into.Decode(buf); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", s.name, n)
		}
	}
}
