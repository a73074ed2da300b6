package redis

import (
	"bytes"
	"context"

	"github.com/wind-c/comqtt/v3/backends"
)

const (
	// chunkBytes is how much a scan reads at a time.
	chunkBytes = 1 << 20
	// chunkPairs bounds the number of pairs in a chunk.
	chunkPairs = 4096
)

// Scan reads the pairs with prefix, see [backends.Store]: a chunk by a script,
// so that the server is not held up for long, then the callbacks.
func (s *Store) Scan(ctx context.Context, prefix []byte, fn func(key, val []byte) error) error {
	from := backends.StoredPrefix(prefix)
	first, last := "["+string(from), lexEnd(from)
	for {
		pairs, err := s.chunk(ctx, first, last)
		if err != nil {
			return err
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			k, _ := pairs[i].(string)
			v, _ := pairs[i+1].(string)
			first = "(" + k
			key, val, err := backends.Unseal([]byte(k), []byte(v))
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
		if len(pairs) == 0 {
			return nil
		}
	}
}

func (s *Store) chunk(ctx context.Context, first, last string) ([]any, error) {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return nil, backends.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	pairs, err := s.scripts.scan.Run(ctx, s.client, []string{s.keys, s.data}, first, last, chunkPairs, chunkBytes).Slice()
	if err != nil {
		return nil, s.explain("scan", err)
	}
	return pairs, nil
}

// lexEnd returns the end of the range of keys that begin with prefix.
func lexEnd(prefix []byte) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			end := bytes.Clone(prefix[:i+1])
			end[i]++
			return "(" + string(end)
		}
	}
	return "+"
}
