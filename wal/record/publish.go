package record

// Choice is the member that was picked for a shared group before the record
// was written: Apply never chooses.
type Choice struct {
	Share   []byte // group name
	Filter  []byte // filter within the group
	Session uint64 // durable member, or 0
	Epoch   Epoch  // connection of an ephemeral member, with Session 0; both 0 = nobody, the message waits
	QoS     uint8  // QoS that the ephemeral member gets it with, 0 = that of the message
}

// Publish is an application message that may change durable state. Its index
// becomes the message's id.
type Publish struct {
	Session   uint64 // publisher's durable session, 0 for all others
	Epoch     Epoch
	WillOf    uint64 // id of the due will that this message publishes, 0 = not a will
	PacketID  uint16 // 0 with QoS 0
	QoS       uint8
	Retain    bool
	HasExpiry bool
	Expiry    uint32 // seconds, with HasExpiry
	Choices   []Choice
	Message   []byte // stored message
}

// Flag bits of a Publish record; QoS has the lowest two.
const (
	publishRetain  = 1 << 2
	publishExpiry  = 1 << 3
	publishWill    = 1 << 4
	publishChoices = 1 << 5
	publishFlags   = 1<<6 - 1
)

// AppendTo appends the encoded record.
func (p *Publish) AppendTo(dst []byte) []byte {
	dst = p.AppendHeader(dst)
	return append(dst, p.Message...)
}

// AppendHeader appends all but the message, which must follow directly: the
// hot path encodes it straight into the frame.
func (p *Publish) AppendHeader(dst []byte) []byte {
	dst = header(dst, KindPublish, 1)
	dst = append(dst, p.QoS|bit(p.Retain, publishRetain)|bit(p.HasExpiry, publishExpiry)|
		bit(p.WillOf != 0, publishWill)|bit(len(p.Choices) > 0, publishChoices))
	dst = uvarint(dst, p.Session)
	dst = uvarint(dst, uint64(p.Epoch))
	dst = uvarint(dst, uint64(p.PacketID))
	if p.HasExpiry {
		dst = uvarint(dst, uint64(p.Expiry))
	}
	if p.WillOf != 0 {
		dst = uvarint(dst, p.WillOf)
	}
	if len(p.Choices) > 0 {
		dst = uvarint(dst, uint64(len(p.Choices)))
		for i := range p.Choices {
			dst = p.Choices[i].append(dst)
		}
	}
	return dst
}

func (c *Choice) append(dst []byte) []byte {
	dst = appendBytes(dst, c.Share)
	dst = appendBytes(dst, c.Filter)
	return member{c.Session, c.Epoch, c.QoS}.append(dst)
}

// member is the part of a Choice or Dispatch that says who gets the message:
// a session, or else an epoch and, unless that is 0 too, a QoS.
type member struct {
	session uint64
	epoch   Epoch
	qos     uint8
}

func (m member) append(dst []byte) []byte {
	dst = uvarint(dst, m.session)
	if m.session != 0 {
		return dst
	}
	if dst = uvarint(dst, uint64(m.epoch)); m.epoch == 0 {
		return dst
	}
	return append(dst, m.qos)
}

func (r *reader) member() (m member) {
	if m.session = r.uvarint(); m.session != 0 {
		return m
	}
	if m.epoch = Epoch(r.uvarint()); m.epoch != 0 {
		m.qos = r.qos(r.flags(3))
	}
	return m
}

// Decode reads an encoded record, reusing p.Choices.
func (p *Publish) Decode(rec []byte) error {
	r := open(rec, KindPublish, 1)
	f := r.flags(publishFlags)
	p.QoS, p.Retain, p.HasExpiry = r.qos(f), f&publishRetain != 0, f&publishExpiry != 0
	p.Session, p.Epoch, p.PacketID = r.uvarint(), Epoch(r.uvarint()), r.u16()
	p.Expiry, p.WillOf = 0, 0
	if p.HasExpiry {
		p.Expiry = r.u32()
	}
	if f&publishWill != 0 {
		p.WillOf = r.uvarint()
	}
	p.Choices = p.Choices[:0]
	if f&publishChoices != 0 {
		for n := r.count(3); n > 0; n-- {
			c := Choice{Share: r.bytes(), Filter: r.bytes()}
			m := r.member()
			c.Session, c.Epoch, c.QoS = m.session, m.epoch, m.qos
			p.Choices = append(p.Choices, c)
		}
	}
	if r.err != nil {
		return r.err
	}
	p.Message = rec[r.at:]
	return nil
}

// Dispatch gives a message that waits in a shared group to a member, or, with
// Session and Epoch 0, takes it back from the ephemeral member that had it.
type Dispatch struct {
	Share   []byte
	Filter  []byte
	Message uint64
	Session uint64 // durable member, or 0
	Epoch   Epoch  // connection of an ephemeral member, with Session 0
	QoS     uint8  // QoS that the ephemeral member gets it with, 0 = that of the message
	From    Epoch  // taking back: the ephemeral member that had it, 0 = whoever has
}

// AppendTo appends the encoded record.
func (d *Dispatch) AppendTo(dst []byte) []byte {
	dst = appendBytes(header(dst, KindDispatch, 1), d.Share)
	dst = appendBytes(dst, d.Filter)
	dst = uvarint(dst, d.Message)
	dst = member{d.Session, d.Epoch, d.QoS}.append(dst)
	if d.Session == 0 && d.Epoch == 0 {
		dst = uvarint(dst, uint64(d.From))
	}
	return dst
}

// Decode reads an encoded record.
func (d *Dispatch) Decode(rec []byte) error {
	r := open(rec, KindDispatch, 1)
	d.Share, d.Filter = r.bytes(), r.bytes()
	d.Message = r.uvarint()
	m := r.member()
	d.Session, d.Epoch, d.QoS, d.From = m.session, m.epoch, m.qos, 0
	if m.session == 0 && m.epoch == 0 {
		d.From = Epoch(r.uvarint())
	}
	return r.end()
}
