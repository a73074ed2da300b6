package inspect_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/recovery/inspect"
	"github.com/wind-c/comqtt/v3/recovery/inspect/inspecttest"
	"github.com/wind-c/comqtt/v3/wal/record"
)

func dump(t *testing.T, dir string, f inspect.Filter) (lines []*inspect.Line, ext *inspect.Extent) {
	t.Helper()
	looking(t, dir, func(d *inspect.Dir) {
		var err error
		ext, err = d.Dump(background, &f, func(l *inspect.Line) error {
			lines = append(lines, l)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	return lines, ext
}

func indexes(lines []*inspect.Line) (list []uint64) {
	for _, l := range lines {
		list = append(list, l.Index)
	}
	return list
}

// Every filter against all records, one by one.
func TestDump_Filters(t *testing.T) {
	dir, _ := build(t, inspecttest.Options{SegmentSize: 1024, Keep: true})
	all, ext := dump(t, dir, inspect.Filter{})
	if ext.First != 1 || ext.Last != uint64(len(all)) || ext.Damage != nil || ext.Torn != nil {
		t.Fatalf("%d records, %+v", len(all), ext)
	}
	for i, l := range all {
		if l.Index != uint64(i+1) {
			t.Fatalf("record %d comes at place %d", l.Index, i+1)
		}
	}
	middle := int64(all[9].Time)
	for name, tt := range map[string]struct {
		filter inspect.Filter
		keep   func(l *inspect.Line) bool
	}{
		"range":  {inspect.Filter{From: 5, To: 9}, func(l *inspect.Line) bool { return l.Index >= 5 && l.Index <= 9 }},
		"since":  {inspect.Filter{Since: middle}, func(l *inspect.Line) bool { return int64(l.Time) >= middle }},
		"until":  {inspect.Filter{Until: middle}, func(l *inspect.Line) bool { return int64(l.Time) <= middle }},
		"kind":   {inspect.Filter{Kinds: map[record.Kind]bool{record.KindConnect: true}}, func(l *inspect.Line) bool { return l.Kind == "connect" }},
		"client": {inspect.Filter{Client: "bob"}, func(l *inspect.Line) bool { return l.Client == "bob" }},
		"client late": {
			inspect.Filter{Client: "bob", From: 9}, func(l *inspect.Line) bool { return l.Client == "bob" && l.Index >= 9 },
		},
		"topic": {inspect.Filter{Topic: "room/#"}, func(l *inspect.Line) bool {
			return strings.HasPrefix(l.Topic, "room/") || len(l.Filters) > 0 && strings.HasPrefix(l.Filters[0].Filter, "room/")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var want []uint64
			for _, l := range all {
				if tt.keep(l) {
					want = append(want, l.Index)
				}
			}
			got, _ := dump(t, dir, tt.filter)
			if len(want) == 0 || !slices.Equal(indexes(got), want) {
				t.Errorf("records %v, want %v", indexes(got), want)
			}
		})
	}
}

// Bob's records are known as his although only his Connect names him.
func TestDump_NamesTheClient(t *testing.T) {
	dir, _ := build(t, inspecttest.Options{})
	lines, _ := dump(t, dir, inspect.Filter{Client: "bob"})
	kinds := map[string]int{}
	for _, l := range lines {
		kinds[l.Kind]++
	}
	if fmt.Sprint(kinds) != "map[ack:1 connect:1 publish:1 rec:1 subscribe:2]" {
		t.Errorf("bob's records: %v", kinds)
	}
}

// A backend that remembers sessions whose Connect has left the log.
func TestDump_NamesFromTheBackend(t *testing.T) {
	dir, _ := build(t, inspecttest.Options{SegmentSize: 1024, Clean: true})
	lines, ext := dump(t, dir, inspect.Filter{})
	if ext.First <= 5 {
		t.Fatal("the log still holds the Connect")
	}
	for _, l := range lines {
		if l.Kind == "ack" && l.Client != "alice" {
			t.Errorf("record %d: client %q", l.Index, l.Client)
		}
	}
}

func TestDump_Payloads(t *testing.T) {
	dir, _ := build(t, inspecttest.Options{})
	find := func(form string, most int) map[string]string {
		lines, _ := dump(t, dir, inspect.Filter{Kinds: map[record.Kind]bool{record.KindPublish: true}, Payload: form, PayloadMax: most})
		out := map[string]string{}
		for _, l := range lines {
			b, err := json.Marshal(l)
			if err != nil {
				t.Fatal(err)
			}
			out[l.Topic] = string(b)
		}
		return out
	}
	for _, tt := range []struct {
		form  string
		most  int
		topic string
		want  string
	}{
		{"text", 0, "room/t1", `"payload":"21.5","payload_bytes":4`},
		{"text", 0, "alarm/fire", `"payload_hex":"00ff","payload_bytes":2`}, // no text
		{"hex", 0, "room/t1", `"payload_hex":"32312e35"`},
		{"text", 2, "room/t1", `"payload":"21","payload_bytes":4,"payload_cut":true`},
	} {
		if got := find(tt.form, tt.most)[tt.topic]; !strings.Contains(got, tt.want) {
			t.Errorf("%s, %d: %s", tt.form, tt.most, got)
		}
	}
	if got := find("none", 0)["room/t1"]; strings.Contains(got, `"payload":`) || strings.Contains(got, "payload_hex") {
		t.Errorf("none: %s", got)
	}
}

// What is meant for a terminal holds nothing that a terminal would act on.
func TestDump_HostileNames(t *testing.T) {
	dir, _ := build(t, inspecttest.Options{})
	lines, _ := dump(t, dir, inspect.Filter{})
	hostile := 0
	for _, l := range lines {
		for _, r := range l.Detail {
			if r < ' ' || r == 0x7f {
				t.Fatalf("record %d: %q", l.Index, l.Detail)
			}
		}
		if l.Client == inspecttest.Hostile || strings.Contains(l.Topic, inspecttest.Hostile) {
			hostile++
		}
	}
	if hostile != 2 {
		t.Errorf("%d records with hostile names", hostile)
	}
}

// Up to the damage, and then why not further.
func TestDump_Damage(t *testing.T) {
	dir, _ := build(t, inspecttest.Options{SegmentSize: 1024, Keep: true})
	list := segments(t, dir)
	all, _ := dump(t, dir, inspect.Filter{})
	flip(t, list[1], fileSize(t, list[1])/2, 0)
	lines, ext := dump(t, dir, inspect.Filter{})
	if ext.Damage == nil || len(lines) == 0 || len(lines) >= len(all) || ext.Last != lines[len(lines)-1].Index {
		t.Errorf("%d records, %+v", len(lines), ext)
	}
}

func TestDump_TornTail(t *testing.T) {
	dir, _ := build(t, inspecttest.Options{})
	tail := segments(t, dir)[0]
	if err := os.Truncate(tail, fileSize(t, tail)-1); err != nil {
		t.Fatal(err)
	}
	_, ext := dump(t, dir, inspect.Filter{})
	if ext.Torn == nil || ext.Damage != nil {
		t.Errorf("%+v", ext)
	}
}

// An error of the callback ends it.
func TestDump_Stops(t *testing.T) {
	dir, _ := build(t, inspecttest.Options{})
	enough := errors.New("enough")
	n := 0
	_, err := open(t, dir).Dump(background, &inspect.Filter{}, func(*inspect.Line) error {
		n++
		return enough
	})
	if !errors.Is(err, enough) || n != 1 {
		t.Errorf("%d records, then %v", n, err)
	}
}

// Names that a terminal would act on, or that could be mistaken for others.

func TestPrintable(t *testing.T) {
	for s, want := range map[string]string{
		"": `""`, "a/b": "a/b", "a b": `"a b"`, "\x1b[31m": `"\x1b[31m"`, "x\u202ey": `"x\u202ey"`, "\xff": `"\xff"`, `q"`: `"q\""`,
	} {
		if got := inspect.Printable(s); got != want {
			t.Errorf("Printable(%q) = %s, want %s", s, got, want)
		}
	}
}

// A dump keeps nothing that grows with the log: with ten megabytes read, the
// heap is as large as after the first few records.
func TestDump_ConstantMemory(t *testing.T) {
	payload := strings.Repeat("x", 2000)
	dir, _ := build(t, inspecttest.Options{Fast: true, Records: func(b *inspecttest.Builder) error {
		for i := range 5000 {
			if _, err := b.Publish(fmt.Sprint("t/", i), payload, 0, nil); err != nil {
				return err
			}
		}
		return nil
	}})
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var first, last uint64
	_, err := open(t, dir).Dump(background, &inspect.Filter{}, func(l *inspect.Line) error {
		switch l.Index {
		case 100:
			first = heap()
		case 5000:
			last = heap()
		}
		return nil
	})
	const slack = 1 << 20
	if err != nil || first == 0 || last > first+slack {
		t.Errorf("%v: heap of %d bytes after 100 records, %d after 5000", err, first, last)
	}
}
