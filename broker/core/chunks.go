package core

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/wind-c/comqtt/v3/session"
)

// Two tables have very many small entries: queues and messages. A pair of
// these holds a chunk of entries that are next to each other, so that a long
// backlog costs a backend one key for each 64 of its entries and four bytes for
// each. A chunk is how entries are stored and nothing more: it holds exactly
// the entries of its range that there are, it is gone with the last of them,
// and the hash is over entries ([Hash.Add]).
//
//	table  key               value
//	Q      session, chunk    version, then for each entry in order:
//	                           place in the chunk   1 byte, ascending
//	                           flags                1 byte, entryX
//	                           message              difference to the one before, zigzag
//	                           packet identifier    if entryInflight
//	                           n, n identifiers     if entrySubIDs: of subscriptions
//	                           group                if entryGroup
//	M      page              version, bit set of the ids there are (8 bytes), then for each:
//	                           flags, size, CRC-32C of the body (4 bytes), deadline
//
// Chunk n of a session has the sequence numbers from n*session.ChunkLen on,
// page n the messages from n*64 on. Keys are 8 bytes big-endian each, numbers
// uvarints in their shortest form, the two of fixed size little-endian.

// PageLen is the number of ids that belong to one page of messages, in the
// table in memory as well as in a backend.
const PageLen = 64

// Flag bits of a queue entry; the lowest two are the QoS.
const (
	entryRetain   = 1 << 2
	entryReleased = 1 << 3
	entryGroup    = 1 << 4
	entryInflight = 1 << 5
	entrySubIDs   = 1 << 6
)

func chunkKey(buf *[16]byte, sid, chunk uint64) []byte {
	binary.BigEndian.PutUint64(buf[:8], sid)
	binary.BigEndian.PutUint64(buf[8:], chunk)
	return buf[:]
}

// appendChunk appends the value of a chunk, which has entries.
func appendChunk(dst []byte, o *session.Outbound[uint64], chunk uint64) []byte {
	dst = append(dst, entryVersion)
	last := uint64(0)
	o.Chunk(chunk, func(e *session.Entry[uint64]) {
		dst = appendChunkEntry(dst, o, e, last)
		last = e.Msg
	})
	return dst
}

func appendChunkEntry(dst []byte, o *session.Outbound[uint64], e *session.Entry[uint64], last uint64) []byte {
	flags := e.QoS
	if e.Retain {
		flags |= entryRetain
	}
	if e.Phase == session.PhaseRelease {
		flags |= entryReleased
	}
	if e.Group {
		flags |= entryGroup
	}
	if e.PID != 0 {
		flags |= entryInflight
	}
	if e.Many || e.SubID != 0 {
		flags |= entrySubIDs
	}
	dst = append(dst, byte(e.Seq%session.ChunkLen), flags)
	dst = binary.AppendVarint(dst, int64(e.Msg-last))
	if e.PID != 0 {
		dst = binary.AppendUvarint(dst, uint64(e.PID))
	}
	switch {
	case e.Many:
		ids := o.SubIDs[e.Seq]
		dst = binary.AppendUvarint(dst, uint64(len(ids)))
		for _, id := range ids {
			dst = binary.AppendUvarint(dst, uint64(id))
		}
	case e.SubID != 0:
		dst = binary.AppendUvarint(append(dst, 1), uint64(e.SubID))
	}
	if e.Group {
		dst = appendString(dst, o.GroupOf[e.Seq])
	}
	return dst
}

// queueEntry is a queue or in-flight entry as it is stored.
type queueEntry struct {
	session.Entry[uint64]
	ids   []uint32
	group []byte
	flags byte
	tail  []byte // what follows the message
}

// chunkReader reads the entries of a chunk in order. The first failure sticks.
type chunkReader struct {
	entry
	base uint64 // sequence number of place 0
	seq  uint64 // of the last entry
	n    int    // entries read
	q    queueEntry
}

func readChunk(chunk uint64, value []byte) chunkReader {
	r := chunkReader{entry: openEntry(value), base: chunk * session.ChunkLen}
	if chunk > 1<<63/session.ChunkLen {
		r.fail("chunk out of range")
	}
	return r
}

// next reads an entry into r.q, false at the end or when r.err is set.
func (r *chunkReader) next() bool {
	if len(r.b) == 0 {
		if r.n == 0 {
			r.fail("a chunk without entries")
		}
		return false
	}
	if r.plain() {
		return true
	}
	q := &r.q
	place, f := uint64(r.u8()), r.flags(1<<7-1)
	q.Seq, q.flags, q.QoS = r.base+place, f, r.qos(f)
	if place >= session.ChunkLen || q.Seq <= r.seq {
		r.fail("entries out of order")
	}
	r.seq = q.Seq
	q.Retain, q.Phase, q.Group = f&entryRetain != 0, session.PhasePublish, f&entryGroup != 0
	if f&entryReleased != 0 {
		q.Phase = session.PhaseRelease
	}
	d := r.num()
	q.Msg += uint64(int64(d>>1) ^ -int64(d&1))
	tail := r.b
	r.details(f)
	q.tail = tail[:len(tail)-len(r.b)]
	switch {
	case q.QoS == 0:
		r.fail("queued with QoS 0")
	case q.Phase == session.PhaseRelease && (q.QoS != 2 || q.PID == 0):
		r.fail("PUBREC taken for what is not a QoS 2 delivery")
	}
	r.n++
	return r.err == nil
}

// plain reads an entry of which there are very many: queued, for a message not
// far from the one before, and nothing else to say of it. It returns false if
// this is another.
func (r *chunkReader) plain() bool {
	b, q := r.b, &r.q
	if len(b) < 3 || b[0] >= session.ChunkLen || b[2] >= 0x80 {
		return false
	}
	f, seq := b[1], r.base+uint64(b[0])
	if qos := f & 3; f&^(3|entryRetain) != 0 || qos == 0 || qos == 3 || seq <= r.seq || r.err != nil {
		return false
	}
	q.Entry = session.Entry[uint64]{
		Msg: q.Msg + uint64(int64(b[2]>>1)^-int64(b[2]&1)), Seq: seq, QoS: f & 3, Retain: f&entryRetain != 0,
	}
	q.ids, q.group, q.flags, q.tail = q.ids[:0], nil, f, nil
	r.b, r.seq = b[3:], seq
	r.n++
	return true
}

// details reads what few entries have.
func (r *chunkReader) details(f byte) {
	q := &r.q
	q.PID, q.ids, q.group = 0, q.ids[:0], nil
	if f&entryInflight != 0 {
		if q.PID = r.num16(); q.PID == 0 {
			r.fail("packet identifier 0")
		}
	}
	if f&entrySubIDs != 0 {
		n := r.num()
		if n == 0 {
			r.fail("no subscription identifiers")
		}
		for ; n > 0 && r.err == nil; n-- {
			id := r.num32()
			if id == 0 {
				r.fail("subscription identifier 0")
			}
			q.ids = append(q.ids, id)
		}
	}
	if f&entryGroup != 0 {
		q.group = r.take(r.num())
	}
}

// appendLogical appends the entry's own value, which does not depend on the
// chunk.
func (q *queueEntry) appendLogical(dst []byte) []byte {
	return append(binary.AppendUvarint(append(dst, q.flags), q.Msg), q.tail...)
}

// appendPage appends the value of a page of messages, which are in the order of
// the bits in exist.
func appendPage(dst []byte, exist uint64, list []message) []byte {
	dst = append(dst, entryVersion)
	dst = binary.LittleEndian.AppendUint64(dst, exist)
	for i := range list {
		dst = list[i].appendValue(dst)
	}
	return dst
}

func (m *message) appendValue(dst []byte) []byte {
	dst = append(dst, m.flags&^messageStored)
	dst = binary.AppendUvarint(dst, uint64(m.size))
	dst = binary.LittleEndian.AppendUint32(dst, m.crc)
	return binary.AppendUvarint(dst, uint64(m.deadline))
}

// pageReader reads the messages of a page in order. The first failure sticks.
type pageReader struct {
	entry
	key   uint64 // number of the page
	exist uint64
	rest  uint64 // bits of exist still to come
	id    uint64 // of the message read last
	msg   message
	value []byte // its own value, which does not depend on the page
}

func readPage(key uint64, value []byte) pageReader {
	r := pageReader{entry: openEntry(value), key: key}
	if b := r.take(8); len(b) == 8 {
		r.exist = binary.LittleEndian.Uint64(b)
	}
	r.rest = r.exist
	if r.exist == 0 {
		r.fail("a page without messages")
	}
	if key > 1<<64/PageLen-1 || key == 0 && r.exist&1 != 0 {
		r.fail("message of no record")
	}
	return r
}

// next reads a message into r.msg, false at the end or when r.err is set.
func (r *pageReader) next() bool {
	if r.err != nil || r.rest == 0 {
		return false
	}
	r.id = r.key*PageLen + uint64(bits.TrailingZeros64(r.rest))
	r.rest &= r.rest - 1
	b := r.b
	if r.plain(b) {
		return true
	}
	f := r.flags(3 | messageRetain)
	r.qos(f)
	r.msg = message{flags: f, size: r.num32()}
	if crc := r.take(4); len(crc) == 4 {
		r.msg.crc = binary.LittleEndian.Uint32(crc)
	}
	r.msg.deadline = r.time()
	r.value = b[:len(b)-len(r.b)]
	return r.err == nil
}

// plain reads a message like most: it does not expire, and is not very large.
// It returns false if this is another.
func (r *pageReader) plain(b []byte) bool {
	n := 2 // bytes of flags and size
	if len(b) < 8 {
		return false
	}
	f, size := b[0], uint32(b[1])
	if size >= 0x80 {
		if b[2] >= 0x80 || b[2] == 0 {
			return false
		}
		size = size&0x7f | uint32(b[2])<<7
		n = 3
	}
	if f&^(3|messageRetain) != 0 || f&3 == 3 || b[n+4] != 0 {
		return false
	}
	r.msg = message{flags: f, size: size, crc: binary.LittleEndian.Uint32(b[n:])}
	r.value, r.b = b[:n+5], b[n+5:]
	return true
}

// Entries calls fn for each entry of the state that a stored pair holds: the
// entries of a chunk of the queue and message tables (the key of the first is
// session and sequence number, of the other the id, 8 bytes each), the pair
// itself of any other table. It returns false if the pair is a chunk that
// cannot be read; fn got what came before the fault. Slices are valid during
// the call.
func Entries(table byte, key, value []byte, fn func(key, value []byte)) bool {
	switch {
	case table == TableQueue && len(key) == 16:
		var name [16]byte
		copy(name[:8], key)
		var buf []byte
		r := readChunk(binary.BigEndian.Uint64(key[8:]), value)
		for r.next() {
			binary.BigEndian.PutUint64(name[8:], r.q.Seq)
			buf = r.q.appendLogical(buf[:0])
			fn(name[:], buf)
		}
		return r.err == nil
	case table == TableMessage && len(key) == 8:
		var name [8]byte
		r := readPage(binary.BigEndian.Uint64(key), value)
		for r.next() {
			fn(idKey(&name, r.id), r.value)
		}
		return r.end() == nil
	}
	fn(key, value)
	return true
}

// Without returns the value of a chunk of the message table without one of its
// messages, or of the queue table without the entries for it; nil if nothing is
// left or it cannot be read. It is for tools and tests that make a state with
// less in it.
func Without(table byte, key, value []byte, id uint64) []byte {
	switch {
	case table == TableQueue && len(key) == 16:
		out, last, kept := []byte{entryVersion}, uint64(0), false
		r := readChunk(binary.BigEndian.Uint64(key[8:]), value)
		for r.next() {
			if r.q.Msg == id {
				continue
			}
			out = append(out, byte(r.q.Seq%session.ChunkLen), r.q.flags)
			out = append(binary.AppendVarint(out, int64(r.q.Msg-last)), r.q.tail...)
			last, kept = r.q.Msg, true
		}
		if r.err == nil && kept {
			return out
		}
	case table == TableMessage && len(key) == 8:
		var list []message
		r := readPage(binary.BigEndian.Uint64(key), value)
		for r.next() {
			if r.id != id {
				list = append(list, r.msg)
			}
		}
		exist := r.exist
		if id/PageLen == r.key {
			exist &^= 1 << (id % PageLen)
		}
		if r.end() == nil && exist != 0 {
			return appendPage(nil, exist, list)
		}
	}
	return nil
}

// splitChunk takes session and chunk off a key.
func splitChunk(key []byte) (sid, chunk uint64, err error) {
	if len(key) != 16 {
		return 0, 0, fmt.Errorf("%w: key of %d bytes", ErrEntry, len(key))
	}
	return binary.BigEndian.Uint64(key), binary.BigEndian.Uint64(key[8:]), nil
}
