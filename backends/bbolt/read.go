package bbolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	bolt "go.etcd.io/bbolt"

	"github.com/wind-c/comqtt/v3/backends"
)

// view runs fn in a read transaction. fn sets *calling while it calls code that
// is not this package's; it may be nil if it never does.
func (s *Store) view(ctx context.Context, calling *bool, fn func(tx *bolt.Tx) error) (err error) {
	s.life.RLock()
	defer s.life.RUnlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	var tx *bolt.Tx
	defer s.guard(&err, calling, func() { s.release(tx) })()
	if tx, err = s.db.Begin(false); err != nil {
		return fmt.Errorf("bbolt: begin in %s: %w", s.path, err)
	}
	err = fn(tx)
	if rerr := tx.Rollback(); err == nil && rerr != nil {
		err = fmt.Errorf("bbolt: end reading %s: %w", s.path, rerr)
	}
	return err
}

// Get looks up keys in one read transaction, see [backends.Store]. Values are
// slices of the mapped file.
func (s *Store) Get(ctx context.Context, keys [][]byte, fn func(i int, val []byte) error) error {
	var calling bool
	return s.view(ctx, &calling, func(tx *bolt.Tx) error {
		var cursors [256]*bolt.Cursor // by table
		for i, key := range keys {
			val, err := s.lookup(tx, &cursors, key)
			if err != nil {
				return err
			}
			calling = true
			err = fn(i, val)
			calling = false
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Store) lookup(tx *bolt.Tx, cursors *[256]*bolt.Cursor, key []byte) ([]byte, error) {
	if len(key) == 0 || key[0] == metaBucket[0] {
		return nil, nil
	}
	c := cursors[key[0]]
	if c == nil {
		b := tx.Bucket(key[:1])
		if b == nil {
			return nil, nil
		}
		c = b.Cursor()
		cursors[key[0]] = c
	}
	storedKey := backends.StoredKey(key)
	k, stored := c.Seek(storedKey)
	if !bytes.Equal(k, storedKey) {
		return nil, nil
	}
	_, val, err := backends.Unseal(k, stored)
	return val, s.complete(err)
}

const (
	// chunkBytes is how much a scan copies at a time.
	chunkBytes = 256 << 10
	// pairShare bounds the number of pairs: so many bytes of the limit each.
	pairShare = 64
)

// chunk is a piece of a scan, copied out of the file.
type chunk struct {
	limit int // bytes in buf, if there is more than one pair
	buf   []byte
	ends  []int // ends of keys and values in buf, in turn
	table []byte
	last  []byte // where to go on: behind this key of table
	done  bool
}

// Scan reads the pairs with prefix, see [backends.Store]: a chunk in a read
// transaction, then the callbacks outside of it, so that pages are not pinned
// and a growing file is not kept from being mapped anew.
func (s *Store) Scan(ctx context.Context, prefix []byte, fn func(key, val []byte) error) error {
	c := chunk{limit: chunkBytes}
	from := backends.StoredPrefix(prefix)
	for !c.done {
		if err := s.view(ctx, nil, func(tx *bolt.Tx) error { return c.fill(tx, from) }); err != nil {
			return s.complete(err)
		}
		for k, v := range c.pairs() {
			key, val, err := backends.Unseal(k, v)
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

// pairs yields the stored pairs of the chunk.
func (c *chunk) pairs() iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		at := 0
		for i := 0; i < len(c.ends); i += 2 {
			mid, end := c.ends[i], c.ends[i+1]
			if !yield(c.buf[at:mid:mid], c.buf[mid:end:end]) {
				return
			}
			at = end
		}
	}
}

// errOrder tells of a page in the wrong place.
var errOrder = errors.New("key out of order")

// fill reads the next chunk of the pairs whose stored keys begin with from.
func (c *chunk) fill(tx *bolt.Tx, from []byte) error {
	if cap(c.buf) > 4*c.limit {
		c.buf = nil // one huge value must not stay for the rest of the scan
	}
	c.buf, c.ends = c.buf[:0], c.ends[:0]
	if c.table == nil {
		c.table = firstTable(tx, from)
	}
	for c.table != nil {
		full, err := c.fillTable(tx.Bucket(c.table), from)
		if full || err != nil {
			return err
		}
		c.last = nil
		if len(from) > 0 {
			break
		}
		c.table = nextTable(tx, c.table)
	}
	c.done = true
	return nil
}

func (c *chunk) fillTable(b *bolt.Bucket, from []byte) (full bool, err error) {
	if b == nil {
		return false, nil
	}
	cur := b.Cursor()
	var k, v []byte
	if c.last == nil {
		k, v = cur.Seek(from)
	} else if k, v = cur.Seek(c.last); bytes.Equal(k, c.last) {
		k, v = cur.Next()
	}
	for ; k != nil && bytes.HasPrefix(k, from); k, v = cur.Next() {
		if len(c.ends) > 0 && len(c.buf)+len(k)+len(v) > c.limit || len(c.ends)/2 >= c.limit/pairShare {
			return true, nil
		}
		if c.last != nil && bytes.Compare(c.last, k) >= 0 {
			return false, &backends.CorruptError{Key: bytes.Clone(k), Offset: -1, Err: errOrder}
		}
		c.buf = append(c.buf, k...)
		c.ends = append(c.ends, len(c.buf))
		c.buf = append(c.buf, v...)
		c.ends = append(c.ends, len(c.buf))
		c.last = append(c.last[:0], k...)
	}
	return false, nil
}

func firstTable(tx *bolt.Tx, from []byte) []byte {
	if len(from) > 0 {
		if from[0] == metaBucket[0] {
			return nil
		}
		return bytes.Clone(from[:1])
	}
	k, _ := tx.Cursor().First()
	if bytes.Equal(k, metaBucket) {
		return nextTable(tx, metaBucket)
	}
	return bytes.Clone(k)
}

func nextTable(tx *bolt.Tx, table []byte) []byte {
	c := tx.Cursor()
	k, _ := c.Seek(table)
	if bytes.Equal(k, table) {
		k, _ = c.Next()
	}
	if bytes.Equal(k, metaBucket) {
		k, _ = c.Next()
	}
	return bytes.Clone(k)
}
