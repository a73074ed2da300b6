package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/archive"
)

// QuarantineDir is where files go that were replaced because they are damaged.
const QuarantineDir = "quarantine"

// rebuildEnd is the end of the name of a backend while it is rebuilt.
const rebuildEnd = ".rebuild"

// backend opens the backend and loads the state from it. One that is missing or
// damaged is rebuilt, where archive and log hold all of the state: otherwise the
// directory is refused as it is.
func (p *opening) backend() error {
	err := p.openStore()
	if err == nil && !p.absent {
		err = p.load()
	}
	switch {
	case err == nil && p.absent:
		return p.restoreAbsent()
	case err == nil, p.opt.Backend == BackendMemory, !errors.Is(err, ErrDamaged) || !p.has(p.backendName()):
		return err
	case p.mark.StoreID != [16]byte{} && p.mark.StoreID != p.manifest.m.StoreID: // sound, but another broker's
		return err
	}
	return p.replaceDamaged(err)
}

// restoreAbsent rebuilds a backend that is not there from the archive, where the
// log alone cannot do it.
func (p *opening) restoreAbsent() error {
	h, end, err := p.history()
	if err != nil || h == nil || h.Log != nil && h.Log.First == 1 || end == 0 {
		return errors.Join(err, p.load()) // a new store; a log from record 1; or refused by openLog
	}
	if _, err := h.StartFor(end); err != nil || end < p.manifest.m.Floor {
		return p.load()
	}
	return p.rebuild(h, end, p.backendName()+" was missing and is", nil)
}

// replaceDamaged moves a damaged backend to the quarantine and makes a new one,
// if nothing is lost by that.
func (p *opening) replaceDamaged(cause error) error {
	h, end, err := p.history()
	if err != nil || h == nil {
		return errors.Join(cause, err)
	}
	if _, err := h.StartFor(end); err != nil || end < p.manifest.m.Floor {
		return p.cannotRebuild(cause, h)
	}
	if p.store != nil {
		if err := p.store.Close(); err != nil {
			return errors.Join(cause, err)
		}
	}
	p.store, p.mark, p.notes, p.machine, p.report.Applied = nil, backends.Mark{}, notes{}, nil, 0
	aside := func() error {
		to, err := Quarantine(p.opt.Dir, p.backendName())
		if err != nil {
			return err
		}
		p.warn(fmt.Sprintf("%s is damaged and was moved to %s: %v", p.backendName(), to, cause))
		p.absent = true
		return nil
	}
	if h.Log != nil && h.Log.First == 1 { // the log alone tells everything
		if err := aside(); err != nil {
			return errors.Join(cause, err)
		}
		return p.load()
	}
	if err := p.rebuild(h, end, p.backendName()+" is", aside); err != nil {
		return errors.Join(cause, err)
	}
	return nil
}

// history returns what archive and log hold, and the last intact record; nil if
// the log cannot be the basis of anything.
func (p *opening) history() (h *archive.History, end uint64, err error) {
	h, err = archive.OpenHistory(ArchiveDir(p.opt.Dir), p.path(walName), p.manifest.m.StoreID)
	if err != nil {
		return nil, 0, nil //nolint:nilerr // the log says for itself what is wrong with it
	}
	if h.Log != nil && len(h.Log.Segments) > 0 {
		if _, err := h.Log.Verdict(p.manifest.m.Floor, 0); err != nil {
			return nil, 0, nil //nolint:nilerr // as above
		}
		return h, h.Log.Last, nil
	}
	return h, h.Last(), nil
}

// cannotRebuild says what stands between a damaged backend and a new one.
func (p *opening) cannotRebuild(cause error, h *archive.History) error {
	var d *DamageError
	if !errors.As(cause, &d) {
		return cause
	}
	out := *d
	if h.Log != nil && h.Log.First > 1 {
		out.Lost = fmt.Sprintf("the state that records 1 to %d built: the log begins with record %d and no archive reaches it", h.Log.First-1, h.Log.First)
	}
	out.Do = Advice(p.opt.Dir)
	return &out
}

// rebuild makes a new backend with the state after the record end and loads it.
// aside, which may be nil, puts the old one away when the new one is whole.
// Nothing is changed if it cannot be made.
func (p *opening) rebuild(h *archive.History, end uint64, what string, aside func() error) error {
	past, err := OpenPast(p.ctx, PastOptions{History: h, Index: end, HashKey: p.manifest.m.HashKey, Progress: p.opt.Progress})
	if err != nil {
		return p.cannotBuild(err)
	}
	from, n := past.From, past.Records
	m := &p.manifest.m
	sealed := m.Sealed && end == m.Floor && h.Last() == end
	temp := p.path(p.backendName() + rebuildEnd)
	if err = errors.Join(writeBackend(p.ctx, past, p.opt.Backend, temp, m.StoreID, sealed), past.Close()); err != nil {
		return p.cannotBuild(errors.Join(err, os.RemoveAll(temp)))
	}
	if aside != nil {
		err = aside()
	}
	if err == nil {
		err = os.Rename(temp, p.path(p.backendName()))
	}
	if err == nil {
		err = syncDir(p.opt.Dir)
	}
	if err != nil {
		return fmt.Errorf("recovery: rebuild the backend: %w", err)
	}
	p.warn(fmt.Sprintf("%s rebuilt from the archive: base at record %d and %d records", what, from, n))
	p.absent = false
	if err := p.openStore(); err != nil {
		return err
	}
	return p.load()
}

// cannotBuild refuses what archive and log do not lead to, although they looked
// as if they would: a base or a segment is damaged.
func (p *opening) cannotBuild(err error) error {
	var corrupt *wal.CorruptError
	switch {
	case errors.Is(err, ErrDamaged):
	case errors.Is(err, archive.ErrBase), errors.Is(err, archive.ErrReach), errors.Is(err, ErrNoBody), errors.As(err, &corrupt):
		return &DamageError{
			File: p.path(p.backendName()), What: "missing or damaged, and what it would be rebuilt from is damaged too", Err: err,
			Lost: "the state that the records built which are no longer in the log", Do: Advice(p.opt.Dir),
		}
	}
	return fmt.Errorf("recovery: rebuild the backend: %w", err)
}

// writeBackend makes a backend file with the state. One that is there is what a
// crash left of an earlier try, and is replaced.
func writeBackend(ctx context.Context, past *Past, kind, path string, store [16]byte, sealed bool) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	s, err := openStore(kind, path, storeOptions{create: true})
	if err != nil {
		return fmt.Errorf("%w: backend: %w", ErrCreate, err)
	}
	return errors.Join(past.WriteStore(ctx, s, store, sealed), s.Close())
}

// Quarantine moves a file of a data directory to its quarantine and returns
// where it is now, as a path within the directory. A file of that name that is
// there already stays; the new one gets a number.
func Quarantine(dir, name string) (string, error) {
	q := filepath.Join(dir, QuarantineDir)
	if err := makeDir(q); err != nil {
		return "", fmt.Errorf("recovery: quarantine: %w", err)
	}
	to := filepath.Base(name)
	for i := 1; ; i++ {
		if _, err := os.Lstat(filepath.Join(q, to)); errors.Is(err, fs.ErrNotExist) {
			break
		}
		to = fmt.Sprintf("%s.%d", filepath.Base(name), i)
	}
	err := os.Rename(filepath.Join(dir, name), filepath.Join(q, to))
	if err == nil {
		err = syncDir(q)
	}
	if err == nil {
		err = syncDir(filepath.Join(dir, filepath.Dir(name)))
	}
	if err != nil {
		return "", fmt.Errorf("recovery: quarantine %s: %w", name, err)
	}
	return filepath.Join(QuarantineDir, to), nil
}

// ReplaceBackend makes the state the backend of a data directory, in place of
// the one that is there, whose name its file takes when it is whole.
func (p *Past) ReplaceBackend(ctx context.Context, dir string, store [16]byte) error {
	kind, path := BackendBbolt, BackendFile(dir)
	if m, _, err := ReadManifest(dir); err == nil {
		kind, path = StoreFile(dir, &m)
	}
	temp := path + rebuildEnd
	if err := writeBackend(ctx, p, kind, temp, store, false); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("recovery: rebuild the backend: %w", err)
	}
	return syncDir(dir)
}
