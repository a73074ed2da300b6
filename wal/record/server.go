package record

// Limits are the settings that alter what Apply does. They are records, so
// that a replay uses the limits that were in force.
type Limits struct {
	MaxInflight      uint16 // identifiers assigned to a session at once, 1..65535 (0 counts as 1)
	QueueMessages    uint64 // messages queued for one session, 0 = no limit
	QueueBytes       uint64 // bytes of messages queued for one session, 0 = no limit
	SessionExpiryMax uint32 // seconds; 4294967295 = sessions may live for ever
	RestartGrace     uint32 // seconds that clients connected at a crash get to return before their wills fire
	ShareUsers       bool   // a session may be resumed by another user
	DropOldest       bool   // a full queue drops its oldest message, not the new one
}

// AppendTo appends the limits as records and state entries hold them.
func (l *Limits) AppendTo(dst []byte) []byte {
	dst = append(dst, bit(l.ShareUsers, 1)|bit(l.DropOldest, 2))
	dst = uvarint(dst, uint64(l.MaxInflight))
	dst = uvarint(dst, l.QueueMessages)
	dst = uvarint(dst, l.QueueBytes)
	dst = uvarint(dst, uint64(l.SessionExpiryMax))
	return uvarint(dst, uint64(l.RestartGrace))
}

func (r *reader) limits() Limits {
	f := r.flags(3)
	return Limits{
		ShareUsers: f&1 != 0, DropOldest: f&2 != 0,
		MaxInflight: r.u16(), QueueMessages: r.uvarint(), QueueBytes: r.uvarint(),
		SessionExpiryMax: r.u32(), RestartGrace: r.u32(),
	}
}

// Decode reads what AppendTo wrote, which is all of b.
func (l *Limits) Decode(b []byte) error {
	r := reader{b: b}
	*l = r.limits()
	return r.end()
}

// Genesis is the first record of a store.
type Genesis struct {
	StoreID      [16]byte
	FeatureLevel uint32 // semantics of Apply that the following records assume
	Limits       Limits
}

// AppendTo appends the encoded record.
func (g *Genesis) AppendTo(dst []byte) []byte {
	dst = header(dst, KindGenesis, 1)
	dst = append(dst, g.StoreID[:]...)
	dst = uvarint(dst, uint64(g.FeatureLevel))
	return g.Limits.AppendTo(dst)
}

// Decode reads an encoded record.
func (g *Genesis) Decode(rec []byte) error {
	r := open(rec, KindGenesis, 1)
	g.StoreID = [16]byte(r.take(16))
	g.FeatureLevel, g.Limits = r.u32(), r.limits()
	return r.end()
}

// Config changes the limits from here on.
type Config struct {
	Limits Limits
}

// AppendTo appends the encoded record.
func (c *Config) AppendTo(dst []byte) []byte {
	return c.Limits.AppendTo(header(dst, KindConfig, 1))
}

// Decode reads an encoded record.
func (c *Config) Decode(rec []byte) error {
	r := open(rec, KindConfig, 1)
	c.Limits = r.limits()
	return r.end()
}

// ServerStart says that the broker started: every session is disconnected as
// of this record's log time.
type ServerStart struct {
	Boot uint32 // number of this start, from 1
	Wall int64  // wall clock, unix milliseconds
}

// AppendTo appends the encoded record.
func (s *ServerStart) AppendTo(dst []byte) []byte {
	dst = uvarint(header(dst, KindServerStart, 1), uint64(s.Boot))
	return uvarint(dst, uint64(s.Wall))
}

// Decode reads an encoded record.
func (s *ServerStart) Decode(rec []byte) error {
	r := open(rec, KindServerStart, 1)
	s.Boot, s.Wall = r.u32(), int64(r.uvarint())
	return r.end()
}

// Tick says only that time passed: its frame's log time lets deadlines fall
// due.
type Tick struct{}

// AppendTo appends the encoded record.
func (Tick) AppendTo(dst []byte) []byte { return header(dst, KindTick, 1) }

// Decode reads an encoded record.
func (*Tick) Decode(rec []byte) error {
	r := open(rec, KindTick, 1)
	return r.end()
}

// StateHash records the hash that the state had after the record Index.
type StateHash struct {
	Index uint64
	Hash  [16]byte
}

// AppendTo appends the encoded record.
func (s *StateHash) AppendTo(dst []byte) []byte {
	dst = uvarint(header(dst, KindStateHash, 1), s.Index)
	return append(dst, s.Hash[:]...)
}

// Decode reads an encoded record.
func (s *StateHash) Decode(rec []byte) error {
	r := open(rec, KindStateHash, 1)
	s.Index = r.uvarint()
	s.Hash = [16]byte(r.take(16))
	return r.end()
}

// Upgrade raises the feature level: from here on Apply follows the semantics
// of that level, and releases that do not know it refuse the log.
type Upgrade struct {
	Level uint32
}

// AppendTo appends the encoded record.
func (u *Upgrade) AppendTo(dst []byte) []byte {
	return uvarint(header(dst, KindUpgrade, 1), uint64(u.Level))
}

// Decode reads an encoded record.
func (u *Upgrade) Decode(rec []byte) error {
	r := open(rec, KindUpgrade, 1)
	u.Level = r.u32()
	return r.end()
}
