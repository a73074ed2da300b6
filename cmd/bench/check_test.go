package bench

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestStream(t *testing.T) {
	for name, tt := range map[string]struct {
		seqs []uint64
		sent uint64
		want Tally
	}{
		"nothing":            {nil, 0, Tally{}},
		"all":                {[]uint64{0, 1, 2}, 3, Tally{Received: 3}},
		"none":               {nil, 3, Tally{Lost: 3}},
		"the last is lost":   {[]uint64{0, 1}, 3, Tally{Received: 2, Lost: 1}},
		"the first is lost":  {[]uint64{1, 2}, 3, Tally{Received: 2, Lost: 1}},
		"one comes late":     {[]uint64{0, 2, 1}, 3, Tally{Received: 3, Reordered: 1}},
		"one comes twice":    {[]uint64{0, 1, 1, 2}, 3, Tally{Received: 3, Duplicates: 1}},
		"a late one twice":   {[]uint64{0, 2, 1, 1}, 3, Tally{Received: 3, Reordered: 1, Duplicates: 1}},
		"one nobody sent":    {[]uint64{0, 1, 2, 3}, 3, Tally{Received: 4, Foreign: 1}},
		"middle of a gap":    {[]uint64{9, 5}, 10, Tally{Received: 2, Reordered: 1, Lost: 8}},
		"ends of a gap":      {[]uint64{9, 0, 8, 4}, 10, Tally{Received: 4, Reordered: 3, Lost: 6}},
		"a gap of its own":   {[]uint64{1, 3, 5, 2}, 6, Tally{Received: 4, Reordered: 1, Lost: 2}},
		"twice after a gap":  {[]uint64{1, 1}, 2, Tally{Received: 1, Duplicates: 1, Lost: 1}},
		"in reverse":         {[]uint64{3, 2, 1, 0}, 4, Tally{Received: 4, Reordered: 3}},
		"all twice in order": {[]uint64{0, 1, 0, 1}, 2, Tally{Received: 2, Duplicates: 2}},
	} {
		var s stream
		for _, seq := range tt.seqs {
			s.take(seq)
		}
		if got := s.tally(tt.sent, false); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

// Whatever arrives in whatever order, the stream counts as a set would.
func TestStreamAgainstSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 40
		seqs := rapid.SliceOf(rapid.Uint64Range(0, most-1)).Draw(t, "seqs")
		var s stream
		seen := map[uint64]bool{}
		var want Tally
		highest := -1
		for _, seq := range seqs {
			s.take(seq)
			switch {
			case seen[seq]:
				want.Duplicates++
			case int(seq) < highest:
				want.Reordered++
			}
			highest = max(highest, int(seq))
			seen[seq] = true
		}
		want.Received = uint64(len(seen))
		want.Lost = most - want.Received
		if got := s.tally(most, false); got != want {
			t.Fatalf("%+v, want %+v", got, want)
		}
		if !slices.IsSortedFunc(s.gaps, func(a, b span) int { return int(a.to) - int(b.from) }) {
			t.Fatalf("gaps %v", s.gaps)
		}
	})
}

// Of a shared group each member is in order for itself; together they are
// complete.
func TestSharedMembers(t *testing.T) {
	all := &shared{streams: make(many, 1)}
	a, b := &member{group: all, next: make([]uint64, 1)}, &member{group: all, next: make([]uint64, 1)}
	for _, e := range []struct {
		m   *member
		seq uint64
	}{{a, 1}, {b, 0}, {a, 3}, {a, 2}, {b, 3}} {
		if !e.m.take(&delivery{seq: e.seq}) {
			t.Fatal("refused")
		}
	}
	if got, want := all.streams[0].tally(5, true), (Tally{Received: 4, Duplicates: 1, Lost: 1}); got != want {
		t.Errorf("together %+v, want %+v", got, want)
	}
	if a.reordered != 1 || b.reordered != 0 {
		t.Errorf("out of order: %d and %d", a.reordered, b.reordered)
	}
	if a.take(&delivery{source: 1}) {
		t.Error("takes an unknown source")
	}
}

func TestRetainedSink(t *testing.T) {
	s := &retainedSink{seen: make([]uint64, 1), publishers: 3, topics: 7}
	for _, d := range []delivery{{source: 0, seq: 0}, {source: 2, seq: 1}, {source: 0, seq: 2}, {source: 0, seq: 2}} {
		if !s.take(&d) {
			t.Errorf("refuses %+v", d)
		}
	}
	for _, d := range []delivery{{source: 3, seq: 0}, {source: 1, seq: 2}} { // topics 3 of 0 to 2, and 7
		if s.take(&d) {
			t.Errorf("takes %+v", d)
		}
	}
	if got, want := s.tally(), (Tally{Received: 3, Duplicates: 1, Lost: 4}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
