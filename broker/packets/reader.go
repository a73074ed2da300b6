package packets

import (
	"encoding/binary"
	"unicode/utf8"
)

// reader is a cursor over one packet body. The first failure sticks and every
// later read returns zero, so a decoder reads like the table in the
// specification and checks once. Returned slices alias b and cannot grow into
// what follows them.
type reader struct {
	b   []byte
	err error
}

// fail records the first failure and makes every later read return zero.
//
//go:noinline
func (r *reader) fail(code Code, reason, statement string) {
	if r.err == nil {
		r.err = &Error{Code: code, Reason: reason, Statement: statement}
	}
	r.b = nil
}

//go:noinline
func (r *reader) short(name string) {
	if r.err == nil {
		r.err = malformed("packet ends within the "+name, "MQTT-4.13.1-1")
	}
	r.b = nil
}

// flags checks the reserved flags of the fixed header.
func (r *reader) flags(got, want byte, statement string) {
	if got != want {
		r.fail(CodeMalformedPacket, "reserved flags of the fixed header", statement)
	}
}

// end checks that nothing is left, and returns the first failure.
func (r *reader) end() error {
	if len(r.b) > 0 {
		r.fail(CodeMalformedPacket, "surplus bytes after the last field", "MQTT-4.13.1-1")
	}
	return r.err
}

func (r *reader) byte(name string) byte {
	if len(r.b) < 1 {
		r.short(name)
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uint16(name string) uint16 {
	if len(r.b) < 2 {
		r.short(name)
		return 0
	}
	v := binary.BigEndian.Uint16(r.b)
	r.b = r.b[2:]
	return v
}

func (r *reader) uint32(name string) uint32 {
	if len(r.b) < 4 {
		r.short(name)
		return 0
	}
	v := binary.BigEndian.Uint32(r.b)
	r.b = r.b[4:]
	return v
}

func (r *reader) varint(name string) int {
	if len(r.b) > 0 && r.b[0] < 0x80 {
		v := int(r.b[0])
		r.b = r.b[1:]
		return v
	}
	v, size, err := varint(r.b)
	if err != nil {
		if r.err == nil {
			r.err = err
		}
		r.b = nil
		return 0
	}
	if size == 0 {
		r.short(name)
		return 0
	}
	r.b = r.b[size:]
	return v
}

// packetID reads a Packet Identifier, which is never zero.
func (r *reader) packetID(statement string) uint16 {
	id := r.uint16("packet identifier")
	if id == 0 && r.err == nil {
		r.fail(CodeProtocolError, "packet identifier is zero", statement)
	}
	return id
}

// binary reads a field of binary data: two bytes of length, then the bytes.
func (r *reader) binary(name string) []byte {
	if len(r.b) >= 2 {
		n := int(binary.BigEndian.Uint16(r.b)) + 2
		if len(r.b) >= n {
			v := r.b[2:n:n]
			r.b = r.b[n:]
			return v
		}
	}
	r.short(name)
	return nil
}

// text reads a UTF-8 Encoded String (section 1.5.4).
func (r *reader) text(name string) []byte {
	v := r.binary(name)
	if !plain(v) {
		r.checkText(v, name)
	}
	return v
}

// topicName reads a string that must be usable as a Topic Name, except that it
// may be empty; statement is the one that forbids wildcards in this field.
func (r *reader) topicName(name, statement string) []byte {
	v := r.binary(name)
	if !plainTopic(v) {
		r.checkText(v, name)
		for _, c := range v {
			if c == '+' || c == '#' {
				r.fail(CodeTopicNameInvalid, "wildcard in the "+name, statement)
				break
			}
		}
	}
	return v
}

// checkText is the slow path of text: v holds more than plain ASCII.
func (r *reader) checkText(v []byte, name string) {
	if !utf8.Valid(v) { // refuses surrogates and overlong forms too
		r.fail(CodeMalformedPacket, "ill-formed UTF-8 in the "+name, "MQTT-1.5.4-1")
		return
	}
	for _, c := range v {
		if c == 0 {
			r.fail(CodeMalformedPacket, "U+0000 in the "+name, "MQTT-1.5.4-2")
			return
		}
	}
}

const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// odd has a high bit set if one of the eight bytes is 0 or not ASCII: taking 1
// from a byte below 0x80 sets its high bit only if it is 0. A borrow can set
// one more bit, but only beside a byte that is 0.
func odd(w uint64) uint64 { return w | (w - lowBits) }

// oddTopic is odd for bytes that must not be a wildcard either.
func oddTopic(w uint64) uint64 {
	return odd(w) | ((w ^ '+'*lowBits) - lowBits) | ((w ^ '#'*lowBits) - lowBits)
}

// plain reports whether v is ASCII without NUL, eight bytes at a time; the
// last eight may overlap those before. False says nothing: look closer.
func plain(v []byte) bool {
	if len(v) < 8 {
		for _, c := range v {
			if c-1 >= 0x7f {
				return false
			}
		}
		return true
	}
	bits := odd(binary.LittleEndian.Uint64(v[len(v)-8:]))
	for ; len(v) > 8; v = v[8:] {
		bits |= odd(binary.LittleEndian.Uint64(v))
	}
	return bits&highBits == 0
}

// plainTopic is plain for text that has no wildcard either.
func plainTopic(v []byte) bool {
	if len(v) < 8 {
		for _, c := range v {
			if c-1 >= 0x7f || c == '+' || c == '#' {
				return false
			}
		}
		return true
	}
	bits := oddTopic(binary.LittleEndian.Uint64(v[len(v)-8:]))
	for ; len(v) > 8; v = v[8:] {
		bits |= oddTopic(binary.LittleEndian.Uint64(v))
	}
	return bits&highBits == 0
}

// plainTopicField returns the length of the string field that b begins with,
// if it is whole and plainTopic; otherwise 0.
func plainTopicField(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	if n > len(b) || !plainTopic(b[2:n]) {
		return 0
	}
	return n
}
