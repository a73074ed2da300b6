package migrate

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/wind-c/comqtt/v3/backends"
)

// DefaultSample is how many pairs Verify compares byte by byte.
const DefaultSample = 1000

// VerifyOptions says what to compare.
type VerifyOptions struct {
	From, To URL
	// Sample is how many pairs are compared byte by byte, spread over the whole
	// state; a negative number means all.
	Sample   int
	Progress Progress // may be nil
}

// Comparison is what Verify came to.
type Comparison struct {
	From     string    `json:"from"`
	To       string    `json:"to"`
	Source   *Holdings `json:"source"`
	Target   *Holdings `json:"target"`
	Compared uint64    `json:"compared_pairs"` // byte by byte
	Equal    bool      `json:"equal"`
	Where    string    `json:"first_difference,omitempty"`
	Found    string    `json:"in_source,omitempty"`
	Instead  string    `json:"in_target,omitempty"`
	Warnings []string  `json:"warnings,omitempty"`
}

// Verify compares two states: the last record, the state hash of both, and a
// sample of the stored pairs byte by byte. The logs of both are replayed first.
//
// A difference is in the Comparison. Errors are about a side that cannot be read
// whole.
func Verify(ctx context.Context, o VerifyOptions) (c *Comparison, err error) {
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if o.From.same(o.To) {
		return nil, fmt.Errorf("%w: source and target are the same", ErrURL)
	}
	a, err := openSource(ctx, o.From, o.Progress)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	b, err := openSource(ctx, o.To, o.Progress)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	// One key for both: the numbers are to be compared.
	b.hash = b.tip.Machine.Hash(&a.manifest.HashKey).Bytes()
	c = &Comparison{
		From: o.From.String(), To: o.To.String(), Source: a.holdings(), Target: b.holdings(),
		Warnings: append(a.warnings, b.warnings...),
	}
	var diff *DiffError
	err = c.compare(ctx, a, b, &o)
	if errors.As(err, &diff) {
		c.Where, c.Found, c.Instead, err = diff.Where, diff.Source, diff.Target, nil
	}
	c.Equal = err == nil && diff == nil
	return c, err
}

// Difference returns the first difference, nil if there is none.
func (c *Comparison) Difference() error {
	if c.Equal {
		return nil
	}
	return &DiffError{c.Where, c.Found, c.Instead}
}

func (c *Comparison) compare(ctx context.Context, a, b *source, o *VerifyOptions) error {
	if c.Source.Index != c.Target.Index {
		return &DiffError{"the last record in the state", fmt.Sprint(c.Source.Index), fmt.Sprint(c.Target.Index)}
	}
	if a.hash != b.hash {
		if err := firstDifference(a, b); err != nil {
			return err
		}
		return &DiffError{"the state hash", id(a.hash).String(), id(b.hash).String()}
	}
	if b.store == nil || b.tip.Records > 0 { // what its log holds, its backend does not have
		c.Warnings = append(c.Warnings, "the target's log has records that its backend does not have: bodies are compared by their checksums only")
		return errors.Join(a.pairs(ctx, func(_, _ []byte) error { return nil }), b.pairs(ctx, func(_, _ []byte) error { return nil }))
	}
	s := &sampler{ctx: ctx, b: b, c: c, progress: o.Progress, total: c.Source.Bytes}
	s.pick = everyPair
	if o.Sample >= 0 {
		s.pick = spread(uint64(o.Sample), c.Source.Pairs)
	}
	if err := a.pairs(ctx, s.pair); err != nil {
		return err
	}
	return s.flush()
}

// firstDifference compares two states entry by entry.
func firstDifference(a, b *source) error {
	left := map[string][]byte{}
	b.tip.Machine.Export(func(table byte, key, value []byte) {
		left[string(backends.Key(nil, table, key))] = bytes.Clone(value)
	})
	var first error
	a.tip.Machine.Export(func(table byte, key, value []byte) {
		if first != nil {
			return
		}
		name := backends.Key(nil, table, key)
		other, ok := left[string(name)]
		if !ok {
			first = &DiffError{describe(name), fmt.Sprintf("%d bytes", len(value)), "nothing"}
			return
		}
		first = differ(name, value, other)
		delete(left, string(name))
	})
	for name, value := range left {
		if first == nil {
			first = &DiffError{describe([]byte(name)), "nothing", fmt.Sprintf("%d bytes", len(value))}
		}
	}
	return first
}

// differ compares two values.
func differ(key, a, b []byte) error {
	if bytes.Equal(a, b) {
		return nil
	}
	at := 0
	for at < len(a) && at < len(b) && a[at] == b[at] {
		at++
	}
	return &DiffError{describe(key), excerpt(a, at), excerpt(b, at)}
}

// excerpt shows a value from where it differs.
func excerpt(v []byte, at int) string {
	const shown = 8
	if at >= len(v) {
		return fmt.Sprintf("%d bytes, ends at byte %d", len(v), at)
	}
	return fmt.Sprintf("%d bytes, % x at byte %d", len(v), v[at:min(at+shown, len(v))], at)
}

// describe says in words what a key names.
func describe(key []byte) string {
	const chunk = 64
	n, rest, ok := backends.SplitID(key)
	switch table := key[0]; {
	case table == backends.TableConfig:
		return "the configuration"
	case table == backends.TableRetained:
		return fmt.Sprintf("the retained message of topic %q", key[1:])
	case table == backends.TableGroup:
		return fmt.Sprintf("a pending message of a shared group (%q)", key[1:])
	case !ok:
		return fmt.Sprintf("key %q", key)
	case table == backends.TableSession:
		return fmt.Sprintf("session %d", n)
	case table == backends.TableSubscription:
		return fmt.Sprintf("the subscription of session %d to %q", n, rest)
	case table == backends.TableQueue && len(rest) == 8:
		return fmt.Sprintf("the queue of session %d, positions from %d", n, binary.BigEndian.Uint64(rest)*chunk)
	case table == backends.TableReceived && len(rest) == 2:
		return fmt.Sprintf("the received identifier %d of session %d", binary.BigEndian.Uint16(rest), n)
	case table == backends.TableMessage:
		return fmt.Sprintf("the messages %d to %d", n*chunk, n*chunk+chunk-1)
	case table == backends.TableBody:
		return fmt.Sprintf("the body of message %d", n)
	case table == backends.TableWill:
		return fmt.Sprintf("will %d", n)
	}
	return fmt.Sprintf("key %q", key)
}

// everyPair picks all.
func everyPair(uint64) bool { return true }

// spread picks n of total, one at random of each n-th part.
func spread(n, total uint64) func(i uint64) bool {
	if n >= total {
		return everyPair
	}
	part, next := uint64(0), uint64(0)
	draw := func() {
		from, to := part*total/n, (part+1)*total/n
		next = from + rand.Uint64N(to-from)
	}
	if n > 0 {
		draw()
	}
	return func(i uint64) bool {
		if part >= n || i != next {
			return false
		}
		if part++; part < n {
			draw()
		}
		return true
	}
}

// sampler looks pairs of a source up in a target.
type sampler struct {
	ctx      context.Context
	b        *source
	c        *Comparison
	pick     func(i uint64) bool
	at       uint64
	seen     int64
	total    int64
	progress Progress

	keys, values [][]byte
	bytes        int
}

// A look-up takes at most so many pairs, and bytes.
const (
	lookupPairs = 512
	lookupBytes = 4 << 20
)

func (s *sampler) pair(key, value []byte) error {
	s.seen += int64(len(key) + len(value))
	s.at++
	if !s.pick(s.at - 1) {
		return nil
	}
	s.keys, s.values = append(s.keys, bytes.Clone(key)), append(s.values, bytes.Clone(value))
	if s.bytes += len(value); len(s.keys) < lookupPairs && s.bytes < lookupBytes {
		return nil
	}
	return s.flush()
}

func (s *sampler) flush() error {
	err := s.b.store.Get(s.ctx, s.keys, func(i int, val []byte) error {
		if val == nil {
			return &DiffError{describe(s.keys[i]), fmt.Sprintf("%d bytes", len(s.values[i])), "nothing"}
		}
		s.c.Compared++
		return differ(s.keys[i], s.values[i], val)
	})
	s.keys, s.values, s.bytes = s.keys[:0], s.values[:0], 0
	s.progress("compare", s.seen, s.total)
	return errors.Join(err, s.ctx.Err())
}
