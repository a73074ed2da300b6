package main

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// environment is a lookupEnv over a map.
func environment(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

// Every default must pass its own check, and every option must say no to
// nonsense: an option that takes anything is not checked.
func TestOptionsCheckTheirValues(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range options(defaultDataDir) {
		var s settings
		if err := o.set(&s, o.def); err != nil {
			t.Errorf("--%s: default %q: %v", o.name, o.def, err)
		}
		if err := o.set(&s, ""); err == nil {
			t.Errorf("--%s takes an empty value", o.name)
		}
		for _, bad := range []string{"nonsense!", "-1", "0", "99999999999999999999", "NaN", "1e400GiB"} {
			free := o.name == "data" || o.name == "unix" || o.allowed == "a file" // any word is a path
			zero := o.name == "allow-anonymous" && bad == "0"
			if err := o.set(&s, bad); err == nil && !free && !zero {
				t.Errorf("--%s takes %q", o.name, bad)
			}
		}
		if seen[o.name] || o.usage == "" || o.allowed == "" || envName(o.name) != strings.ToUpper(envName(o.name)) {
			t.Errorf("--%s: doubled or without words", o.name)
		}
		seen[o.name] = true
	}
}

// The bounds that an option's message names are the bounds it has.
func TestOptionsSayTheirBounds(t *testing.T) {
	for _, o := range options(defaultDataDir) {
		_, bounds, ok := strings.Cut(o.allowed, "from ")
		if !ok {
			if bounds, ok = o.allowed, strings.Contains(o.allowed, " to "); !ok {
				continue
			}
		}
		bounds, _, _ = strings.Cut(bounds, ",")
		bounds, _, _ = strings.Cut(bounds, " such as")
		least, most, ok := strings.Cut(bounds, " to ")
		if !ok {
			t.Errorf("--%s: no upper bound in %q", o.name, o.allowed)
			continue
		}
		for _, v := range []string{least, most} {
			if err := o.set(&settings{}, v); err != nil {
				t.Errorf("--%s: %q is refused: %v", o.name, v, err)
			}
		}
		for _, v := range beyond(least, most) {
			if err := o.set(&settings{}, v); err == nil {
				t.Errorf("--%s: %q is taken, allowed is %s", o.name, v, o.allowed)
			}
		}
	}
}

// beyond returns the values next to the bounds, outside.
func beyond(least, most string) []string {
	if d, err := time.ParseDuration(least); err == nil && least != "0" && strings.ContainsAny(least, "hms") {
		e, err := time.ParseDuration(most)
		if err != nil {
			return nil
		}
		return []string{(d - 1).String(), (e + 1).String()}
	}
	low, err1 := parseSize(least)
	high, err2 := parseSize(most)
	if err1 != nil || err2 != nil {
		return nil
	}
	return []string{fmt.Sprint(low - 1), fmt.Sprint(high + 1)}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "4096": 4096, "64KiB": 65536, "64 KiB": 65536, "64kib": 65536, "1KB": 1000, "1.5MiB": 1572864,
		"32MiB": 32 << 20, "1GB": 1e9, "2GiB": 2 << 30, "7B": 7, "9223372036854775807": math.MaxInt64,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "KiB", "-1", "-1KiB", "1TiB2", "1K", "ten", "0x10", "9223372036854775808", "8589934592GiB", "1e300GiB", "NaN", "Inf", "1,5MiB",
	} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("parseSize(%q) = %d", text, got)
		}
	}
	for _, n := range []int64{0, 1, 1023, 1024, 1 << 20, 1<<20 + 1, 3 << 30, math.MaxInt64} {
		if got, err := parseSize(formatSize(n)); err != nil || got != n {
			t.Errorf("%d is written %s and read %d, %v", n, formatSize(n), got, err)
		}
	}
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1 000", 12431: "12 431", 1234567: "1 234 567"} {
		if got := formatCount(n); got != want {
			t.Errorf("formatCount(%d) = %q", n, got)
		}
	}
	for d, want := range map[time.Duration]string{
		210499 * time.Microsecond: "210ms", 1234 * time.Millisecond: "1.23s", 90 * time.Second: "90.00s", 10: "0s",
	} {
		if got := formatElapsed(d); got != want {
			t.Errorf("formatElapsed(%d) = %q", d, got)
		}
	}
}

func TestLoopback(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:1883": true, "127.8.9.1:1": true, "[::1]:1883": true, "localhost:1883": true,
		":1883": false, "0.0.0.0:1883": false, "[::]:1883": false, "192.0.2.7:1883": false,
		"name.invalid:1883": false, "127.0.0.1": false,
	} {
		if got := isLoopback(address); got != want {
			t.Errorf("isLoopback(%s) = %v", address, got)
		}
	}
}

func TestDefaultDataDirectory(t *testing.T) {
	for state, want := range map[string]string{"": defaultDataDir, "/var/lib/comqtt": "/var/lib/comqtt", "/a:/b": "/a"} {
		p := &program{lookupEnv: environment(map[string]string{"STATE_DIRECTORY": state})}
		if got := p.defaultData(); got != want {
			t.Errorf("STATE_DIRECTORY=%s gives %s", state, got)
		}
	}
}

func TestMisspelledVariables(t *testing.T) {
	p := &program{environ: []string{
		"COMQTT_SNYC=never", "COMQTT_DATA=x", "COMQTT_PORT_1883_TCP=tcp://10.0.0.1:1883", "COMQTT_SERVICE_HOST=10.0.0.1", "HOME=/",
	}}
	got := p.misspelled(options(defaultDataDir))
	if len(got) != 1 || got["COMQTT_SNYC"] != "COMQTT_SYNC" {
		t.Errorf("got %v", got)
	}
}

func TestNearest(t *testing.T) {
	words := []string{"serve", "version", "recover"}
	for word, want := range map[string]string{
		"serv": "serve", "srve": "serve", "evrsion": "version", "recoer": "recover", "x": "", "mosquitto": "", "": "",
	} {
		if got := nearest(word, words); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "abd", 1}, {"kitten", "sitting", 3}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
