package badger

import (
	"bytes"
	"context"

	bdb "github.com/dgraph-io/badger/v4"

	"github.com/wind-c/comqtt/v3/backends"
)

const (
	// chunkBytes is how much a scan copies at a time.
	chunkBytes = 1 << 20
	// chunkPairs bounds the number of pairs in a chunk.
	chunkPairs = 16 << 10
)

// chunk is a piece of a scan, copied out of the store.
type chunk struct {
	buf  []byte
	ends []int // ends of keys and values in buf, in turn
	next []byte
	done bool
}

// Scan reads the pairs with prefix, see [backends.Store]: a chunk in a read
// transaction, then the callbacks outside of it, so that old versions are not
// kept for long.
func (s *Store) Scan(ctx context.Context, prefix []byte, fn func(key, val []byte) error) error {
	from := backends.StoredPrefix(prefix)
	c := chunk{next: bytes.Clone(from)}
	for !c.done {
		if err := s.view(ctx, func(txn *bdb.Txn) error { return s.fill(txn, from, &c) }); err != nil {
			return err
		}
		at := 0
		for i := 0; i < len(c.ends); i += 2 {
			mid, end := c.ends[i], c.ends[i+1]
			key, val, err := backends.Unseal(c.buf[at:mid:mid], c.buf[mid:end:end])
			at = end
			if err != nil {
				return s.complete(err)
			}
			if !bytes.HasPrefix(key, prefix) {
				continue
			}
			if err := fn(key, val); err != nil {
				return err
			}
		}
	}
	return nil
}

// fill reads the next chunk of the pairs whose stored keys begin with from.
func (s *Store) fill(txn *bdb.Txn, from []byte, c *chunk) (err error) {
	defer rescue(s.path, &err)
	if cap(c.buf) > 4*chunkBytes {
		c.buf = nil // one huge value must not stay for the rest of the scan
	}
	c.buf, c.ends = c.buf[:0], c.ends[:0]
	it := txn.NewIterator(bdb.IteratorOptions{Prefix: from})
	defer it.Close()
	for it.Seek(c.next); it.Valid(); it.Next() {
		item := it.Item()
		key := item.Key()
		if key[0] == markKey[0] {
			continue
		}
		if len(c.buf) > 0 && len(c.buf)+len(key)+int(item.EstimatedSize()) > chunkBytes || len(c.ends)/2 >= chunkPairs {
			c.next = append(c.next[:0], key...)
			return nil
		}
		c.buf = append(c.buf, key...)
		c.ends = append(c.ends, len(c.buf))
		err := item.Value(func(val []byte) error {
			c.buf = append(c.buf, val...)
			return nil
		})
		if err != nil {
			return s.damage(bytes.Clone(key), err)
		}
		c.ends = append(c.ends, len(c.buf))
	}
	c.done = true
	return nil
}
