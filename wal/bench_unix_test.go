//go:build unix

package wal

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"
)

// telemetry returns a JSON record of size bytes, as sensors send it; noise one
// that does not compress.
func telemetry(rnd *rand.Rand, size int) []byte {
	b := fmt.Appendf(nil, `{"device":"sensor-%05d","ts":%d,"temperature":%.2f,"humidity":%.1f,"battery":%d,"status":"ok"`,
		rnd.IntN(10000), 1_700_000_000_000+rnd.Int64N(1e9), 15+rnd.Float64()*10, rnd.Float64()*100, rnd.IntN(100))
	for len(b) < size {
		b = fmt.Appendf(b, `,"ch%d":%.3f`, rnd.IntN(16), rnd.Float64())
	}
	return b[:size]
}

func noise(rnd *rand.Rand, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

func body(n, size int, rec func(*rand.Rand, int) []byte) []byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	var b []byte
	for range n {
		b = AppendRecord(b, rec(rnd, size))
	}
	return b
}

// BenchmarkCommit: one frame of n records of 256 bytes, written and synced.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		for _, kind := range []struct {
			name string
			rec  func(*rand.Rand, int) []byte
			mode CompressMode
		}{{"json", telemetry, CompressAuto}, {"json-off", telemetry, CompressOff}, {"noise", noise, CompressAuto}} {
			b.Run(fmt.Sprintf("n=%d/%s", n, kind.name), func(b *testing.B) {
				l := mustOpen(b, Options{Dir: b.TempDir(), StoreID: testStore, Compress: kind.mode})
				f := Frame{Count: uint32(n), Body: body(n, 256, kind.rec)}
				b.SetBytes(int64(len(f.Body)))
				b.ReportAllocs()
				cpu := processTime(b)
				for b.Loop() {
					if err := l.Commit(&f); err != nil {
						b.Fatal(err)
					}
					if l.Bytes() > 256<<20 {
						if err := l.DropBefore(l.Last()); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportMetric(float64(processTime(b)-cpu)/float64(b.N*n), "cpu-ns/record")
				b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}

// BenchmarkEngine: one frame of one record, by engine, size and sync mode, with
// the distribution of the time that a commit takes.
func BenchmarkEngine(b *testing.B) {
	for _, mode := range []SyncMode{SyncAlways, SyncNever} {
		for _, size := range []int{100, 4 << 10, 64 << 10, 256 << 10} {
			for _, name := range []string{EngineTidwall, EngineNative} {
				b.Run(fmt.Sprintf("sync=%v/size=%d/%s", mode, size, name), func(b *testing.B) {
					open, err := EngineNamed(name)
					if err != nil {
						b.Fatal(err)
					}
					l := mustOpen(b, Options{Dir: b.TempDir(), StoreID: testStore, Sync: mode, Engine: open, IdleMark: -1})
					f := Frame{Count: 1, Body: body(1, size, noise)}
					var took []time.Duration
					b.SetBytes(int64(len(f.Body)))
					b.ReportAllocs()
					cpu := processTime(b)
					for b.Loop() {
						start := time.Now()
						if err := l.Commit(&f); err != nil {
							b.Fatal(err)
						}
						took = append(took, time.Since(start))
						if l.Bytes() > 64<<20 {
							if err := l.DropBefore(l.Last()); err != nil {
								b.Fatal(err)
							}
						}
					}
					b.ReportMetric(float64(processTime(b)-cpu)/float64(b.N), "cpu-ns/op")
					slices.Sort(took)
					for _, p := range []struct {
						name string
						of   float64
					}{{"p50-µs", 0.5}, {"p99-µs", 0.99}, {"p999-µs", 0.999}} {
						b.ReportMetric(float64(took[int(p.of*float64(len(took)-1))].Nanoseconds())/1000, p.name)
					}
				})
			}
		}
	}
}

// processTime returns the CPU time of the process, user and system, in
// nanoseconds: what a commit costs besides waiting.
func processTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// filled returns a log of about size bytes in frames of n records.
func filled(b *testing.B, size int64, n, rec int, mode CompressMode) *Log {
	l := mustOpen(b, Options{Dir: b.TempDir(), StoreID: testStore, Sync: SyncNever, Compress: mode})
	f := Frame{Count: uint32(n), Body: body(n, rec, telemetry)}
	for at := int64(0); at < size; at += int64(len(f.Body)) {
		if err := l.Commit(&f); err != nil {
			b.Fatal(err)
		}
	}
	return l
}

// BenchmarkReplay: 128 MiB of records of 100 bytes.
func BenchmarkReplay(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		for mode, name := range []string{"off", "auto"} {
			b.Run(fmt.Sprintf("n=%d/%s", n, name), func(b *testing.B) {
				l := filled(b, 128<<20, n, 100, CompressMode(mode))
				records, bytes := 0, 0
				b.ReportAllocs()
				for b.Loop() {
					err := l.Replay(0, func(f *Frame) error {
						bytes += len(f.Body)
						return f.Records(func(uint64, []byte) error { records++; return nil })
					})
					if err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(records)/b.Elapsed().Seconds()/1e6, "Mrecords/s")
				b.ReportMetric(float64(bytes)/b.Elapsed().Seconds()/1e6, "MB/s")
			})
		}
	}
}

// BenchmarkScan: the start-up scan of 128 MiB.
func BenchmarkScan(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			l := filled(b, 128<<20, n, 256, CompressOff)
			if err := l.Sync(); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(l.Bytes())
			for b.Loop() {
				if _, err := Scan(l.opt.Dir, testStore, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReadRecord: one record of 256 bytes, near the one before it or
// anywhere in 64 MiB.
func BenchmarkReadRecord(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		for mode, name := range []string{"off", "auto"} {
			l := filled(b, 64<<20, n, 256, CompressMode(mode))
			b.Run(fmt.Sprintf("near/n=%d/%s", n, name), func(b *testing.B) { readAll(b, l, 1) })
			b.Run(fmt.Sprintf("far/n=%d/%s", n, name), func(b *testing.B) { readAll(b, l, 104729) })
			mustClose(b, l)
		}
	}
}

func readAll(b *testing.B, l *Log, step uint64) {
	var buf []byte
	var err error
	i := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		i = (i + step) % l.Last()
		if buf, err = l.ReadRecord(i+1, buf[:0]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCompress: what compression costs, and what it costs where it does
// not pay.
func BenchmarkCompress(b *testing.B) {
	for _, n := range []int{20, 100, 1000} {
		for _, kind := range []struct {
			name string
			rec  func(*rand.Rand, int) []byte
		}{{"json", telemetry}, {"noise", noise}} {
			b.Run(fmt.Sprintf("n=%d/%s", n, kind.name), func(b *testing.B) {
				src := body(n, 256, kind.rec)
				c := compressor{mode: CompressAuto}
				var dst []byte
				size := 0
				b.SetBytes(int64(len(src)))
				b.ReportAllocs()
				for b.Loop() {
					out, ok := c.compress(dst[:0], src)
					if size = len(src); ok {
						size = len(out)
					}
					dst = out
				}
				b.ReportMetric(float64(size)/float64(len(src)), "ratio")
			})
		}
	}
}
