package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// modelLog is the log's dumb twin: the records in a map.
type modelLog struct {
	t       *rapid.T
	outer   testing.TB
	o       Options
	l       *Log
	recs    map[uint64][]byte
	first   uint64 // of the twin: DropBefore may keep more than it was asked to drop
	last    uint64
	durable uint64 // lowest value of Durable that was promised
	dropped uint64 // greatest index DropBefore was called with
}

// TestModel runs random commits, syncs, marks, drops, reads, clean and unclean
// reopens in every sync mode against the model.
func TestModel(t *testing.T) {
	eachEngine(t, func(t *testing.T, options optionsFunc) {
		t.Parallel()
		rapid.Check(t, func(rt *rapid.T) {
			o := options(t)
			o.Sync = rapid.SampledFrom([]SyncMode{SyncAlways, SyncNever}).Draw(rt, "sync")
			o.Compress = rapid.SampledFrom([]CompressMode{CompressAuto, CompressOff}).Draw(rt, "compress")
			o.SegmentSize = rapid.Int64Range(segmentSizeMin, 20_000).Draw(rt, "segment size")
			o.Next = rapid.SampledFrom([]uint64{0, 1, 2, 1 << 40}).Draw(rt, "next")
			m := &modelLog{t: rt, outer: t, o: o, recs: map[uint64][]byte{}}
			m.first = max(1, o.Next)
			m.last, m.durable = m.first-1, m.first-1
			m.open()
			defer func() { _ = m.l.Close() }() // also if rapid gives the sequence up
			rt.Repeat(map[string]func(*rapid.T){
				"commit": m.commit, "sync": m.sync, "mark": m.mark, "drop": m.drop, "reopen": m.reopen,
				"kill": m.kill, "read": m.read, "replay": m.replay, "": m.check,
			})
			m.replay(rt)
			m.close()
		})
	})
}

func (m *modelLog) fatal(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf(format, args...)
}

func (m *modelLog) open() {
	l, r, err := Open(m.o)
	if err != nil {
		m.fatal("open: %v", err)
	}
	m.l = l
	if l.Last() < m.durable || l.Last() > m.last {
		m.fatal("log ends at %d, durable %d, written %d", l.Last(), m.durable, m.last)
	}
	if r.Last != l.Last() || r.First != l.First() || l.Durable() != l.Last() {
		m.fatal("report %+v of log %d to %d, durable %d", r, l.First(), l.Last(), l.Durable())
	}
	m.last, m.durable = l.Last(), l.Last()
}

func (m *modelLog) close() {
	if err := m.l.Close(); err != nil {
		m.fatal("close: %v", err)
	}
	m.durable = m.last
}

func (m *modelLog) commit(rt *rapid.T) {
	f := &Frame{Time: int64(m.last), Term: 1}
	for range rapid.IntRange(1, 6).Draw(rt, "records") {
		rec := drawRecord(rt)
		f.Body = AppendRecord(f.Body, rec)
		f.Count++
		m.recs[m.last+uint64(f.Count)] = rec
	}
	if err := m.l.Commit(f); err != nil {
		m.fatal("commit: %v", err)
	}
	if f.First != m.last+1 || f.Durable < m.durable || f.Durable > m.last {
		m.fatal("frame at %d, durable %d; log ended at %d, durable %d", f.First, f.Durable, m.last, m.durable)
	}
	m.last = f.Last()
	if m.o.Sync == SyncAlways {
		m.durable = m.last
	}
}

// drawRecord draws a record: mostly small, sometimes larger than a segment,
// compressible or not.
func drawRecord(rt *rapid.T) []byte {
	size := rapid.SampledFrom([]int{0, 1, 7, 127, 128, 300, 5000, 30_000}).Draw(rt, "size")
	fill := rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(rt, "fill")
	rec := bytes.Repeat(fill, size/len(fill)+1)[:size]
	if rapid.Bool().Draw(rt, "noise") {
		x := uint32(size + int(fill[0]))
		for i := range rec {
			x = x*1664525 + 1013904223
			rec[i] = byte(x >> 24)
		}
	}
	return rec
}

func (m *modelLog) sync(*rapid.T) {
	if err := m.l.Sync(); err != nil {
		m.fatal("sync: %v", err)
	}
	m.durable = m.last
}

func (m *modelLog) mark(*rapid.T) {
	if err := m.l.Mark(); err != nil {
		m.fatal("mark: %v", err)
	}
	m.durable = m.last
}

func (m *modelLog) drop(rt *rapid.T) {
	if m.last < m.first {
		return
	}
	index := rapid.Uint64Range(m.first, m.last+1).Draw(rt, "drop before")
	if err := m.l.DropBefore(index); err != nil {
		m.fatal("drop: %v", err)
	}
	m.dropped = max(m.dropped, index)
	if m.l.First() < m.first || m.l.First() > m.dropped {
		m.fatal("log begins at %d, began at %d, dropped before %d", m.l.First(), m.first, m.dropped)
	}
	m.first = m.l.First()
}

func (m *modelLog) reopen(*rapid.T) {
	m.close()
	m.open()
}

// kill drops the log without closing it, and cuts the last segment off
// somewhere behind what is durable.
func (m *modelLog) kill(rt *rapid.T) {
	old := m.l
	defer func() { // its goroutines and lock; the files are not its any more
		if err := old.Close(); err != nil && !errors.Is(err, ErrPoisoned) {
			m.fatal("close killed log: %v", err)
		}
	}()
	disk := readFiles(m.outer, m.o.Dir)
	old.fail(errFault)
	tail := m.l.Segments()[len(m.l.Segments())-1]
	b := disk[tail.Name]
	cut := rapid.IntRange(m.durableBytes(tail.Number, b), int(tail.Size)).Draw(rt, "cut")
	size := rapid.SampledFrom([]int{cut, len(b)}).Draw(rt, "size")
	disk[tail.Name] = append(b[:cut:cut], make([]byte, size-cut)...)
	dir := fastDir(m.outer)
	disk.write(m.outer, dir)
	m.o.Dir = dir
	m.open()
}

// durableBytes returns the end of the last durable entry of the segment.
func (m *modelLog) durableBytes(number uint64, content []byte) (end int) {
	for ; number <= min(m.l.synced.Load(), m.l.entry.Load()); number++ {
		size, n := binary.Uvarint(content[end:])
		end += n + int(size)
	}
	return end
}

func (m *modelLog) read(rt *rapid.T) {
	index := rapid.Uint64Range(m.first-1, m.last+2).Draw(rt, "index")
	rec, err := m.l.ReadRecord(index, []byte("before "))
	if index < m.first || index > m.last {
		if !errors.Is(err, ErrNotFound) {
			m.fatal("record %d of %d to %d: %v", index, m.first, m.last, err)
		}
		return
	}
	if err != nil || string(rec) != "before "+string(m.recs[index]) {
		m.fatal("record %d: %q, %v; want %q", index, rec, err, m.recs[index])
	}
}

func (m *modelLog) replay(rt *rapid.T) {
	from := rapid.Uint64Range(m.first, m.last+1).Draw(rt, "from")
	next := from
	err := m.l.Replay(from, func(f *Frame) error {
		return f.Records(func(index uint64, rec []byte) error {
			if index != next || !bytes.Equal(rec, m.recs[index]) {
				return fmt.Errorf("record %d: %q, want %d: %q", index, rec, next, m.recs[next])
			}
			next++
			return nil
		})
	})
	if err != nil || next != m.last+1 {
		m.fatal("replay from %d: ended before %d, log ends at %d: %v", from, next, m.last, err)
	}
}

// check is called after each step.
func (m *modelLog) check(*rapid.T) {
	if m.l.First() != m.first || m.l.Last() != m.last || m.l.Durable() < m.durable || m.l.Err() != nil {
		m.fatal("log %d to %d, durable %d, %v; model %d to %d, durable %d",
			m.l.First(), m.l.Last(), m.l.Durable(), m.l.Err(), m.first, m.last, m.durable)
	}
	var size int64
	for _, b := range readFiles(m.outer, m.o.Dir).used(m.l) {
		size += int64(len(b))
	}
	if size != m.l.Bytes() {
		m.fatal("%d bytes in the files, log says %d", size, m.l.Bytes())
	}
}
