package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/cmd/torture/powerfs"
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
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
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
		skipped(t, &o)
	})
	for i, engine := range []string{"native", "tidwall"} {
		t.Run("Power/"+engine, func(t *testing.T) {
			o := brief(t, "power", 8)
			o.engine, o.seed = engine, uint64(20+i)
			found, err := power(ctx, o, bin, filepath.Join(dir, engine))
			verdict(t, found, err)
			skipped(t, &o)
		})
	}
	for _, mode := range []string{"100ms", "never"} {
		t.Run("Power/"+mode, func(t *testing.T) {
			o := brief(t, "power", 2)
			o.sync = mode
			found, err := power(ctx, o, bin, filepath.Join(dir, mode))
			verdict(t, found, err)
			skipped(t, &o)
		})
	}
	t.Run("Damage", func(t *testing.T) {
		found, err := damage(ctx, brief(t, "damage", 1), bin, dir, 60)
		verdict(t, found, err)
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
		t.Run("ignore-checksum", func(t *testing.T) {
			ok, text, err := proveDamage(ctx, brief(t, "damage", 1), bin, dir)
			if t.Log(text); err != nil || !ok {
				t.Errorf("a broker that ignores checksums was not found: %v", err)
			}
		})
		for i := range lies[:briefLies] {
			t.Run(lies[i].name, func(t *testing.T) {
				ok, text, err := lies[i].prove(ctx, brief(t, "power", proveKills), bin, filepath.Join(dir, lies[i].name))
				if errors.Is(err, powerfs.ErrUnavailable) {
					t.Skip(err)
				}
				if t.Log(text); err != nil || !ok {
					t.Errorf("the checker did not find that %s: %v", lies[i].breaks, err)
				}
			})
		}
	})
}

// briefLies are those at the front of the list that show quickly.
const briefLies = 2

// skipped skips a test that could not be carried out here.
func skipped(t *testing.T, o *options) {
	t.Helper()
	if text := o.out.(*bytes.Buffer).String(); strings.HasPrefix(text, "skipped") {
		t.Skip(text)
	}
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
