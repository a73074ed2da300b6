package wal

import (
	"fmt"

	"github.com/klauspost/compress/s2"
)

const (
	compressMin    = 4 << 10   // bodies below are not worth it
	compressSample = 16 << 10  // how much of a large body is tried first
	compressLarge  = 128 << 10 // what a large body is
	compressPause  = 64        // most frames passed over after failures
)

// compressor decides whether to compress, and does it.
type compressor struct {
	mode  CompressMode
	pause int // frames passed over after the last failure
	wait  int // frames still to pass over
}

// compress appends the s2 block of body to dst, which it returns grown, or ok
// false if that is not to be: the body is small, does not shrink by 12 %, or
// did not shrink lately.
func (c *compressor) compress(dst, body []byte) (out []byte, ok bool) {
	if c.mode != CompressAuto || len(body) < compressMin {
		return dst, false
	}
	if c.wait > 0 {
		c.wait--
		return dst, false
	}
	at := len(dst)
	if len(body) > compressLarge {
		sample := body[:compressSample]
		dst = encodeS2(dst, sample)
		pays := saves(len(sample), len(dst)-at)
		dst = dst[:at]
		if !pays {
			return dst, c.failed()
		}
	}
	dst = encodeS2(dst, body)
	if !saves(len(body), len(dst)-at) {
		return dst[:at], c.failed()
	}
	c.pause = 0
	return dst, true
}

// failed doubles the pause.
func (c *compressor) failed() bool {
	c.pause = min(max(1, 2*c.pause), compressPause)
	c.wait = c.pause
	return false
}

// saves says whether compression saved more than 12 %.
func saves(before, after int) bool { return after*100 < before*88 }

func encodeS2(dst, body []byte) []byte {
	at, room := len(dst), s2.MaxEncodedLen(len(body))
	dst = grow(dst, room)
	block := s2.Encode(dst[at:at+room], body)
	return dst[:at+len(block)]
}

// decompress decodes an s2 block of raw bytes into buf, which it returns grown.
func decompress(buf, block []byte, raw int) ([]byte, error) {
	if n, err := s2.DecodedLen(block); err != nil || n != raw {
		return buf, fmt.Errorf("%w: s2 block of %d bytes, header says %d", ErrBody, n, raw)
	}
	buf = grow(buf[:0], raw)
	out, err := s2.Decode(buf[:raw], block)
	if err != nil {
		return buf, fmt.Errorf("%w: %w", ErrBody, err)
	}
	return out, nil
}

// grow returns b with room for n more bytes.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	out := make([]byte, len(b), len(b)+n)
	copy(out, b)
	return out
}
