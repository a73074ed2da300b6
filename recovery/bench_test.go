package recovery

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// benchDriver opens a store with a subscriber that is absent (window 0) or
// connected with a window.
func benchDriver(b *testing.B, o Options, client string, window uint16) *driver {
	b.Helper()
	d := newDriver(b, o)
	d.open()
	d.connect(client, func(c *record.Connect) { c.ReceiveMaximum = max(window, 1) })
	d.subscribe(client, "t/#")
	if window == 0 {
		d.disconnect(client)
	}
	d.flush()
	return d
}

// publishFrame logs n publishes of size bytes as one frame.
func (d *driver) publishFrame(n, size int) {
	recs := make([][]byte, n)
	for i := range recs {
		recs[i] = publish(fmt.Sprintf("t/%d", i%100), 1, false, make([]byte, size))
	}
	d.log(recs...)
}

// BenchmarkOpen_Replay measures a start after a crash with n records to replay:
// publishes to one session, each acknowledged.
func BenchmarkOpen_Replay(b *testing.B) {
	const rounds = 2000
	root := fastDir(b)
	o := Options{Dir: filepath.Join(root, "data"), Sync: wal.SyncNever}
	d := benchDriver(b, o, "here", 100)
	d.s.Compactor.stop()
	for range rounds {
		d.publishFrame(100, 200)
		d.ack("here", 100)
	}
	records := d.ref.Applied()
	to := filepath.Join(root, "crash")
	copyDir(b, d.opt.Dir, to)
	d.abandon()
	var replayed uint64
	var bytes int64
	for b.Loop() {
		b.StopTimer()
		if err := os.RemoveAll(d.opt.Dir); err != nil {
			b.Fatal(err)
		}
		copyDir(b, to, d.opt.Dir)
		b.StartTimer()
		s, err := Open(b.Context(), d.opt)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		replayed += s.Report.Records
		bytes += s.Report.Bytes
		if s.Report.Records < records-10 {
			b.Fatalf("%d records replayed of %d", s.Report.Records, records)
		}
		if err := s.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(replayed)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(bytes)/b.Elapsed().Seconds()/1e6, "MB/s")
}

// BenchmarkOpen_Load measures a start after a clean stop with n messages queued.
func BenchmarkOpen_Load(b *testing.B) {
	const messages = 200_000
	o := Options{Dir: filepath.Join(fastDir(b), "data"), Sync: wal.SyncNever}
	d := benchDriver(b, o, "away", 0)
	for range messages / 1000 {
		d.publishFrame(1000, 100)
		d.checkpoint()
	}
	d.close()
	for b.Loop() {
		s, err := Open(b.Context(), d.opt)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if s.Report.Queued != messages {
			b.Fatalf("%d queued", s.Report.Queued)
		}
		if err := s.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(messages*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkOpen_Sessions measures a start after a clean stop with 100 000
// sessions that are away, each with a subscription and ten messages of its own.
func BenchmarkOpen_Sessions(b *testing.B) {
	const sessions, each, atOnce = 100_000, 10, 1000
	d := newDriver(b, Options{Dir: filepath.Join(fastDir(b), "data"), Sync: wal.SyncNever})
	d.open()
	for first := 0; first < sessions; first += atOnce {
		name := func(i int) string { return fmt.Sprint("client-", first+i) }
		d.logEach(atOnce, func(i int) []byte {
			d.conn++
			c := record.Connect{
				Epoch: record.NewEpoch(d.s.Report.Boot, d.conn), ClientID: []byte(name(i)), Version: 5,
				Expiry: session.Forever, ReceiveMaximum: 100,
			}
			return c.AppendTo(nil)
		})
		d.logEach(atOnce, func(i int) []byte {
			s := d.ref.SessionOf(name(i))
			r := record.Subscribe{Session: s.ID, Epoch: s.Epoch, PacketID: 1, Filters: []record.Filter{{Name: []byte(name(i)), Options: 1}}}
			return r.AppendTo(nil)
		})
		d.logEach(atOnce, func(i int) []byte {
			s := d.ref.SessionOf(name(i))
			r := record.Disconnect{Session: s.ID, Epoch: s.Epoch}
			return r.AppendTo(nil)
		})
		d.logEach(atOnce*each, func(i int) []byte { return publish(name(i%atOnce), 1, false, make([]byte, 100)) })
		d.checkpoint()
	}
	d.close()
	for b.Loop() {
		s, err := Open(b.Context(), d.opt)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if s.Report.Queued != sessions*each || s.Report.Sessions != sessions {
			b.Fatalf("%d sessions, %d queued", s.Report.Sessions, s.Report.Queued)
		}
		if err := s.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/start")
}

// logEach logs n records as one frame.
func (d *driver) logEach(n int, rec func(i int) []byte) {
	recs := make([][]byte, n)
	for i := range recs {
		recs[i] = rec(i)
	}
	d.log(recs...)
}

// BenchmarkCheckpoint_Queued measures what 100 000 messages queued for an absent
// client cost: the apply loop (collect), and the compactor (to the backend).
func BenchmarkCheckpoint_Queued(b *testing.B) {
	const messages = 100_000
	d := benchDriver(b, Options{Dir: filepath.Join(fastDir(b), "data"), Sync: wal.SyncNever}, "away", 0)
	b.Run("collect", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			for range messages / 1000 {
				d.publishFrame(1000, 200)
			}
			b.StartTimer()
			d.checkpoint()
			b.StopTimer()
			d.flush()
			b.StartTimer()
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/messages, "ns/message")
	})
	b.Run("commit", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			for range messages / 1000 {
				d.publishFrame(1000, 200)
			}
			d.checkpoint()
			b.StartTimer()
			if err := d.s.Compactor.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/messages, "ns/message")
	})
	b.Logf("longest checkpoint %v", d.s.Compactor.Stats().Longest)
	d.close()
}

// BenchmarkCheckpoint_Passing measures a collect with the window in transit:
// online traffic, which leaves next to nothing for the backend.
func BenchmarkCheckpoint_Passing(b *testing.B) {
	d := benchDriver(b, Options{Dir: filepath.Join(fastDir(b), "data"), Sync: wal.SyncNever}, "here", 100)
	for b.Loop() {
		b.StopTimer()
		d.ack("here", 100)
		d.publishFrame(100, 200)
		b.StartTimer()
		d.checkpoint()
	}
	b.StopTimer()
	d.flush()
	d.close()
}

func BenchmarkFold_Merge(b *testing.B) {
	var d delta
	for i := range DefaultCollect {
		key := backends.PairKey(nil, 'Q', 7, uint64(i))[1:]
		d.Put('Q', key, []byte("0123456789"), true)
	}
	f := newFold()
	for b.Loop() {
		f.merge(&d)
		f.reset()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/DefaultCollect, "ns/change")
}

func BenchmarkBodies_Cached(b *testing.B) {
	bodies := memoryBodies(1 << 30)
	next := uint64(1)
	for range 20_000 {
		bodies.AddFrame(frameOf(next, 50, 200), nil)
		next += 50
	}
	for id := range uint64(1000) {
		bodies.shelf.put(next+1000+id, body(id, 200), 1<<20)
	}
	for _, bb := range []struct {
		name string
		id   func(i uint64) uint64
	}{
		{"newest", func(i uint64) uint64 { return next - 1 - i%50 }},
		{"anywhere", func(i uint64) uint64 { return 1 + i*7919%(next-1) }},
		{"shelf", func(i uint64) uint64 { return next + 1000 + i%1000 }},
		{"missing", func(i uint64) uint64 { return next + 5000 }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			i := uint64(0)
			for b.Loop() {
				bodies.Cached(bb.id(i))
				i++
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			i := uint64(0)
			for pb.Next() {
				bodies.Cached(next - 1 - i%50)
				i++
			}
		})
	})
}

func BenchmarkBodies_AddFrame(b *testing.B) {
	bodies := memoryBodies(1 << 20)
	f := frameOf(1, 100, 200)
	offsets := recordOffsets(f)
	b.ReportAllocs()
	for b.Loop() {
		bodies.AddFrame(f, offsets)
		f.First += 100
	}
}

// BenchmarkBodies_Load measures bodies that are not in memory.
func BenchmarkBodies_Load(b *testing.B) {
	o := Options{Dir: filepath.Join(fastDir(b), "data"), Sync: wal.SyncNever, CacheBytes: 1}
	for _, place := range []string{"log", "backend"} {
		b.Run(place, func(b *testing.B) {
			o := o
			o.Dir += place
			d := benchDriver(b, o, "away", 0)
			for range 20 {
				d.publishFrame(1000, 200)
			}
			if place == "backend" {
				d.flush()
				d.s.Bodies.log = &wal.Log{} // holds nothing
			}
			ids := d.alive()[:10_000]
			for b.Loop() {
				err := d.s.Bodies.Load(b.Context(), ids, func(int, []byte) error { return nil })
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(ids)), "ns/message")
			b.StopTimer()
			d.abandon()
		})
	}
}
