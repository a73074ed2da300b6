package inspect

import (
	"context"
	"errors"
	"fmt"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/archive"
)

// ArchiveInfo is what the archive holds and how far back it reaches.
type ArchiveInfo struct {
	Segments int   `json:"segments"`
	Bases    int   `json:"bases"`
	Bytes    int64 `json:"bytes"`
	// Reaches says that every state from the record Index on can be built; 0 =
	// from the first record on.
	Reaches bool   `json:"reaches"`
	Index   uint64 `json:"index"`
	Time    Time   `json:"time"`
}

// catalog lists the archive; it is empty if there is none.
func (d *Dir) catalog() (*archive.Catalog, error) {
	c, err := archive.List(recovery.ArchiveDir(d.path))
	if err != nil {
		return nil, fmt.Errorf("inspect: %w", err)
	}
	return c, nil
}

// past puts the archive and the intact part of the log together.
func (d *Dir) past(in *wal.Inspection) (*archive.History, error) {
	c, err := d.catalog()
	if err != nil {
		return nil, err
	}
	return archive.NewHistory(d.store(in), c, in.Segments), nil
}

// store is the identity of the store, from the log if the manifest is gone.
func (d *Dir) store(in *wal.Inspection) [16]byte {
	if d.manifestErr != nil {
		return in.StoreID
	}
	return d.manifest.StoreID
}

// archiveInfo describes the archive; nil if there is none.
func (d *Dir) archiveInfo(in *wal.Inspection) (*ArchiveInfo, error) {
	c, err := d.catalog()
	if err != nil || len(c.Segments)+len(c.Bases) == 0 {
		return nil, err
	}
	a := &ArchiveInfo{Segments: len(c.Segments), Bases: len(c.Bases)}
	for i := range c.Segments {
		a.Bytes += c.Segments[i].Size
	}
	for i := range c.Bases {
		a.Bytes += c.Bases[i].Size
	}
	index, at, ok := archive.NewHistory(d.store(in), c, in.Segments).Reach()
	a.Reaches, a.Index, a.Time = ok, index, Time(at)
	if index <= 1 {
		a.Index = 0
	}
	return a, nil
}

// rebuilds reports whether a start would make the backend, which is missing or
// damaged, anew from archive and log, and what there is then. The order of the
// questions is that of package recovery.
func (d *Dir) rebuilds(in *wal.Inspection) (h *archive.History, end uint64, ok bool) {
	if d.manifestErr != nil || d.memoryBackend() {
		return nil, 0, false
	}
	h, err := d.past(in)
	if err != nil {
		return nil, 0, false
	}
	end = h.Last()
	if len(in.Segments) > 0 {
		if _, err := in.Verdict(d.manifest.Floor, 0); err != nil {
			return nil, 0, false
		}
		end = in.Last
	}
	if _, err := h.StartFor(end); err != nil || end == 0 || end < d.manifest.Floor {
		return nil, 0, false
	}
	return h, end, true
}

// history walks over all records there are from index on, those of the archive
// before those of the log; seg is nil for the former. stopped says that visit
// ended it with errStop; the Inspection then knows only what was read.
func (d *Dir) history(ctx context.Context, s logScan, index uint64) (in *wal.Inspection, stopped bool, err error) {
	damaged := d.archived(ctx, s, index)
	switch {
	case errors.Is(damaged, errStop):
		return &wal.Inspection{}, true, nil
	case damaged != nil && (ctx.Err() != nil || !isFinding(damaged)):
		return nil, false, damaged
	}
	in, err = d.scan(ctx, s) // whatever the archive is like
	switch {
	case errors.Is(err, errStop):
		return in, true, nil
	case err == nil:
		err = damaged
	}
	return in, false, err
}

// archived walks over the records of the archive from index on that the log
// does not have, as far back as they join it.
func (d *Dir) archived(ctx context.Context, s logScan, index uint64) error {
	c, err := d.catalog()
	if err != nil || len(c.Segments) == 0 {
		return err
	}
	first, store, err := d.logBegin(ctx)
	if err != nil {
		return err
	}
	if first == 0 { // no log
		first, store = c.Segments[len(c.Segments)-1].Last+1, d.manifest.StoreID
	}
	from := archiveBegin(c, first)
	from = max(from, index)
	if from >= first {
		return nil
	}
	h := archive.NewHistory(store, c, nil)
	total, done := h.Bytes(from, first-1), int64(0)
	return h.Replay(ctx, from, first-1, func(f *wal.Frame) error {
		done += int64(len(f.Body))
		d.progress("read archive", done, max(total, done))
		return s.visit(nil, f)
	})
}

// archiveBegin returns the first record from which on the archive has all up to
// the one before next; next if it does not have that.
func archiveBegin(c *archive.Catalog, next uint64) uint64 {
	for i := len(c.Segments) - 1; i >= 0; i-- {
		if s := &c.Segments[i]; s.First < next && s.Last+1 >= next {
			next = s.First
		}
	}
	return next
}

// logBegin returns the first record of the log, 0 for none, and its store.
func (d *Dir) logBegin(ctx context.Context) (first uint64, store [16]byte, err error) {
	in, err := d.scan(ctx, logScan{step: stepScan, visit: func(_ *wal.SegmentInfo, f *wal.Frame) error {
		first = f.First
		return errStop
	}})
	if errors.Is(err, errStop) {
		err = nil
	}
	if in == nil {
		return first, store, err
	}
	return first, d.store(in), err
}

// origin is a state to replay from.
type origin struct {
	machine *core.Machine
	source  string
	base    string // file of the base it is from, or empty
}

// whole scans the log and puts it together with the archive.
func (d *Dir) whole(ctx context.Context) (*wal.Inspection, *archive.History, error) {
	in, err := d.scan(ctx, logScan{step: stepScan, visit: func(*wal.SegmentInfo, *wal.Frame) error { return nil }})
	if err != nil {
		return nil, nil, err
	}
	h, err := d.past(in)
	return in, h, err
}

const fromFirst = "the first record of the store"

// oldest returns the oldest state there is that the records join.
func (d *Dir) oldest(ctx context.Context, b *backend) (*origin, error) {
	in, h, err := d.whole(ctx)
	if err != nil {
		return nil, err
	}
	index, _, ok := h.Reach()
	switch {
	case ok && index <= 1:
		return &origin{machine: core.New(), source: fromFirst}, nil
	case ok && (!b.used() || index < b.mark.Applied):
		o, err := d.build(ctx, h, index)
		if err == nil || !isFinding(err) || !d.joins(in, b) {
			return o, err
		}
		return d.fromBackend(ctx, b) // the base is damaged
	case d.joins(in, b):
		return d.fromBackend(ctx, b)
	}
	return nil, &NothingError{What: fmt.Sprintf("there is no state to begin with: the log begins with record %d, and nothing older is left", in.First)}
}

// joins reports whether the log goes on where the backend's state ends.
func (d *Dir) joins(in *wal.Inspection, b *backend) bool {
	return b.used() && (in.First == 0 || in.First <= b.mark.Applied+1)
}

func (d *Dir) fromBackend(ctx context.Context, b *backend) (*origin, error) {
	l, err := d.load(ctx, b)
	if err != nil {
		return nil, err
	}
	return &origin{machine: l.machine, source: "the state in the backend"}, nil
}

// build makes the state after a record from archive and log.
func (d *Dir) build(ctx context.Context, h *archive.History, index uint64) (*origin, error) {
	p, err := recovery.OpenPast(ctx, recovery.PastOptions{
		History: h, Index: index, HashKey: d.manifest.HashKey,
		Progress: func(done, total int64) { d.progress("build the state", done, total) },
	})
	if ctx.Err() != nil {
		return nil, errors.Join(ctx.Err(), closePast(p))
	}
	if err != nil {
		return nil, err
	}
	o := &origin{machine: p.Machine, source: fromFirst}
	if p.From > 0 {
		o.source = "a base in the archive"
		if start, err := h.StartFor(index); err == nil && start.Base != nil {
			o.base = start.Base.Path
		}
	}
	return o, p.Close()
}

func closePast(p *recovery.Past) error {
	if p == nil {
		return nil
	}
	return p.Close()
}

// originFor returns a state to begin with that is not after the point: that of
// the backend if it will do, since the way from there is shorter.
func (d *Dir) originFor(ctx context.Context, b *backend, at Point) (*origin, error) {
	in, h, err := d.whole(ctx)
	if err != nil {
		return nil, err
	}
	if d.joins(in, b) && !at.past(b.mark.Applied, b.mark.LogTime) && (at.Index != 0 || b.mark.LogTime < at.Time) {
		return d.fromBackend(ctx, b)
	}
	index := at.Index
	if index == 0 {
		index, err = h.IndexAt(ctx, at.Time)
	} else if last := max(h.Last(), b.mark.Applied); index > last {
		return nil, &NothingError{What: fmt.Sprintf("there is no record %d: the last one is %d", index, last)}
	}
	var o *origin
	if err == nil {
		o, err = d.build(ctx, h, index)
	}
	if errors.Is(err, archive.ErrReach) {
		return nil, &NothingError{What: fmt.Sprintf("%s is out of reach: %v", at, err)}
	}
	return o, err
}

// checkArchive checks the archive, if there is one: every base, with the hash of
// its state, and every segment.
func (c *verifier) checkArchive() error {
	const name = "archive"
	cat, err := c.catalog()
	if err != nil || len(cat.Segments)+len(cat.Bases) == 0 {
		return err
	}
	store := c.manifest.StoreID
	if c.manifestErr != nil && c.in != nil {
		store = c.in.StoreID
	}
	var bytes int64
	for i := range cat.Bases {
		b := &cat.Bases[i]
		bytes += b.Size
		c.progress("check bases", int64(i), int64(len(cat.Bases)))
		if err := c.checkBase(store, b); err != nil {
			return c.v.bad(c.ctx, name, b.Path, err)
		}
	}
	for i := range cat.Segments {
		s := &cat.Segments[i]
		bytes += s.Size
		c.progress("check archive", int64(i), int64(len(cat.Segments)))
		if s.Last < s.First {
			continue
		}
		h := archive.NewHistory(store, &archive.Catalog{Segments: cat.Segments[i : i+1]}, nil)
		err := h.Replay(c.ctx, s.First, s.Last, func(f *wal.Frame) error {
			return f.Records(func(_ uint64, rec []byte) error { return c.note(rec) })
		})
		if err != nil {
			return c.v.bad(c.ctx, name, s.Path, err)
		}
	}
	reach := "it does not reach the log without a gap"
	if c.in != nil {
		if index, at, ok := archive.NewHistory(store, cat, c.in.Segments).Reach(); ok && index > 1 {
			reach = fmt.Sprintf("every state from record %d on (%s) can be built", index, Time(at))
		} else if ok {
			reach = "every state there ever was can be built"
		}
	}
	c.v.good(name, "%d bases, %d segments, %d bytes; %s", len(cat.Bases), len(cat.Segments), bytes, reach)
	return nil
}

// checkBase reads all of a base and compares the hash of its state.
func (c *verifier) checkBase(store [16]byte, b *archive.Base) error {
	r, err := archive.OpenBase(b.Path)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read
	if err := r.Verify(); err != nil {
		return err
	}
	p, err := recovery.OpenPast(c.ctx, recovery.PastOptions{
		History: archive.NewHistory(store, &archive.Catalog{Bases: []archive.Base{*b}}, nil), Index: b.Applied, HashKey: c.manifest.HashKey,
	})
	return errors.Join(err, closePast(p))
}

// baseTopics finds the topics of messages in a base.
func baseTopics(path string, wanted map[uint64]string) error {
	r, err := archive.OpenBase(path)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read
	last := uint64(0)
	for id := range wanted {
		last = max(last, id)
	}
	err = r.ScanBodies(func(id uint64, body []byte) error {
		if id > last {
			return errStop
		}
		if _, ok := wanted[id]; ok {
			wanted[id] = topicOf(body)
		}
		return nil
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return err
}

// isFinding says that an error is about what was found, not about a failure to
// look.
func isFinding(err error) bool {
	code := recovery.ExitCode(err)
	return code == recovery.ExitDamaged || code == recovery.ExitConfig || errors.Is(err, archive.ErrBase) ||
		errors.Is(err, archive.ErrVersion) || errors.Is(err, archive.ErrReach)
}
