package record

// PubRel releases a received QoS 2 identifier of a durable publisher.
type PubRel struct {
	Session  uint64
	Epoch    Epoch
	PacketID uint16
}

// AppendTo appends the encoded record.
func (p *PubRel) AppendTo(dst []byte) []byte {
	dst = uvarint(header(dst, KindPubRel, 1), p.Session)
	dst = uvarint(dst, uint64(p.Epoch))
	return uvarint(dst, uint64(p.PacketID))
}

// Decode reads an encoded record.
func (p *PubRel) Decode(rec []byte) error {
	r := open(rec, KindPubRel, 1)
	p.Session, p.Epoch, p.PacketID = r.uvarint(), Epoch(r.uvarint()), r.u16()
	return r.end()
}

// AckReason says why an in-flight message is done.
type AckReason uint8

// The reasons of an Ack.
const (
	AckClient   AckReason = 0 // PUBACK or PUBCOMP from the subscriber
	AckExpired  AckReason = 1 // expired before it was first sent
	AckTooLarge AckReason = 2 // larger than the client's Maximum Packet Size
	AckDenied   AckReason = 3 // no longer allowed
)

// ackGroup is the flag bit of an Ack of a group's message; the lowest two are
// the reason.
const ackGroup = 0x80

// String gives the name that tools print.
func (a AckReason) String() string {
	switch a {
	case AckClient:
		return "acknowledged"
	case AckExpired:
		return "expired"
	case AckTooLarge:
		return "too-large"
	case AckDenied:
		return "denied"
	}
	return "unknown"
}

// Run is a run of consecutive packet identifiers. It does not pass 65 535.
type Run struct {
	First uint16
	Count uint16
}

// Ack ends in-flight messages of a session: PUBACK or PUBCOMP of the
// subscriber, or the broker's decision not to send them.
type Ack struct {
	Session uint64
	Epoch   Epoch
	Reason  AckReason
	Runs    []Run
	// Share, Filter and Message name the entry of a shared group that an
	// ephemeral member acknowledged; Session is 0 and Runs is empty then.
	Share   []byte
	Filter  []byte
	Message uint64
}

// AppendTo appends the encoded record.
func (a *Ack) AppendTo(dst []byte) []byte {
	dst = append(header(dst, KindAck, 1), byte(a.Reason)|bit(a.Message != 0, ackGroup))
	dst = uvarint(dst, a.Session)
	dst = uvarint(dst, uint64(a.Epoch))
	if a.Message != 0 {
		dst = appendBytes(dst, a.Share)
		dst = appendBytes(dst, a.Filter)
		return uvarint(dst, a.Message)
	}
	dst = uvarint(dst, uint64(len(a.Runs)))
	for _, run := range a.Runs {
		dst = uvarint(dst, uint64(run.First))
		dst = uvarint(dst, uint64(run.Count))
	}
	return dst
}

// Decode reads an encoded record, reusing a.Runs.
func (a *Ack) Decode(rec []byte) error {
	r := open(rec, KindAck, 1)
	f := r.flags(ackGroup | 3)
	a.Reason = AckReason(f & 3)
	a.Session, a.Epoch, a.Runs = r.uvarint(), Epoch(r.uvarint()), a.Runs[:0]
	a.Share, a.Filter, a.Message = nil, nil, 0
	if f&ackGroup != 0 {
		a.Share, a.Filter, a.Message = r.bytes(), r.bytes(), r.uvarint()
		if a.Message == 0 {
			r.fail(ErrValue)
		}
		return r.end()
	}
	for n := r.count(2); n > 0; n-- {
		a.Runs = append(a.Runs, Run{First: r.u16(), Count: r.u16()})
	}
	return r.end()
}

// Add appends a packet identifier, lengthening the last run when it follows.
func (a *Ack) Add(id uint16) {
	if n := len(a.Runs); n > 0 {
		if last := &a.Runs[n-1]; int(last.First)+int(last.Count) == int(id) && last.Count < 1<<16-1 {
			last.Count++
			return
		}
	}
	a.Runs = append(a.Runs, Run{First: id, Count: 1})
}

// Rec is a PUBREC from a subscriber: the message is taken, or (Code of 0x80
// and above) refused and done.
type Rec struct {
	Session  uint64
	Epoch    Epoch
	PacketID uint16
	Code     uint8
}

// AppendTo appends the encoded record.
func (p *Rec) AppendTo(dst []byte) []byte {
	dst = uvarint(header(dst, KindRec, 1), p.Session)
	dst = uvarint(dst, uint64(p.Epoch))
	dst = uvarint(dst, uint64(p.PacketID))
	return append(dst, p.Code)
}

// Decode reads an encoded record.
func (p *Rec) Decode(rec []byte) error {
	r := open(rec, KindRec, 1)
	p.Session, p.Epoch, p.PacketID, p.Code = r.uvarint(), Epoch(r.uvarint()), r.u16(), r.u8()
	return r.end()
}
