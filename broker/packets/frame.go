package packets

// Frame is one whole packet as it lies in the read buffer.
type Frame struct {
	Header byte   // first byte of the fixed header: type and flags
	Body   []byte // variable header and payload; aliases the buffer
}

// Type returns the Control Packet type, 1 to 15.
func (f Frame) Type() Type { return Type(f.Header >> 4) }

// Flags returns the low four bits of the first byte.
func (f Frame) Flags() byte { return f.Header & 0x0f }

// Next finds the first packet in b. n is the number of bytes it takes, header
// included; n = 0 with a nil error means that b ends before the packet does:
// read on until b holds at least need bytes, or, if need is 0, at least one
// more (the length itself is not complete yet). Called in a loop over b[n:] it
// splits a read buffer with many packets without copying.
//
// maxPacket is the largest packet accepted, in bytes, header included
// (MQTT 5.0 section 3.1.2.11.4); 0 or less means the protocol's own limit.
//
// Errors are of type *Error: CodePacketTooLarge, as soon as the length is
// known and before the packet is there; CodeMalformedPacket for packet type 0
// and for a Remaining Length that is longer than four bytes or not minimal.
// After an error the stream has lost its place and must be closed.
func Next(b []byte, maxPacket int) (f Frame, n, need int, err error) {
	if len(b) < 2 {
		if len(b) == 1 && b[0] < 0x10 {
			return Frame{}, 0, 0, malformed("packet type 0", "2.1.2")
		}
		return Frame{}, 0, 0, nil
	}
	if b[0] < 0x10 {
		return Frame{}, 0, 0, malformed("packet type 0", "2.1.2")
	}
	remaining, start := int(b[1]), 2
	if remaining >= 0x80 {
		var size int
		if remaining, size, err = varint(b[1:]); size == 0 {
			return Frame{}, 0, 0, err
		}
		start = 1 + size
	}
	total := start + remaining
	if maxPacket > 0 && total > maxPacket {
		return Frame{}, 0, total, &Error{CodePacketTooLarge, "packet too large", "MQTT-3.2.2-15"}
	}
	if len(b) < total {
		return Frame{}, 0, total, nil
	}
	return Frame{Header: b[0], Body: b[start:total:total]}, total, total, nil
}

// varint reads a Variable Byte Integer. size is 0 if b ends within it (nil
// error) or if it is ill-formed.
func varint(b []byte) (value, size int, err error) {
	for i := 0; i < 4; i++ {
		if i >= len(b) {
			return 0, 0, nil
		}
		value |= int(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			if b[i] == 0 && i > 0 {
				return 0, 0, malformed("variable byte integer is not minimal", "MQTT-1.5.5-1")
			}
			return value, i + 1, nil
		}
	}
	return 0, 0, malformed("variable byte integer is longer than four bytes", "1.5.5")
}
