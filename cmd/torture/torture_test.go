package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// broker builds the real binary with failpoints, once for all tests here.
func broker(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "comqtt")
	if err := build(t.Context(), bin); err != nil {
		t.Fatal(err)
	}
	return bin
}

// brief are the options of a short campaign. Its output goes to the test's log.
func brief(t *testing.T, mode string, kills int) options {
	var out bytes.Buffer
	t.Cleanup(func() { t.Log("\n" + out.String()) })
	return options{kills: kills, seed: 20, mode: mode, history: 200_000, brief: true, out: &out}
}

// TestTorture is the short run of `make torture`: the promises P1 to P3 of
// DESIGN 1 under kills, simulated power failures, failing syncs and a full disk,
// and the planted defects that the checker must find.
func TestTorture(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: kills the real binary for some 15 seconds")
	}
	bin := broker(t)
	dir, err := os.MkdirTemp("", "torture-test-") // outlives a failure: the evidence is in it
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	t.Run("Kills", func(t *testing.T) {
		if err := os.Mkdir(filepath.Join(dir, "kills"), 0o755); err != nil {
			t.Fatal(err)
		}
		c, err := newCampaign(brief(t, "mixed", 8), bin, filepath.Join(dir, "kills"))
		if err != nil {
			t.Fatal(err)
		}
		found, err := c.finish(c.run(ctx), true)
		verdict(t, found, err)
		if c.open*10 < c.kills*8 {
			t.Errorf("only %d of %d kills came with a publish unacknowledged and a QoS 2 handshake open", c.open, c.kills)
		}
	})
	t.Run("FailingSync", func(t *testing.T) {
		found, err := failingSync(ctx, brief(t, "fsync", 2), bin, dir)
		verdict(t, found, err)
	})
	t.Run("FullDisk", func(t *testing.T) {
		o := brief(t, "enospc", 2)
		found, err := fullDisk(ctx, o, bin, dir)
		verdict(t, found, err)
		if text := o.out.(*bytes.Buffer).String(); strings.HasPrefix(text, "skipped") {
			t.Skip(text)
		}
	})
	// The checker proves itself: all that show quickly;
	// `torture -prove` has the rest.
	t.Run("Planted", func(t *testing.T) {
		for _, f := range faults {
			if f.patient || f.slow {
				continue
			}
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				ok, text, err := f.prove(ctx, brief(t, "kill", proveKills), bin, filepath.Join(dir, f.name))
				t.Log(text)
				if err != nil || !ok {
					t.Errorf("the checker did not find that %s: %v", f.breaks, err)
				}
			})
		}
	})
}

func verdict(t *testing.T, found bool, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if found {
		t.Fatal("a promise was broken: see the findings above")
	}
}
