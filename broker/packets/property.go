package packets

import (
	"encoding/binary"
	"iter"
)

// Property identifiers (MQTT 5.0 section 2.2.2.2).
const (
	PropPayloadFormat          = 1
	PropMessageExpiry          = 2
	PropContentType            = 3
	PropResponseTopic          = 8
	PropCorrelationData        = 9
	PropSubscriptionID         = 11
	PropSessionExpiry          = 17
	PropAssignedClientID       = 18
	PropServerKeepAlive        = 19
	PropAuthMethod             = 21
	PropAuthData               = 22
	PropRequestProblemInfo     = 23
	PropWillDelay              = 24
	PropRequestResponseInfo    = 25
	PropResponseInfo           = 26
	PropServerReference        = 28
	PropReasonString           = 31
	PropReceiveMaximum         = 33
	PropTopicAliasMaximum      = 34
	PropTopicAlias             = 35
	PropMaximumQoS             = 36
	PropRetainAvailable        = 37
	PropUser                   = 38
	PropMaximumPacketSize      = 39
	PropWildcardAvailable      = 40
	PropSubscriptionIDsAllowed = 41
	PropSharedAvailable        = 42
)

// Which property may stand where (section 2.2.2.2), one bit an identifier.
const (
	reasonSet      = 1<<PropReasonString | 1<<PropUser
	unsubscribeSet = 1 << PropUser
	subscribeSet   = 1<<PropSubscriptionID | 1<<PropUser
	disconnectSet  = reasonSet | 1<<PropSessionExpiry | 1<<PropServerReference
	authSet        = reasonSet | 1<<PropAuthMethod | 1<<PropAuthData
	messageSet     = 1<<PropPayloadFormat | 1<<PropMessageExpiry | 1<<PropContentType |
		1<<PropResponseTopic | 1<<PropCorrelationData | 1<<PropUser
	willSet    = messageSet | 1<<PropWillDelay
	publishSet = messageSet | 1<<PropTopicAlias | 1<<PropSubscriptionID
	connectSet = 1<<PropSessionExpiry | 1<<PropReceiveMaximum | 1<<PropMaximumPacketSize |
		1<<PropTopicAliasMaximum | 1<<PropRequestResponseInfo | 1<<PropRequestProblemInfo |
		1<<PropUser | 1<<PropAuthMethod | 1<<PropAuthData
	connackSet = reasonSet | 1<<PropSessionExpiry | 1<<PropReceiveMaximum | 1<<PropMaximumQoS |
		1<<PropRetainAvailable | 1<<PropMaximumPacketSize | 1<<PropAssignedClientID |
		1<<PropTopicAliasMaximum | 1<<PropWildcardAvailable | 1<<PropSubscriptionIDsAllowed |
		1<<PropSharedAvailable | 1<<PropServerKeepAlive | 1<<PropResponseInfo |
		1<<PropServerReference | 1<<PropAuthMethod | 1<<PropAuthData

	// transportSet is what belongs to one transmission, not to the message.
	transportSet = 1<<PropMessageExpiry | 1<<PropTopicAlias | 1<<PropSubscriptionID | 1<<PropWillDelay
	// repeatable may stand more than once (Subscription Identifier: in PUBLISH).
	repeatable = 1<<PropUser | 1<<PropSubscriptionID
)

// properties is a cursor over one property section.
type properties struct {
	reader
	all         []byte // the whole section
	allowed     uint64
	seen        uint64
	section     string // where the specification lists these properties
	id          byte   // of the property at hand
	first, last int    // extent of the user properties in all
}

// properties opens the property section at the cursor and moves the cursor
// behind it.
func (r *reader) properties(section string, allowed uint64) properties {
	n := r.varint("property length")
	if n > len(r.b) {
		r.short("properties")
		n = 0
	}
	p := properties{all: r.b[:n:n], allowed: allowed, section: section}
	p.b, p.err = p.all, r.err
	r.b = r.b[n:]
	return p
}

// next steps to the next property and checks that it may stand here.
func (p *properties) next() bool {
	if len(p.b) == 0 {
		return false
	}
	p.id = p.b[0]
	bit := uint64(1) << (p.id & 63)
	switch {
	case p.id > 63 || p.allowed&bit == 0:
		p.fail(CodeMalformedPacket, "property not valid for this packet type", "2.2.2.2")
		return false
	case p.seen&bit&^repeatable != 0:
		p.fail(CodeProtocolError, "property given twice", p.section)
		return false
	}
	p.seen |= bit
	p.b = p.b[1:]
	return true
}

// close hands the first failure to r and returns the user properties.
func (p *properties) close(r *reader) UserProperties {
	if p.err != nil {
		r.err, r.b = p.err, nil
		return nil
	}
	return UserProperties(p.all[p.first:p.last:p.last])
}

// user reads a User Property, a pair of strings [MQTT-1.5.7-1].
func (p *properties) user() {
	start := len(p.all) - len(p.b) - 1
	p.text("user property name")
	p.text("user property value")
	if p.last == 0 {
		p.first = start
	}
	p.last = len(p.all) - len(p.b)
}

// bool reads a byte that is 0 or 1.
func (p *properties) bool(name string) bool {
	v := p.byte(name)
	if v > 1 {
		p.fail(CodeProtocolError, name+" is neither 0 nor 1", p.section)
	}
	return v == 1
}

// nonzero16 reads a two byte integer that must not be 0.
func (p *properties) nonzero16(name string) uint16 {
	v := p.uint16(name)
	if v == 0 {
		p.fail(CodeProtocolError, name+" is zero", p.section)
	}
	return v
}

// nonzero32 reads a four byte integer that must not be 0.
func (p *properties) nonzero32(name string) uint32 {
	v := p.uint32(name)
	if v == 0 {
		p.fail(CodeProtocolError, name+" is zero", p.section)
	}
	return v
}

// subscriptionID reads a Subscription Identifier, 1 to 268 435 455.
func (p *properties) subscriptionID() uint32 {
	v := p.varint("subscription identifier")
	if v == 0 {
		p.fail(CodeProtocolError, "subscription identifier is zero", p.section)
	}
	return uint32(v)
}

// propertySize returns the whole length of the first property in b, or 0 if b
// does not begin with a property.
func propertySize(b []byte) int {
	n := 0
	switch b[0] {
	case PropPayloadFormat, PropRequestProblemInfo, PropRequestResponseInfo, PropMaximumQoS,
		PropRetainAvailable, PropWildcardAvailable, PropSubscriptionIDsAllowed, PropSharedAvailable:
		n = 2
	case PropServerKeepAlive, PropReceiveMaximum, PropTopicAliasMaximum, PropTopicAlias:
		n = 3
	case PropMessageExpiry, PropSessionExpiry, PropWillDelay, PropMaximumPacketSize:
		n = 5
	case PropSubscriptionID:
		_, size, _ := varint(b[1:])
		if size == 0 {
			return 0
		}
		n = 1 + size
	case PropContentType, PropResponseTopic, PropCorrelationData, PropAssignedClientID, PropAuthMethod,
		PropAuthData, PropResponseInfo, PropServerReference, PropReasonString:
		n = stringEnd(b, 1)
	case PropUser:
		n = stringEnd(b, stringEnd(b, 1))
	default:
		return 0
	}
	if n > len(b) {
		return 0
	}
	return n
}

// stringEnd returns the offset behind the string at b[at:], or one beyond b if
// b ends within it.
func stringEnd(b []byte, at int) int {
	if len(b) < at+2 {
		return len(b) + 1
	}
	return at + 2 + int(binary.BigEndian.Uint16(b[at:]))
}

// UserProperties is the part of a property section that holds the user
// properties, undecoded and in order [MQTT-3.3.2-18]. Properties of other
// kinds may stand between them on the wire; they are skipped. The zero value
// has none. It aliases the packet it was decoded from.
type UserProperties []byte

// Next returns the first pair and what follows it; false if there is none.
// The slices alias u.
func (u UserProperties) Next() (name, value []byte, rest UserProperties, ok bool) {
	for len(u) > 0 {
		n := propertySize(u)
		if n == 0 {
			break
		}
		if u[0] == PropUser {
			mid := stringEnd(u, 1)
			return u[3:mid:mid], u[mid+2 : n : n], u[n:], true
		}
		u = u[n:]
	}
	return nil, nil, nil, false
}

// All yields the pairs in order. The slices alias u.
func (u UserProperties) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for {
			name, value, rest, ok := u.Next()
			if !ok || !yield(name, value) {
				return
			}
			u = rest
		}
	}
}

// Count returns the number of pairs.
func (u UserProperties) Count() int {
	n := 0
	for range u.All() {
		n++
	}
	return n
}

// Append returns u with one more pair at its end. It may write into u's spare
// capacity, as append does; decoded UserProperties have none. Both strings
// must be valid UTF-8 Encoded Strings of at most MaxString bytes.
func (u UserProperties) Append(name, value string) UserProperties {
	if len(name) > MaxString || len(value) > MaxString {
		panic("packets: field longer than 65535 bytes")
	}
	u = append(u, PropUser, byte(len(name)>>8), byte(len(name)))
	u = append(u, name...)
	u = append(u, byte(len(value)>>8), byte(len(value)))
	return append(u, value...)
}

// appendTo appends the user properties alone.
func (u UserProperties) appendTo(dst []byte) []byte {
	for len(u) > 0 {
		n := propertySize(u)
		if n == 0 {
			break
		}
		if u[0] == PropUser {
			dst = append(dst, u[:n]...)
		}
		u = u[n:]
	}
	return dst
}

// size returns the number of bytes appendTo appends.
func (u UserProperties) size() int {
	total := 0
	for len(u) > 0 {
		n := propertySize(u)
		if n == 0 {
			break
		}
		if u[0] == PropUser {
			total += n
		}
		u = u[n:]
	}
	return total
}
