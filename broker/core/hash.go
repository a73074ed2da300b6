package core

import (
	"encoding/binary"
	"math/bits"
)

// Hash is a set hash of state entries: the sum modulo 2^128 of a keyed hash of
// each entry. It does not depend on order, nor on how entries are stored, and
// one entry's part can be added or taken away, so that a live broker, a replay
// and a scan of a backend come to the same number. The zero Hash is that of the
// empty state.
type Hash struct {
	hi, lo uint64
}

// Add counts the entries of a stored pair in. key is the store's hash key.
func (h *Hash) Add(hashKey *[16]byte, table byte, key, value []byte) {
	h.Join(hashPair(hashKey, table, key, value))
}

// Join counts in what another hash counted.
func (h *Hash) Join(o Hash) { h.add(o.hi, o.lo) }

// Remove counts the entries of a stored pair out.
func (h *Hash) Remove(hashKey *[16]byte, table byte, key, value []byte) {
	d := hashPair(hashKey, table, key, value)
	var borrow uint64
	h.lo, borrow = bits.Sub64(h.lo, d.lo, 0)
	h.hi, _ = bits.Sub64(h.hi, d.hi, borrow)
}

// hashPair returns the hash of the entries of a pair. A chunk that cannot be
// read counts as what can be read of it and as itself.
func hashPair(hashKey *[16]byte, table byte, key, value []byte) (h Hash) {
	var stack [256]byte
	s := newSum(hashKey, table, stack[:0])
	switch {
	case table == TableQueue && len(key) == 16:
		r := readChunk(binary.BigEndian.Uint64(key[8:]), value)
		b := s.begin(16)
		b = append(b, key...)
		seq, head := b[len(b)-8:], len(b)
		for r.next() {
			binary.BigEndian.PutUint64(seq, r.q.Seq)
			b = r.q.appendLogical(b[:head])
			seq = b[head-8 : head] // it may have moved
			h.add(s.of(b))
		}
		if r.err == nil {
			return h
		}
	case table == TableMessage && len(key) == 8:
		r := readPage(binary.BigEndian.Uint64(key), value)
		b := append(s.begin(8), key...)
		for r.next() {
			binary.BigEndian.PutUint64(b[len(b)-8:], r.id)
			h.add(s.of(append(b, r.value...)))
		}
		if r.end() == nil {
			return h
		}
	}
	h.add(s.entry(key, value))
	return h
}

func (h *Hash) add(hi, lo uint64) {
	var carry uint64
	h.lo, carry = bits.Add64(h.lo, lo, 0)
	h.hi, _ = bits.Add64(h.hi, hi, carry)
}

// Bytes returns the hash, most significant byte first.
func (h Hash) Bytes() (b [16]byte) {
	binary.BigEndian.PutUint64(b[:8], h.hi)
	binary.BigEndian.PutUint64(b[8:], h.lo)
	return b
}

// HashOf is the inverse of Bytes.
func HashOf(b [16]byte) Hash {
	return Hash{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// Hash walks the state and returns its hash. It costs about a tenth of a
// microsecond an entry.
func (m *Machine) Hash(hashKey *[16]byte) Hash {
	var h Hash
	m.Export(func(table byte, key, value []byte) { h.Add(hashKey, table, key, value) })
	return h
}

// sum hashes entries of one table: SipHash-2-4 with 128 bits (Aumasson and
// Bernstein) over the table, the length of the entry's key, the entry's key and
// its value. The key is random and a secret of the data directory, so that
// nobody who may choose topics and client identifiers can make two states look
// alike; and it takes a third of what SHA-256 does, of which a large state
// needs millions at a start.
type sum struct {
	v0, v1, v2, v3 uint64 // after the key
	table          byte
	buf            []byte
}

// newSum begins with a buffer that it may grow.
func newSum(hashKey *[16]byte, table byte, buf []byte) sum {
	k0, k1 := binary.LittleEndian.Uint64(hashKey[:8]), binary.LittleEndian.Uint64(hashKey[8:])
	return sum{
		v0: k0 ^ 0x736f6d6570736575, v1: k1 ^ 0x646f72616e646f6d ^ 0xee,
		v2: k0 ^ 0x6c7967656e657261, v3: k1 ^ 0x7465646279746573, table: table, buf: buf,
	}
}

// begin returns the buffer with what stands before a key of n bytes.
func (s *sum) begin(n int) []byte { return binary.AppendUvarint(append(s.buf[:0], s.table), uint64(n)) }

func (s *sum) entry(key, value []byte) (hi, lo uint64) {
	return s.of(append(append(s.begin(len(key)), key...), value...))
}

// of is SipHash-2-4-128.
func (s *sum) of(b []byte) (hi, lo uint64) {
	v0, v1, v2, v3 := s.v0, s.v1, s.v2, s.v3
	n := uint64(len(b)) << 56
	for ; len(b) >= 8; b = b[8:] {
		w := binary.LittleEndian.Uint64(b)
		v3 ^= w
		v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
		v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
		v0 ^= w
	}
	for i := range b {
		n |= uint64(b[i]) << (8 * i)
	}
	v3 ^= n
	v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	v0 ^= n
	v2 ^= 0xee
	for range 4 {
		v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	}
	lo = v0 ^ v1 ^ v2 ^ v3
	v1 ^= 0xdd
	for range 4 {
		v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	}
	return v0 ^ v1 ^ v2 ^ v3, lo
}

func sipRound(v0, v1, v2, v3 uint64) (_, _, _, _ uint64) {
	v0 += v1
	v2 += v3
	v1 = bits.RotateLeft64(v1, 13) ^ v0
	v3 = bits.RotateLeft64(v3, 16) ^ v2
	v0 = bits.RotateLeft64(v0, 32)
	v2 += v1
	v0 += v3
	v1 = bits.RotateLeft64(v1, 17) ^ v2
	v3 = bits.RotateLeft64(v3, 21) ^ v0
	v2 = bits.RotateLeft64(v2, 32)
	return v0, v1, v2, v3
}
