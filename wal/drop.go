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
// with index stay. Readers that are in a dropped segment end undisturbed.
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
		if err = l.unlink(s); err == nil {
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

func (l *Log) unlink(s *segment) error {
	if err := call(l.opt.Hooks.BeforeUnlink, s.last); err != nil {
		return err
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("wal: drop segment: %w", err)
	}
	return nil
}
