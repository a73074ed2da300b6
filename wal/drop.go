package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// DropBefore unlinks, oldest first, the segments all of whose records are below
// index, and then syncs the directory. It keeps the last segment, and the one
// before it as long as the last has no durable frame: what is left of a log
// always begins with a durable frame. Records that happen to share a segment
// with index stay. Readers that are in a dropped segment end undisturbed. A
// Keeper, if one is set, decides about each segment; one that it holds ends the
// call without an error.
//
// A failed unlink leaves the segment in the log, and the call may be repeated.
// A failed sync of the directory poisons the log.
func (l *Log) DropBefore(index uint64) error {
	l.dropMu.Lock()
	defer l.dropMu.Unlock()
	l.mu.Lock()
	err := l.usable()
	l.mu.Unlock()
	if err != nil {
		return err
	}
	dropped := false
	for err == nil {
		s := l.idx.claim(index, l.synced.Load())
		if s == nil {
			break
		}
		fate := FateDrop
		if l.keeper != nil {
			fate = l.keeper.Release(s.info())
		}
		if fate == FateHeld {
			l.idx.restore(s)
			break
		}
		if err = l.unlink(s, fate); err == nil {
			l.first.Store(l.idx.drop(s))
			dropped = true
		} else {
			l.idx.restore(s)
		}
	}
	if !dropped {
		return err
	}
	if serr := l.drop.Sync(); serr != nil {
		err = errors.Join(err, l.fail(fmt.Errorf("wal: sync directory: %w", serr)))
	}
	return err
}

// Keeper is told of each segment before it leaves the log, so that somebody
// else may keep it: the archive.
type Keeper interface {
	// Release is called by DropBefore with the oldest segment, which is sealed,
	// durable and needed by nobody any more. A keeper
	// that wants the segment has it, durably, when it returns. It must call
	// neither DropBefore nor SetKeeper.
	Release(s SegmentInfo) Fate
}

// Fate says what becomes of a released segment.
type Fate uint8

const (
	// FateDrop: the log removes the file.
	FateDrop Fate = iota
	// FateTaken: the keeper has moved the file away.
	FateTaken
	// FateHeld: the segment stays in the log for now, and those after it.
	FateHeld
)

// SetKeeper sets who is asked before a segment goes; nil = nobody. It waits for
// a DropBefore under way.
func (l *Log) SetKeeper(k Keeper) {
	l.dropMu.Lock()
	defer l.dropMu.Unlock()
	l.keeper = k
}

func (l *Log) unlink(s *segment, fate Fate) error {
	if fate == FateTaken {
		return nil
	}
	if err := call(l.opt.Hooks.BeforeUnlink, s.last); err != nil {
		return err
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("wal: drop segment: %w", err)
	}
	return nil
}
