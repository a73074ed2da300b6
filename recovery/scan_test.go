package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/memory"
	"github.com/wind-c/comqtt/v3/broker/core"
)

// The scan gives every pair in order, and the hash of exactly these; an error
// of fn and the end of the context stop it.
func TestScanTable(t *testing.T) {
	s := memory.New()
	var b backends.Batch
	var want core.Hash
	key16 := [16]byte{1, 2, 3}
	const n = 3000
	for i := range n {
		key := backends.IDKey(nil, 'Q', uint64(i))
		val := bytes.Repeat([]byte{byte(i)}, i%1000)
		b.Put(key, val)
		want.Add(&key16, 'Q', key[1:], val)
		b.Put(backends.IDKey(nil, 'R', uint64(i)), val)
	}
	must(t, s.Commit(t.Context(), &b, backends.Mark{}))

	var hash core.Hash
	next := 0
	err := scanTable(t.Context(), s, 'Q', &key16, &hash, func(key, val []byte) error {
		if !bytes.Equal(key, backends.IDKey(nil, 'Q', uint64(next))[1:]) || len(val) != next%1000 {
			return fmt.Errorf("%x = %d bytes, want number %d", key, len(val), next)
		}
		next++
		return nil
	})
	if err != nil || next != n || hash != want {
		t.Fatalf("%d pairs, hash as wanted: %v, %v", next, hash == want, err)
	}

	stop := errors.New("stop")
	for _, at := range []int{0, 1, 2000, n - 1} {
		seen := 0
		err := scanTable(t.Context(), s, 'Q', &key16, &hash, func([]byte, []byte) error {
			seen++
			if seen == at+1 {
				return stop
			}
			return nil
		})
		if !errors.Is(err, stop) || seen != at+1 {
			t.Fatalf("stopped at %d: %v after %d", at, err, seen)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = scanTable(ctx, s, 'Q', &key16, &hash, func([]byte, []byte) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("canceled: %v", err)
	}
}
