package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/memory"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Names in the data directory.
const (
	walName   = "wal"
	boltName  = "state.bbolt"
	segDigits = 20
)

// Open opens the data directory and brings its state to the end of the log, or
// begins a new store in a directory that holds none. doc.go says in which order
// and why.
//
// Errors are typed: *LockedError, ErrVersion, *DamageError, ErrCreate, those of
// the log and the backend; ExitCode sorts them. Whatever the error, nothing
// that the directory held is changed, apart from a torn tail of the log, which
// the log saves before it cuts it off; and the lock is given back.
func Open(ctx context.Context, o Options) (*State, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := makeDir(o.Dir); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCreate, err)
	}
	l, err := acquire(o.Dir)
	if err != nil {
		return nil, err
	}
	p := opening{ctx: ctx, opt: &o, lock: l}
	ballast := make([]byte, loadBallast)
	defer runtime.KeepAlive(ballast)
	if err := p.run(); err != nil {
		return nil, errors.Join(err, p.giveUp())
	}
	s := p.state()
	s.Report.Duration = time.Since(begin)
	return s, nil
}

// loadBallast is memory that Open holds and never touches, so that it costs
// address space only: the garbage collector waits until the heap has doubled,
// and would otherwise go over a state that only grows again and again.
const loadBallast = 64 << 20

// opening is one Open.
type opening struct {
	ctx      context.Context
	opt      *Options
	lock     *lock
	manifest manifestFile
	fresh    bool // the directory held no store
	store    backends.Store
	absent   bool // the backend has no file yet
	mark     backends.Mark
	log      *wal.Log
	machine  *core.Machine
	report   Report
	notes    notes // of bodies that went ahead of a checkpoint that never was
	mirror   *mirror
}

func (p *opening) run() error {
	for _, step := range []func() error{
		p.identify, p.backend, p.openLog, p.join, p.createStore, p.replay, p.openMirror, p.goLive,
	} {
		if err := p.ctx.Err(); err != nil {
			return fmt.Errorf("recovery: open: %w", err)
		}
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// giveUp closes what a failed Open has opened.
func (p *opening) giveUp() error {
	var errs []error
	errs = append(errs, p.mirror.giveUp())
	if p.log != nil {
		errs = append(errs, p.log.Close())
	}
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	return errors.Join(append(errs, p.lock.release())...)
}

// state builds the State and starts the compactor.
func (p *opening) state() *State {
	o := p.opt
	bodies := newBodies(o.CacheBytes, p.log, p.store)
	w := &committer{
		opt: o.Checkpoint, log: p.log, store: p.store, bodies: bodies, manifest: &p.manifest, logger: o.Logger,
		memory: o.Backend == BackendMemory, mark: p.mark, hashKey: p.manifest.m.HashKey,
		notes: p.notes, mirror: p.mirror,
	}
	w.applied.Store(p.mark.Applied)
	p.openArchive(w)
	c := newCompactor(o.Checkpoint, w, o.Logger)
	w.hashes = c.hashes
	s := &State{
		Machine: p.machine, Log: p.log, Store: p.store, Bodies: bodies, Compactor: c,
		Manifest: p.manifest.get(), Report: p.report, lock: p.lock, manifest: &p.manifest, commit: w,
		Archive: w.archive, mirror: p.mirror,
	}
	if m := p.mirror; m != nil {
		m.primary, m.commit, m.mark = p.store, &w.mu, func() backends.Mark { return w.mark }
		m.start()
	}
	c.start(p.leftBehind())
	c.due.Store(true) // what was replayed goes to the backend at once
	c.Checkpoint(p.machine, p.machine.Applied(), p.machine.Now())
	return s
}

// identify reads the manifest, or begins a new store.
func (p *opening) identify() error {
	dir := p.opt.Dir
	m, warning, err := ReadManifest(dir)
	switch {
	case err == nil:
		if warning != "" {
			p.warn(warning)
		}
	case errors.Is(err, fs.ErrNotExist):
		if err := p.mustBeEmpty(); err != nil {
			return err
		}
		m = NewManifest(p.opt.Backend)
		if err := WriteManifest(dir, &m); err != nil {
			return fmt.Errorf("%w: %w", ErrCreate, err)
		}
	default:
		return err
	}
	p.manifest.dir, p.manifest.m = dir, m
	return nil
}

func (p *opening) warn(text string) {
	p.report.Warnings = append(p.report.Warnings, text)
	p.opt.Logger.Warn(text, "dir", p.opt.Dir)
}

// mustBeEmpty refuses a directory that holds a log or a backend, but no
// manifest.
func (p *opening) mustBeEmpty() error {
	if err := p.migrating(); err != nil {
		return err
	}
	held := ""
	for _, name := range []string{boltName, badgerName} {
		if p.has(name) {
			held = name
		}
	}
	segments, err := hasSegments(p.path(walName))
	if err != nil {
		return err
	}
	if segments {
		held = walName
	}
	if held == "" {
		return nil
	}
	return &DamageError{
		File: p.path(manifestName), What: "missing, but " + p.path(held) + " is there",
		Lost: "the identities and the key that prove that log and backend belong together",
		Do:   "put back MANIFEST or MANIFEST.old from a backup of this directory, of any age",
	}
}

func (p *opening) path(name string) string { return filepath.Join(p.opt.Dir, name) }

func (p *opening) has(name string) bool {
	_, err := os.Lstat(p.path(name))
	return err == nil
}

// backendName returns the name of the backend's file or directory.
func (p *opening) backendName() string { return storeName(p.opt.Backend) }

// hasSegments says whether a directory holds segments of a log.
func hasSegments(dir string) (bool, error) {
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("recovery: look for a log: %w", err)
	}
	for _, n := range names {
		if len(n.Name()) == segDigits && !n.IsDir() {
			return true, nil
		}
	}
	return false, nil
}

// openStore opens the backend, if it has been made, and checks that it belongs
// here. A backend that is not there yet is made after the log has shown that
// it can stand in for it.
func (p *opening) openStore() error {
	if p.opt.Backend == BackendMemory {
		p.use(memory.New())
		return nil
	}
	if !p.has(p.backendName()) {
		p.absent = true
		return p.otherBackend()
	}
	path := p.path(p.backendName())
	s, err := openStore(p.opt.Backend, path, storeOptions{logger: p.opt.Logger})
	if err != nil {
		return p.refuseStore(path, err)
	}
	p.use(s)
	if p.mark, err = p.store.Mark(p.ctx); err != nil {
		return p.refuseStore(path, err)
	}
	if p.mark == (backends.Mark{}) { // made, but never used: a crash came first
		return nil
	}
	if err := p.mark.CheckSchema(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrVersion, path, err)
	}
	if p.mark.StoreID != p.manifest.m.StoreID {
		return &DamageError{
			File: path, What: fmt.Sprintf("belongs to store %x, this directory to %x", p.mark.StoreID, p.manifest.m.StoreID),
			Lost: "nothing: two directories were mixed up", Do: "put each file back into its own directory",
		}
	}
	p.report.Applied = p.mark.Applied
	p.notes, err = readNotes(p.ctx, p.store)
	if err != nil {
		return p.refuseStore(path, err)
	}
	return nil
}

// use takes an open backend, wrapped if asked for.
func (p *opening) use(s backends.Store) {
	p.store = s
	if p.opt.WrapStore != nil {
		p.store = p.opt.WrapStore(s)
	}
}

// refuseStore explains an error of the backend, if it is damage.
func (p *opening) refuseStore(path string, err error) error {
	if !errors.Is(err, backends.ErrDamaged) && !errors.Is(err, backends.ErrNotStore) && !errors.Is(err, core.ErrEntry) {
		return fmt.Errorf("recovery: open backend: %w", err)
	}
	return &DamageError{
		File: path, What: "damaged", Err: err, Lost: "what the log no longer holds: everything before its first record",
		Do: Advice(p.opt.Dir),
	}
}

// createStore makes the backend that the log has shown to be superfluous so
// far, and gives a new one its mark.
func (p *opening) createStore() error {
	if p.absent {
		s, err := openStore(p.opt.Backend, p.path(p.backendName()), storeOptions{create: true, logger: p.opt.Logger})
		if err != nil {
			return fmt.Errorf("%w: backend: %w", ErrCreate, err)
		}
		p.use(s)
		if p.log.Last() > 0 {
			p.warn(p.backendName() + " was missing and is rebuilt from the log, which is complete")
		}
	}
	if p.mark != (backends.Mark{}) {
		return nil
	}
	mark := backends.Mark{StoreID: p.manifest.m.StoreID, Schema: backends.Schema}
	if err := p.store.Commit(p.ctx, new(backends.Batch), mark); err != nil {
		return fmt.Errorf("recovery: mark the backend: %w", err)
	}
	p.mark = mark
	return nil
}

// openLog opens the log. It refuses one that does not reach back to the
// backend's state, or ends before it.
func (p *opening) openLog() error {
	o := p.opt.WAL
	o.Dir, o.StoreID, o.Sync = p.path(walName), p.manifest.m.StoreID, p.opt.Sync
	o.Floor = max(p.manifest.m.Floor, p.mark.Applied)
	o.Need = p.mark.Applied + 1
	o.Next = 1
	if p.mark.Sealed { // no log beyond the state exists: a new one may begin there
		o.Next = p.mark.Applied + 1
	}
	if p.opt.SegmentSize != 0 {
		o.SegmentSize = p.opt.SegmentSize
	}
	plantLog(&o)
	l, r, err := wal.Open(o)
	if err != nil {
		return p.refuseLog(&o, err)
	}
	p.log = l
	p.report.Clean = r.Clean || p.mark.Sealed && r.Created
	p.report.TornBytes, p.report.TornAt, p.report.TornErr, p.report.Saved = r.TornBytes, r.TornAt, r.TornErr, r.Saved
	p.report.LogTime = r.LastTime
	return nil
}

// refuseLog explains why the log cannot be used.
func (p *opening) refuseLog(o *wal.Options, err error) error {
	var c *wal.CorruptError
	switch {
	case errors.Is(err, wal.ErrVersion):
		return fmt.Errorf("%w: %w", ErrVersion, err)
	case errors.Is(err, wal.ErrForeign) && !errors.As(err, &c):
		return &DamageError{
			File: o.Dir, What: "the log belongs to another store", Err: err,
			Lost: "nothing: two directories were mixed up", Do: "put each directory back into its own place",
		}
	case !errors.As(err, &c):
		return fmt.Errorf("recovery: open log: %w", err)
	}
	from, state := c.LaterFirst, p.mark.Applied
	if state == 0 && from > 1 && errors.Is(c.Err, wal.ErrMissing) { // the log is sound, but no longer the whole story
		if other := p.held(); p.opt.Backend == BackendMemory && other != "" {
			return fmt.Errorf("%w: the log begins with record %d, what came before is in %s", ErrBackend, from, other)
		}
		return &DamageError{
			File: p.path(p.backendName()), What: fmt.Sprintf("missing or empty, and the log begins with record %d", from), Err: err,
			Lost: fmt.Sprintf("the state that records 1 to %d built", from-1),
			Do:   fmt.Sprintf("put the file back, a copy of any age will do that reaches record %d; else %s", from-1, Advice(p.opt.Dir)),
		}
	}
	d := &DamageError{
		File: filepath.Join(o.Dir, c.Segment), What: "acknowledged records are damaged or missing", Err: err,
		Lost: fmt.Sprintf("records up to %d, all or in part", c.Durable),
		Do:   "put missing files back if there is a copy; else " + Advice(p.opt.Dir),
	}
	if state > 0 && c.Index > state {
		d.Lost = fmt.Sprintf("what came after record %d, where the backend's state ends", state)
	}
	return d
}

// join checks what wal.Open was asked to check, because everything depends on
// it.
func (p *opening) join() error {
	a := p.mark.Applied
	if p.log.First() > a+1 || p.log.Last() < a {
		return &DamageError{
			File: p.path(walName),
			What: fmt.Sprintf("holds records %d to %d, the backend is at %d", p.log.First(), p.log.Last(), a),
			Lost: "what is in between", Do: Advice(p.opt.Dir),
		}
	}
	p.fresh = p.log.Last() == 0
	p.report.Created = p.fresh
	return nil
}

// goLive says that the directory is in use, logs this start, and applies it.
func (p *opening) goLive() error {
	if p.mark.Sealed {
		p.mark.Sealed = false
		if err := p.store.Commit(p.ctx, new(backends.Batch), p.mark); err != nil {
			return fmt.Errorf("recovery: open the backend: %w", err)
		}
	}
	if err := p.logStart(); err != nil {
		return err
	}
	m := &p.manifest
	m.m.Backend = p.opt.Backend
	if err := m.update(p.log.Last(), false); err != nil {
		return err
	}
	p.describe()
	return nil
}

// logStart appends the records of this start as one synced frame and applies
// them.
func (p *opening) logStart() error {
	last := max(p.report.LogTime, p.mark.LogTime, p.machine.Now())
	wall := p.opt.Clock()
	f := wal.Frame{Time: max(wall, last), Term: 1}
	if jump := time.Duration(wall-last) * time.Millisecond; last != 0 && max(jump, -jump) > timeJumpMin {
		p.report.TimeJump = jump
	}
	add := func(rec []byte) {
		f.Body = wal.AppendRecord(f.Body, rec)
		f.Count++
	}
	limits := p.opt.Limits
	if p.fresh {
		if limits == (record.Limits{}) {
			limits = DefaultLimits()
		}
		g := record.Genesis{StoreID: p.manifest.m.StoreID, FeatureLevel: core.FeatureLevel, Limits: limits}
		add(g.AppendTo(nil))
	} else if limits != (record.Limits{}) && limits != p.machine.Limits() {
		c := record.Config{Limits: limits}
		add(c.AppendTo(nil))
	}
	start := record.ServerStart{Boot: p.machine.Boot() + 1, Wall: max(wall, 0)}
	add(start.AppendTo(nil))
	if err := p.log.Commit(&f); err != nil {
		return fmt.Errorf("recovery: log the start: %w", err)
	}
	if err := p.log.Sync(); err != nil { // in every mode: the boot number is in every epoch
		return fmt.Errorf("recovery: log the start: %w", err)
	}
	p.report.LogTime, p.report.Boot = f.Time, start.Boot
	var fx core.Effects
	return f.Records(func(index uint64, rec []byte) error {
		if err := p.machine.Apply(index, f.Time, rec, &fx); err != nil {
			return fmt.Errorf("recovery: apply the start: %w", err)
		}
		return nil
	})
}

// describe fills in what is left of the report.
func (p *opening) describe() {
	r, c := &p.report, p.machine.Counts()
	r.Sessions, r.Subscriptions, r.Retained = c.Sessions, c.Subscriptions, c.Retained
	r.Messages, r.Queued, r.Inflight = c.Messages, c.Queued, c.Inflight
	r.Last, r.LogFirst, r.LogBytes = p.log.Last(), p.log.First(), p.log.Bytes()
	r.Segments = len(p.log.Segments())
}

// makeDir creates dir and its parents, durably.
func makeDir(dir string) error {
	info, err := os.Stat(dir)
	if err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: errors.New("there is a file of this name")}
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, dirPerm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}
