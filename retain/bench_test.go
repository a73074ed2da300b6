package retain

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

const benchTopics = 1_000_000

// benchTopic is the i-th of a million topics: 1000 sites with 200 devices of 5
// values each.
func benchTopic(i int) string {
	return fmt.Sprintf("site/%d/dev/%d/%s", i%1000, i/1000%200, [...]string{"temp", "hum", "batt", "rssi", "fw"}[i/200_000])
}

func benchStore() (s *Store, bytes int) {
	before := heap()
	s = New()
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(benchTopics) {
		s.Set(benchTopic(i), Entry{Message: uint64(i), Bytes: 100})
	}
	return s, heap() - before - benchTopics*8 // without the permutation
}

func BenchmarkMatch(b *testing.B) {
	s, bytes := benchStore()
	for _, c := range []struct{ name, filter string }{
		{"literal", "site/7/dev/7/temp"},
		{"device", "site/7/dev/7/#"},
		{"site", "site/7/#"},
		{"plus-in-site", "site/7/dev/+/temp"},
		{"plus-over-sites", "site/+/dev/7/temp"},
		{"plus-plus", "site/+/dev/+/temp"},
		{"nothing", "area/+/dev"},
		{"all", "#"},
	} {
		b.Run(c.name, func(b *testing.B) {
			found := 0
			b.ReportAllocs()
			for b.Loop() {
				found = 0
				s.Match(c.filter, func(string, Entry) bool { found++; return true })
			}
			b.ReportMetric(float64(found), "topics/op")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(max(found, 1)), "ns/topic")
			b.ReportMetric(float64(bytes)/benchTopics, "B/topic")
		})
	}
	b.Run("slice-of-1000", func(b *testing.B) {
		next, done := "", false
		for b.Loop() {
			next, done = s.MatchFrom("site/+/dev/+/temp", next, 1000, func(string, Entry) bool { return true })
			if done {
				next = ""
			}
		}
	})
	runtime.KeepAlive(s)
}

func BenchmarkSet(b *testing.B) {
	s, _ := benchStore()
	topics := make([][]byte, 4096)
	fresh := make([]string, 4096)
	for i := range topics {
		topics[i] = []byte(benchTopic(i * 7919 % benchTopics))
		fresh[i] = benchTopic(i*7919%benchTopics) + "/x"
	}
	b.Run("replace", func(b *testing.B) {
		i := 0
		b.ReportAllocs()
		for b.Loop() {
			s.SetBytes(topics[i%len(topics)], Entry{Message: uint64(i), Bytes: 1})
			i++
		}
	})
	b.Run("new-and-delete", func(b *testing.B) {
		i := 0
		b.ReportAllocs()
		for b.Loop() {
			s.Set(fresh[i%len(fresh)], Entry{Message: uint64(i), Bytes: 1})
			s.Delete(fresh[i%len(fresh)])
			i++
		}
	})
	b.Run("replace-deadline", func(b *testing.B) {
		i := 0
		b.ReportAllocs()
		for b.Loop() {
			s.SetBytes(topics[i%len(topics)], Entry{Message: uint64(i), Bytes: 1, Deadline: int64(i)})
			i++
		}
	})
}
