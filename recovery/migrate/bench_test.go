package migrate

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/wind-c/comqtt/v3/backends/redis/redistest"
	"github.com/wind-c/comqtt/v3/recovery/inspect/inspecttest"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// entries is how many messages of 300 bytes are migrated.
var entries = flag.Int("entries", 20_000, "messages of 300 bytes for the benchmarks")

// BenchmarkRun migrates messages of 300 bytes, half of them retained, half of
// them queued for an offline session, between every ordered pair of backends:
// -entries 1000000 -benchtime 1x for the figure in docs/migration.md.
func BenchmarkRun(b *testing.B) {
	payload := string(make([]byte, 280))
	origin := story(b, inspecttest.Options{Fast: true, Clean: true, Records: func(s *inspecttest.Builder) error {
		err := s.Connect("away", nil)
		if err == nil {
			err = s.Subscribe("away", "q/#", 1, 0)
		}
		if err == nil {
			err = s.Disconnect("away")
		}
		for i := 0; i < *entries && err == nil; i++ {
			name := fmt.Sprintf("q/%010d", i)
			if i%2 == 0 {
				_, err = s.Publish(name, payload, 1, nil)
			} else {
				_, err = s.Publish("r"+name[1:], payload, 1, retained)
			}
			if i%100_000 == 99_999 && err == nil {
				err = s.Flush()
			}
		}
		return err
	}})
	for _, from := range []string{KindBbolt, KindBadger, KindRedis} {
		for _, to := range []string{KindBbolt, KindBadger, KindRedis} {
			b.Run(from+"/"+to, func(b *testing.B) {
				server := redistest.Start(b).Addr
				base := b.TempDir()
				place := func(kind, name string) URL {
					if kind == KindRedis {
						return mustURL(b, "redis://"+server+"/0?prefix="+name)
					}
					return mustURL(b, kind+"://"+filepath.Join(base, name))
				}
				source := origin
				if from != KindBbolt {
					source = place(from, "source")
					if _, err := Run(context.Background(), Options{From: origin, To: source}); err != nil {
						b.Fatal(err)
					}
				}
				for n := 0; b.Loop(); n++ {
					r, err := Run(context.Background(), Options{From: source, To: place(to, fmt.Sprint("target", n))})
					if err != nil {
						b.Fatal(err)
					}
					b.SetBytes(r.Bytes)
					b.ReportMetric(float64(r.Source.Messages)/r.Seconds, "messages/s")
				}
			})
		}
	}
}

func retained(p *record.Publish) { p.Retain = true }
