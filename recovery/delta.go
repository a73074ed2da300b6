package recovery

import (
	"encoding/binary"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
)

// delta is what one Collect gave: a list of changes in order. The apply loop
// fills it, the compactor's goroutine merges it into a fold.
type delta struct {
	applied uint64
	logTime int64
	timed   bool // the interval had passed
	ops     []deltaOp
	mem     arena
}

// deltaOp is one change: the key, with its table in front, and the value.
type deltaOp struct {
	place      uint64
	klen, vlen uint32
	kind       opKind
}

type opKind uint8

const (
	opPut    opKind = iota
	opPutNew        // the backend has nothing under this key
	opDelete
)

var _ core.Sink = (*delta)(nil)

// Put implements core.Sink.
func (d *delta) Put(table byte, key, value []byte, isNew bool) {
	kind := opPut
	if isNew {
		kind = opPutNew
	}
	d.add(kind, table, key, value)
}

// Delete implements core.Sink.
func (d *delta) Delete(table byte, key []byte) { d.add(opDelete, table, key, nil) }

// Body implements core.Sink. The body itself is fetched when the transaction is
// made, from memory or the log: changes that wait never hold bodies.
func (d *delta) Body(id uint64) {
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], id)
	d.add(opPutNew, backends.TableBody, key[:], nil)
}

func (d *delta) add(kind opKind, table byte, key, value []byte) {
	klen := 1 + len(key)
	place, p := d.mem.take(klen + len(value))
	p[0] = table
	copy(p[1:], key)
	copy(p[klen:], value)
	d.ops = append(d.ops, deltaOp{place, uint32(klen), uint32(len(value)), kind})
}

func (d *delta) reset() {
	d.mem.reset()
	d.ops = d.ops[:0]
	if cap(d.ops) > 8*DefaultCollect {
		d.ops = nil
	}
}
