package redis_test

import (
	"math/rand/v2"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/redis"
	"github.com/wind-c/comqtt/v3/backends/redis/redistest"
)

// BenchmarkCommit commits 10 000 pairs of 300 bytes at a time, as the one of
// package bbolt does.
func BenchmarkCommit(b *testing.B) {
	for _, shape := range []string{"append", "queues"} {
		b.Run(shape, func(b *testing.B) {
			srv := redistest.Start(b)
			s, err := redis.Open(b.Context(), srv.URL("p"), redis.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			var batch backends.Batch
			var key []byte
			val := make([]byte, 300)
			b.ReportAllocs()
			b.SetBytes(10_000 * 300)
			n := 0
			for b.Loop() {
				batch.Reset()
				for range 10_000 {
					if shape == "append" {
						key = backends.IDKey(key[:0], backends.TableBody, uint64(n))
					} else {
						key = backends.PairKey(key[:0], backends.TableQueue, rand.Uint64N(100_000), uint64(n))
					}
					batch.Put(key, val)
					n++
				}
				if err := s.Commit(b.Context(), &batch, backends.Mark{Applied: uint64(n)}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "pairs/s")
		})
	}
}
