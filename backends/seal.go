package backends

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
)

const (
	// MaxPlainKey is the length up to which a key is stored as it is. A longer
	// one (MQTT allows topics of 65 535 bytes, bbolt keys of 32 768) is stored
	// as its first MaxPlainKey bytes and its SHA-256; the whole key travels with
	// the value.
	MaxPlainKey = 1024

	// MaxKey is the longest key a batch takes: two MQTT strings and room.
	MaxKey = 256 << 10

	// MaxValue is the longest value a batch takes. The largest packet, 256 MB,
	// fits with room to spare.
	MaxValue = 1 << 30

	// foldedKey is the length of the stored form of every longer key.
	foldedKey = MaxPlainKey + sha256.Size

	// sealLen is what a seal adds to a value.
	sealLen = 4
)

var (
	errSealShort = errors.New("value shorter than its seal")
	errSealSum   = errors.New("value has a wrong checksum")
	errSealKey   = errors.New("stored key does not belong to the value")
)

// castagnoli is the table of CRC-32C, which the processor computes.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealSum is the CRC-32C over key and value. It starts from the key's length,
// so that a byte that moves from one to the other is seen.
func sealSum(key, val []byte) uint32 {
	return crc32.Update(crc32.Update(sealSeed(len(key)), castagnoli, key), castagnoli, val)
}

func sealSeed(keyLen int) uint32 { return uint32(keyLen) * 0x9e3779b1 }

// Seal appends the stored form of the pair key, val to dst, for pairs a driver
// writes by itself. key is at most MaxPlainKey bytes long. What a Batch yields is
// sealed already.
func Seal(dst, key, val []byte) []byte {
	return binary.BigEndian.AppendUint32(append(dst, val...), sealSum(key, val))
}

// StoredKey returns the form in which key is stored: key itself up to
// MaxPlainKey bytes, a new slice for longer ones. Keys that differ only after
// MaxPlainKey bytes are therefore ordered by hash: in a fixed order, but not in
// that of their bytes.
func StoredKey(key []byte) []byte {
	if len(key) <= MaxPlainKey {
		return key
	}
	return appendFolded(make([]byte, 0, foldedKey), key)
}

func appendFolded(dst, key []byte) []byte {
	sum := sha256.Sum256(key)
	return append(append(dst, key[:MaxPlainKey]...), sum[:]...)
}

// StoredPrefix returns the prefix that the stored form of every key with this
// prefix has. If it is shorter than prefix, a scan must also compare the whole
// key that Unseal returns.
func StoredPrefix(prefix []byte) []byte {
	return prefix[:min(len(prefix), MaxPlainKey)]
}

// Unseal verifies a stored pair and returns what was put: key and value, which
// alias the arguments. Damage gives a *CorruptError without a Store, which the
// driver fills in.
//
// A stored value is, for a plain key
//
//	value | crc
//
// and for a folded one
//
//	key | value | key length | crc
//
// with key length and crc as 4 bytes, big-endian; crc is the seal over the
// whole key and all that stands before crc (a folded key once).
func Unseal(storedKey, stored []byte) (key, val []byte, err error) {
	if len(stored) < sealLen {
		return nil, nil, sealDamage(storedKey, errSealShort)
	}
	body, sum := stored[:len(stored)-sealLen], binary.BigEndian.Uint32(stored[len(stored)-sealLen:])
	if len(storedKey) > MaxPlainKey {
		return unsealFolded(storedKey, body, sum)
	}
	if sealSum(storedKey, body) != sum {
		return nil, nil, sealDamage(storedKey, errSealSum)
	}
	return storedKey, body, nil
}

func unsealFolded(storedKey, body []byte, sum uint32) (key, val []byte, err error) {
	if len(body) < 4+MaxPlainKey+1 {
		return nil, nil, sealDamage(storedKey, errSealShort)
	}
	n := binary.BigEndian.Uint32(body[len(body)-4:])
	if uint64(n) > uint64(len(body)-4) || n <= MaxPlainKey {
		return nil, nil, sealDamage(storedKey, errSealSum)
	}
	key, val = body[:n], body[n:len(body)-4]
	if crc32.Update(sealSeed(int(n)), castagnoli, body) != sum {
		return nil, nil, sealDamage(storedKey, errSealSum)
	}
	if !bytes.Equal(storedKey, StoredKey(key)) {
		return nil, nil, sealDamage(storedKey, errSealKey)
	}
	return key, val, nil
}

func sealDamage(storedKey []byte, err error) error {
	return &CorruptError{Key: bytes.Clone(storedKey), Offset: -1, Err: err}
}
