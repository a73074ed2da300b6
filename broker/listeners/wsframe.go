package listeners

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// A frame (RFC 6455, 5.2), as a client sends it:
//
//	byte 0     FIN 0x80 | reserved 0x70 | opcode 0x0f
//	byte 1     MASK 0x80 | length 0..125, or 126: 16 bits follow, or 127: 64 bits
//	           length, big-endian
//	4 bytes    masking key
//	           payload, XOR the key
//
// A server's frames have no mask.
const (
	frameFin      = 0x80
	frameReserved = 0x70
	frameOpcode   = 0x0f
	frameMask     = 0x80
	frameLength   = 0x7f
	frameLen16    = 126
	frameLen64    = 127

	frameHeaderMax  = 14
	controlMax      = 125 // bytes of a control frame's payload
	closeStatusSize = 2

	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opControl      = 0x8 // this bit makes a control frame
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// Status codes of close frames (RFC 6455, 7.4.1).
const (
	statusNormal      = 1000
	statusProtocol    = 1002
	statusUnsupported = 1003
	statusInvalidUTF8 = 1007
)

// frameError is a breach of RFC 6455, or of MQTT's rule for data frames.
type frameError struct {
	status uint16 // for the close frame
	err    error
}

func (e *frameError) Error() string { return e.err.Error() }
func (e *frameError) Unwrap() error { return e.err }

// ErrFrame is in what Read returns after a WebSocket frame that breaks RFC 6455.
var ErrFrame = errors.New("listeners: websocket frame breaks RFC 6455")

// Is makes every frameError an ErrFrame.
func (e *frameError) Is(target error) bool { return target == ErrFrame }

func protocolError(format string, args ...any) error {
	return &frameError{statusProtocol, fmt.Errorf("listeners: websocket: "+format, args...)}
}

// decoder takes a client's frames apart, in place and in pieces of any size.
type decoder struct {
	// control gets whole control frames. The payload is valid until it returns.
	control func(opcode byte, payload []byte) error

	head      [frameHeaderMax]byte
	headLen   int    // bytes of head that have come; 0 between frames
	reading   bool   // the header is whole
	left      uint64 // payload that has not come
	turned    int    // payload bytes that have come, modulo the key's length
	message   bool   // inside a fragmented message
	controlIn []byte // payload of the control frame being read
}

// inside reports whether the stream may not end here.
func (d *decoder) inside() bool { return d.headLen > 0 || d.reading }

// decode takes the next bytes of the stream, moves the payload of data frames
// to the front of b and returns how much that is. After an error the stream
// cannot be read on; payload that came before it is returned with it.
func (d *decoder) decode(b []byte) (payload int, err error) {
	for r := 0; r < len(b); {
		if !d.reading {
			n, whole := d.addHeader(b[r:])
			r += n
			if !whole {
				break
			}
			if err := d.begin(); err != nil {
				return payload, err
			}
		} else {
			n := int(min(d.left, uint64(len(b)-r)))
			if d.head[0]&opControl != 0 {
				d.controlIn = append(d.controlIn, b[r:r+n]...)
			} else {
				unmask(b[payload:payload+n], b[r:r+n], d.key(), d.turned)
				payload += n
			}
			r += n
			d.left -= uint64(n)
			d.turned = (d.turned + n) % keySize
		}
		if d.left == 0 {
			if err := d.end(); err != nil {
				return payload, err
			}
		}
	}
	return payload, nil
}

// addHeader takes header bytes and reports whether the header is whole.
func (d *decoder) addHeader(b []byte) (used int, whole bool) {
	for used < len(b) {
		d.head[d.headLen] = b[used]
		d.headLen++
		used++
		if d.headLen >= 2 && d.headLen == d.headerSize() {
			return used, true
		}
	}
	return used, false
}

const keySize = 4

// headerSize is the length of the header, which its first two bytes say.
func (d *decoder) headerSize() int {
	size := 2
	switch d.head[1] & frameLength {
	case frameLen16:
		size += 2
	case frameLen64:
		size += 8
	}
	if d.head[1]&frameMask != 0 {
		size += keySize
	}
	return size
}

func (d *decoder) key() [keySize]byte { return [keySize]byte(d.head[d.headLen-keySize : d.headLen]) }

// begin checks a whole header and makes ready for its payload.
func (d *decoder) begin() error {
	opcode, fin := d.head[0]&frameOpcode, d.head[0]&frameFin != 0
	n := uint64(d.head[1] & frameLength)
	switch n {
	case frameLen16:
		n = uint64(binary.BigEndian.Uint16(d.head[2:]))
	case frameLen64:
		n = binary.BigEndian.Uint64(d.head[2:])
	}
	switch {
	case d.head[0]&frameReserved != 0:
		return protocolError("reserved bits set in a frame")
	case d.head[1]&frameMask == 0:
		return protocolError("frame without a mask")
	case n>>63 != 0:
		return protocolError("frame of %d bytes", n)
	case opcode&opControl != 0 && (!fin || n > controlMax):
		return protocolError("control frame in fragments or of %d bytes", n)
	}
	switch opcode {
	case opClose, opPing, opPong:
	case opContinuation:
		if !d.message {
			return protocolError("continuation of no message")
		}
		d.message = !fin
	case opBinary, opText:
		if d.message {
			return protocolError("new message inside a fragmented one")
		}
		if opcode == opText {
			return &frameError{statusUnsupported, ErrTextFrame}
		}
		d.message = !fin
	default:
		return protocolError("unknown opcode %#x", opcode)
	}
	d.left, d.reading, d.turned = n, true, 0
	return nil
}

// end closes a frame whose payload is complete.
func (d *decoder) end() error {
	opcode, key := d.head[0]&frameOpcode, d.key()
	d.reading, d.headLen = false, 0
	if opcode&opControl == 0 {
		return nil
	}
	payload := d.controlIn
	d.controlIn = nil // rare, and an idle connection should hold nothing
	unmask(payload, payload, key, 0)
	return d.control(opcode, payload)
}

// unmask writes src XOR key to dst, which may be the same memory or begin
// before it. turned says how many bytes of the payload came before src, modulo
// the key's length.
func unmask(dst, src []byte, key [keySize]byte, turned int) {
	var k [2 * keySize]byte // the key from here on, twice
	for i := range k {
		k[i] = key[(turned+i)%keySize]
	}
	wide := binary.LittleEndian.Uint64(k[:])
	for len(src) >= len(k) {
		binary.LittleEndian.PutUint64(dst, binary.LittleEndian.Uint64(src)^wide)
		dst, src = dst[len(k):], src[len(k):]
	}
	for i := range src {
		dst[i] = src[i] ^ k[i]
	}
}

// closeStatus returns the status to answer a close frame with.
func closeStatus(payload []byte) (uint16, error) {
	if len(payload) == 0 {
		return statusNormal, nil
	}
	if len(payload) < closeStatusSize {
		return 0, protocolError("close frame of one byte")
	}
	status, reason := binary.BigEndian.Uint16(payload), payload[closeStatusSize:]
	if !sendable(status) {
		return 0, protocolError("close frame with status %d", status)
	}
	if !utf8.Valid(reason) {
		return 0, &frameError{statusInvalidUTF8, errors.New("listeners: websocket: close reason is not UTF-8")}
	}
	return status, nil
}

// sendable reports whether a status may stand in a close frame (7.4).
func sendable(status uint16) bool {
	switch {
	case status >= 3000 && status <= 4999: // of libraries and applications
		return true
	case status == 1004, status == 1005, status == 1006, status == 1015: // reserved
		return false
	}
	return status >= 1000 && status <= 1014
}

// appendFrameHeader appends the header of a server's whole frame of n bytes.
func appendFrameHeader(dst []byte, opcode byte, n int) []byte {
	dst = append(dst, frameFin|opcode)
	switch {
	case n < frameLen16:
		return append(dst, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, frameLen16), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, frameLen64), uint64(n))
	}
}

func appendCloseFrame(dst []byte, status uint16) []byte {
	return binary.BigEndian.AppendUint16(appendFrameHeader(dst, opClose, closeStatusSize), status)
}
