package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/tidwall/wal"
)

// tidwallEngine appends through github.com/tidwall/wal. It uses nothing of it
// but Open, Write and Close:
//
//   - Read panics beside other readers and loads whole segments,
//   - TruncateFront rewrites a segment under the writer's lock,
//   - Sync holds the lock that Write needs, so the engine syncs through a file
//     handle of its own (a sync is per file, not per handle),
//   - a failed Write leaves it in a state where the next one reports success
//     and destroys the log: the owner never calls again after an error,
//   - it never syncs the directory: the owner does,
//   - each rotation leaks some 100 bytes of segment list, and its caches keep
//     the bytes of a large entry: the engine reopens it from time to time.
type tidwallEngine struct {
	dir         string
	segmentSize int64
	log         *wal.Log
	rotations   int // since log was opened
	syncer      *syncer
	sync        func(*os.File) error // syncer.sync

	mu   sync.RWMutex // guards tail and file; held shared during a sync
	tail Position
	file *os.File // the last segment, for Sync
}

var _ Engine = (*tidwallEngine)(nil)

// rotationsMax bounds what tidwall/wal leaks: 10 000 segments are about 1 MB.
const rotationsMax = 10_000

// OpenTidwall is an Options.Engine.
func OpenTidwall(dir string, tail Position, segmentSize int64) (Engine, error) {
	e := &tidwallEngine{dir: dir, segmentSize: segmentSize, syncer: newSyncer()}
	e.sync = e.syncer.sync
	if err := e.open(); err != nil {
		return nil, errors.Join(err, e.syncer.close())
	}
	err := e.begin(tail.Segment)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// open opens the library on the directory as it is.
func (e *tidwallEngine) open() (err error) {
	e.rotations = 0
	e.log, err = wal.Open(e.dir, &wal.Options{ // a fresh struct: Open writes into it
		NoSync:           true,
		SegmentSize:      int(e.segmentSize),
		SegmentCacheSize: 1,
		NoCopy:           true,
		AllowEmpty:       true,
		DirPerms:         dirPerm,
		FilePerms:        filePerm,
	})
	if err != nil {
		return fmt.Errorf("wal: open engine: %w", err)
	}
	return nil
}

// begin makes segment number the one that Sync and Tail speak of. It fails if
// the library did not create it.
func (e *tidwallEngine) begin(number uint64) error {
	path := filepath.Join(e.dir, segmentName(number))
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("wal: begin segment: %w", err)
	}
	last, err := e.log.LastIndex()
	if err == nil {
		var info os.FileInfo
		if info, err = file.Stat(); err == nil {
			e.mu.Lock()
			old := e.file
			e.file = file
			e.tail = Position{Segment: number, Offset: info.Size(), Entry: last + 1}
			e.mu.Unlock()
			if old != nil {
				err = old.Close()
			}
			return err
		}
	}
	return errors.Join(fmt.Errorf("wal: begin segment: %w", err), file.Close())
}

func (e *tidwallEngine) Append(entry []byte) (Position, error) {
	at := e.tail                  // written by this goroutine only
	_, n := binary.Uvarint(entry) // the library writes the length itself
	if err := e.log.Write(at.Entry, entry[n:]); err != nil {
		return at, fmt.Errorf("wal: write entry %d: %w", at.Entry, err)
	}
	next := at
	next.Entry++
	next.Offset += int64(len(entry))
	if next.Offset < e.segmentSize {
		e.mu.Lock()
		e.tail = next
		e.mu.Unlock()
		return at, nil
	}
	// The library has synced and closed the segment and created the next one.
	if err := e.begin(next.Entry); err != nil {
		return at, err
	}
	e.rotations++
	if e.rotations >= rotationsMax || int64(len(entry)-n) > e.segmentSize {
		return at, e.reopen()
	}
	return at, nil
}

// reopen frees the library's caches and segment list. The last segment should
// be empty: the library reads it.
func (e *tidwallEngine) reopen() error {
	if err := e.log.Close(); err != nil {
		return fmt.Errorf("wal: reopen engine: %w", err)
	}
	return e.open()
}

func (e *tidwallEngine) Sync() error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if err := e.sync(e.file); err != nil {
		return fmt.Errorf("wal: sync segment %d: %w", e.tail.Segment, err)
	}
	return nil
}

func (e *tidwallEngine) Roll() error {
	at := e.tail
	if at.Offset == 0 {
		return nil
	}
	if err := e.log.Close(); err != nil { // syncs
		return fmt.Errorf("wal: end segment %d: %w", at.Segment, err)
	}
	if err := createSegment(e.dir, at.Entry); err != nil {
		return err
	}
	if err := e.open(); err != nil {
		return err
	}
	return e.begin(at.Entry)
}

func (e *tidwallEngine) Tail() Position {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.tail
}

func (e *tidwallEngine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	err := errors.Join(e.log.Close(), e.syncer.close())
	if e.file != nil {
		err = errors.Join(err, e.file.Close())
		e.file = nil
	}
	if err != nil {
		return fmt.Errorf("wal: close engine: %w", err)
	}
	return nil
}
