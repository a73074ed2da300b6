package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A payload names its message and protects itself, so that a wrong byte
// anywhere between two clients shows:
//
//	length of the name u16 | name publisher:qos:topic:seq | filler | CRC-32 of all before
const payloadOverhead = 2 + 4

var errPayload = errors.New("torture: payload is damaged")

// AppendPayload appends the payload of m, filled up to size bytes if it is
// shorter. One filler in four repeats the name and so compresses like telemetry
// does, the others are noise and fill the log. The same message and size give
// the same bytes.
func AppendPayload(dst []byte, m Message, size int) []byte {
	start := len(dst)
	name := m.String()
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(name)))
	dst = append(dst, name...)
	if m.Seq%4 != 0 {
		noise := crc32.ChecksumIEEE(dst[start:]) | 1
		for size-(len(dst)-start) > 8 {
			noise ^= noise << 13 // xorshift
			noise ^= noise >> 17
			noise ^= noise << 5
			dst = binary.BigEndian.AppendUint32(dst, noise)
		}
	}
	for n := size - (len(dst) - start) - 4; n > 0; n = size - (len(dst) - start) - 4 {
		dst = append(dst, name[:min(n, len(name))]...)
	}
	return binary.BigEndian.AppendUint32(dst, crc32.ChecksumIEEE(dst[start:]))
}

// ParsePayload returns the message that a payload names.
func ParsePayload(b []byte) (Message, error) {
	var m Message
	if len(b) < payloadOverhead {
		return m, errPayload
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	n := int(binary.BigEndian.Uint16(body))
	if crc32.ChecksumIEEE(body) != sum || 2+n > len(body) {
		return m, errPayload
	}
	if err := m.parse(string(bytes.Clone(body[2 : 2+n]))); err != nil {
		return m, err
	}
	return m, nil
}
