package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/wind-c/comqtt/v3/broker/failpoint"
)

// windowSize is how much of a segment is read at once.
const windowSize = 1 << 20

// magicBytes is how a frame begins on disk.
var magicBytes = binary.LittleEndian.AppendUint32(nil, frameMagic)

// window gives the bytes of a file by offset, through one large buffer, for
// one mostly sequential reader.
type window struct {
	r    io.ReaderAt
	size int64 // nothing behind it is looked at
	buf  []byte
	off  int64 // where in the file buf begins
}

// reset begins another file.
func (w *window) reset(r io.ReaderAt, size int64) {
	w.r, w.size, w.buf, w.off = r, size, w.buf[:0], 0
}

// at returns the n bytes at off, fewer only at the end of the file. They are
// valid until the next call.
func (w *window) at(off int64, n int) ([]byte, error) {
	n = int(min(int64(n), w.size-off))
	if n <= 0 {
		return nil, nil
	}
	if off < w.off || off+int64(n) > w.off+int64(len(w.buf)) {
		if err := w.fill(off, n); err != nil {
			return nil, err
		}
	}
	i := off - w.off
	return w.buf[i : i+int64(n)], nil
}

// fill loads the window from off on.
func (w *window) fill(off int64, n int) error {
	want := int(min(int64(max(n, windowSize)), w.size-off))
	if cap(w.buf) < want || cap(w.buf) > bufferKeep && want <= windowSize {
		w.buf = make([]byte, 0, want)
	}
	w.buf = w.buf[:want]
	got, err := w.r.ReadAt(w.buf, off)
	w.off, w.buf = off, w.buf[:got]
	if got == want {
		return nil
	}
	w.buf = w.buf[:0]
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF // the file is shorter than when it was measured
	}
	return err
}

// entry is one entry of a segment.
type entry struct {
	header
	off  int64  // where the entry begins: its length
	size int64  // bytes of the entry
	body []byte // as on disk
}

// ioError is a failure to read, as opposed to bytes that are wrong.
type ioError struct{ err error }

func (e *ioError) Error() string { return e.err.Error() }
func (e *ioError) Unwrap() error { return e.err }

// entry reads the entry at off. It returns io.EOF at the end of the segment,
// an *ioError if the file cannot be read, and else one of the reasons of
// CorruptError or ErrVersion. With ErrTruncated and ErrChecksum known says
// whether e's header is intact.
func (w *window) entry(off int64, e *entry) (known bool, err error) {
	b, err := w.at(off, binary.MaxVarintLen64+headerSizeMax)
	if err != nil {
		return false, &ioError{err}
	}
	if len(b) == 0 {
		return false, io.EOF
	}
	size, n := binary.Uvarint(b)
	switch {
	case n == 0:
		return false, ErrTruncated
	case n < 0, n != uvarintLen(size), size < frameMin, size > frameMin+MaxBody:
		return false, ErrFrame
	case len(b)-n < headerSize && int64(len(b)-n) < int64(size):
		return false, ErrTruncated
	}
	if err := decodeHeader(b[n:], &e.header); err != nil {
		return false, err
	}
	if uint64(e.frameSize()) != size {
		return false, ErrFrame
	}
	e.off, e.size = off, int64(n)+int64(size)
	if b, err = w.at(off, int(e.size)); err != nil {
		return true, &ioError{err}
	}
	if int64(len(b)) < e.size {
		return true, ErrTruncated
	}
	if !e.verify(b[n:]) {
		return true, ErrChecksum
	}
	return true, nil
}

// verify checks the CRC of the whole frame b, whose header is e's, sets body,
// and replaces the header's CRC by the frame's: the next frame's prev.
func (e *entry) verify(b []byte) bool {
	end := headerSize + int(e.header.size)
	e.body = b[headerSize:end]
	sum := crc32.Update(e.crc, castagnoli, e.body)
	stored := binary.LittleEndian.Uint32(b[end:])
	if failpoint.Fault(failpoint.FaultIgnoreChecksum) {
		e.crc = stored
		return true
	}
	e.crc = sum
	return stored == sum
}

// zeros says whether everything from off on is zero.
func (w *window) zeros(off int64) (bool, error) {
	for off < w.size {
		b, err := w.at(off, windowSize)
		if err != nil {
			return false, &ioError{err}
		}
		if len(bytes.Trim(b, "\x00")) > 0 {
			return false, nil
		}
		off += int64(len(b))
	}
	return true, nil
}

// trim returns where, from off on, the zeros at the end of the file begin.
func (w *window) trim(off int64) (end int64, err error) {
	for end = off; off < w.size; {
		b, err := w.at(off, windowSize)
		if err != nil {
			return end, &ioError{err}
		}
		if n := len(bytes.TrimRight(b, "\x00")); n > 0 {
			end = off + int64(n)
		}
		off += int64(len(b))
	}
	return end, nil
}

// resync calls fn for each intact header from off on, wherever it lies. err is
// nil if the whole frame is intact, ErrVersion if a newer build has written
// it, else ErrChecksum. An error from fn ends it.
func (w *window) resync(off int64, fn func(h *header, err error) error) error {
	var e entry
	for off < w.size {
		b, err := w.at(off, windowSize)
		if err != nil {
			return &ioError{err}
		}
		i := bytes.Index(b, magicBytes)
		if i < 0 {
			off += int64(max(1, len(b)-len(magicBytes)+1))
			continue
		}
		off += int64(i)
		if b, err = w.at(off, headerSizeMax); err != nil {
			return &ioError{err}
		}
		err = decodeHeader(b, &e.header)
		if errors.Is(err, ErrFrame) {
			off++
			continue
		}
		step := int64(headerSize)
		if err == nil {
			if b, err = w.at(off, e.frameSize()); err != nil {
				return &ioError{err}
			}
			if len(b) == e.frameSize() && e.verify(b) {
				step = int64(len(b))
			} else {
				err = ErrChecksum
			}
		}
		if err := fn(&e.header, err); err != nil {
			return err
		}
		off += step
	}
	return nil
}
