package core

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// Hash is a set hash of state entries: the sum modulo 2^128 of a keyed hash of
// each entry. It does not depend on order, and one entry's part can be added
// or taken away, so that a live broker, a replay and a scan of a backend come
// to the same number. The zero Hash is that of the empty state.
type Hash struct {
	hi, lo uint64
}

// Add counts an entry in. key is the store's hash key.
func (h *Hash) Add(hashKey *[16]byte, table byte, key, value []byte) {
	hi, lo := entryHash(hashKey, table, key, value)
	var carry uint64
	h.lo, carry = bits.Add64(h.lo, lo, 0)
	h.hi, _ = bits.Add64(h.hi, hi, carry)
}

// Remove counts an entry out.
func (h *Hash) Remove(hashKey *[16]byte, table byte, key, value []byte) {
	hi, lo := entryHash(hashKey, table, key, value)
	var borrow uint64
	h.lo, borrow = bits.Sub64(h.lo, lo, 0)
	h.hi, _ = bits.Sub64(h.hi, hi, borrow)
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

// entryHash is SHA-256 over the key, the table, the length of the entry's key,
// the entry's key and its value, cut to 128 bits. SHA-256 is in the standard
// library, has hardware support nearly everywhere, and keeps somebody who may
// choose topics and client identifiers from making two states look alike.
func entryHash(hashKey *[16]byte, table byte, key, value []byte) (hi, lo uint64) {
	var stack [256]byte
	b := append(stack[:0], hashKey[:]...)
	b = append(b, table)
	b = binary.BigEndian.AppendUint32(b, uint32(len(key)))
	b = append(b, key...)
	b = append(b, value...)
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:16])
}

// Hash walks the state and returns its hash. It costs about a third of a
// microsecond an entry.
func (m *Machine) Hash(hashKey *[16]byte) Hash {
	var h Hash
	m.Export(func(table byte, key, value []byte) { h.Add(hashKey, table, key, value) })
	return h
}
