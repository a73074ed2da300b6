package recovery

import (
	"bytes"
	"context"
	"errors"
	"iter"

	"github.com/wind-c/comqtt/v3/backends"
)

// other reads the target's pairs one by one.
type other struct {
	next func() (k, v []byte, ok bool)
	stop func()
	key  []byte // stored form; nil at the end
	raw  []byte // the key itself
	val  []byte
	err  error
}

// errEnough ends a scan that nobody wants to go on.
var errEnough = errors.New("recovery: enough")

func readOther(ctx context.Context, s backends.Store) *other {
	o := &other{}
	o.next, o.stop = iter.Pull2(func(yield func(k, v []byte) bool) {
		err := s.Scan(ctx, nil, func(k, v []byte) error {
			if !yield(k, v) {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			o.err = err
		}
	})
	o.step()
	return o
}

func (o *other) step() {
	var ok bool
	if o.raw, o.val, ok = o.next(); !ok {
		o.key = nil
		return
	}
	o.key = backends.StoredKey(o.raw)
}

// fillAll compares all pairs of backend and target, in the order of their keys,
// and makes the target's like the backend's. What the backend changes meanwhile
// waits as ever, and is put afterwards.
func (m *mirror) fillAll(ctx context.Context) error {
	m.commit.Lock()
	m.mu.Lock()
	m.dirty, m.bytes = map[string]struct{}{}, 0 // all of it will be seen
	m.mu.Unlock()
	m.commit.Unlock()
	d := differ{m: m, ctx: ctx, o: readOther(ctx, m.target)}
	defer d.o.stop()
	err := m.primary.Scan(ctx, nil, d.pair)
	if err == nil {
		err = d.rest(nil)
	}
	if err == nil {
		err = d.flush()
	}
	if err != nil {
		return err
	}
	m.fill = false
	m.stats.fills.Add(1)
	m.logger.Info("mirror is filled", "mirror", m.target.Name(), "pairs", d.same+d.written, "written", d.written, "removed", d.removed)
	return nil
}

// differ is one fillAll.
type differ struct {
	m   *mirror
	ctx context.Context
	o   *other
	b   backends.Batch

	same, written, removed int
}

// pair takes a pair of the backend.
func (d *differ) pair(key, val []byte) error {
	stored := backends.StoredKey(key)
	if err := d.rest(stored); err != nil {
		return err
	}
	if d.o.key != nil && bytes.Equal(d.o.key, stored) {
		same := bytes.Equal(d.o.val, val)
		d.o.step()
		if same {
			d.same++
			return nil
		}
	}
	d.written++
	d.b.Put(key, val)
	return d.room()
}

// rest removes the target's pairs before a stored key, all if it is nil.
func (d *differ) rest(upto []byte) error {
	for d.o.key != nil && (upto == nil || bytes.Compare(d.o.key, upto) < 0) {
		d.removed++
		d.b.Delete(d.o.raw)
		d.o.step()
		if err := d.room(); err != nil {
			return err
		}
	}
	return d.o.err
}

// room writes what differs when there is enough of it.
func (d *differ) room() error {
	if d.b.Bytes() < mirrorChunkBytes && d.b.Len() < mirrorChunkKeys {
		return nil
	}
	return d.flush()
}

func (d *differ) flush() error {
	if d.b.Len() == 0 {
		return nil
	}
	err := d.m.put(d.ctx, &d.b, backends.Mark{StoreID: d.m.storeID, Schema: backends.Schema})
	d.b.Reset()
	return err
}
