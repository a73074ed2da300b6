package inspect

import (
	"context"
	"errors"
	"fmt"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Filter says which records Dump shows. The zero Filter shows all.
type Filter struct {
	From, To uint64 // record indexes; 0 = no limit
	Since    int64  // log times, unix ms; 0 = no limit
	Until    int64
	Kinds    map[record.Kind]bool // empty = all
	Client   string               // records that this client caused or that name it
	Topic    string               // a topic filter: messages, wills, and subscriptions that it meets

	Payload    string // one of the forms, empty = PayloadText
	PayloadMax int    // bytes of a payload, 0 = all
}

// Extent says what Dump has read.
type Extent struct {
	First   uint64 // index of the first record that was read, 0 = none
	Last    uint64
	Records uint64 // read
	Shown   uint64
	Torn    *CutOff // a torn tail behind them, that a start would cut off
	// Damage is why the records end before the log does; nil if they do not.
	Damage error
}

// Dump calls fn for the records that the filter lets through, in order, up to
// the first damage, which it reports in the Extent. It keeps nothing that grows
// with the log. An error from fn ends it and is returned.
//
// Client names come from the records that were read and from the backend: a
// session that neither knows has none.
func (d *Dir) Dump(ctx context.Context, f *Filter, fn func(l *Line) error) (*Extent, error) {
	if f.Payload == "" {
		f.Payload = PayloadText
	}
	r := &dumper{f: f, ext: &Extent{}, fn: fn, liner: liner{names: newNames(f.Client), payload: f.Payload, most: f.PayloadMax}}
	mark, err := d.knownSessions(ctx, r.names)
	if err != nil {
		return nil, err
	}
	in, stopped, err := d.history(ctx, logScan{step: "read records", visit: r.frame}, f.From)
	if err != nil {
		if ctx.Err() != nil || !isFinding(err) {
			return nil, err
		}
		r.ext.Damage = err
		return r.ext, nil
	}
	if stopped {
		return r.ext, nil
	}
	torn, err := d.verdict(in, &mark)
	if torn {
		r.ext.Torn = &CutOff{File: in.Damage.Segment, Offset: in.Damage.Offset, Bytes: in.Damage.Bytes, Why: in.Damage.Err.Error()}
	}
	if err != nil && isFinding(err) {
		r.ext.Damage = err
	}
	return r.ext, nil
}

// knownSessions learns the clients of the sessions in the backend, if it can be
// read: names are a convenience, Verify says what is wrong with it.
func (d *Dir) knownSessions(ctx context.Context, n *names) (mark backends.Mark, err error) {
	b, err := d.openBackend(ctx, false)
	if err != nil {
		if isFinding(err) {
			return mark, nil
		}
		return mark, err
	}
	defer b.close() //nolint:errcheck // only read
	if !b.used() {
		return mark, nil
	}
	err = b.store.Scan(ctx, []byte{core.TableSession}, func(key, value []byte) error {
		if id, client, epoch, err := core.SessionEntry(key[1:], value); err == nil {
			n.note(id, epoch, client)
		}
		return ctx.Err()
	})
	if err != nil && errors.Is(err, backends.ErrDamaged) {
		err = nil
	}
	return b.mark, err
}

// dumper is one Dump.
type dumper struct {
	liner
	f   *Filter
	ext *Extent
	fn  func(l *Line) error
}

func (r *dumper) frame(_ *wal.SegmentInfo, f *wal.Frame) error {
	switch {
	case f.Count == 0:
		return nil
	case r.f.To != 0 && f.First > r.f.To, r.f.Until != 0 && f.Time > r.f.Until:
		return errStop
	}
	return f.Records(func(index uint64, rec []byte) error {
		if r.f.To != 0 && index > r.f.To {
			return errStop
		}
		if r.ext.First == 0 {
			r.ext.First = index
		}
		r.ext.Last = index
		r.ext.Records++
		show := index >= r.f.From && f.Time >= r.f.Since
		kind := record.KindOf(rec)
		if show && len(r.f.Kinds) > 0 {
			show = r.f.Kinds[kind]
		}
		if !show && kind != record.KindConnect && kind != record.KindWill {
			return nil
		}
		l, err := r.line(index, f.Time, rec) // of a Connect, for the name
		if err != nil {
			return damagedRecord(index, err)
		}
		if !show || !r.lets(l) {
			return nil
		}
		r.ext.Shown++
		return r.fn(l)
	})
}

// damagedRecord explains a record that cannot be decoded.
func damagedRecord(index uint64, err error) error {
	var unknown *record.UnknownError
	if errors.As(err, &unknown) {
		return fmt.Errorf("%w: record %d: %w", recovery.ErrVersion, index, err)
	}
	return &recovery.DamageError{File: "the log", What: fmt.Sprintf("record %d cannot be decoded", index), Err: err}
}

// lets reports whether the filter lets a line through.
func (r *dumper) lets(l *Line) bool {
	if r.f.Client != "" && !r.concerns(l) {
		return false
	}
	return r.f.Topic == "" || l.meets(r.f.Topic)
}

func (r *dumper) concerns(l *Line) bool {
	if l.Client == r.f.Client {
		return true
	}
	for _, m := range l.members {
		if r.names.is(m.session, m.epoch) {
			return true
		}
	}
	return false
}

// meets reports whether a record has to do with a topic filter.
func (l *Line) meets(filter string) bool {
	if l.Topic != "" && topic.Match(filter, l.Topic) || l.Will != nil && topic.Match(filter, l.Will.Topic) {
		return true
	}
	for i := range l.Filters {
		if overlap(filter, l.Filters[i].Filter) {
			return true
		}
	}
	return l.Group != "" && overlap(filter, l.Group)
}

// overlap reports whether two filters have something to do with each other:
// they are the same, or one meets the other read as a name.
func overlap(filter, other string) bool {
	if _, inner, shared := topic.SplitShare(other); shared {
		other = inner
	}
	if _, inner, shared := topic.SplitShare(filter); shared {
		filter = inner
	}
	return filter == other || topic.Match(filter, other) || topic.Match(other, filter)
}
