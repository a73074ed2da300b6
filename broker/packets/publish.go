package packets

import (
	"encoding/binary"
	"slices"
)

// Publish is a PUBLISH packet (section 3.3). Decode fills every field;
// byte slices alias the body. Reuse one Publish for many packets.
type Publish struct {
	Dup      bool
	Retain   bool
	QoS      byte   // 0, 1 or 2
	Topic    []byte // empty only with a Topic Alias (MQTT 5)
	PacketID uint16 // 0 if QoS is 0
	Props    PublishProps
	Payload  []byte
}

// PublishProps are the properties of a PUBLISH (section 3.3.2.3) or of a will
// (section 3.1.3.2). A field without its Has flag is the zero value.
type PublishProps struct {
	HasPayloadFormat   bool
	HasExpiry          bool
	HasContentType     bool
	HasResponseTopic   bool
	HasCorrelationData bool

	PayloadFormat byte   // 1: the payload is UTF-8
	TopicAlias    uint16 // 0: none
	Expiry        uint32 // Message Expiry Interval, seconds

	// SubscriptionIDs are in the order received. Only a server sends them.
	SubscriptionIDs []uint32

	ContentType     []byte
	ResponseTopic   []byte
	CorrelationData []byte
	User            UserProperties

	// Raw is the whole property section as received. Publish.AppendMessage
	// and Will.AppendMessage take the stored properties from it, so that they
	// stay in order; if you change a field of a decoded packet, set Raw to
	// nil, and they are encoded from the fields. AppendTo never looks at Raw.
	Raw []byte
}

// Decode decodes the body of a PUBLISH packet. Errors are of type *Error.
//
// Both directions are accepted. A server calls CheckFromClient as well and
// compares TopicAlias with the maximum it has announced [MQTT-3.3.2-9].
func (p *Publish) Decode(v Version, flags byte, body []byte) error {
	p.Dup, p.QoS, p.Retain = flags&8 != 0, flags>>1&3, flags&1 != 0
	p.PacketID, p.Payload = 0, nil
	r := reader{b: body}
	switch {
	case p.QoS == 3:
		r.fail(CodeMalformedPacket, "QoS 3", "MQTT-3.3.1-4")
	case p.Dup && p.QoS == 0:
		r.fail(CodeMalformedPacket, "DUP with QoS 0", "MQTT-3.3.1-2")
	}
	if n := plainTopicField(body); n > 0 && r.err == nil { // nearly always
		p.Topic, r.b = body[2:n:n], body[n:]
	} else {
		p.Topic = r.topicName("topic name", "MQTT-3.3.2-2")
	}
	if p.QoS > 0 {
		if len(r.b) >= 2 && r.b[0]|r.b[1] != 0 {
			p.PacketID, r.b = binary.BigEndian.Uint16(r.b), r.b[2:]
		} else {
			r.packetID("MQTT-2.2.1-3")
		}
	}
	if v >= V5 {
		p.Props.decode(&r, "3.3.2.3", publishSet)
	} else {
		p.Props.reset()
	}
	if len(p.Topic) == 0 && r.err == nil {
		switch {
		case v < V5:
			r.fail(CodeTopicNameInvalid, "empty topic name", "MQTT-4.7.3-1")
		case p.Props.TopicAlias == 0:
			r.fail(CodeProtocolError, "neither topic name nor topic alias", "3.3.2.1")
		}
	}
	p.Payload = r.b
	return r.err
}

// CheckFromClient checks what a client, other than a server, must not send:
// Subscription Identifiers [MQTT-3.3.4-6].
func (p *Publish) CheckFromClient() error {
	if len(p.Props.SubscriptionIDs) > 0 {
		return protocolError("subscription identifier in a PUBLISH from a client", "MQTT-3.3.4-6")
	}
	return nil
}

// Size returns the size of the whole packet that AppendTo appends.
func (p *Publish) Size(v Version) int {
	remaining, _ := p.sizes(v)
	return 1 + varintSize(remaining) + remaining
}

func (p *Publish) sizes(v Version) (remaining, props int) {
	remaining = 2 + len(p.Topic) + len(p.Payload)
	if p.QoS > 0 {
		remaining += 2
	}
	if v >= V5 {
		props = p.Props.size()
		remaining += varintSize(props) + props
	}
	return remaining, props
}

// AppendTo appends the whole packet, with the properties in a canonical order.
// It panics if a field does not fit the format (MaxString, MaxRemaining).
func (p *Publish) AppendTo(dst []byte, v Version) []byte {
	remaining, props := p.sizes(v)
	dst = slices.Grow(dst, 5+remaining)
	dst = append(dst, publishHeader(p.Dup, p.QoS, p.Retain))
	dst = appendVarint(dst, remaining)
	dst = appendString(dst, p.Topic)
	if p.QoS > 0 {
		dst = binary.BigEndian.AppendUint16(dst, p.PacketID)
	}
	if v >= V5 {
		dst = appendVarint(dst, props)
		dst = p.Props.appendTo(dst, true)
	}
	return append(dst, p.Payload...)
}

func publishHeader(dup bool, qos byte, retain bool) byte {
	h := byte(TypePublish)<<4 | qos&3<<1
	if dup {
		h |= 0x08
	}
	if retain {
		h |= 0x01
	}
	return h
}

// Parse parses a property section without its length, such as Message.Props,
// and sets Raw to it.
func (pp *PublishProps) Parse(section []byte) error {
	pp.reset()
	p := properties{all: section, allowed: publishSet, section: "3.3.2.3"}
	p.b = section
	var r reader
	pp.fields(&r, &p)
	return r.err
}

func (pp *PublishProps) reset() {
	*pp = PublishProps{SubscriptionIDs: pp.SubscriptionIDs[:0]}
}

// decode reads a property section with its length. The result is the Will
// Delay Interval, which only willSet allows.
func (pp *PublishProps) decode(r *reader, section string, allowed uint64) (delay uint32) {
	pp.reset()
	if len(r.b) > 0 && r.b[0] == 0 {
		r.b = r.b[1:]
		return 0
	}
	p := r.properties(section, allowed)
	return pp.fields(r, &p)
}

func (pp *PublishProps) fields(r *reader, p *properties) (delay uint32) {
	for p.next() {
		switch p.id {
		case PropPayloadFormat:
			pp.HasPayloadFormat = true
			if p.bool("payload format indicator") {
				pp.PayloadFormat = 1
			}
		case PropMessageExpiry:
			pp.Expiry, pp.HasExpiry = p.uint32("message expiry interval"), true
		case PropContentType:
			pp.ContentType, pp.HasContentType = p.text("content type"), true
		case PropResponseTopic:
			pp.ResponseTopic, pp.HasResponseTopic = p.topicName("response topic", "MQTT-3.3.2-14"), true
		case PropCorrelationData:
			pp.CorrelationData, pp.HasCorrelationData = p.binary("correlation data"), true
		case PropTopicAlias:
			if pp.TopicAlias = p.uint16("topic alias"); pp.TopicAlias == 0 {
				p.fail(CodeTopicAliasInvalid, "topic alias is zero", "MQTT-3.3.2-8")
			}
		case PropSubscriptionID:
			pp.SubscriptionIDs = append(pp.SubscriptionIDs, p.subscriptionID())
		case PropWillDelay:
			delay = p.uint32("will delay interval")
		case PropUser:
			p.user()
		}
	}
	pp.Raw = p.all
	pp.User = p.close(r)
	return delay
}

// size returns the number of bytes that appendTo(dst, true) appends.
func (pp *PublishProps) size() int {
	n := 0
	if pp.HasPayloadFormat {
		n += 2
	}
	if pp.HasExpiry {
		n += 5
	}
	if pp.TopicAlias != 0 {
		n += 3
	}
	if pp.HasResponseTopic {
		n += 3 + len(pp.ResponseTopic)
	}
	if pp.HasCorrelationData {
		n += 3 + len(pp.CorrelationData)
	}
	for _, id := range pp.SubscriptionIDs {
		n += 1 + varintSize(int(id))
	}
	if pp.HasContentType {
		n += 3 + len(pp.ContentType)
	}
	return n + pp.User.size()
}

// appendTo appends the properties, those of the transmission only if all.
func (pp *PublishProps) appendTo(dst []byte, all bool) []byte {
	if pp.HasPayloadFormat {
		dst = appendProp8(dst, PropPayloadFormat, pp.PayloadFormat)
	}
	if all {
		if pp.HasExpiry {
			dst = appendProp32(dst, PropMessageExpiry, pp.Expiry)
		}
		if pp.TopicAlias != 0 {
			dst = appendProp16(dst, PropTopicAlias, pp.TopicAlias)
		}
		for _, id := range pp.SubscriptionIDs {
			dst = appendVarint(append(dst, PropSubscriptionID), int(id))
		}
	}
	if pp.HasContentType {
		dst = appendPropString(dst, PropContentType, pp.ContentType)
	}
	if pp.HasResponseTopic {
		dst = appendPropString(dst, PropResponseTopic, pp.ResponseTopic)
	}
	if pp.HasCorrelationData {
		dst = appendPropString(dst, PropCorrelationData, pp.CorrelationData)
	}
	return pp.User.appendTo(dst)
}
