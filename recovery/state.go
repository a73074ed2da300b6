package recovery

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/failpoint"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/archive"
)

// State is an open data directory: the machine as the log left it, and what
// keeps log and backend in step from here on.
//
// Machine belongs to the apply loop of the broker; the other parts say for
// themselves who may call them.
type State struct {
	Machine   *core.Machine
	Log       *wal.Log
	Store     backends.Store
	Bodies    *Bodies
	Compactor *Compactor
	Archive   *archive.Archive // nil without one
	mirror    *mirror          // nil without one
	Manifest  Manifest         // as Open left it
	Report    Report

	lock     *lock
	manifest *manifestFile
	commit   *committer
	close    sync.Once
	closed   error
}

// Close ends the use of the data directory. The broker has given everything to
// Checkpoint before: what was applied and not collected stays in the log and
// is replayed at the next start.
//
// It brings what was collected to the backend, seals the backend if that is
// all there is, writes the log's clean-close mark and gives the lock back. It
// goes through all of it whatever fails; an error means that the next start
// has something to replay, not that anything is lost. A second Close returns
// what the first did.
func (s *State) Close(ctx context.Context) error {
	s.close.Do(func() { s.closed = s.closeAll(ctx) })
	return s.closed
}

func (s *State) closeAll(ctx context.Context) error {
	err := s.Compactor.Close(ctx)
	err = errors.Join(err, s.mirror.close())
	if err == nil {
		err = s.seal(ctx)
	}
	err = errors.Join(err, s.closeArchive(ctx, err == nil))
	failpoint.Hit(failpoint.ShutdownBeforeMark)
	return errors.Join(err, s.Log.Close(), s.Store.Close(), s.lock.release())
}

// seal says in backend and manifest that nothing is in the log beyond the
// backend's state, if that is so.
func (s *State) seal(ctx context.Context) error {
	if err := s.Log.Sync(); err != nil {
		return fmt.Errorf("recovery: close: %w", err)
	}
	mark := s.commit.mark
	mark.Sealed = !s.commit.memory && mark.Applied == s.Log.Last()
	if mark.Sealed {
		if err := s.Store.Commit(ctx, new(backends.Batch), mark); err != nil {
			return fmt.Errorf("recovery: seal the backend: %w", err)
		}
	}
	return s.manifest.update(s.Log.Last(), mark.Sealed)
}

// Mirror says how the second target is; ok is false if there is none.
func (s *State) Mirror() (status MirrorStatus, ok bool) {
	if s.mirror == nil {
		return status, false
	}
	return s.mirror.status(), true
}
