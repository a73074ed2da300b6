package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Frame is one commit group: the records that become durable together. The
// caller of Commit sets Count, Time, Term, Group and Body; the log sets the
// rest. In Replay and Scan Body is always uncompressed, and aliases a buffer
// that is reused as soon as the callback returns.
type Frame struct {
	First   uint64 // index of the first record; of a mark: index of the next record
	Count   uint32 // number of records; 0 = a mark
	Time    int64  // log time, unix milliseconds
	Durable uint64 // greatest record index known to be synced when this was written
	Flags   Flags
	Term    uint64 // term of the cluster's leader, 1 without a cluster
	Group   uint32 // raft group, 0 without a cluster
	Body    []byte // Count records, each as AppendRecord writes it
}

// Flags of a frame.
type Flags uint8

const (
	// FlagCompressed: the body on disk is an s2 block.
	FlagCompressed Flags = 1 << iota
	// FlagMark: a frame without records that carries Durable.
	FlagMark
	// FlagClose: the log was closed in good order after this mark.
	FlagClose

	flagsKnown = FlagCompressed | FlagMark | FlagClose
)

// Last returns the index of the frame's last record; of a mark, of the last
// record before it.
func (f *Frame) Last() uint64 { return f.First + uint64(f.Count) - 1 }

// AppendRecord appends rec to a frame body: uvarint length and bytes.
func AppendRecord(body, rec []byte) []byte {
	body = binary.AppendUvarint(body, uint64(len(rec)))
	return append(body, rec...)
}

// Records calls fn for each record in order until fn returns an error, which
// it returns. rec aliases Body. A body that does not hold exactly Count
// records gives an error that wraps ErrBody.
func (f *Frame) Records(fn func(index uint64, rec []byte) error) error {
	b := f.Body
	for i := range uint64(f.Count) {
		rec, rest, ok := nextRecord(b)
		if !ok {
			return fmt.Errorf("wal: record %d: %w", f.First+i, ErrBody)
		}
		if err := fn(f.First+i, rec); err != nil {
			return err
		}
		b = rest
	}
	if len(b) > 0 {
		return fmt.Errorf("wal: frame of record %d: %d bytes left over: %w", f.First, len(b), ErrBody)
	}
	return nil
}

// nextRecord cuts the first record off b.
func nextRecord(b []byte) (rec, rest []byte, ok bool) {
	if len(b) > 0 && b[0] < 0x80 { // the length is one byte: most records
		n := int(b[0]) + 1
		if n > len(b) {
			return nil, nil, false
		}
		return b[1:n], b[n:], true
	}
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	end := n + int(size)
	return b[n:end], b[end:], true
}

// skip drops the first n records.
func (f *Frame) skip(n uint32) error {
	b := f.Body
	for range n {
		_, rest, ok := nextRecord(b)
		if !ok {
			return ErrBody
		}
		b = rest
	}
	f.Body, f.First, f.Count = b, f.First+uint64(n), f.Count-n
	return nil
}

// check says whether the caller's part of the frame is well formed.
func (f *Frame) check(max int) error {
	if f.Count == 0 {
		return fmt.Errorf("%w: no records", ErrInvalid)
	}
	if len(f.Body) > max {
		return fmt.Errorf("%w: body of %d bytes, limit %d", ErrInvalid, len(f.Body), max)
	}
	b := f.Body
	for i := range f.Count {
		_, rest, ok := nextRecord(b)
		if !ok {
			return fmt.Errorf("%w: %d records announced, %d found", ErrInvalid, f.Count, i)
		}
		b = rest
	}
	if len(b) > 0 {
		return fmt.Errorf("%w: %d bytes after the last of %d records", ErrInvalid, len(b), f.Count)
	}
	return nil
}

// The frame on disk, see doc.go. These values are the format: never change one.
const (
	frameMagic   = 0xF257_5143 // "CQW" and 0xF2, little-endian
	frameVersion = 1
	headerSize   = 80
	trailerSize  = 4
	frameMin     = headerSize + trailerSize

	// In every version, so that a newer frame is told from a damaged one: magic,
	// version, flags, header length and store id lie here, and the header ends
	// with its CRC.
	preludeSize   = 24
	headerSizeMax = 4096
)

// castagnoli is the CRC32C polynomial's table: a constant that Go can't express
// as one.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the decoded header of a frame.
type header struct {
	Frame          // without Body
	store [16]byte // store id
	prev  uint32   // CRC of the previous frame
	size  uint32   // bytes of the body on disk
	raw   uint32   // bytes of the body, uncompressed
	crc   uint32   // CRC of the header
}

// appendFrame appends the frame of f whose body on disk is body, and returns
// it and its CRC, the prev of the next frame.
func appendFrame(dst []byte, f *Frame, store *[16]byte, prev uint32, body []byte) ([]byte, uint32) {
	dst = appendHeader(dst, f, store, prev, len(body))
	dst = append(dst, body...)
	return sealFrame(dst, len(dst)-len(body)-headerSize)
}

// appendHeader appends the header of f, with the header's CRC.
func appendHeader(dst []byte, f *Frame, store *[16]byte, prev uint32, size int) []byte {
	at := len(dst)
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, frameMagic)
	dst = append(dst, frameVersion, byte(f.Flags))
	dst = le.AppendUint16(dst, headerSize)
	dst = append(dst, store[:]...)
	dst = le.AppendUint64(dst, f.First)
	dst = le.AppendUint32(dst, f.Count)
	dst = le.AppendUint64(dst, f.Term)
	dst = le.AppendUint32(dst, f.Group)
	dst = le.AppendUint32(dst, prev)
	dst = le.AppendUint64(dst, uint64(f.Time))
	dst = le.AppendUint64(dst, f.Durable)
	dst = le.AppendUint32(dst, uint32(size))
	dst = le.AppendUint32(dst, uint32(len(f.Body)))
	return le.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

// sealFrame appends the CRC of the frame that begins at dst[at]. It covers the
// header without its CRC field and the body: a checksum over data and its own
// checksum does not depend on the data, so that field has to be left out.
func sealFrame(dst []byte, at int) ([]byte, uint32) {
	le := binary.LittleEndian
	head := le.Uint32(dst[at+headerSize-4:])
	crc := crc32.Update(head, castagnoli, dst[at+headerSize:])
	return le.AppendUint32(dst, crc), crc
}

// decodeHeader reads the header at the start of b, which must hold at least
// headerSize bytes. ErrVersion: intact, but of an unknown version or with
// unknown flags. ErrFrame: not a header.
func decodeHeader(b []byte, h *header) error {
	le := binary.LittleEndian
	if len(b) < headerSize || le.Uint32(b) != frameMagic {
		return ErrFrame
	}
	size := int(le.Uint16(b[6:]))
	if b[4] != frameVersion || size != headerSize {
		return decodeUnknown(b, size, h)
	}
	h.crc = le.Uint32(b[headerSize-4:])
	if crc32.Checksum(b[:headerSize-4], castagnoli) != h.crc {
		return ErrFrame
	}
	h.Flags = Flags(b[5])
	copy(h.store[:], b[8:preludeSize])
	h.First = le.Uint64(b[24:])
	h.Count = le.Uint32(b[32:])
	h.Term = le.Uint64(b[36:])
	h.Group = le.Uint32(b[44:])
	h.prev = le.Uint32(b[48:])
	h.Time = int64(le.Uint64(b[52:]))
	h.Durable = le.Uint64(b[60:])
	h.size = le.Uint32(b[68:])
	h.raw = le.Uint32(b[72:])
	if h.Flags&^flagsKnown != 0 {
		return ErrVersion
	}
	return h.plausible()
}

// decodeUnknown tells a header of another version from damage by its CRC.
func decodeUnknown(b []byte, size int, h *header) error {
	if b[4] == 0 || size <= preludeSize || size > headerSizeMax || size > len(b) {
		return ErrFrame
	}
	crc := binary.LittleEndian.Uint32(b[size-4:])
	if crc32.Checksum(b[:size-4], castagnoli) != crc {
		return ErrFrame
	}
	copy(h.store[:], b[8:preludeSize])
	return ErrVersion
}

// plausible refuses what no writer of this version produces.
func (h *header) plausible() error {
	mark := h.Flags&FlagMark != 0
	switch {
	case h.raw > MaxBody || h.size > h.raw,
		h.Flags&FlagCompressed == 0 && h.size != h.raw,
		mark != (h.Count == 0),
		mark && (h.raw > 0 || h.Flags&FlagCompressed != 0),
		!mark && (h.Flags&FlagClose != 0 || h.raw < h.Count),
		h.First == 0,
		h.First+uint64(h.Count) < h.First,
		h.Durable >= h.First:
		return ErrFrame
	}
	return nil
}

// frameSize returns the bytes of the whole frame on disk.
func (h *header) frameSize() int { return headerSize + int(h.size) + trailerSize }

// uvarintLen returns the bytes of the uvarint of x.
func uvarintLen(x uint64) int {
	n := 1
	for ; x >= 0x80; x >>= 7 {
		n++
	}
	return n
}

// appendEntry appends the entry of a frame.
func appendEntry(dst, frame []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(frame))), frame...)
}

// entrySize returns the bytes that a frame of n bytes takes in a segment.
func entrySize(n int) int64 { return int64(uvarintLen(uint64(n)) + n) }
