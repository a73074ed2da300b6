package recovery

import (
	"context"
	"encoding/binary"
	"sync"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
)

// pairs is a piece of a scan: keys and values, each with its length as uvarint
// in front.
type pairs struct {
	b []byte
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

// scanTable gives the entries of a table to fn and adds them to hash. Reading,
// checking and hashing run in a goroutine of their own, a little ahead of fn,
// which builds the state: together they take most of the time of a start.
func scanTable(ctx context.Context, s backends.Store, table byte, hashKey *[16]byte, hash *core.Hash, fn func(key, val []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	full := make(chan *pairs, pairsAhead)
	free := make(chan *pairs, pairsAhead+2)
	for range cap(free) {
		free <- &pairs{}
	}
	var wg sync.WaitGroup
	var scanErr error
	wg.Go(func() {
		defer close(full)
		scanErr = readAhead(ctx, s, table, full, free, func(key, val []byte) { hash.Add(hashKey, table, key, val) })
	})
	var err error
	for p := range full {
		if err == nil {
			if err = p.each(fn); err != nil {
				cancel()
			}
		}
		p.b = p.b[:0]
		free <- p
	}
	wg.Wait()
	cancel()
	if err != nil {
		return err
	}
	return scanErr
}

// readAhead reads a table piece by piece.
func readAhead(ctx context.Context, s backends.Store, table byte, full chan<- *pairs, free <-chan *pairs, see func(key, val []byte)) error {
	p := <-free
	err := s.Scan(ctx, []byte{table}, func(key, val []byte) error {
		see(key[1:], val)
		p.add(key[1:], val)
		if len(p.b) >= pairsBytes {
			full <- p
			p = <-free
		}
		return ctx.Err()
	})
	full <- p
	return err
}
