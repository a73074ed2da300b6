package core

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// entry is a cursor over a value; the first failure sticks.
type entry struct {
	b   []byte
	err error
}

func openEntry(value []byte) entry {
	if len(value) == 0 {
		return entry{err: fmt.Errorf("%w: empty", ErrEntry)}
	}
	if value[0] != entryVersion {
		return entry{err: fmt.Errorf("%w: version %d is unknown to this release", ErrEntry, value[0])}
	}
	return entry{b: value[1:]}
}

func (e *entry) fail(why string) {
	if e.err == nil {
		e.err = fmt.Errorf("%w: %s", ErrEntry, why)
	}
	e.b = nil
}

func (e *entry) take(n uint64) []byte {
	if n > uint64(len(e.b)) {
		e.fail("truncated")
		return nil
	}
	v := e.b[:n]
	e.b = e.b[n:]
	return v
}

func (e *entry) u8() byte {
	if v := e.take(1); len(v) == 1 {
		return v[0]
	}
	return 0
}

// flags reads a byte of which only the bits of known may be set.
func (e *entry) flags(known byte) byte {
	f := e.u8()
	if f&^known != 0 {
		e.fail("unknown flags")
		return 0
	}
	return f
}

// qos checks the lowest two bits of a flag byte.
func (e *entry) qos(f byte) byte {
	if f&3 == 3 {
		e.fail("QoS 3")
		return 0
	}
	return f & 3
}

func (e *entry) num() uint64 {
	v, n := binary.Uvarint(e.b)
	if n <= 0 || n > 1 && e.b[n-1] == 0 { // one value has one form, for the hash
		e.fail("bad number")
		return 0
	}
	e.b = e.b[n:]
	return v
}

func (e *entry) num32() uint32 {
	v := e.num()
	if v > 1<<32-1 {
		e.fail("number out of range")
		return 0
	}
	return uint32(v)
}

func (e *entry) num16() uint16 {
	v := e.num()
	if v > 1<<16-1 {
		e.fail("number out of range")
		return 0
	}
	return uint16(v)
}

func (e *entry) time() int64 {
	v := e.num()
	if v > 1<<62 {
		e.fail("time out of range")
		return 0
	}
	return int64(v)
}

func (e *entry) str() string { return string(e.take(e.num())) }

func (e *entry) will() (w record.Will) {
	if e.err != nil {
		return w
	}
	n, err := w.Decode(e.b)
	if err != nil {
		e.fail(err.Error())
		return record.Will{}
	}
	w.Message = slices.Clone(w.Message)
	e.b = e.b[n:]
	return w
}

// scans reads at least one scan.
func (e *entry) scans() (list []session.Scan) {
	for n := e.num(); n > 0 && e.err == nil; n-- {
		sc := session.Scan{Filter: e.str(), After: e.str(), QoS: e.qos(e.flags(3)), ID: e.num32(), Before: e.num()}
		if sc.Filter == "" || keyOf(sc.Filter).Share != "" {
			e.fail("scan for no filter, or a shared one")
		}
		list = append(list, sc)
	}
	if len(list) == 0 {
		e.fail("no scans")
	}
	return list
}

func (e *entry) end() error {
	if e.err == nil && len(e.b) > 0 {
		e.fail(fmt.Sprintf("%d bytes too many", len(e.b)))
	}
	return e.err
}

// splitID takes the id off a key, of which size bytes must be left; -1 is any
// number.
func splitID(key []byte, size int) (uint64, []byte, error) {
	if len(key) < 8 || size >= 0 && len(key) != 8+size {
		return 0, nil, fmt.Errorf("%w: key of %d bytes", ErrEntry, len(key))
	}
	return binary.BigEndian.Uint64(key), key[8:], nil
}

func splitGroupKey(key []byte) (GroupKey, uint64, error) {
	e := entry{b: key}
	k := GroupKey{Share: e.str(), Filter: e.str()}
	id := e.take(8)
	if err := e.end(); err != nil {
		return k, 0, err
	}
	if k.Share == "" || k.Filter == "" {
		return k, 0, fmt.Errorf("%w: group without a name", ErrEntry)
	}
	return k, binary.BigEndian.Uint64(id), nil
}

func decodeSubscription(value []byte) (sub session.Subscription, err error) {
	e := openEntry(value)
	sub.Options, sub.ID = topic.Options(e.u8()), e.num32()
	if !sub.Options.Valid() {
		e.fail("impossible subscription options")
	}
	return sub, e.end()
}
