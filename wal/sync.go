package wal

import (
	"errors"
	"fmt"
	"time"
)

// Sync makes everything that Commit has written durable, in every mode. An
// error is final, as for Commit.
func (l *Log) Sync() error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	err := l.usable()
	entry, last := l.entry.Load(), l.last.Load()
	l.mu.Unlock()
	if err != nil || l.synced.Load() >= entry {
		return err
	}
	// Without mu: commits go on meanwhile. If the segment ends meanwhile, the
	// entry is durable by that.
	if err := l.syncTail(last); err != nil {
		return l.fail(err)
	}
	l.settle(entry, last)
	return nil
}

// Mark makes everything durable and writes a mark, an empty frame, that says
// so: damage below it is not taken for a torn tail then. It does nothing if
// the log ends with a mark. An error is final, as for Commit.
func (l *Log) Mark() error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	return l.mark(0)
}

// mark writes a mark with the flags besides FlagMark. Caller holds syncMu and
// mu.
func (l *Log) mark(flags Flags) error {
	if want := flags | FlagMark; l.flags&want == want {
		return nil
	}
	if l.synced.Load() < l.entry.Load() {
		if err := l.syncTail(l.last.Load()); err != nil {
			return l.fail(err)
		}
		l.settle(l.entry.Load(), l.last.Load())
	}
	f := Frame{Time: l.lastTime, Term: l.term, Group: l.group, Flags: flags | FlagMark}
	return l.write(&f, true)
}

// startBackground starts the goroutines that the options ask for.
func (l *Log) startBackground() {
	l.quit = make(chan struct{})
	if d := l.opt.Sync.Interval(); d > 0 {
		l.unsaved = make(chan struct{}, 1)
		l.wg.Go(func() { l.background(l.unsaved, d, l.Sync) })
	}
	if l.opt.IdleMark > 0 && l.opt.Sync != SyncNever {
		l.active = make(chan struct{}, 1)
		l.wg.Go(func() { l.background(l.active, l.opt.IdleMark, l.markIdle()) })
	}
}

// background waits for a commit, lets the interval pass and calls work, until
// Close. A log that is idle costs no timer. An error poisons the log, so the
// goroutine ends with it.
func (l *Log) background(commit <-chan struct{}, interval time.Duration, work func() error) {
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-commit:
		case <-l.quit:
			return
		}
		timer.Reset(interval)
		select {
		case <-timer.C:
		case <-l.quit:
			return
		}
		if err := work(); err != nil {
			l.report(err)
			return
		}
	}
}

// markIdle returns the work of the marker: write a mark if there was no commit
// since it was called last.
func (l *Log) markIdle() func() error {
	var seen uint64
	return func() error {
		l.syncMu.Lock()
		defer l.syncMu.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if err := l.usable(); err != nil {
			return err
		}
		if now := l.last.Load(); now != seen {
			seen = now
			wake(l.active) // look again when the interval has passed once more
			return nil
		}
		return l.mark(0)
	}
}

// report tells the owner, once, that background work found the log poisoned.
func (l *Log) report(err error) {
	if l.opt.OnFailure != nil && errors.Is(err, ErrPoisoned) {
		l.told.Do(func() { l.opt.OnFailure(err) })
	}
}

// Close makes everything durable, writes the clean-close mark and releases the
// directory. It returns ErrClosed if called again, and the poisoning error,
// without writing, if there is one.
func (l *Log) Close() error {
	l.mu.Lock()
	closed := l.closing
	l.closing = true
	l.mu.Unlock()
	if closed {
		return ErrClosed
	}
	close(l.quit)
	l.wg.Wait()

	l.syncMu.Lock() // a Sync in progress
	defer l.syncMu.Unlock()
	l.dropMu.Lock() // a DropBefore in progress
	defer l.dropMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.Err()
	if err == nil {
		err = l.mark(FlagClose)
	}
	l.idx.close()
	err = errors.Join(err, l.eng.Close(), l.drop.Close(), l.dir.Close())
	if err != nil {
		return fmt.Errorf("wal: close: %w", err)
	}
	return nil
}
