package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(cleaning{m}) }

// cleaning removes the binary that tests have built.
type cleaning struct{ *testing.M }

func (c cleaning) Run() int {
	code := c.M.Run()
	if builtDir != "" {
		if err := os.RemoveAll(builtDir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	return code
}

// startRelay starts a relay that ends with the test.
func startRelay(t testing.TB, spoil func(n uint64, frame []byte) [][]byte) *Relay {
	t.Helper()
	r, err := NewRelay("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.spoil = spoil
	done := make(chan error, 1)
	go func() { done <- r.Serve() }()
	t.Cleanup(func() {
		if err := r.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// small are the options of a mode for a test.
func small(t testing.TB, m Mode, target string) Options {
	t.Helper()
	o, ok := Defaults(m)
	if !ok {
		t.Fatal("no mode", m)
	}
	o.Target = target
	o.Pairs, o.Publishers = min(o.Pairs, 4), min(o.Publishers, 4)
	o.Duration, o.Warmup = 250*time.Millisecond, time.Millisecond
	o.waits = waits{stall: 10 * time.Second, settle: 10 * time.Millisecond, calm: 10 * time.Millisecond}
	return o
}

func run(t testing.TB, o Options) *Result {
	t.Helper()
	r, err := Run(context.Background(), o)
	if err != nil {
		t.Fatalf("%s: %v", o.Mode, err)
	}
	return r
}

// The checks find what a broker does wrong, whatever it is. Each defect is
// planted in a relay, so it is known what has to be found.
func TestChecksFindDefects(t *testing.T) {
	const every = 100
	for name, tt := range map[string]struct {
		spoil func(n uint64, frame []byte) [][]byte
		found func(t Tally) uint64
	}{
		"loss": {func(n uint64, frame []byte) [][]byte {
			if n%every == every-1 {
				return nil
			}
			return [][]byte{frame}
		}, func(t Tally) uint64 { return t.Lost }},
		"duplicates": {func(n uint64, frame []byte) [][]byte {
			if n%every == every-1 {
				return [][]byte{frame, frame}
			}
			return [][]byte{frame}
		}, func(t Tally) uint64 { return t.Duplicates }},
		"disorder": {reorder(every), func(t Tally) uint64 { return t.Reordered }},
		"damage": {func(n uint64, frame []byte) [][]byte {
			if n%every == every-1 {
				bad := slices.Clone(frame)
				bad[len(bad)-64] ^= 1 // the payload begins with the number of the run
				return [][]byte{bad}
			}
			return [][]byte{frame}
		}, func(t Tally) uint64 { return t.Foreign }},
		"lower QoS": {func(n uint64, frame []byte) [][]byte {
			if n%every == every-1 {
				return [][]byte{atQoS0(frame)}
			}
			return [][]byte{frame}
		}, func(t Tally) uint64 { return t.Downgraded }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := small(t, Pairs, startRelay(t, tt.spoil).Address())
			o.Pairs, o.QoS, o.Messages, o.Window = 1, 1, 1000, 100
			o.waits.stall = time.Second // what is lost is waited for
			r := run(t, o)
			if r.Checks.Sent == 0 || tt.found(r.Checks) == 0 || !errors.Is(r.Err(), ErrChecks) {
				t.Errorf("not found: %s", r.Checks)
			}
			if most := r.Checks.Sent/every + 1; tt.found(r.Checks) > most {
				t.Errorf("%s; only %d were planted", r.Checks, most)
			}
		})
	}
}

// reorder holds every n-th message back until the next one has gone.
func reorder(every uint64) func(n uint64, frame []byte) [][]byte {
	var held []byte
	return func(n uint64, frame []byte) [][]byte {
		if n%every == 1 {
			held = slices.Clone(frame)
			return nil
		}
		if held != nil {
			late := held
			held = nil
			return [][]byte{frame, late}
		}
		return [][]byte{frame}
	}
}

// atQoS0 is the frame as a packet of QoS 0.
func atQoS0(frame []byte) []byte {
	f, _, _, err := packets.Next(frame, 0)
	if err != nil {
		panic(err)
	}
	var pk packets.Publish
	if err := pk.Decode(packets.V311, f.Flags(), f.Body); err != nil {
		panic(err)
	}
	pk.QoS, pk.PacketID = 0, 0
	return pk.AppendTo(nil, packets.V311)
}

// A relay that does nothing wrong passes, in every closed loop.
func TestRelay(t *testing.T) {
	r := startRelay(t, nil)
	for qos := range byte(3) {
		o := small(t, Pairs, r.Address())
		o.QoS, o.Messages = qos, 5000
		res := run(t, o)
		if err := res.Err(); err != nil || res.Checks.Received != 5000 {
			t.Errorf("QoS %d: %v, %s", qos, err, res.Checks)
		}
	}
	o := small(t, FanOut, r.Address())
	o.Subscribers = 20
	res := run(t, o)
	if err := res.Err(); err != nil || res.Checks.Received != 20*res.Checks.Sent || res.Checks.Sent == 0 {
		t.Errorf("fan-out: %v, %s", err, res.Checks)
	}
}

// A broker that closes a connection ends the run, and with the reason.
func TestBrokerCloses(t *testing.T) {
	var r *Relay
	r = startRelay(t, func(n uint64, frame []byte) [][]byte {
		if n == 50 {
			go r.Close()
		}
		return [][]byte{frame}
	})
	o := small(t, Pairs, r.Address())
	o.Pairs = 1
	if _, err := Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), "bench-") {
		t.Errorf("error %v does not say which client", err)
	}
}

func TestNobodyListens(t *testing.T) {
	r, err := NewRelay("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(context.Background(), small(t, Pairs, r.Address())); err == nil {
		t.Error("no error")
	}
}

func TestRunEndsWithContext(t *testing.T) {
	o := small(t, Pairs, startRelay(t, nil).Address())
	o.Duration = time.Hour
	ctx, cancel := context.WithCancel(context.Background())
	o.Progress = func(Progress) { cancel() }
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
