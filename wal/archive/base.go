package archive

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
)

// The base file, see doc.go. These values are the format: never change one.
const (
	baseMagic      = 0xF242_5143 // "CQB" and 0xF2, little-endian
	baseVersion    = 1
	baseHeader     = 80
	blockHeader    = 20
	blockTarget    = 256 << 10 // bytes of entries after which a block is written
	blockMax       = 1 << 30   // no entry is near it: the greatest packet is 256 MB
	tableEnd       = 0         // of the last block
	tableBody      = 'B'       // the bodies: they come last and in the order of their ids
	endContentSize = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrBase is in every error about a base file that is damaged, or no base at
// all.
var ErrBase = errors.New("archive: bad base snapshot")

// ErrVersion says that a newer release has written the file.
var ErrVersion = errors.New("archive: written by a newer version")

// Header is the head of a base: which state it is.
type Header struct {
	StoreID [16]byte
	HashKey [16]byte // of the state hash
	Applied uint64   // index of the last record in the state
	LogTime int64    // log time at Applied, unix milliseconds
	Hash    [16]byte // state hash at Applied
	Schema  uint32   // layout of keys and values, as in a backend's mark
}

func (h *Header) append(dst []byte) []byte {
	le, n := binary.LittleEndian, len(dst)
	dst = le.AppendUint32(dst, baseMagic)
	dst = append(dst, baseVersion, 0)
	dst = le.AppendUint16(dst, baseHeader)
	dst = append(dst, h.StoreID[:]...)
	dst = append(dst, h.HashKey[:]...)
	dst = le.AppendUint64(dst, h.Applied)
	dst = le.AppendUint64(dst, uint64(h.LogTime))
	dst = append(dst, h.Hash[:]...)
	dst = le.AppendUint32(dst, h.Schema)
	return le.AppendUint32(dst, crc32.Checksum(dst[n:], castagnoli))
}

func decodeHeader(b []byte) (h Header, crc uint32, err error) {
	le := binary.LittleEndian
	if len(b) < baseHeader || le.Uint32(b) != baseMagic {
		return h, 0, fmt.Errorf("%w: not a base", ErrBase)
	}
	crc = le.Uint32(b[baseHeader-4:])
	switch {
	case b[4] > baseVersion:
		return h, 0, fmt.Errorf("%w: base version %d, this release knows %d", ErrVersion, b[4], baseVersion)
	case crc32.Checksum(b[:baseHeader-4], castagnoli) != crc, b[4] != baseVersion, b[5] != 0, le.Uint16(b[6:]) != baseHeader:
		return h, 0, fmt.Errorf("%w: the header is damaged", ErrBase)
	}
	copy(h.StoreID[:], b[8:])
	copy(h.HashKey[:], b[24:])
	h.Applied, h.LogTime = le.Uint64(b[40:]), int64(le.Uint64(b[48:]))
	copy(h.Hash[:], b[56:])
	h.Schema = le.Uint32(b[72:])
	return h, crc, nil
}

// BaseWriter writes a base. Entries may come in any order of tables; within a
// table they are read back in the order they came in. Bodies have to come last,
// in ascending order of their ids. One goroutine uses it.
type BaseWriter struct {
	w       *bufio.Writer
	enc     *zstd.Encoder
	crc     uint32 // of the header
	block   uint32 // number of the next block
	pending map[byte][]byte
	order   []byte // tables, as they first came
	zip     []byte
	entries uint64
	bodies  uint64
	lastID  uint64
}

// NewBaseWriter begins a base on w.
func NewBaseWriter(w io.Writer, h *Header) (*BaseWriter, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("archive: write base: %w", err)
	}
	b := &BaseWriter{w: bufio.NewWriterSize(w, 64<<10), enc: enc, pending: make(map[byte][]byte)}
	head := h.append(nil)
	b.crc = binary.LittleEndian.Uint32(head[baseHeader-4:])
	if _, err := b.w.Write(head); err != nil {
		return nil, fmt.Errorf("archive: write base: %w", err)
	}
	return b, nil
}

// Put adds an entry of the state as a backend stores it. Key and value are copied.
func (b *BaseWriter) Put(table byte, key, value []byte) error {
	if b.bodies > 0 {
		return errors.New("archive: write base: an entry after the bodies")
	}
	b.entries++
	return b.add(table, key, value)
}

// Body adds the body of a message.
func (b *BaseWriter) Body(id uint64, body []byte) error {
	if id <= b.lastID {
		return fmt.Errorf("archive: write base: body %d after %d", id, b.lastID)
	}
	if b.bodies == 0 {
		if err := b.flushAll(); err != nil {
			return err
		}
	}
	b.bodies++
	b.lastID = id
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], id)
	return b.add(tableBody, key[:], body)
}

func (b *BaseWriter) add(table byte, key, value []byte) error {
	buf, known := b.pending[table]
	if !known {
		b.order = append(b.order, table)
	}
	buf = binary.AppendUvarint(buf, uint64(len(key)))
	buf = append(buf, key...)
	buf = binary.AppendUvarint(buf, uint64(len(value)))
	buf = append(buf, value...)
	b.pending[table] = buf
	if len(buf) < blockTarget {
		return nil
	}
	return b.flush(table)
}

func (b *BaseWriter) flushAll() error {
	for _, t := range b.order {
		if err := b.flush(t); err != nil {
			return err
		}
	}
	return nil
}

func (b *BaseWriter) flush(table byte) error {
	content := b.pending[table]
	if len(content) == 0 {
		return nil
	}
	b.pending[table] = content[:0]
	if cap(content) > 8*blockTarget {
		b.pending[table] = nil
	}
	b.zip = b.enc.EncodeAll(content, b.zip[:0])
	return b.write(table, len(content), b.zip)
}

func (b *BaseWriter) write(table byte, raw int, content []byte) error {
	head := appendBlockHeader(nil, table, b.block, raw, content, b.crc)
	b.block++
	_, err := b.w.Write(head)
	if err == nil {
		_, err = b.w.Write(content)
	}
	if err != nil {
		return fmt.Errorf("archive: write base: %w", err)
	}
	return nil
}

func appendBlockHeader(dst []byte, table byte, number uint32, raw int, content []byte, seed uint32) []byte {
	le, n := binary.LittleEndian, len(dst)
	dst = append(dst, table, 0, 0, 0)
	dst = le.AppendUint32(dst, number)
	dst = le.AppendUint32(dst, uint32(raw))
	dst = le.AppendUint32(dst, uint32(len(content)))
	sum := crc32.Update(seed, castagnoli, dst[n:])
	return le.AppendUint32(dst, crc32.Update(sum, castagnoli, content))
}

// Finish writes what is left. The base is whole after it, but not synced.
func (b *BaseWriter) Finish() error {
	if err := b.flushAll(); err != nil {
		return err
	}
	end := binary.LittleEndian.AppendUint64(nil, b.entries)
	end = binary.LittleEndian.AppendUint64(end, b.bodies)
	if err := b.write(tableEnd, 0, end); err != nil {
		return err
	}
	if err := b.w.Flush(); err != nil {
		return fmt.Errorf("archive: write base: %w", err)
	}
	return nil
}

// BaseReader reads a base. OpenBase has looked at every block's header, but not
// at the contents: Verify does. One goroutine uses it.
type BaseReader struct {
	Header
	Entries uint64
	Bodies  uint64

	f      *os.File
	path   string
	crc    uint32
	blocks []block
	dec    *zstd.Decoder
	zip    []byte
	raw    []byte
}

type block struct {
	table     byte
	number    uint32
	off       int64 // of the content
	raw, size uint32
}

// OpenBase opens a base file. A file that ends early, or whose blocks are not
// all there, is ErrBase.
func OpenBase(path string) (*BaseReader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("archive: open base: %w", err)
	}
	r := &BaseReader{f: f, path: path}
	if err := r.open(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

func (r *BaseReader) bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s: %w", ErrBase, r.path, fmt.Errorf(format, args...))
}

func (r *BaseReader) open() error {
	info, err := r.f.Stat()
	if err != nil {
		return fmt.Errorf("archive: open base: %w", err)
	}
	head := make([]byte, min(baseHeader, info.Size()))
	if _, err := r.f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("archive: read base: %w", err)
	}
	if r.Header, r.crc, err = decodeHeader(head); err != nil {
		return fmt.Errorf("%w (%s)", err, r.path)
	}
	if r.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(blockMax)); err != nil {
		return fmt.Errorf("archive: open base: %w", err)
	}
	for off := int64(baseHeader); ; {
		b, err := r.blockAt(off, info.Size())
		if err != nil {
			return err
		}
		off = b.off + int64(b.size)
		if b.table != tableEnd {
			r.blocks = append(r.blocks, b)
			continue
		}
		content, err := r.content(&b)
		if err != nil {
			return err
		}
		if len(content) != endContentSize || off != info.Size() {
			return r.bad("it does not end at its last block")
		}
		r.Entries, r.Bodies = binary.LittleEndian.Uint64(content), binary.LittleEndian.Uint64(content[8:])
		return nil
	}
}

func (r *BaseReader) blockAt(off, size int64) (b block, err error) {
	var head [blockHeader]byte
	if off+blockHeader > size {
		return b, r.bad("it ends at byte %d, inside a block", size)
	}
	if _, err := r.f.ReadAt(head[:], off); err != nil {
		return b, fmt.Errorf("archive: read base: %w", err)
	}
	le := binary.LittleEndian
	b = block{table: head[0], number: le.Uint32(head[4:]), off: off + blockHeader, raw: le.Uint32(head[8:]), size: le.Uint32(head[12:])}
	if b.off+int64(b.size) > size || b.number != uint32(len(r.blocks)) || b.raw > blockMax {
		return b, r.bad("no block at byte %d", off)
	}
	return b, nil
}

// content returns the bytes of a block as in the file, verified. They are valid
// until the next call.
func (r *BaseReader) content(b *block) ([]byte, error) {
	n := blockHeader + int(b.size)
	if cap(r.zip) < n {
		r.zip = make([]byte, n)
	}
	r.zip = r.zip[:n]
	if _, err := r.f.ReadAt(r.zip, b.off-blockHeader); err != nil {
		return nil, fmt.Errorf("archive: read base: %w", err)
	}
	sum := crc32.Update(r.crc, castagnoli, r.zip[:blockHeader-4])
	sum = crc32.Update(sum, castagnoli, r.zip[blockHeader:])
	if sum != binary.LittleEndian.Uint32(r.zip[blockHeader-4:]) {
		return nil, r.bad("the block at byte %d is damaged", b.off-blockHeader)
	}
	return r.zip[blockHeader:], nil
}

// entries gives the entries of a block to fn.
func (r *BaseReader) entries(b *block, fn func(key, value []byte) error) error {
	content, err := r.content(b)
	if err != nil {
		return err
	}
	if r.raw, err = r.dec.DecodeAll(content, r.raw[:0]); err != nil {
		return r.bad("the block at byte %d: %w", b.off-blockHeader, err)
	}
	if len(r.raw) != int(b.raw) {
		return r.bad("the block at byte %d has %d bytes, not %d", b.off-blockHeader, len(r.raw), b.raw)
	}
	for rest := r.raw; len(rest) > 0; {
		var key, value []byte
		var ok bool
		if key, rest, ok = cut(rest); ok {
			value, rest, ok = cut(rest)
		}
		if !ok {
			return r.bad("the block at byte %d is not a list of entries", b.off-blockHeader)
		}
		if err := fn(key, value); err != nil {
			return err
		}
	}
	return nil
}

// cut takes a byte string with its length in front off b.
func cut(b []byte) (s, rest []byte, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, nil, false
	}
	end := k + int(n)
	return b[k:end:end], b[end:], true
}

// Scan calls fn for the entries of a table, in the order in which they were
// written. Key and value are valid during the call.
func (r *BaseReader) Scan(table byte, fn func(key, value []byte) error) error {
	for i := range r.blocks {
		if r.blocks[i].table != table {
			continue
		}
		if err := r.entries(&r.blocks[i], fn); err != nil {
			return err
		}
	}
	return nil
}

// ScanBodies calls fn for the bodies, in the order of their ids.
func (r *BaseReader) ScanBodies(fn func(id uint64, body []byte) error) error {
	return r.Scan(tableBody, func(key, value []byte) error {
		if len(key) != 8 {
			return r.bad("a body without an id")
		}
		return fn(binary.BigEndian.Uint64(key), value)
	})
}

// Verify reads everything and counts it.
func (r *BaseReader) Verify() error {
	var entries, bodies uint64
	for i := range r.blocks {
		n := &entries
		if r.blocks[i].table == tableBody {
			n = &bodies
		}
		if err := r.entries(&r.blocks[i], func(_, _ []byte) error { *n++; return nil }); err != nil {
			return err
		}
	}
	if entries != r.Entries || bodies != r.Bodies {
		return r.bad("%d entries and %d bodies, not %d and %d", entries, bodies, r.Entries, r.Bodies)
	}
	return nil
}

// Close closes the file.
func (r *BaseReader) Close() error {
	r.dec.Close()
	if err := r.f.Close(); err != nil {
		return fmt.Errorf("archive: close base: %w", err)
	}
	return nil
}
