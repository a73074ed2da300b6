package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A transcript reads back what was printed.
func TestTranscriptRoundTrip(t *testing.T) {
	events := []Event{
		{Tick: 1, At: 3, Client: "p", Conn: 1, Kind: Connect, Sent: true, Clean: true, Expiry: NeverExpires, Max: 20},
		{Tick: 2, At: 3, Client: "p", Conn: 1, Kind: Connack, Present: true, Code: 0x88},
		{Tick: 3, At: 4, Client: "p", Conn: 1, Kind: Publish, Sent: true, ID: 7, QoS: 2, Dup: true, Retain: true, Clear: true, Msg: Message{Stream{"p", "a/b", 2}, 9}},
		{Tick: 5, At: 4, Kind: Kill},
		{Tick: 6, At: 9, Client: "s", Conn: 3, Kind: Subscribe, Sent: true, ID: 1, QoS: 1, Filter: "$share/g/+/#"},
		{Tick: 7, At: 9, Client: "s", Conn: 3, Kind: End, Graceful: true},
	}
	var text strings.Builder
	for i := range events {
		fmt.Fprintln(&text, events[i].String())
	}
	back, err := ParseTranscript(strings.NewReader(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(back, events) {
		t.Errorf("read back\n%v\nwant\n%v", back, events)
	}
	for _, bad := range []string{"p > CONNECT", "p#x > CONNECT", "p#1 ? CONNECT", "p#1 > FROBNICATE", "p#1 > PUBLISH msg=a:b", "p#1 > PUBLISH id=x", "p#1 > PUBLISH what=1", "p#1"} {
		if _, err := ParseTranscript(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestSeqSet(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var s seqSet
	model := map[uint32]bool{}
	for range 20_000 {
		n := 1 + rnd.Uint32N(3000)
		if s.add(n) == model[n] {
			t.Fatalf("add(%d): wrong answer", n)
		}
		model[n] = true
		if q := 1 + rnd.Uint32N(3000); s.has(q) != model[q] {
			t.Fatalf("has(%d) = %v", q, s.has(q))
		}
	}
	for i := 1; i < len(s.spans); i++ {
		if s.spans[i-1].hi+1 >= s.spans[i].lo {
			t.Fatalf("spans %v and %v touch", s.spans[i-1], s.spans[i])
		}
	}
}

// The checker's own matcher, by the examples of MQTT 5.0 section 4.7.
func TestMatches(t *testing.T) {
	for _, tc := range []struct {
		filter, topic string
		want          bool
	}{
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/#", "sport", true},
		{"#", "sport/a", true},
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		{"#", "$SYS/a", false},
		{"+/monitor/Clients", "$SYS/monitor/Clients", false},
		{"$SYS/#", "$SYS/a", true},
		{"a/+/#", "a/b", true},
		{"a/b", "a/B", false},
	} {
		if got := matches(tc.filter, tc.topic); got != tc.want {
			t.Errorf("matches(%q, %q) = %v", tc.filter, tc.topic, got)
		}
	}
}

// Whatever a power failure does, the synced bytes stay as they were.
func TestCutPowerKeepsWhatIsSynced(t *testing.T) {
	const synced, size = 3000, 9000
	torn, gone, short := 0, 0, 0
	for seed := range uint64(200) {
		dir := t.TempDir()
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(i%250 + 1)
		}
		names := []string{"00000000000000000001", "00000000000000000051", "00000000000000000101"}
		for _, name := range names {
			write(t, filepath.Join(dir, name), content)
		}
		side := filepath.Join(dir, "synced")
		write(t, side, fmt.Appendf(nil, "%s %d\n", names[1], synced))
		c, err := cutPower(dir, side, rand.New(rand.NewPCG(seed, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if b := read(t, filepath.Join(dir, names[0])); !slices.Equal(b, content) {
			t.Fatalf("seed %d: an older segment was changed", seed)
		}
		b := read(t, filepath.Join(dir, names[1]))
		if len(b) < synced || !slices.Equal(b[:synced], content[:synced]) {
			t.Fatalf("seed %d: synced bytes were changed (%v)", seed, c)
		}
		if slices.Contains(b, 0) {
			torn++
		}
		if len(b) < size {
			short++
		}
		if _, err := os.Stat(filepath.Join(dir, names[2])); err != nil {
			gone++
		}
	}
	if torn == 0 || gone == 0 || short == 0 {
		t.Errorf("of 200: %d torn, %d with a new segment gone, %d shortened; want some of each", torn, gone, short)
	}
}

// In a preallocated segment the size stays, and what is cut off becomes zeros.
func TestCutPowerPreallocated(t *testing.T) {
	const synced, size, file = 3000, 9000, 20_000
	cut := 0
	for seed := range uint64(100) {
		dir := t.TempDir()
		content := slices.Repeat([]byte{7}, size)
		path := filepath.Join(dir, "00000000000000000051")
		write(t, path, append(slices.Clone(content), make([]byte, file-size)...))
		side := filepath.Join(dir, "synced")
		write(t, side, fmt.Appendf(nil, "%s %d\n", filepath.Base(path), synced))
		c, err := cutPower(dir, side, rand.New(rand.NewPCG(seed, 1)))
		if err != nil {
			t.Fatal(err)
		}
		b := read(t, path)
		if len(b) != file || !slices.Equal(b[:synced], content[:synced]) || slices.Max(b[c.kept:]) != 0 {
			t.Fatalf("seed %d: %d bytes, or something else was changed (%v)", seed, len(b), c)
		}
		if b[size-1] == 0 {
			cut++
		}
	}
	if cut < 50 {
		t.Errorf("only %d of 100 were cut", cut)
	}
}

func TestCutPowerWithoutSideFile(t *testing.T) {
	if c, err := cutPower(t.TempDir(), filepath.Join(t.TempDir(), "none"), rand.New(rand.NewPCG(1, 1))); c != nil || err != nil {
		t.Errorf("got %v, %v; want nothing done", c, err)
	}
	bad := filepath.Join(t.TempDir(), "synced")
	write(t, bad, []byte("no number\n"))
	if _, err := cutPower(t.TempDir(), bad, rand.New(rand.NewPCG(1, 1))); err == nil {
		t.Error("a side file that makes no sense was accepted")
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
