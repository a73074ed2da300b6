package bbolt_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/bbolt"
)

func openB(b *testing.B, dir string, o bbolt.Options) *bbolt.Store {
	b.Helper()
	o.Create = true
	s, err := bbolt.Open(file(dir), o)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

const (
	benchBatch = 10_000
	benchValue = 300
)

// fill commits n pairs with the keys of BenchmarkCommit/append.
func fill(b *testing.B, s *bbolt.Store, n int) {
	b.Helper()
	var batch backends.Batch
	var key []byte
	val := make([]byte, benchValue)
	for i := range n {
		key = backends.IDKey(key[:0], backends.TableBody, uint64(i))
		batch.Put(key, val)
		if batch.Len() == benchBatch || i == n-1 {
			if err := s.Commit(b.Context(), &batch, backends.Mark{Applied: uint64(i)}); err != nil {
				b.Fatal(err)
			}
			batch.Reset()
		}
	}
}

// BenchmarkCommit commits 10 000 pairs of 300 bytes at a time: at growing ids,
// and at random places of many sessions' queues.
func BenchmarkCommit(b *testing.B) {
	shapes := []struct {
		name string
		key  func(dst []byte, i int) []byte
	}{
		{"append", func(dst []byte, i int) []byte { return backends.IDKey(dst, backends.TableBody, uint64(i)) }},
		{"queues", func(dst []byte, i int) []byte {
			return backends.PairKey(dst, backends.TableQueue, rand.Uint64N(100_000), uint64(i))
		}},
	}
	for _, sh := range shapes {
		b.Run(sh.name, func(b *testing.B) {
			s := openB(b, b.TempDir(), bbolt.Options{})
			defer s.Close()
			var batch backends.Batch
			var key []byte
			val := make([]byte, benchValue)
			b.ReportAllocs()
			b.SetBytes(benchBatch * benchValue)
			n := 0
			for b.Loop() {
				batch.Reset()
				for range benchBatch {
					key = sh.key(key[:0], n)
					batch.Put(key, val)
					n++
				}
				if err := s.Commit(b.Context(), &batch, backends.Mark{Applied: uint64(n)}); err != nil {
					b.Fatal(err)
				}
			}
			info, err := s.Info(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(info.UsedBytes)/float64(n), "file-bytes/pair")
		})
	}
}

// BenchmarkGet looks up random keys among 200 000, so many in one call.
func BenchmarkGet(b *testing.B) {
	const pairs = 200_000
	s := openB(b, b.TempDir(), bbolt.Options{})
	defer s.Close()
	fill(b, s, pairs)
	for _, n := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			keys := make([][]byte, n)
			b.ReportAllocs()
			for b.Loop() {
				for i := range keys {
					keys[i] = backends.IDKey(keys[i][:0], backends.TableBody, rand.Uint64N(pairs))
				}
				err := s.Get(b.Context(), keys, func(i int, val []byte) error {
					if len(val) != benchValue {
						return fmt.Errorf("key %x: %d bytes", keys[i], len(val))
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/key")
		})
	}
}

// BenchmarkScan reads 200 000 pairs of 300 bytes.
func BenchmarkScan(b *testing.B) {
	const pairs = 200_000
	s := openB(b, b.TempDir(), bbolt.Options{})
	defer s.Close()
	fill(b, s, pairs)
	b.SetBytes(pairs * benchValue)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		if err := s.Scan(b.Context(), nil, func(_, _ []byte) error { n++; return nil }); err != nil || n != pairs {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkOpen opens a file of 200 000 pairs of 300 bytes, with the check of
// everything and with that of the branch pages, and closes it.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s := openB(b, dir, bbolt.Options{})
	fill(b, s, 200_000)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(file(dir))
	if err != nil {
		b.Fatal(err)
	}
	for _, o := range []struct {
		name string
		o    bbolt.Options
	}{
		{"check=all", bbolt.Options{}},
		{"check=branches", bbolt.Options{Preread: -1}},
		{"check=all,readonly", bbolt.Options{ReadOnly: true}},
	} {
		b.Run(o.name, func(b *testing.B) {
			b.SetBytes(info.Size())
			for b.Loop() {
				s, err := bbolt.Open(file(dir), o.o)
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
