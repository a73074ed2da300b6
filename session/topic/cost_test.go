package topic

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

func TestMatchAllocs(t *testing.T) {
	x := NewIndex()
	for i := range uint32(40) {
		x.Subscribe("site/7/dev/9/temp", Sub{Ref: i})
		x.Subscribe("site/+/dev/+/temp", Sub{Ref: i})
		x.Subscribe(fmt.Sprintf("site/%d/#", i), Sub{Ref: i})
		x.Subscribe("+/7/+/9/#", Sub{Ref: i})
		x.Subscribe("$share/g/site/#", Sub{Ref: i})
		x.Subscribe("$share/h/site/7/dev/9/temp", Sub{Ref: i})
	}
	x.Subscribe(strings.Repeat("+/", 1000)+"#", Sub{Ref: 1})
	m := new(Matches)
	for _, topic := range []string{
		"site/7/dev/9/temp", "site/7/dev/8/temp", "nobody/listens", "$SYS/broker/load",
		strings.Repeat("x/", 1000), "site/7/" + strings.Repeat("long level ", 1000),
	} {
		b := []byte(topic)
		x.Match(b, m)
		if n := testing.AllocsPerRun(100, func() { x.Match(b, m) }); n != 0 {
			t.Errorf("Match(%.40q): %v allocations", topic, n)
		}
	}
	if x.Match([]byte("site/7/dev/9/temp"), m); m.Filters != 4 || len(m.Groups) != 2 {
		t.Errorf("the match meant to be measured finds %d filters, %d groups", m.Filters, len(m.Groups))
	}
}

func TestOtherAllocs(t *testing.T) {
	name, filter, shared := []byte("site/7/dev/9/temp"), []byte("site/+/dev/#"), []byte("$share/g/site/+/dev/#")
	x := NewIndex()
	x.Subscribe("site/+/dev/#", Sub{Ref: 1})
	x.Subscribe("site/7/dev/9/temp", Sub{Ref: 1})
	x.Subscribe("$share/g/site/+/dev/#", Sub{Ref: 1})
	for what, fn := range map[string]func(){
		"ValidateName":   func() { _ = ValidateName(name) },
		"ValidateFilter": func() { _, _ = ValidateFilter(filter), ValidateFilter(shared) },
		"Match":          func() { Match("site/+/dev/#", "site/7/dev/9/temp") },
		"SplitShare":     func() { SplitShare("$share/g/site/+/dev/#") },
		"Group":          func() { x.Group("g", "site/+/dev/#") },
		"resubscribe": func() {
			x.Subscribe("site/+/dev/#", Sub{Ref: 1, ID: 1})
			x.Subscribe("site/7/dev/9/temp", Sub{Ref: 1, ID: 1})
			x.Subscribe("$share/g/site/+/dev/#", Sub{Ref: 1, ID: 1})
		},
		"subscribe and unsubscribe": func() {
			for _, f := range []string{"site/+/dev", "site/8", "+/dev/site/#", "#"} { // no new word
				x.Subscribe(f, Sub{Ref: 1, ID: 1})
				x.Unsubscribe(f, 1)
			}
		},
	} {
		if n := testing.AllocsPerRun(100, fn); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}

// filterKinds make the i-th of n filters, each of another client.
var filterKinds = []struct {
	name string
	make func(i int) string
	max  int // bytes of heap a subscription may cost, its filter included
}{
	{"literal", func(i int) string { return fmt.Sprintf("site/%d/dev/%d/temp", i%1000, i) }, 200},
	{"plus", func(i int) string { return fmt.Sprintf("site/%d/dev/%d/+", i%1000, i) }, 350},
	{"plus early", func(i int) string { return fmt.Sprintf("+/%d/status", i) }, 350},
	{"hash", func(i int) string { return fmt.Sprintf("site/%d/dev/%d/#", i%1000, i) }, 350},
	{"all words different", func(i int) string { return fmt.Sprintf("s%d/d%d/+/m%d", i, i, i) }, 500},
	{"one filter", func(int) string { return "site/+/alarm" }, 100},
	{"shared", func(i int) string { return fmt.Sprintf("$share/g%d/site/+/dev/%d", i, i) }, 600},
}

func heap() int {
	var ms runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&ms)
	return int(ms.HeapAlloc)
}

// The index keeps the filter strings made here, so they count.
func fill(n int, filter func(i int) string) (*Index, int) {
	before := heap()
	x := NewIndex()
	for i := range n {
		x.Subscribe(filter(i), Sub{Ref: uint32(i), Opts: 1})
	}
	return x, heap() - before
}

func TestBytesPerSubscription(t *testing.T) {
	const n = 100_000
	for _, k := range filterKinds {
		x, bytes := fill(n, k.make)
		if per := bytes / n; per > k.max {
			t.Errorf("%s: %d bytes per subscription, want at most %d", k.name, per, k.max)
		} else {
			t.Logf("%s: %d bytes", k.name, per)
		}
		runtime.KeepAlive(x)
	}
}

func BenchmarkBytesPerSubscription(b *testing.B) {
	for _, k := range filterKinds {
		b.Run(strings.ReplaceAll(k.name, " ", "-"), func(b *testing.B) {
			const n = 1_000_000
			for b.Loop() {
				x, bytes := fill(n, k.make)
				b.ReportMetric(float64(bytes)/n, "B/sub")
				runtime.KeepAlive(x)
			}
		})
	}
}

// million returns an index of 1 000 000 subscriptions: 60 % literal, 30 % with
// '+', 10 % with '#', of a thousand sites with two hundred devices each.
func million() *Index {
	x := NewIndex()
	for i := range uint32(1_000_000) {
		site, dev := i%1000, i/1000
		var f string
		switch {
		case i%10 < 6:
			f = fmt.Sprintf("site/%d/dev/%d/temp", site, dev)
		case i%10 < 9:
			f = fmt.Sprintf("site/%d/+/%d/temp", site, dev)
		default:
			f = fmt.Sprintf("site/%d/dev/%d/#", site, dev)
		}
		x.Subscribe(f, Sub{Ref: i, Opts: 1})
	}
	return x
}

func BenchmarkMatchOfMillion(b *testing.B) {
	x := million()
	cases := []struct {
		name  string
		topic func(i int) string
	}{
		{"literal", func(i int) string { return fmt.Sprintf("site/%d/dev/%d/temp", i*10%1000, i*7%1000) }},
		{"plus", func(i int) string { return fmt.Sprintf("site/%d/dev/%d/temp", i*10%1000+7, i*7%1000) }},
		{"hash", func(i int) string { return fmt.Sprintf("site/%d/dev/%d/a/b", i*10%1000+9, i*7%1000) }},
		{"nobody", func(i int) string { return fmt.Sprintf("area/%d/dev/%d/temp", i*10%1000, i*7%1000) }},
		{"one-topic", func(int) string { return "site/7/dev/7/temp" }},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			topics := make([][]byte, 4096)
			for i := range topics {
				topics[i] = []byte(c.topic(i))
			}
			m, i, found := new(Matches), 0, 0
			b.ReportAllocs()
			for b.Loop() {
				x.Match(topics[i%len(topics)], m)
				found += len(m.Subs)
				i++
			}
			b.ReportMetric(float64(found)/float64(i), "subs/op")
		})
	}
	runtime.KeepAlive(x)
}

func BenchmarkSubscribe(b *testing.B) {
	for _, k := range filterKinds {
		b.Run(strings.ReplaceAll(k.name, " ", "-"), func(b *testing.B) {
			const n = 200_000
			filters := make([]string, n)
			for i := range filters {
				filters[i] = k.make(i)
			}
			x, i := NewIndex(), 0
			b.ReportAllocs()
			for b.Loop() { // each is one Subscribe and, once n are there, one Unsubscribe
				f, ref := filters[i%n], uint32(i%n)
				if !x.Unsubscribe(f, ref) {
					x.Subscribe(f, Sub{Ref: ref})
				}
				i++
			}
		})
	}
}

func BenchmarkMatchFilter(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Match("site/+/dev/+/temp", "site/7/dev/9/temp")
	}
}

func BenchmarkValidateName(b *testing.B) {
	name := []byte("site/7/dev/9/temperature")
	b.ReportAllocs()
	for b.Loop() {
		if ValidateName(name) != nil {
			b.Fatal()
		}
	}
}

func BenchmarkValidateFilter(b *testing.B) {
	filter := []byte("site/+/dev/9/#")
	b.ReportAllocs()
	for b.Loop() {
		if ValidateFilter(filter) != nil {
			b.Fatal()
		}
	}
}
