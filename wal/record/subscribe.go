package record

import "github.com/wind-c/comqtt/v3/session/topic"

// Filter is one granted subscription of a Subscribe record.
type Filter struct {
	Name    []byte
	Options topic.Options // QoS is the granted one
}

// Subscribe holds the subscriptions of a SUBSCRIBE that were granted.
type Subscribe struct {
	Session  uint64
	Epoch    Epoch
	PacketID uint16
	ID       uint32 // subscription identifier, 0 = none
	Filters  []Filter
}

// AppendTo appends the encoded record.
func (s *Subscribe) AppendTo(dst []byte) []byte {
	dst = uvarint(header(dst, KindSubscribe, 1), s.Session)
	dst = uvarint(dst, uint64(s.Epoch))
	dst = uvarint(dst, uint64(s.PacketID))
	dst = uvarint(dst, uint64(s.ID))
	dst = uvarint(dst, uint64(len(s.Filters)))
	for i := range s.Filters {
		dst = append(dst, byte(s.Filters[i].Options))
		dst = appendBytes(dst, s.Filters[i].Name)
	}
	return dst
}

// Decode reads an encoded record, reusing s.Filters.
func (s *Subscribe) Decode(rec []byte) error {
	r := open(rec, KindSubscribe, 1)
	s.Session, s.Epoch, s.PacketID, s.ID = r.uvarint(), Epoch(r.uvarint()), r.u16(), r.u32()
	s.Filters = s.Filters[:0]
	for n := r.count(2); n > 0; n-- {
		f := Filter{Options: topic.Options(r.u8())}
		f.Name = r.bytes()
		if !f.Options.Valid() {
			r.fail(ErrValue)
			break
		}
		s.Filters = append(s.Filters, f)
	}
	return r.end()
}

// Unsubscribe removes subscriptions.
type Unsubscribe struct {
	Session  uint64
	Epoch    Epoch
	PacketID uint16
	Filters  [][]byte
}

// AppendTo appends the encoded record.
func (u *Unsubscribe) AppendTo(dst []byte) []byte {
	dst = uvarint(header(dst, KindUnsubscribe, 1), u.Session)
	dst = uvarint(dst, uint64(u.Epoch))
	dst = uvarint(dst, uint64(u.PacketID))
	dst = uvarint(dst, uint64(len(u.Filters)))
	for _, f := range u.Filters {
		dst = appendBytes(dst, f)
	}
	return dst
}

// Decode reads an encoded record, reusing u.Filters.
func (u *Unsubscribe) Decode(rec []byte) error {
	r := open(rec, KindUnsubscribe, 1)
	u.Session, u.Epoch, u.PacketID = r.uvarint(), Epoch(r.uvarint()), r.u16()
	u.Filters = u.Filters[:0]
	for n := r.count(1); n > 0; n-- {
		u.Filters = append(u.Filters, r.bytes())
	}
	return r.end()
}

// RetainClear removes a retained message by an administrator's hand.
type RetainClear struct {
	Topic []byte
	By    []byte
}

// AppendTo appends the encoded record.
func (c *RetainClear) AppendTo(dst []byte) []byte {
	dst = appendBytes(header(dst, KindRetainClear, 1), c.Topic)
	return appendBytes(dst, c.By)
}

// Decode reads an encoded record.
func (c *RetainClear) Decode(rec []byte) error {
	r := open(rec, KindRetainClear, 1)
	c.Topic, c.By = r.bytes(), r.bytes()
	return r.end()
}
