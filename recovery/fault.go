package recovery

import (
	"encoding/binary"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/failpoint"
)

// plant commits the defects that the torture program asks for, to prove that it
// finds them. Only builds with failpoints call it.
func (w *committer) plant(f *fold) {
	if failpoint.Fault(failpoint.FaultDropBeforeIndex) {
		_ = w.log.DropBefore(w.log.Durable()) // before the backend has it
	}
	if failpoint.FaultAt(failpoint.FaultLoseQueued) {
		f.lose(backends.TableQueue)
	}
	if failpoint.FaultAt(failpoint.FaultLoseRetained) {
		f.lose(backends.TableRetained)
	}
}

// lose makes a new message vanish together with the first entry of a table that
// refers to it, the only one, so that the state remains consistent: a lost
// message, not a damaged store.
func (f *fold) lose(table byte) {
	for i := range f.entries {
		e := &f.entries[i]
		if e.flags&(foldDead|foldDelete) != 0 || f.key(e)[0] != table {
			continue
		}
		id := referred(f.key(e), f.value(e))
		meta, _ := f.find(backends.IDKey(nil, backends.TableMessage, id/core.PageLen))
		body, _ := f.find(backends.IDKey(nil, backends.TableBody, id))
		if meta == nil || body == nil || body.flags != foldFresh {
			continue
		}
		f.without(e, id)
		f.without(meta, id)
		f.without(body, id)
		return
	}
}

// referred returns the message of a retained topic, or the last one of a chunk
// of a queue.
func referred(key, value []byte) (id uint64) {
	core.Entries(key[0], key[1:], value, func(_, value []byte) {
		skip := 1 // flags
		if key[0] == backends.TableRetained {
			skip = 2 // version and QoS
		}
		id, _ = binary.Uvarint(value[skip:])
	})
	return id
}

// without takes what concerns a message out of an entry.
func (f *fold) without(e *foldEntry, id uint64) {
	key := f.key(e)
	if v := core.Without(key[0], key[1:], f.value(e), id); v != nil {
		f.replace(e, v)
		return
	}
	f.remove(e)
}
