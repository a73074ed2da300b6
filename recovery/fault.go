package recovery

import (
	"encoding/binary"

	"github.com/wind-c/comqtt/v3/backends"
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

// lose makes the first new entry of a table that is the only reference to a new
// message vanish, together with the message, so that the state remains
// consistent: a lost message, not a damaged store.
func (f *fold) lose(table byte) {
	for i := range f.entries {
		e := &f.entries[i]
		if e.flags&(foldDead|foldDelete) != 0 || f.key(e)[0] != table {
			continue
		}
		id, n := binary.Uvarint(f.value(e)[2:]) // behind version and flags
		if n <= 0 {
			continue
		}
		meta, _ := f.find(backends.IDKey(nil, backends.TableMessage, id))
		body, _ := f.find(backends.IDKey(nil, backends.TableBody, id))
		if meta == nil || body == nil || meta.flags != foldFresh {
			continue
		}
		for _, gone := range []*foldEntry{e, meta, body} {
			gone.flags = foldDead
			f.live--
		}
		return
	}
}
