package recovery

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
)

// pairs is a piece of a scan: keys and values, each with its length as uvarint
// in front.
type pairs struct {
	table byte
	last  bool // of its table
	b     []byte
}

const (
	pairsBytes = 256 << 10 // where a piece ends
	pairsAhead = 4         // pieces that the scan may be ahead
)

func (p *pairs) add(key, val []byte) {
	p.b = binary.AppendUvarint(p.b, uint64(len(key)))
	p.b = append(p.b, key...)
	p.b = binary.AppendUvarint(p.b, uint64(len(val)))
	p.b = append(p.b, val...)
}

func (p *pairs) each(fn func(key, val []byte) error) error {
	next := func(b []byte) (v, rest []byte) {
		n, k := binary.Uvarint(b)
		end := k + int(n)
		return b[k:end:end], b[end:]
	}
	for b := p.b; len(b) > 0; {
		var key, val []byte
		key, b = next(b)
		val, b = next(b)
		if err := fn(key, val); err != nil {
			return err
		}
	}
	return nil
}

// tables reads tables of a backend, one after another, and adds their entries
// to a hash. Reading, checking and hashing run in a goroutine of their own, a
// little ahead of whoever builds the state of it, and go on with the next table
// meanwhile: together they take most of the time of a start.
type tables struct {
	full, free chan *pairs
	cancel     context.CancelFunc
	wg         sync.WaitGroup
	err        error // of the goroutine, valid when full is closed
	hash       core.Hash
}

// readTables begins. The caller calls scan for each table in the same order, or
// gives up, and stop in any case.
func readTables(ctx context.Context, s backends.Store, order []byte, hashKey *[16]byte) *tables {
	t := &tables{full: make(chan *pairs, pairsAhead), free: make(chan *pairs, pairsAhead+2)}
	for range cap(t.free) {
		t.free <- &pairs{}
	}
	ctx, t.cancel = context.WithCancel(ctx)
	t.wg.Go(func() {
		defer close(t.full)
		for _, table := range order {
			see := func(key, val []byte) { t.hash.Add(hashKey, table, key, val) }
			if t.err = readAhead(ctx, s, table, t.full, t.free, see); t.err != nil {
				return
			}
		}
	})
	return t
}

// scan gives the pairs of the next table to fn.
func (t *tables) scan(table byte, fn func(key, value []byte) error) error {
	for p := range t.full {
		if p.table != table {
			return fmt.Errorf("recovery: table %c is read when %c comes", table, p.table)
		}
		err := p.each(fn)
		last := p.last
		p.b = p.b[:0]
		t.free <- p
		if err != nil || last {
			return err
		}
	}
	return t.err
}

// stop ends the goroutine and waits for it.
func (t *tables) stop() {
	t.cancel()
	for p := range t.full {
		t.free <- p
	}
	t.wg.Wait()
}

// scanTable gives the pairs of a table to fn and adds their entries to hash.
func scanTable(ctx context.Context, s backends.Store, table byte, hashKey *[16]byte, hash *core.Hash, fn func(key, value []byte) error) error {
	t := readTables(ctx, s, []byte{table}, hashKey)
	err := t.scan(table, fn)
	t.stop()
	hash.Join(t.hash)
	return err
}

// readAhead reads a table piece by piece.
func readAhead(ctx context.Context, s backends.Store, table byte, full chan<- *pairs, free <-chan *pairs, see func(key, val []byte)) error {
	p := <-free
	p.table, p.last = table, false
	err := s.Scan(ctx, []byte{table}, func(key, val []byte) error {
		see(key[1:], val)
		p.add(key[1:], val)
		if len(p.b) >= pairsBytes {
			full <- p
			p = <-free
			p.table, p.last = table, false
		}
		return ctx.Err()
	})
	p.last = err == nil
	full <- p
	return err
}
