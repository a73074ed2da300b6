package backends

import "encoding/binary"

// The tables: the first byte of every key. doc.go shows what follows it.
const (
	TableBody         byte = 'B' // message body, by message id
	TableConfig       byte = 'C' // state that belongs to no session: limits, counters
	TableGroup        byte = 'G' // pending entry of a shared subscription
	TableMessage      byte = 'M' // page of 64 message metas, by message id / 64
	TableQueue        byte = 'Q' // chunk of 64 queued and in-flight entries of a session
	TableReceived     byte = 'R' // received, not yet released QoS 2 identifier
	TableSession      byte = 'S' // session head, by session id
	TableRetained     byte = 'T' // retained message, by topic
	TableSubscription byte = 'U' // subscription of a session
	TableWill         byte = 'W' // will of a session, armed or due
)

// MarkKey is the key of the mark. Keys that begin with '!' belong to the
// drivers: a batch refuses them and a scan does not show them.
const MarkKey = "!mark"

// reserved is the first byte of the keys that belong to the drivers.
const reserved = '!'

// Key appends the key of table and suffix to dst.
func Key(dst []byte, table byte, suffix []byte) []byte {
	return append(append(dst, table), suffix...)
}

// IDKey appends the key of table and id to dst: big-endian, so that growing ids
// are growing keys.
func IDKey(dst []byte, table byte, id uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, table), id)
}

// PairKey appends the key of table and two ids to dst, ordered by a, then b.
// IDKey(table, a) is the prefix of all keys of a.
func PairKey(dst []byte, table byte, a, b uint64) []byte {
	return binary.BigEndian.AppendUint64(IDKey(dst, table, a), b)
}

// NameKey appends the key of table, id and name to dst. IDKey(table, id) is the
// prefix of all names of id.
func NameKey(dst []byte, table byte, id uint64, name string) []byte {
	return append(IDKey(dst, table, id), name...)
}

// SplitID takes the id that follows the table byte off key and returns the
// rest, which aliases key. ok is false if key is too short.
func SplitID(key []byte) (id uint64, rest []byte, ok bool) {
	if len(key) < 9 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint64(key[1:9]), key[9:], true
}

// SplitPair takes both ids off a key made by PairKey. ok is false if key has
// another length.
func SplitPair(key []byte) (a, b uint64, ok bool) {
	if len(key) != 17 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(key[1:9]), binary.BigEndian.Uint64(key[9:17]), true
}
