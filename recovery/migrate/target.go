package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/redis"
	"github.com/wind-c/comqtt/v3/recovery"
)

// stage is how far a target has come.
type stage int

const (
	stageEmpty stage = iota // nothing there
	stageHalf               // begun by a migration
	stageDone               // made by a migration, and never used
	stageTaken              // something else
)

// survey is what a look at a target gave. It changes nothing.
type survey struct {
	stage stage
	note  *note  // of the migration that began it
	why   string // what is there, for stageTaken
}

// look finds out what a target holds.
func look(ctx context.Context, u URL) (survey, error) {
	if u.Dir == "" {
		return lookRedis(ctx, u)
	}
	return lookDir(u.Dir)
}

// lookDir looks at the names in a directory. A lock file, and a note that was
// not written to its end, are what a crash at the very begin leaves.
func lookDir(dir string) (survey, error) {
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return survey{}, nil
	}
	if err != nil {
		return survey{}, fmt.Errorf("%w: %w", recovery.ErrCreate, err)
	}
	var held []string
	manifest := false
	for _, n := range names {
		switch n.Name() {
		case "LOCK", recovery.MigrationFile + ".tmp":
			continue
		case "MANIFEST":
			manifest = true
		}
		held = append(held, n.Name())
	}
	if len(held) == 0 {
		return survey{}, nil
	}
	if !slices.Contains(held, recovery.MigrationFile) {
		return survey{stage: stageTaken, why: "holds " + held[0]}, nil
	}
	b, err := os.ReadFile(notePath(dir))
	if err != nil {
		return survey{}, fmt.Errorf("migrate: read %s: %w", recovery.MigrationFile, err)
	}
	n, err := decodeNote(b)
	if err != nil {
		return survey{}, err
	}
	if manifest {
		return survey{stage: stageDone, note: n}, nil
	}
	return survey{stage: stageHalf, note: n}, nil
}

func lookRedis(ctx context.Context, u URL) (v survey, err error) {
	s, err := redis.OpenReader(ctx, u.text)
	if err != nil {
		return v, unreachable(err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	mark, err := s.Mark(ctx)
	if err != nil {
		return v, unreachable(err)
	}
	if mark == (backends.Mark{}) {
		return v, nil
	}
	n, err := readNote(ctx, s)
	switch {
	case err != nil:
		return v, unreachable(err)
	case n == nil:
		return survey{stage: stageTaken, why: fmt.Sprintf("holds the state of store %s at record %d", id(mark.StoreID), mark.Applied)}, nil
	case !n.Done:
		return survey{stage: stageHalf, note: n}, nil
	case mark.Applied == n.Applied:
		return survey{stage: stageDone, note: n}, nil
	}
	return survey{stage: stageTaken, why: fmt.Sprintf("was migrated and used since: it is at record %d", mark.Applied)}, nil
}

// admit says whether a migration from a source may go on with what it found.
func (v *survey) admit(u URL, want *note, resume bool) error {
	switch {
	case v.stage == stageEmpty:
		return nil
	case v.stage == stageTaken:
		return fmt.Errorf("%w: %s %s", ErrExists, u, v.why)
	case !resume && v.stage == stageDone:
		return fmt.Errorf("%w: %s was made by a migration from %s", ErrExists, u, v.note.From)
	case !resume:
		return fmt.Errorf("%w: %s, from %s", ErrUnfinished, u, v.note.From)
	case v.note.Source != want.Source:
		return fmt.Errorf("%w: %s, from %s", ErrOther, u, v.note.From)
	case !v.note.sameState(want):
		return fmt.Errorf("%w: %s was begun at record %d, the source is at %d with another state", ErrChanged, u, v.note.Applied, want.Applied)
	}
	return nil
}

// target is a backend that is filled.
type target struct {
	url     URL
	note    *note
	store   backends.Store
	release func() error
	mark    backends.Mark // while it is filled: not sealed, of no record
}

// openTarget makes a target, or opens one that is half made.
func openTarget(ctx context.Context, u URL, n *note, epoch uint32) (*target, error) {
	t := &target{url: u, note: n, mark: backends.Mark{StoreID: n.StoreID, Schema: backends.Schema}}
	var err error
	if u.Dir == "" {
		var s *redis.Store
		if s, err = redis.Open(ctx, u.text, redis.Options{StoreID: n.StoreID, Epoch: uint64(epoch)}); err == nil {
			t.store = s
		}
		err = unreachable(err)
	} else {
		err = t.openDir()
	}
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *target) openDir() error {
	dir := t.url.Dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("%w: %w", recovery.ErrCreate, err)
	}
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := recovery.SyncDir(d); err != nil {
			return err
		}
	}
	release, err := recovery.Lock(dir)
	if err != nil {
		return err
	}
	t.release = release
	// Again, under the lock: somebody may have been faster.
	v, err := lookDir(dir)
	if err != nil {
		return err
	}
	if v.stage == stageEmpty {
		if err := writeNoteFile(dir, t.note); err != nil {
			return err
		}
	} else if v.stage != stageHalf || v.note.StoreID != t.note.StoreID {
		return fmt.Errorf("%w: %s was taken meanwhile", ErrExists, t.url)
	}
	if other := otherKind(t.url); other != "" {
		return fmt.Errorf("%w: %s was begun as %s://%s", ErrOther, t.url, other, dir)
	}
	t.store, err = openStore(t.url, false)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: backend: %w", recovery.ErrCreate, err)
	}
	return err
}

// close ends the use of the target, whatever it has come to.
func (t *target) close() error {
	var errs []error
	if t.store != nil {
		errs = append(errs, t.store.Close())
		t.store = nil
	}
	if t.release != nil {
		errs = append(errs, t.release())
		t.release = nil
	}
	return errors.Join(errs...)
}

// begin writes the first transaction, if it is not there, and returns how far
// the target is filled.
func (t *target) begin(ctx context.Context) (cursor, error) {
	n, err := readNote(ctx, t.store)
	if err != nil {
		return cursor{}, err
	}
	if n != nil {
		return readCursor(ctx, t.store)
	}
	var b backends.Batch
	b.Put(noteKey(), t.note.encode())
	if err := t.store.Commit(ctx, &b, t.mark); err != nil {
		return cursor{}, fmt.Errorf("migrate: begin the target: %w", err)
	}
	return cursor{}, nil
}

// seal ends the filling: from then on the store is whole.
func (t *target) seal(ctx context.Context, mark backends.Mark) error {
	mark.StoreID, mark.Sealed, mark.Schema = t.note.StoreID, true, backends.Schema
	var b backends.Batch
	b.Delete(cursorKey())
	if t.url.Dir == "" {
		done := *t.note
		done.Done = true
		b.Put(noteKey(), done.encode())
	} else {
		b.Delete(noteKey())
	}
	if err := t.store.Commit(ctx, &b, mark); err != nil {
		return fmt.Errorf("migrate: seal the target: %w", err)
	}
	return nil
}

// finish makes the directory one that a broker takes. The backend is sealed.
func (t *target) finish() error {
	err := t.store.Close()
	t.store = nil
	if err != nil || t.url.Dir == "" {
		return err
	}
	dir := t.url.Dir
	for _, d := range []string{recovery.LogDir(dir), recovery.ArchiveDir(dir)} {
		if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%w: %w", recovery.ErrCreate, err)
		}
	}
	m := recovery.Manifest{
		StoreID: t.note.StoreID, NodeID: t.note.NodeID, HashKey: t.note.HashKey, Backend: t.url.Kind,
		Floor: t.note.Applied, Sealed: true,
	}
	if err := recovery.WriteManifest(dir, &m); err != nil {
		return err
	}
	return removeNote(dir)
}

// removeNote removes the file that says that a migration has not ended.
func removeNote(dir string) error {
	if err := os.Remove(notePath(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("migrate: remove %s: %w", recovery.MigrationFile, err)
	}
	return recovery.SyncDir(dir)
}
