package wal

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
)

// bufferKeep is the greatest buffer that is kept for the next frame.
const bufferKeep = 8 << 20

// Log is an open write-ahead log. Commit, Mark, Sync, DropBefore, the readers
// and the getters may be called concurrently; Commits are put in order by a
// mutex, and the order of concurrent ones is not defined.
type Log struct {
	opt  Options
	dir  directory // locked; synced after each new segment
	drop directory // of DropBefore: a failed sync is reported once per handle
	eng  Engine
	idx  index
	read frameCache

	mu       sync.Mutex // the writer's state, and every Append
	buf      []byte     // the frame in work
	zip      compressor
	prev     uint32 // CRC of the last frame
	lastTime int64  // of the last frame
	term     uint64
	group    uint32
	flags    Flags // of the last frame
	closing  bool

	// One sync of a file handle at a time: of two at once only one is told of a
	// failure. Taken before mu; SyncAlways syncs under mu and does not need it.
	syncMu sync.Mutex
	dropMu sync.Mutex // one DropBefore at a time
	keeper Keeper     // of DropBefore, under dropMu

	first   atomic.Uint64 // index of the first record
	last    atomic.Uint64 // index of the last record
	durable atomic.Uint64 // index of the last record that is on stable storage
	entry   atomic.Uint64 // number of the last entry
	synced  atomic.Uint64 // number of the last entry on stable storage
	failed  atomic.Pointer[error]
	told    sync.Once // of OnFailure

	quit    chan struct{} // closed by Close
	unsaved chan struct{} // wakes the syncer
	active  chan struct{} // wakes the marker
	wg      sync.WaitGroup
}

// directory is the open directory of the log.
type directory interface {
	Sync() error
	Close() error
}

// First returns the index of the first record in the log; First = Last+1 if
// there is none.
func (l *Log) First() uint64 { return l.first.Load() }

// Last returns the index of the last record that Commit has written.
func (l *Log) Last() uint64 { return l.last.Load() }

// Durable returns the greatest record index that is on stable storage together
// with everything before it.
func (l *Log) Durable() uint64 { return l.durable.Load() }

// Bytes returns the bytes of all segments.
func (l *Log) Bytes() int64 {
	l.idx.mu.RLock()
	defer l.idx.mu.RUnlock()
	return l.idx.bytes
}

// Segments describes the segments, oldest first. All but the last are sealed:
// they do not change any more, and DropBefore unlinks them.
func (l *Log) Segments() []SegmentInfo { return l.idx.infos() }

// Err returns the error that poisoned the log, nil if it is well.
func (l *Log) Err() error {
	if p := l.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// fail poisons the log and returns the error of the first failure.
func (l *Log) fail(err error) error {
	e := fmt.Errorf("%w: %w", ErrPoisoned, err)
	l.failed.CompareAndSwap(nil, &e)
	return l.Err()
}

// usable says whether the log may be written. Caller holds mu.
func (l *Log) usable() error {
	if l.closing {
		return ErrClosed
	}
	return l.Err()
}

// Commit writes the records of f as one frame: one write, and with SyncAlways
// one sync before it returns. It sets f.First, f.Durable and f.Flags. The body
// is not kept.
//
// Any error but ErrInvalid and ErrClosed is final: it wraps ErrPoisoned and
// the first failure, whether the frame is durable is not known, and nothing is
// ever written again. Acknowledge nothing and exit; the next Open decides.
func (l *Log) Commit(f *Frame) error {
	if err := f.check(l.opt.FrameMax); err != nil {
		return err
	}
	l.mu.Lock()
	err := l.usable()
	if err == nil {
		f.Flags = 0
		err = l.write(f, l.opt.Sync == SyncAlways)
	}
	l.mu.Unlock()
	if err == nil {
		wake(l.active)
		wake(l.unsaved)
	}
	return err
}

// wake wakes the goroutine that waits on c, if there is one. One token is
// enough: the goroutine looks at the state, not at the number of tokens.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// write appends f, syncs if asked to, and makes it visible. Caller holds mu.
func (l *Log) write(f *Frame, sync bool) error {
	f.First = l.last.Load() + 1
	f.Durable = l.durable.Load()
	entry, size, crc := l.encode(f)
	if cap(l.buf) > bufferKeep {
		l.buf = nil
	}
	at, ends, err := l.place(f, int64(len(entry)))
	if err != nil {
		return l.fail(err)
	}
	if err := l.append(at, entry, f.Last(), ends); err != nil {
		return l.fail(err)
	}
	if ends {
		err = l.rotated(f.Last())
	} else if sync {
		err = l.syncTail(f.Last())
	}
	if err != nil {
		return l.fail(err)
	}
	l.publish(at, size, f, crc, ends)
	if ends || sync {
		l.settle(at.Entry, f.Last())
	}
	return nil
}

// encode puts the entry of f into buf, and returns it and the frame's size and
// CRC. The length comes last and goes before the frame, into room that is left
// for it.
func (l *Log) encode(f *Frame) (entry []byte, size int, crc uint32) {
	const room = binary.MaxVarintLen32
	l.buf = grow(l.buf[:0], room+frameMin+len(f.Body))
	b, ok := l.zip.compress(l.buf[:room+headerSize], f.Body)
	if ok {
		f.Flags |= FlagCompressed
	} else {
		b = append(b, f.Body...)
	}
	appendHeader(b[:room], f, &l.opt.StoreID, l.prev, len(b)-room-headerSize)
	l.buf, crc = sealFrame(b, room)
	size = len(l.buf) - room
	entry = l.buf[room-uvarintLen(uint64(size)):]
	binary.PutUvarint(entry, uint64(size))
	return entry, size, crc
}

// place says where an entry of size bytes will go and whether it ends that
// segment. An entry larger than a segment gets one of its own.
func (l *Log) place(f *Frame, size int64) (at Position, ends bool, err error) {
	at = l.eng.Tail()
	if size > l.opt.SegmentSize && at.Offset > 0 {
		if err = l.roll(l.last.Load(), f.First); err != nil {
			return at, false, err
		}
		at = l.eng.Tail()
	}
	return at, at.Offset+size >= l.opt.SegmentSize, nil
}

// append gives the entry to the engine and checks that it did what it should.
func (l *Log) append(want Position, entry []byte, last uint64, ends bool) error {
	h := l.opt.Hooks
	if err := call(h.BeforeWrite, last); err != nil {
		return err
	}
	if ends {
		if err := call(h.BeforeRotate, last); err != nil {
			return err
		}
	}
	at, err := l.eng.Append(entry)
	if err != nil {
		return err
	}
	if at != want {
		return fmt.Errorf("wal: engine wrote to %v, not to %v", at, want)
	}
	if rotated := l.eng.Tail().Segment != at.Segment; rotated != ends {
		return fmt.Errorf("wal: engine ended segment %d: %v, expected: %v", at.Segment, rotated, ends)
	}
	return call(h.AfterWrite, last)
}

// rotated makes the name of the new segment durable. Everything before it is:
// the engine has synced the old one.
func (l *Log) rotated(last uint64) error {
	if err := call(l.opt.Hooks.AfterRotate, last); err != nil {
		return err
	}
	if err := l.dir.Sync(); err != nil {
		return fmt.Errorf("wal: sync directory: %w", err)
	}
	return l.afterSync(l.eng.Tail(), last)
}

// syncTail makes everything that was appended durable.
func (l *Log) syncTail(last uint64) error {
	if err := call(l.opt.Hooks.BeforeSync, last); err != nil {
		return err
	}
	end := l.eng.Tail()
	if err := l.eng.Sync(); err != nil {
		return err
	}
	return l.afterSync(end, last)
}

// afterSync calls the hooks: everything before end is durable.
func (l *Log) afterSync(end Position, last uint64) error {
	if h := l.opt.Hooks; h.Synced != nil {
		if err := h.Synced(end); err != nil {
			return err
		}
	}
	return call(l.opt.Hooks.AfterSync, last)
}

// roll ends the last segment; next is the index of the next record.
func (l *Log) roll(last, next uint64) error {
	if err := call(l.opt.Hooks.BeforeRotate, last); err != nil {
		return err
	}
	if err := l.eng.Roll(); err != nil {
		return err
	}
	if err := l.rotated(last); err != nil {
		return err
	}
	l.beginSegment(next)
	l.settle(l.entry.Load(), last)
	return nil
}

func (l *Log) beginSegment(next uint64) {
	number := l.eng.Tail().Segment
	l.idx.begin(number, l.segmentPath(number), next)
}

// publish makes an entry with a frame of size bytes visible to readers and the
// next frame.
func (l *Log) publish(at Position, size int, f *Frame, crc uint32, ends bool) {
	l.prev, l.lastTime, l.term, l.group, l.flags = crc, f.Time, f.Term, f.Group, f.Flags
	l.idx.add(size, f)
	l.entry.Store(at.Entry)
	l.last.Store(f.Last())
	if ends {
		l.beginSegment(f.Last() + 1)
	}
}

// settle notes that entries up to entry, with records up to last, are durable.
func (l *Log) settle(entry, last uint64) {
	raise(&l.durable, last)
	raise(&l.synced, entry)
}

// raise sets v to x if that is greater.
func raise(v *atomic.Uint64, x uint64) {
	for old := v.Load(); old < x; old = v.Load() {
		if v.CompareAndSwap(old, x) {
			return
		}
	}
}

// call calls a hook.
func call(hook func(uint64) error, index uint64) error {
	if hook == nil {
		return nil
	}
	return hook(index)
}
