package wal

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
)

// zeroChunk is how much of a segment is zeroed at once.
const zeroChunk = 256 << 10

// spare prepares the next segment, a file of zeros on stable storage, while the
// last one fills, so that the end of a segment costs a rename. The engine takes
// it from its one writing goroutine; a goroutine of the spare's own makes the
// next one. Where none is ready, because there is no room on the disk or the
// log is faster than that, the engine does without.
type spare struct {
	path string
	size int64
	sync func(*os.File) error // syncData

	state atomic.Uint32
	file  *os.File      // set in state spareReady
	order chan struct{} // one token: make a spare
	quit  chan struct{}
	wg    sync.WaitGroup
}

// The states of a spare.
const (
	spareNone   = iota // there is none, and nobody is making one
	spareInWork        // the goroutine is making one
	spareReady         // file is one
)

// startSpare starts to make a spare of size bytes at path.
func startSpare(path string, size int64) *spare {
	s := &spare{
		path: path, size: size, sync: syncData,
		order: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	s.wg.Go(s.run)
	s.next()
	return s
}

// next orders a spare if none is in work.
func (s *spare) next() {
	if s.state.CompareAndSwap(spareNone, spareInWork) {
		s.order <- struct{}{}
	}
}

// take renames the spare to path, returns it and orders the next one. The file
// is nil if none is ready.
func (s *spare) take(path string) (*os.File, error) {
	var file *os.File
	if s.state.Load() == spareReady {
		if err := os.Rename(s.path, path); err != nil {
			return nil, err
		}
		file, s.file = s.file, nil
		s.state.Store(spareNone)
	}
	s.next()
	return file, nil
}

func (s *spare) run() {
	for {
		select {
		case <-s.order:
		case <-s.quit:
			return
		}
		var err error
		if s.file, err = s.make(); err != nil {
			// Nothing depends on it: the next segment is made without, and a disk
			// that is full or broken fails the log's own writes soon enough.
			s.state.Store(spareNone)
			continue
		}
		s.state.Store(spareReady)
	}
}

// make makes a spare. One that could not be synced is never used.
func (s *spare) make() (*os.File, error) {
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, filePerm)
	if err != nil {
		return nil, err
	}
	if err = fillZeros(f, 0, s.size, s.quit); err == nil {
		err = s.sync(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(s.path))
	}
	return f, nil
}

// errQuit ends the work on a spare.
var errQuit = errors.New("wal: engine is closed")

// fillZeros writes zeros from from to to, not durably yet. It ends early when
// quit is closed. Each chunk is on the disk before the next: a sync of the log
// would have to wait behind all of them otherwise, which is 5 ms for 4 MiB.
func fillZeros(f *os.File, from, to int64, quit <-chan struct{}) error {
	if err := allocate(f, from, to-from); err != nil {
		return err
	}
	zeros := make([]byte, min(zeroChunk, to-from))
	for from < to {
		select {
		case <-quit:
			return errQuit
		default:
		}
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), to-from)], from)
		if err == nil {
			err = writeBack(f, from, int64(n))
		}
		if err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}

// close stops the work and removes the spare.
func (s *spare) close() error {
	close(s.quit)
	s.wg.Wait()
	if s.state.Load() != spareReady {
		return nil
	}
	return errors.Join(s.file.Close(), removeSpare(s.path))
}

// removeSpare removes what is left of a spare, if anything is.
func removeSpare(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
