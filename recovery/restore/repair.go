package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/archive"
)

// ErrBeyondRepair says that no repair in place leads to a state that can be
// proved: salvage makes a new directory out of what is left.
var ErrBeyondRepair = errors.New("restore: beyond repair in place")

// Step is one thing that a repair does.
type Step struct {
	What   string   `json:"what"`
	Copies []string `json:"quarantine,omitempty"` // files that are copied to quarantine/ first
	apply  func() error
}

// Plan is what is wrong with a data directory and what a repair does about it.
type Plan struct {
	Dir      string   `json:"dir"`
	Findings []string `json:"findings"` // what is wrong; empty: nothing
	Steps    []Step   `json:"steps"`
	Lost     Loss     `json:"lost"` // acknowledged records that nothing holds any more
	// Sure says that the plan loses nothing that was acknowledged.
	Sure bool `json:"sure"`

	ctx     context.Context
	m       recovery.Manifest
	backend *recovery.Backend // nil: missing or damaged
	broken  error             // why, if it is damaged
	in      *wal.Inspection
	release func() error
}

// Options of Plan are Dir and Progress. MakePlan finds out what is wrong with a
// data directory, under its lock, which Close gives back. Nothing is changed.
//
// Errors: ErrBeyondRepair, ErrNoData, those of recovery.
func MakePlan(ctx context.Context, o Options) (*Plan, error) {
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if _, err := os.Stat(o.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no directory %s", ErrNoData, o.Dir)
	}
	release, err := recovery.Lock(o.Dir)
	if err != nil {
		return nil, err
	}
	p := &Plan{Dir: o.Dir, Findings: []string{}, Steps: []Step{}, Sure: true, ctx: ctx, release: release}
	p.Lost = Loss{Topics: []string{}, Clients: []string{}}
	if err := p.make(&o); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Close gives the lock back.
func (p *Plan) Close() error {
	var err error
	if p.backend != nil {
		err = p.backend.Close()
		p.backend = nil
	}
	return errors.Join(err, p.release())
}

// Apply carries the plan out. What it replaces is in quarantine/ before.
func (p *Plan) Apply() error {
	if p.backend != nil { // steps write to it
		if err := p.backend.Close(); err != nil {
			return err
		}
		p.backend = nil
	}
	for i := range p.Steps {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		for _, name := range p.Steps[i].Copies {
			if err := copyAside(p.Dir, name); err != nil {
				return err
			}
		}
		if err := p.Steps[i].apply(); err != nil {
			return fmt.Errorf("restore: repair: %s: %w", p.Steps[i].What, err)
		}
	}
	return nil
}

func (p *Plan) find(format string, args ...any) {
	p.Findings = append(p.Findings, fmt.Sprintf(format, args...))
}

func (p *Plan) step(apply func() error, copies []string, format string, args ...any) {
	p.Steps = append(p.Steps, Step{What: fmt.Sprintf(format, args...), Copies: copies, apply: apply})
}

func (p *Plan) make(o *Options) error {
	if err := p.manifest(); err != nil {
		return err
	}
	o.Progress("read the log", 0, 0)
	in, err := wal.Scan(p.logDir(), p.m.StoreID, nil)
	if errors.Is(err, fs.ErrNotExist) {
		in, err = &wal.Inspection{Dir: p.logDir()}, nil
	}
	if err != nil {
		return err
	}
	p.in = in
	o.Progress("read the backend", 0, 0)
	p.backend, err = recovery.OpenBackend(p.ctx, p.Dir, &p.m)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, recovery.ErrDamaged):
		p.broken = err
		p.find("%v", err)
	default:
		return err
	}
	if p.m.Backend == recovery.BackendMemory {
		return p.log(0, core.New())
	}
	if p.backend == nil {
		return p.withoutBackend()
	}
	return p.log(p.backend.Mark.Applied, p.backend.Machine)
}

func (p *Plan) logDir() string { return recovery.LogDir(p.Dir) }

// manifest reads the manifest, or plans to write it anew.
func (p *Plan) manifest() error {
	m, warning, err := recovery.ReadManifest(p.Dir)
	switch {
	case errors.Is(err, recovery.ErrVersion):
		return err
	case err == nil:
		p.m = m
		if warning != "" {
			p.find("%s", warning)
			p.writeManifest(m.Floor, "write MANIFEST anew, from MANIFEST.old")
		}
		return nil
	}
	if p.m, err = identity(p.Dir); err != nil {
		return err
	}
	hasKey := false
	if c, lerr := archive.List(recovery.ArchiveDir(p.Dir)); lerr == nil {
		hasKey = len(c.Bases) > 0
	}
	if !hasKey { // without the key nothing proves that backend and log belong together
		return fmt.Errorf("%w: no manifest and no base has the key of the state hash", ErrBeyondRepair)
	}
	p.find("neither MANIFEST nor MANIFEST.old can be read")
	p.writeManifest(0, "write MANIFEST anew, from the newest base of the archive")
	return nil
}

// writeManifest plans to write the manifest, with a floor.
func (p *Plan) writeManifest(floor uint64, what string) {
	p.step(func() error {
		m := p.m
		m.Floor, m.Sealed = floor, false
		return recovery.WriteManifest(p.Dir, &m)
	}, p.existing("MANIFEST", "MANIFEST.old"), "%s", what)
}

func (p *Plan) existing(names ...string) (list []string) {
	for _, n := range names {
		if _, err := os.Lstat(filepath.Join(p.Dir, n)); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// withoutBackend plans for a backend that is missing or damaged: it is rebuilt
// out of archive and log, up to where the log is intact.
func (p *Plan) withoutBackend() error {
	if p.broken == nil && (p.in.First == 1 || p.in.Last == 0) {
		return p.log(0, core.New()) // a start rebuilds it from the log
	}
	h, err := archive.OpenHistory(recovery.ArchiveDir(p.Dir), p.logDir(), p.m.StoreID)
	if err != nil {
		return err
	}
	end := max(p.in.Last, h.Until(p.in.Last+1))
	past, err := recovery.OpenPast(p.ctx, recovery.PastOptions{History: h, Index: end, HashKey: p.m.HashKey})
	if err != nil {
		return fmt.Errorf("%w: the backend is missing or damaged, and archive and log cannot replace it: %w", ErrBeyondRepair, err)
	}
	began := "record 1 of the log"
	if past.From > 0 {
		began = fmt.Sprintf("the base at record %d", past.From)
	}
	machine := past.Machine
	if err := past.Close(); err != nil {
		return err
	}
	name := filepath.Base(storeFile(p.Dir))
	if p.broken == nil {
		p.find("the backend is missing, and the log begins with record %d", p.in.First)
	}
	p.step(func() error { return p.rebuild(end) }, p.existing(name),
		"rebuild the backend from %s and the records after it, up to record %d", began, end)
	return p.log(end, machine)
}

// rebuild writes the backend anew.
func (p *Plan) rebuild(end uint64) error {
	h, err := archive.OpenHistory(recovery.ArchiveDir(p.Dir), p.logDir(), p.m.StoreID)
	if err != nil {
		return err
	}
	past, err := recovery.OpenPast(p.ctx, recovery.PastOptions{History: h, Index: end, HashKey: p.m.HashKey})
	if err != nil {
		return err
	}
	return errors.Join(past.ReplaceBackend(p.ctx, p.Dir, p.m.StoreID), past.Close())
}

// log plans for the log behind a backend that is, or will be, at applied.
func (p *Plan) log(applied uint64, state *core.Machine) error {
	torn, err := p.in.Verdict(max(p.m.Floor, applied), applied+1)
	var corrupt *wal.CorruptError
	switch {
	case torn:
		d := p.in.Damage
		p.find("torn tail at %s:%d: %v; %d bytes that were never acknowledged", d.Segment, d.Offset, d.Err, d.Bytes)
		p.cut("cut the torn tail off")
		return nil
	case err == nil && p.in.First > applied+1:
		err = &wal.CorruptError{Index: applied + 1, Durable: p.in.Durable, Err: wal.ErrMissing}
	case err == nil, p.backend != nil && p.backend.Mark.Sealed && p.in.Last == 0 && len(p.in.Segments) == 0:
		return nil
	case !errors.As(err, &corrupt):
		return err
	}
	p.find("%v", err)
	durable := max(p.in.Durable, p.m.Floor, applied)
	if p.in.First > applied+1 {
		return fmt.Errorf("%w: the records between the backend's %d and the log's %d are gone", ErrBeyondRepair, applied, p.in.First)
	}
	if keep, ok, err := p.soundEnd(applied); err != nil {
		return err
	} else if ok { // the backend has everything up to the damage and beyond
		p.moveSegments(0, keep, "move the damaged part of the log away: the backend has all of it")
		return nil
	}
	p.Sure = false
	remains, err := wal.FindRemains(p.logDir(), p.m.StoreID)
	if errors.Is(err, fs.ErrNotExist) {
		remains, err = &wal.Remains{}, nil
	}
	if err != nil {
		return err
	}
	durable = max(durable, remains.Last())
	if applied > p.in.Last { // the log ends before the backend does
		p.Lost = lossOf(state, applied+1, durable, remains)
		p.moveSegments(0, len(p.in.Segments), "move the log away: the backend reaches further than its intact part")
		p.step(func() error { return recovery.SealBackend(p.ctx, p.Dir) }, p.existing(filepath.Base(storeFile(p.Dir))),
			"begin a new log after record %d, where the backend ends", applied)
		p.writeManifestSealed(applied)
		return nil
	}
	end, err := p.stateAt(applied, state, p.in.Last)
	if err != nil {
		return err
	}
	p.Lost = lossOf(end, p.in.Last+1, durable, remains)
	p.cut("cut the log off where it is damaged")
	p.writeManifest(p.in.Last, fmt.Sprintf("lower the floor in MANIFEST to record %d", p.in.Last))
	return nil
}

func (p *Plan) writeManifestSealed(applied uint64) {
	p.step(func() error {
		m := p.m
		m.Floor, m.Sealed = applied, true
		return recovery.WriteManifest(p.Dir, &m)
	}, p.existing("MANIFEST", "MANIFEST.old"), "lower the floor in MANIFEST to record %d", applied)
}

// stateAt goes on from a state to a later record of the intact part of the log.
func (p *Plan) stateAt(applied uint64, m *core.Machine, upto uint64) (*core.Machine, error) {
	h := archive.NewHistory(p.m.StoreID, &archive.Catalog{}, p.in.Segments)
	var fx core.Effects
	if upto <= applied {
		return m, nil
	}
	err := h.Replay(p.ctx, applied+1, upto, func(f *wal.Frame) error {
		return f.Records(func(index uint64, rec []byte) error { return m.Apply(index, f.Time, rec, &fx) })
	})
	return m, err
}

// soundEnd looks for the first segment from which on the log is intact and
// begins early enough for the backend.
func (p *Plan) soundEnd(applied uint64) (from int, ok bool, err error) {
	for i := 1; i < len(p.in.Segments); i++ {
		in, err := scanFrom(p.in.Segments[i:], p.m.StoreID)
		if err != nil {
			return 0, false, err
		}
		if in == nil || in.First > applied+1 || in.First == 0 {
			continue
		}
		if _, err := in.Verdict(max(p.m.Floor, applied), applied+1); err == nil && in.Durable >= p.in.Durable {
			return i, true, nil
		}
	}
	return 0, false, nil
}

// scanFrom scans some segments as if they were a log, by links in a temporary
// directory. nil if they begin with something else.
func scanFrom(segs []wal.SegmentInfo, store [16]byte) (*wal.Inspection, error) {
	dir, err := os.MkdirTemp("", "comqtt-repair-")
	if err != nil {
		return nil, fmt.Errorf("restore: repair: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a directory of links
	for i := range segs {
		path, err := filepath.Abs(segs[i].Path)
		if err == nil {
			err = os.Symlink(path, filepath.Join(dir, segs[i].Name))
		}
		if err != nil {
			return nil, fmt.Errorf("restore: repair: %w", err)
		}
	}
	in, err := wal.Scan(dir, store, nil)
	if errors.Is(err, wal.ErrForeign) {
		return nil, nil //nolint:nilnil // as the comment says
	}
	return in, err
}

// cut plans to cut the log off at its first damage.
func (p *Plan) cut(what string) {
	d := p.in.Damage
	keep := 0
	for i := range p.in.Segments {
		if p.in.Segments[i].Name == d.Segment {
			keep = i
		}
	}
	if d.Offset > 0 {
		seg := p.in.Segments[keep]
		p.step(func() error { return truncate(seg.Path, d.Offset) }, []string{filepath.Join("wal", seg.Name)},
			"%s: truncate wal/%s to %d bytes", what, seg.Name, d.Offset)
		keep++
	}
	if keep < len(p.in.Segments) {
		p.moveSegments(keep, len(p.in.Segments), what+": move the segments after it away")
	}
}

// moveSegments plans to move segments to the quarantine.
func (p *Plan) moveSegments(from, to int, what string) {
	var names []string
	for _, s := range p.in.Segments[from:to] {
		names = append(names, filepath.Join("wal", s.Name))
	}
	if len(names) == 0 {
		return
	}
	p.step(func() error {
		for i := len(names) - 1; i >= 0; i-- { // the last first: a crash in between leaves a shorter log
			if err := os.Remove(filepath.Join(p.Dir, names[i])); err != nil {
				return err
			}
		}
		return recovery.SyncDir(p.logDir())
	}, names, "%s (%d segments)", what, len(names))
}

// truncate cuts a file, durably.
func truncate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// copyAside copies a file of the data directory to its quarantine, durably.
func copyAside(dir, name string) error {
	q := filepath.Join(dir, recovery.QuarantineDir)
	if err := os.Mkdir(q, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("restore: quarantine: %w", err)
	}
	src, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("restore: quarantine: %w", err)
	}
	defer src.Close() //nolint:errcheck // only read
	base := filepath.Base(name)
	var dst *os.File
	for i := 1; ; i++ {
		dst, err = os.OpenFile(filepath.Join(q, base), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			break
		}
		base = fmt.Sprintf("%s.%d", filepath.Base(name), i)
	}
	if err != nil {
		return fmt.Errorf("restore: quarantine: %w", err)
	}
	_, err = io.Copy(dst, src)
	if err == nil {
		err = dst.Sync()
	}
	if err = errors.Join(err, dst.Close()); err == nil {
		err = errors.Join(recovery.SyncDir(q), recovery.SyncDir(dir))
	}
	if err != nil {
		return fmt.Errorf("restore: quarantine: %w", err)
	}
	return nil
}

// storeFile returns the path of the backend of a data directory.
func storeFile(dir string) string {
	m, _, err := recovery.ReadManifest(dir)
	if err != nil {
		return recovery.BackendFile(dir)
	}
	_, path := recovery.StoreFile(dir, &m)
	return path
}
