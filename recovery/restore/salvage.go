package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/archive"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Gap is a range of records that nothing holds any more.
type Gap struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
	Why  string `json:"why"`
}

// Salvage is what Salvage made, and what it could not.
type SalvageReport struct {
	Report
	Began string `json:"began"` // what the state began with
	Lost  []Gap  `json:"lost"`
}

// salvager builds a state out of what is left.
type salvager struct {
	ctx     context.Context
	o       *Options
	m       recovery.Manifest
	machine *core.Machine
	fx      core.Effects
	began   string
	from    uint64 // record of the state that it began with
	lost    []Gap
	records uint64

	backend *recovery.Backend
	base    *archive.BaseReader
	history *archive.History // of the archive alone
	remains *wal.Remains
}

// Salvage makes a data directory with everything that can still be read: the
// backend's state, or a base, or nothing, and every intact record after it, over
// the gaps. Options.Index and Time are not used.
func Salvage(ctx context.Context, o Options) (*SalvageReport, error) {
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if err := free(o.To); err != nil {
		return nil, err
	}
	l, err := recovery.LockShared(o.Dir)
	if err != nil {
		return nil, err
	}
	defer l.Release() //nolint:errcheck // only read
	s := &salvager{ctx: ctx, o: &o}
	defer s.close()
	if err := s.look(); err != nil {
		return nil, err
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	if err := s.replay(); err != nil {
		return nil, err
	}
	if s.machine.Level() == 0 {
		return nil, fmt.Errorf("%w: nothing in %s can be read", ErrNoData, o.Dir)
	}
	p := recovery.Salvaged(s.machine, s.m.HashKey, s.bodies)
	o.Progress("write", 0, 0)
	r, err := build(ctx, p, o.To)
	if err != nil {
		return nil, err
	}
	r.From, r.Records = s.from, s.records
	return &SalvageReport{Report: *r, Began: s.began, Lost: s.lost}, nil
}

func (s *salvager) close() {
	if s.backend != nil {
		_ = s.backend.Close() // only read
	}
	if s.base != nil {
		_ = s.base.Close() // only read
	}
}

// look finds out what there is.
func (s *salvager) look() (err error) {
	if s.m, err = identity(s.o.Dir); err != nil {
		return err
	}
	s.o.Progress("search the log", 0, 0)
	s.remains, err = wal.FindRemains(recovery.LogDir(s.o.Dir), s.m.StoreID)
	if errors.Is(err, fs.ErrNotExist) {
		s.remains, err = &wal.Remains{}, nil
	}
	if err != nil {
		return err
	}
	c, err := archive.List(recovery.ArchiveDir(s.o.Dir))
	if err != nil {
		return err
	}
	s.history = archive.NewHistory(s.m.StoreID, c, nil)
	return nil
}

// identity returns the manifest, or where there is none what bases and frames
// say about who the store is. Without the key of the state hash a new one is
// made.
func identity(dir string) (recovery.Manifest, error) {
	m, _, err := recovery.ReadManifest(dir)
	if err == nil || errors.Is(err, recovery.ErrVersion) {
		return m, err
	}
	m = recovery.NewManifest(recovery.BackendBbolt)
	m.StoreID = [16]byte{}
	if c, lerr := archive.List(recovery.ArchiveDir(dir)); lerr == nil {
		for i := len(c.Bases) - 1; i >= 0; i-- {
			if b, berr := archive.OpenBase(c.Bases[i].Path); berr == nil {
				m.StoreID, m.HashKey = b.StoreID, b.HashKey
				return m, b.Close()
			}
		}
	}
	in, serr := wal.Scan(recovery.LogDir(dir), [16]byte{}, nil)
	if serr == nil && in.StoreID != [16]byte{} {
		m.StoreID = in.StoreID
		return m, nil
	}
	return m, fmt.Errorf("%w: %s has no manifest, no base and no log that would say whose it is: %w", ErrNoData, dir, err)
}

// begin takes the best state to begin with.
func (s *salvager) begin() error {
	s.o.Progress("read the backend", 0, 0)
	b, err := recovery.OpenBackend(s.ctx, s.o.Dir, &s.m)
	if err == nil && b.Mark.Applied > 0 {
		s.backend, s.machine, s.from = b, b.Machine, b.Mark.Applied
		s.began = fmt.Sprintf("the backend's state after record %d", s.from)
		return nil
	}
	if err == nil {
		err = b.Close()
	}
	if serr := s.ctx.Err(); serr != nil {
		return serr
	}
	why := "the backend is empty"
	if err != nil {
		why = fmt.Sprintf("the backend cannot be used (%v)", err)
	}
	for i := len(s.history.Bases) - 1; i >= 0; i-- {
		if s.tryBase(&s.history.Bases[i]) {
			s.began = fmt.Sprintf("the base after record %d: %s", s.from, why)
			return nil
		}
	}
	s.machine = core.New()
	s.began = "nothing: " + why
	return nil
}

// tryBase begins with a base if all of it is sound.
func (s *salvager) tryBase(b *archive.Base) bool {
	r, err := archive.OpenBase(b.Path)
	if err != nil {
		return false
	}
	if r.StoreID == s.m.StoreID && r.Verify() == nil {
		m, err := core.Load(r.Scan, r.Applied, r.LogTime)
		if err == nil && m.Hash(&r.HashKey).Bytes() == r.Hash {
			s.base, s.machine, s.from = r, m, r.Applied
			s.m.HashKey = r.HashKey
			return true
		}
	}
	_ = r.Close() // only read
	return false
}

// replay applies every record that is left, those of the archive first.
func (s *salvager) replay() error {
	var done, told int64
	total := s.history.Bytes(s.machine.Applied()+1, math.MaxUint64)
	for i := range s.remains.Segments {
		total += s.remains.Segments[i].Size
	}
	apply := func(f *wal.Frame) error {
		if done += int64(len(f.Body)); done-told >= 1<<20 {
			told = done
			s.o.Progress("replay", done, max(total, done))
		}
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if f.Last() <= s.machine.Applied() {
			return nil
		}
		if err := f.Trim(s.machine.Applied()+1, f.Last()); err != nil {
			return err
		}
		if err := s.fill(f.First-1, f.Time, "no intact frame holds them"); err != nil {
			return err
		}
		return f.Records(func(index uint64, rec []byte) error {
			if err := s.machine.Apply(index, f.Time, rec, &s.fx); err != nil {
				return fmt.Errorf("restore: salvage: record %d: %w", index, err)
			}
			s.records++
			return nil
		})
	}
	if err := s.frames(s.machine.Applied()+1, apply); err != nil {
		return err
	}
	if known := max(s.m.Floor, s.machine.Applied()); known > s.machine.Applied() {
		return s.fill(known, s.machine.Now(), "the end of the log is missing")
	}
	return nil
}

// frames gives the frames from from on that archive and log still have.
func (s *salvager) frames(from uint64, fn func(f *wal.Frame) error) error {
	next := from
	err := s.history.ReplayRest(s.ctx, from, func(f *wal.Frame) error {
		next = f.Last() + 1
		return fn(f)
	})
	if err != nil {
		return err
	}
	return s.remains.Each(next, fn)
}

// fill goes over the records up to upto as if they had changed nothing.
func (s *salvager) fill(upto uint64, now int64, why string) error {
	from := s.machine.Applied() + 1
	if from > upto {
		return nil
	}
	nothing := (&record.StateHash{}).AppendTo(nil)
	if s.machine.Level() == 0 { // the first record is lost: its limits are, too
		g := record.Genesis{StoreID: s.m.StoreID, FeatureLevel: core.FeatureLevel, Limits: recovery.DefaultLimits()}
		if err := s.machine.Apply(from, now, g.AppendTo(nil), &s.fx); err != nil {
			return fmt.Errorf("restore: salvage: %w", err)
		}
	}
	for i := s.machine.Applied() + 1; i <= upto; i++ {
		if err := s.machine.Apply(i, now, nothing, &s.fx); err != nil {
			return fmt.Errorf("restore: salvage: %w", err)
		}
	}
	s.lost = append(s.lost, Gap{From: from, To: upto, Why: why})
	return nil
}

// bodies gives every body that is left.
func (s *salvager) bodies(ctx context.Context, give func(id uint64, body []byte) error) error {
	if s.backend != nil {
		if err := s.backend.Bodies(ctx, give); err != nil {
			return err
		}
	}
	if s.base != nil {
		if err := s.base.ScanBodies(give); err != nil {
			return err
		}
	}
	return s.frames(s.from+1, func(f *wal.Frame) error {
		return f.Records(func(index uint64, rec []byte) error {
			if body, ok := recovery.MessageOf(rec); ok {
				return give(index, body)
			}
			return nil
		})
	})
}
