package record

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Kind says what a record is. The numbers are part of the on-disk format.
type Kind uint8

// The kinds of record.
const (
	KindGenesis       Kind = 1
	KindConfig        Kind = 2
	KindServerStart   Kind = 3
	KindTick          Kind = 4
	KindConnect       Kind = 5
	KindDisconnect    Kind = 6
	KindWill          Kind = 7
	KindSubscribe     Kind = 8
	KindUnsubscribe   Kind = 9
	KindPublish       Kind = 10
	KindPubRel        Kind = 11
	KindAck           Kind = 12
	KindRec           Kind = 13
	KindDispatch      Kind = 14
	KindSessionRemove Kind = 15
	KindRetainClear   Kind = 16
	KindStateHash     Kind = 17
	KindUpgrade       Kind = 18
)

var kindNames = [...]string{
	KindGenesis: "genesis", KindConfig: "config", KindServerStart: "server-start", KindTick: "tick",
	KindConnect: "connect", KindDisconnect: "disconnect", KindWill: "will", KindSubscribe: "subscribe",
	KindUnsubscribe: "unsubscribe", KindPublish: "publish", KindPubRel: "pubrel", KindAck: "ack", KindRec: "rec",
	KindDispatch: "dispatch", KindSessionRemove: "session-remove", KindRetainClear: "retain-clear",
	KindStateHash: "state-hash", KindUpgrade: "upgrade",
}

// String gives the name that tools print.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// Epoch names one connection for ever: the boot number in the upper 32 bits,
// the connection's number within the boot in the lower. 0 is no connection.
type Epoch uint64

// NewEpoch builds an epoch from a boot number and a connection number.
func NewEpoch(boot, conn uint32) Epoch { return Epoch(boot)<<32 | Epoch(conn) }

// Boot is the number of the broker's start in which the connection was made.
func (e Epoch) Boot() uint32 { return uint32(e >> 32) }

// Connection is the connection's number within its boot.
func (e Epoch) Connection() uint32 { return uint32(e) }

// The ways in which bytes are not the record that was asked for.
var (
	ErrTruncated = errors.New("record: truncated")                  // it ends before its fields do
	ErrTrailing  = errors.New("record: bytes after the last field") // or the other way round
	ErrKind      = errors.New("record: of another kind")            // than the one it is decoded as
	ErrValue     = errors.New("record: value out of range")         // a flag, QoS or number its field can't have
)

// UnknownError reports a record this release cannot read: a later release
// wrote it. It is never skipped, since what follows depends on it.
type UnknownError struct {
	Kind    Kind
	Version uint8
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("record: %s version %d is unknown to this release; a newer comqtt wrote it", e.Kind, e.Version)
}

// Known reports whether this release has a kind of that number. It may still
// not know the version of a record's layout.
func Known(k Kind) bool { return k >= KindGenesis && k <= KindUpgrade }

// KindOf returns the kind of an encoded record, 0 for an empty one.
func KindOf(rec []byte) Kind {
	if len(rec) == 0 {
		return 0
	}
	return Kind(rec[0])
}

// reader is a cursor over one record. The first failure sticks and every
// later read returns zero, so a decoder checks once. Slices alias b.
type reader struct {
	b   []byte
	at  int // what is before was read
	err error
}

// open checks kind and version and returns a cursor on the fields.
func open(rec []byte, kind Kind, version uint8) reader {
	if len(rec) < 2 || Kind(rec[0]) != kind || rec[1] != version {
		return reader{err: openError(rec, kind)}
	}
	return reader{b: rec, at: 2}
}

func openError(rec []byte, kind Kind) error {
	switch {
	case len(rec) < 2:
		return ErrTruncated
	case Kind(rec[0]) != kind && Known(Kind(rec[0])):
		return fmt.Errorf("%w: %s, not %s", ErrKind, Kind(rec[0]), kind)
	}
	return &UnknownError{Kind(rec[0]), rec[1]}
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b, r.at = nil, 0
}

func (r *reader) left() int { return len(r.b) - r.at }

func (r *reader) u8() uint8 {
	if r.at >= len(r.b) {
		r.fail(ErrTruncated)
		return 0
	}
	v := r.b[r.at]
	r.at++
	return v
}

func (r *reader) uvarint() uint64 {
	var v uint64
	for shift := 0; shift < 70; shift += 7 {
		if r.at >= len(r.b) {
			r.fail(ErrTruncated)
			return 0
		}
		c := r.b[r.at]
		r.at++
		if c >= 0x80 {
			v |= uint64(c&0x7f) << shift
			continue
		}
		if shift == 63 && c > 1 || shift > 0 && c == 0 {
			break
		}
		return v | uint64(c)<<shift
	}
	r.fail(ErrValue) // more than 64 bits, or not the shortest form
	return 0
}

func (r *reader) u32() uint32 {
	v := r.uvarint()
	if v > 1<<32-1 {
		r.fail(ErrValue)
		return 0
	}
	return uint32(v)
}

func (r *reader) u16() uint16 {
	v := r.uvarint()
	if v > 1<<16-1 {
		r.fail(ErrValue)
		return 0
	}
	return uint16(v)
}

// flags reads a byte of which only the bits of known may be set: a layout
// with more of them has another version.
func (r *reader) flags(known uint8) uint8 {
	f := r.u8()
	if f&^known != 0 {
		r.fail(ErrValue)
		return 0
	}
	return f
}

// qos checks the lowest two bits of a flag byte.
func (r *reader) qos(f uint8) uint8 {
	if f&3 == 3 {
		r.fail(ErrValue)
		return 0
	}
	return f & 3
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(r.left()) {
		r.fail(ErrTruncated)
		return nil
	}
	end := r.at + int(n)
	v := r.b[r.at:end:end]
	r.at = end
	return v
}

// take reads n bytes.
func (r *reader) take(n int) []byte {
	if n > r.left() {
		r.fail(ErrTruncated)
		return make([]byte, n)
	}
	end := r.at + n
	v := r.b[r.at:end:end]
	r.at = end
	return v
}

// end returns the first error, or ErrTrailing when bytes are left.
func (r *reader) end() error {
	if r.err == nil && r.left() > 0 {
		return ErrTrailing
	}
	return r.err
}

// count reads a number of elements, each of at least that many bytes, so that a
// damaged number can't make a decoder allocate more than the record's size.
func (r *reader) count(least int) int {
	n := r.uvarint()
	if n > uint64(r.left()/least) {
		r.fail(ErrTruncated)
		return 0
	}
	return int(n)
}

func header(dst []byte, k Kind, version uint8) []byte { return append(dst, byte(k), version) }

func appendBytes[T ~[]byte | ~string](dst []byte, b T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

func uvarint(dst []byte, v uint64) []byte {
	if v < 0x80 {
		return append(dst, byte(v))
	}
	return binary.AppendUvarint(dst, v)
}

// bit returns mask when on.
func bit(on bool, mask uint8) uint8 {
	if on {
		return mask
	}
	return 0
}
