package bench

import "slices"

// Tally is what the checks of a run found. Everything but Sent and Received
// has to be zero.
type Tally struct {
	Sent     uint64 `json:"sent"`     // messages published
	Received uint64 `json:"received"` // messages delivered, in all, each counted once
	// Lost were published (with QoS>0: acknowledged) and did not arrive.
	Lost       uint64 `json:"lost"`
	Duplicates uint64 `json:"duplicates"`
	// Reordered arrived after a later message of the same source [MQTT-4.6.0-6].
	Reordered uint64 `json:"reordered"`
	// Foreign do not belong to this run, or their payload is damaged.
	Foreign uint64 `json:"foreign"`
	// Refused were answered with a reason code of 0x80 or more.
	Refused uint64 `json:"refused"`
	// Downgraded came with a lower QoS than asked for.
	Downgraded uint64 `json:"downgraded"`
}

func (t *Tally) add(o Tally) {
	t.Sent += o.Sent
	t.Received += o.Received
	t.Lost += o.Lost
	t.Duplicates += o.Duplicates
	t.Reordered += o.Reordered
	t.Foreign += o.Foreign
	t.Refused += o.Refused
	t.Downgraded += o.Downgraded
}

// ok reports whether nothing was found.
func (t Tally) ok() bool {
	return t.Lost|t.Duplicates|t.Reordered|t.Foreign|t.Refused|t.Downgraded == 0
}

// A stream follows the messages of one source, numbered from 0, as they
// arrive. The zero value is ready.
type stream struct {
	next       uint64 // every number below has come or is in gaps
	gaps       spans
	received   uint64
	duplicates uint64
	reordered  uint64
}

// take notes the arrival of a message.
func (s *stream) take(seq uint64) {
	if seq == s.next {
		s.next++
		s.received++
		return
	}
	s.odd(seq)
}

// odd is take for a message that is not the next one.
func (s *stream) odd(seq uint64) {
	switch {
	case seq > s.next:
		s.gaps.append(s.next, seq)
		s.next = seq + 1
		s.received++
	case s.gaps.remove(seq):
		s.received++
		s.reordered++
	default:
		s.duplicates++
	}
}

// tally closes the stream: sent messages were published in all. With shared, a
// filled gap is no disorder, since another receiver filled it.
func (s *stream) tally(sent uint64, shared bool) Tally {
	t := Tally{Received: s.received, Duplicates: s.duplicates, Lost: s.gaps.count()}
	if !shared {
		t.Reordered = s.reordered
	}
	if s.next < sent {
		t.Lost += sent - s.next
	} else {
		t.Foreign = s.next - sent // nobody sent these
	}
	return t
}

// span is the numbers from to to-1.
type span struct{ from, to uint64 }

// spans is a set of numbers: spans in rising order that do not touch.
type spans []span

// append adds from…to-1, all above what is in the set.
func (s *spans) append(from, to uint64) { *s = append(*s, span{from, to}) }

// remove takes a number out and reports whether it was there.
func (s *spans) remove(n uint64) bool {
	i, _ := slices.BinarySearchFunc(*s, n, func(e span, n uint64) int {
		switch {
		case e.to <= n:
			return -1
		case e.from > n:
			return 1
		}
		return 0
	})
	if i == len(*s) || (*s)[i].from > n {
		return false
	}
	switch e := &(*s)[i]; {
	case e.from+1 == e.to:
		*s = slices.Delete(*s, i, i+1)
	case e.from == n:
		e.from++
	case e.to == n+1:
		e.to--
	default:
		rest := span{n + 1, e.to}
		e.to = n
		*s = slices.Insert(*s, i+1, rest)
	}
	return true
}

func (s spans) count() (n uint64) {
	for _, e := range s {
		n += e.to - e.from
	}
	return n
}
