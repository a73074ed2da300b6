package main

import (
	"strings"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/wal"
)

const bannerLinesMax = 12

// The longest banner: everything on, a log repaired.
func TestBannerFitsTwelveLines(t *testing.T) {
	s := &settings{tcp: "0.0.0.0:1883", ws: ":1882", sync: wal.SyncEvery(100 * time.Millisecond), backend: "bbolt", anonymous: true, unixMode: 0o660}
	r := &recovered{records: 12431, elapsed: 210 * time.Millisecond, sessions: 3, retained: 17, queued: 204, repaired: "a torn frame"}
	a := &addresses{tcp: "0.0.0.0:1883", ws: "[::]:1882", wsPath: "/mqtt", unix: "/run/mqtt.sock", http: "127.0.0.1:8080", data: "/var/lib/comqtt"}
	got := banner(s, r, a)
	if n := strings.Count(got, "\n"); n > bannerLinesMax {
		t.Errorf("%d lines:\n%s", n, got)
	}
	for _, want := range []string{
		"12 431 records in 210ms   sessions 3   retained 17   queued 204", "a torn frame",
		"100ms: power loss may take the last 100ms", "FROM THE NETWORK", "mqtt://0.0.0.0:1883", "ws://[::]:1882/mqtt",
		"unix:/run/mqtt.sock", "http://127.0.0.1:8080/readyz", "mosquitto_sub -t '#' -v", "data        /var/lib/comqtt",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestNextStep(t *testing.T) {
	for want, a := range map[string]*addresses{
		"mosquitto_sub -t":                   {tcp: "127.0.0.1:1883", unix: "/s"},
		"mosquitto_sub -p 2000 -t":           {tcp: "[::]:2000"},
		"mosquitto_sub -h ::1 -t":            {tcp: "[::1]:1883"},
		"mosquitto_sub -h 192.0.2.1 -p 7 -t": {tcp: "192.0.2.1:7"},
		"mosquitto_sub --unix /s -t":         {unix: "/s"},
		"connect('ws://127.0.0.1:1/mqtt')":   {ws: "127.0.0.1:1", wsPath: "/mqtt"},
	} {
		if got := nextStep(a); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestSyncMeaning(t *testing.T) {
	for mode, want := range map[wal.SyncMode]string{
		wal.SyncAlways:               "is on stable storage",
		wal.SyncEvery(2 * time.Hour): "the last 2h0m0s",
		wal.SyncNever:                "since the last checkpoint",
	} {
		if got := syncMeaning(mode); !strings.Contains(got, want) {
			t.Errorf("%v: %q", mode, got)
		}
	}
}
