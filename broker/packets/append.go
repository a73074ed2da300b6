package packets

import (
	"encoding/binary"
	"slices"
)

// appendString appends a string or binary field. A field that does not fit its
// length is a programmer's error: writing it cut off would put the peer out of
// step with the stream.
func appendString(dst, s []byte) []byte {
	if len(s) > MaxString {
		panic("packets: field longer than 65535 bytes")
	}
	dst = append(dst, byte(len(s)>>8), byte(len(s)))
	return append(dst, s...)
}

// varintSize returns the length of v as a Variable Byte Integer; 5 if there is
// no such thing, so that sizes can be compared with a limit before encoding.
func varintSize(v int) int {
	switch {
	case v < 1<<7:
		return 1
	case v < 1<<14:
		return 2
	case v < 1<<21:
		return 3
	case v <= MaxRemaining:
		return 4
	}
	return 5
}

// mustFit panics if v is too large for a Variable Byte Integer.
func mustFit(v int) {
	if v > MaxRemaining {
		panic("packets: length over 268435455")
	}
}

func appendVarint(dst []byte, v int) []byte {
	mustFit(v)
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

// putVarint writes v at the start of b and returns the number of bytes.
func putVarint(b []byte, v int) int {
	i := 0
	for v >= 0x80 {
		b[i] = byte(v) | 0x80
		v >>= 7
		i++
	}
	b[i] = byte(v)
	return i + 1
}

// begin appends the first byte of a fixed header and room for a short length.
// The second result is for end.
func begin(dst []byte, t Type, flags byte) ([]byte, int) {
	dst = append(dst, byte(t)<<4|flags, 0)
	return dst, len(dst)
}

// end writes into the byte before at the length of everything behind at, and
// makes room if one byte is too few. It closes packets and property sections;
// those that are long enough to be moved are rare.
func end(dst []byte, at int) []byte {
	n := len(dst) - at
	if n < 0x80 {
		dst[at-1] = byte(n)
		return dst
	}
	mustFit(n)
	var size [4]byte
	used := varintSize(n)
	putVarint(size[:], n)
	return slices.Replace(dst, at-1, at, size[:used]...)
}

func appendProp8(dst []byte, id, v byte) []byte { return append(dst, id, v) }

func appendPropBool(dst []byte, id byte, v bool) []byte {
	if v {
		return append(dst, id, 1)
	}
	return append(dst, id, 0)
}

func appendProp16(dst []byte, id byte, v uint16) []byte {
	return append(dst, id, byte(v>>8), byte(v))
}

func appendProp32(dst []byte, id byte, v uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, id), v)
}

func appendPropString(dst []byte, id byte, v []byte) []byte {
	return appendString(append(dst, id), v)
}
