package backends

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Mark says which state a store holds. It is written in the transaction of the
// batch that made that state.
type Mark struct {
	// StoreID is the identity of the data directory, random and permanent. A
	// store with another id belongs to another broker.
	StoreID [16]byte

	// Applied is the index of the last log record the pairs include.
	Applied uint64

	// Hash is the state hash at Applied.
	Hash [16]byte

	// Sealed says that no log beyond Applied exists: a clean stop, a restore or
	// a migration ended here. Going live first commits Sealed=false.
	Sealed bool

	// Schema is the version of the layout of keys and values. Check it with
	// CheckSchema before reading pairs.
	Schema uint32

	// LogTime is the log time at Applied, in Unix milliseconds.
	LogTime int64
}

// Schema is the newest layout of keys and values that this version knows.
//
//	1  never released: a pair for each queue entry and each message
//	2  queue entries and messages in chunks, see package broker/core
const Schema uint32 = 2

// schemaMin is the oldest layout that this version can read.
const schemaMin = 2

// CheckSchema returns an error that is ErrSchema if the pairs under m were
// written in a layout this version does not know.
func (m *Mark) CheckSchema() error {
	if m.Schema < schemaMin {
		return fmt.Errorf("backends: check schema %d, of a version that was never released, this one knows %d: %w", m.Schema, Schema, ErrSchema)
	}
	if m.Schema > Schema {
		return fmt.Errorf("backends: check schema %d, this version knows %d: %w", m.Schema, Schema, ErrSchema)
	}
	return nil
}

// The encoding of a mark, version 1; integers are big-endian:
//
//	 0  version   1 byte   = 1
//	 1  flags     1 byte   bit 0 sealed, others 0
//	 2  schema    4 bytes
//	 6  applied   8 bytes
//	14  log time  8 bytes  Unix milliseconds, two's complement
//	22  store id 16 bytes
//	38  hash     16 bytes
//	54  crc       4 bytes  seal over MarkKey and bytes 0..53
//
// Every later version keeps the first byte and ends with the seal, so that a
// damaged mark is never taken for a new one.
const (
	markVersion  = 1
	markLen      = 58
	markSealed   = 1 << 0
	markFlagMask = markSealed
)

// markSeed is the seal over MarkKey, which the one over a mark continues.
var markSeed = sealSum([]byte(MarkKey), nil)

var (
	errMarkShort = errors.New("mark too short")
	errMarkSeal  = errors.New("mark has a wrong checksum")
	errMarkForm  = errors.New("mark has a wrong length or unknown flags")
)

// EncodeMark appends the encoding of m to dst.
func EncodeMark(dst []byte, m Mark) []byte {
	var flags byte
	if m.Sealed {
		flags |= markSealed
	}
	start := len(dst)
	dst = append(dst, markVersion, flags)
	dst = binary.BigEndian.AppendUint32(dst, m.Schema)
	dst = binary.BigEndian.AppendUint64(dst, m.Applied)
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.LogTime))
	dst = append(dst, m.StoreID[:]...)
	dst = append(dst, m.Hash[:]...)
	return binary.BigEndian.AppendUint32(dst, crc32.Update(markSeed, castagnoli, dst[start:]))
}

// DecodeMark decodes what EncodeMark wrote. Damage gives a *CorruptError
// without a Store (the driver fills it in), a version from the future
// ErrSchema.
func DecodeMark(b []byte) (Mark, error) {
	var m Mark
	if len(b) < 5 {
		return m, markDamage(errMarkShort)
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if crc32.Update(markSeed, castagnoli, body) != sum {
		return m, markDamage(errMarkSeal)
	}
	if b[0] > markVersion {
		return m, fmt.Errorf("backends: decode mark version %d, this version knows %d: %w", b[0], markVersion, ErrSchema)
	}
	if b[0] != markVersion || len(b) != markLen || b[1]&^markFlagMask != 0 {
		return m, markDamage(errMarkForm)
	}
	m.Sealed = b[1]&markSealed != 0
	m.Schema = binary.BigEndian.Uint32(b[2:])
	m.Applied = binary.BigEndian.Uint64(b[6:])
	m.LogTime = int64(binary.BigEndian.Uint64(b[14:]))
	copy(m.StoreID[:], b[22:])
	copy(m.Hash[:], b[38:])
	return m, nil
}

func markDamage(err error) error {
	return &CorruptError{Key: []byte(MarkKey), Offset: -1, Err: err}
}
