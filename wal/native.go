package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// nativeEngine writes each entry, with one pwrite, into a segment that was
// filled with zeros beforehand: neither its size nor its blocks change, so a
// sync has only data to write and no journal to commit. It keeps nothing of
// what it wrote in memory, and allocates nothing.
//
// Only the entry that ends a segment reaches beyond the zeros; the segment is
// exactly as long as its entries then. The next one lies ready, see spare.
type nativeEngine struct {
	dir         string
	segmentSize int64
	syncer      *syncer
	sync        func(*os.File) error // syncer.sync
	spare       *spare

	mu   sync.RWMutex // guards tail and file; held shared during a sync
	tail Position
	file *os.File // the last segment
}

var _ Engine = (*nativeEngine)(nil)

// OpenNative is an Options.Engine that preallocates.
func OpenNative(dir string, tail Position, segmentSize int64) (Engine, error) {
	path := filepath.Join(dir, segmentName(tail.Segment))
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("wal: open engine: %w", err)
	}
	if err := prepareTail(file, tail.Offset, segmentSize); err != nil {
		return nil, errors.Join(fmt.Errorf("wal: open engine: %w", err), file.Close())
	}
	e := &nativeEngine{
		dir: dir, segmentSize: segmentSize, syncer: newSyncer(), tail: tail, file: file,
		spare: startSpare(filepath.Join(dir, spareName), segmentSize),
	}
	e.sync = e.syncer.sync
	return e, nil
}

// prepareTail makes the rest of the segment zeros that are on stable storage.
// If there is no room for them the segment grows with its entries instead.
func prepareTail(f *os.File, from, to int64) error {
	if from >= to {
		return nil
	}
	if err := fillZeros(f, from, to, nil); err != nil {
		if err := f.Truncate(from); err != nil {
			return err
		}
	}
	return syncData(f)
}

func (e *nativeEngine) Append(entry []byte) (Position, error) {
	at := e.tail // written by this goroutine only
	if _, err := e.file.WriteAt(entry, at.Offset); err != nil {
		return at, fmt.Errorf("wal: write entry %d: %w", at.Entry, err)
	}
	next := at
	next.Entry++
	next.Offset += int64(len(entry))
	if next.Offset >= e.segmentSize {
		return at, e.begin(next.Entry)
	}
	e.mu.Lock()
	e.tail = next
	e.mu.Unlock()
	return at, nil
}

// begin syncs the last segment and begins the one with the number. The new name
// comes before the sync, so that on a file system with one journal the sync
// commits both, and the directory's sync finds nothing left to do. A crash in
// between leaves a segment of zeros behind a torn one.
func (e *nativeEngine) begin(number uint64) error {
	path := filepath.Join(e.dir, segmentName(number))
	file, err := e.spare.take(path)
	if err == nil && file == nil { // not ready: this segment grows with its entries
		file, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, filePerm)
	}
	if err != nil {
		return fmt.Errorf("wal: begin segment: %w", err)
	}
	e.mu.Lock() // waits for a sync in progress: of two at once only one learns of a failure
	defer e.mu.Unlock()
	old, ended := e.file, e.tail.Segment
	if err = e.sync(old); err != nil {
		return errors.Join(fmt.Errorf("wal: end segment %d: %w", ended, err), file.Close())
	}
	e.file = file
	e.tail = Position{Segment: number, Entry: number}
	if err := old.Close(); err != nil {
		return fmt.Errorf("wal: end segment %d: %w", ended, err)
	}
	return nil
}

func (e *nativeEngine) Sync() error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if err := e.sync(e.file); err != nil {
		return fmt.Errorf("wal: sync segment %d: %w", e.tail.Segment, err)
	}
	return nil
}

func (e *nativeEngine) Roll() error {
	at := e.tail
	if at.Offset == 0 {
		return nil
	}
	if err := e.file.Truncate(at.Offset); err != nil {
		return fmt.Errorf("wal: end segment %d: %w", at.Segment, err)
	}
	return e.begin(at.Entry)
}

func (e *nativeEngine) Tail() Position {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.tail
}

// Close leaves the zeros at the end of the last segment: Open cuts them off.
func (e *nativeEngine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := errors.Join(e.spare.close(), e.file.Close(), e.syncer.close()); err != nil {
		return fmt.Errorf("wal: close engine: %w", err)
	}
	return nil
}
