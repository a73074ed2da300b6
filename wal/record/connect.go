package record

// Will is a will as a Connect or Will record carries it.
type Will struct {
	QoS       uint8
	Retain    bool
	HasExpiry bool
	Delay     uint32 // seconds
	Expiry    uint32 // seconds, with HasExpiry
	Message   []byte // stored message: topic, properties, payload
}

// AppendTo appends the will as records and state entries hold it.
func (w *Will) AppendTo(dst []byte) []byte {
	dst = append(dst, w.QoS|bit(w.Retain, 4)|bit(w.HasExpiry, 8))
	dst = uvarint(dst, uint64(w.Delay))
	if w.HasExpiry {
		dst = uvarint(dst, uint64(w.Expiry))
	}
	return appendBytes(dst, w.Message)
}

// Decode reads a will from the front of b and returns how long it is. The
// message aliases b.
func (w *Will) Decode(b []byte) (n int, err error) {
	r := reader{b: b}
	*w = r.will()
	if r.err != nil {
		return 0, r.err
	}
	return r.at, nil
}

func (r *reader) will() Will {
	f := r.flags(0x0f)
	w := Will{QoS: r.qos(f), Retain: f&4 != 0, HasExpiry: f&8 != 0}
	w.Delay = r.u32()
	if w.HasExpiry {
		w.Expiry = r.u32()
	}
	w.Message = r.bytes()
	return w
}

// Connect begins or resumes a durable session. Its index becomes the id of a
// session that it creates.
type Connect struct {
	Epoch          Epoch
	ClientID       []byte
	User           []byte
	Version        uint8 // 3, 4 or 5, as in the CONNECT packet
	CleanStart     bool
	HasWill        bool
	Expiry         uint32 // seconds after the disconnect; 0 ends the session with the connection, 4294967295 never
	ReceiveMaximum uint16 // of the client, 1..65535
	MaxPacket      uint32 // of the client, 0 = no limit
	Will           Will
}

// AppendTo appends the encoded record.
func (c *Connect) AppendTo(dst []byte) []byte {
	dst = header(dst, KindConnect, 1)
	dst = append(dst, bit(c.CleanStart, 1)|bit(c.HasWill, 2), c.Version)
	dst = uvarint(dst, uint64(c.Epoch))
	dst = appendBytes(dst, c.ClientID)
	dst = appendBytes(dst, c.User)
	dst = uvarint(dst, uint64(c.Expiry))
	dst = uvarint(dst, uint64(c.ReceiveMaximum))
	dst = uvarint(dst, uint64(c.MaxPacket))
	if c.HasWill {
		dst = c.Will.AppendTo(dst)
	}
	return dst
}

// Decode reads an encoded record.
func (c *Connect) Decode(rec []byte) error {
	r := open(rec, KindConnect, 1)
	f := r.flags(3)
	*c = Connect{CleanStart: f&1 != 0, HasWill: f&2 != 0, Version: r.u8(), Epoch: Epoch(r.uvarint())}
	c.ClientID, c.User = r.bytes(), r.bytes()
	c.Expiry, c.ReceiveMaximum, c.MaxPacket = r.u32(), r.u16(), r.u32()
	if c.HasWill {
		c.Will = r.will()
	}
	return r.end()
}

// Disconnect ends a connection: of a durable session, or (Session 0) of an
// ephemeral client whose will was logged.
type Disconnect struct {
	Session   uint64
	Epoch     Epoch
	DropWill  bool // DISCONNECT with reason 0x00: the will is not published
	HasExpiry bool
	Expiry    uint32 // the session's new expiry in seconds, with HasExpiry
	Reason    uint8  // reason code, for people who read the log
}

// AppendTo appends the encoded record.
func (d *Disconnect) AppendTo(dst []byte) []byte {
	dst = header(dst, KindDisconnect, 1)
	dst = append(dst, bit(d.DropWill, 1)|bit(d.HasExpiry, 2), d.Reason)
	dst = uvarint(dst, d.Session)
	dst = uvarint(dst, uint64(d.Epoch))
	if d.HasExpiry {
		dst = uvarint(dst, uint64(d.Expiry))
	}
	return dst
}

// Decode reads an encoded record.
func (d *Disconnect) Decode(rec []byte) error {
	r := open(rec, KindDisconnect, 1)
	f := r.flags(3)
	*d = Disconnect{DropWill: f&1 != 0, HasExpiry: f&2 != 0, Reason: r.u8(), Session: r.uvarint(), Epoch: Epoch(r.uvarint())}
	if d.HasExpiry {
		d.Expiry = r.u32()
	}
	return r.end()
}

// LoggedWill keeps the will of an ephemeral client that must outlive a crash
// (retained, or QoS above 0), until the Disconnect with its epoch.
type LoggedWill struct {
	Epoch    Epoch
	ClientID []byte
	User     []byte
	Will     Will
}

// AppendTo appends the encoded record.
func (w *LoggedWill) AppendTo(dst []byte) []byte {
	dst = uvarint(header(dst, KindWill, 1), uint64(w.Epoch))
	dst = appendBytes(dst, w.ClientID)
	dst = appendBytes(dst, w.User)
	return w.Will.AppendTo(dst)
}

// Decode reads an encoded record.
func (w *LoggedWill) Decode(rec []byte) error {
	r := open(rec, KindWill, 1)
	*w = LoggedWill{Epoch: Epoch(r.uvarint()), ClientID: r.bytes(), User: r.bytes(), Will: r.will()}
	return r.end()
}

// SessionRemove ends a session at once, whoever is connected to it.
type SessionRemove struct {
	ClientID []byte
	By       []byte // who asked: a client's own clean start, an administrator
}

// AppendTo appends the encoded record.
func (s *SessionRemove) AppendTo(dst []byte) []byte {
	dst = appendBytes(header(dst, KindSessionRemove, 1), s.ClientID)
	return appendBytes(dst, s.By)
}

// Decode reads an encoded record.
func (s *SessionRemove) Decode(rec []byte) error {
	r := open(rec, KindSessionRemove, 1)
	s.ClientID, s.By = r.bytes(), r.bytes()
	return r.end()
}
