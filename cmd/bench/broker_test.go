package bench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/listeners"
	"github.com/wind-c/comqtt/v3/broker/packets"
)

// startBroker starts a broker in this process that ends with the test.
func startBroker(t testing.TB) (address string) {
	t.Helper()
	s, err := broker.New(&broker.Options{
		DataDir: t.TempDir(), AllowAnonymous: true, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	l := listeners.NewTCP("tcp", "127.0.0.1:0")
	if err := s.AddListener(l); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Address()
}

// Every mode against a broker, with everything it is told to send delivered.
func TestModes(t *testing.T) {
	address := startBroker(t)
	for _, tt := range []struct {
		mode Mode
		set  func(o *Options)
		sent uint64 // 0: some
		per  uint64 // deliveries of each message
		has  []string
	}{
		{Pairs, func(o *Options) { o.Messages = 4000 }, 4000, 1, []string{"rate", "cpu", "generator cpu"}},
		{Pairs, func(o *Options) { o.Messages, o.QoS = 2001, 1 }, 2001, 1, nil},
		{Pairs, func(o *Options) { o.Messages, o.QoS = 2, 2 }, 2, 1, nil}, // fewer than pairs
		{Pairs, func(o *Options) { o.Messages, o.QoS, o.Version = 2000, 2, packets.V5 }, 2000, 1, nil},
		{Pairs, func(o *Options) { o.QoS, o.Size, o.Window = 1, 50_000, 30 }, 0, 1, nil},
		{Pairs, func(o *Options) { o.QoS, o.Version, o.Window = 1, packets.V5, 5000 }, 0, 1, nil}, // beyond receive maximum
		{Durable, func(o *Options) { o.Messages = 1000 }, 1000, 1, nil},
		{Durable, func(o *Options) { o.Messages, o.QoS, o.Version = 500, 2, packets.V5 }, 500, 1, nil},
		{FanOut, func(o *Options) { o.Subscribers = 10 }, 0, 10, []string{"rate", "cpu"}},
		{FanOut, func(o *Options) { o.Subscribers, o.QoS, o.Durable = 3, 1, true }, 0, 3, nil},
		{FanIn, func(*Options) {}, 0, 1, nil},
		{FanIn, func(o *Options) { o.Subscribers, o.Shared = 3, true }, 0, 1, nil},
		{FanIn, func(o *Options) { o.QoS = 0 }, 0, 1, nil},
		{Offline, func(o *Options) { o.Messages, o.Sessions = 600, 3 }, 600, 3, []string{"in rate", "out rate", "in cpu", "out cpu", "in memory"}},
		{Offline, func(o *Options) { o.Messages, o.Sessions, o.Spread, o.QoS = 601, 3, true, 2 }, 601, 1, nil},
		{Latency, func(o *Options) { o.Rate = 500 }, 0, 1, []string{"p50", "p99", "p99.9", "max", "send lag p99"}},
		{Retained, func(o *Options) { o.Topics, o.Clients = 500, 2 }, 500, 2, []string{"set rate", "get rate", "memory"}},
		{Retained, func(o *Options) { o.Topics, o.Clients, o.QoS, o.Version = 77, 1, 2, packets.V5 }, 77, 1, nil},
		{Subscribe, func(o *Options) { o.Subscriptions, o.Clients = 501, 4 }, 0, 1, []string{"subscribe rate", "match rate", "memory"}},
		{Stresser, func(o *Options) { o.Messages = 500 }, 2000, 1, []string{"publish median", "receive slowest"}},
	} {
		o := small(t, tt.mode, address)
		o.PID = os.Getpid()
		tt.set(&o)
		t.Run(fmt.Sprintf("%s QoS %d v%d", tt.mode, o.QoS, o.Version), func(t *testing.T) {
			r := run(t, o)
			if err := r.Err(); err != nil {
				t.Error(err)
			}
			c := r.Checks
			if c.Sent == 0 || tt.sent > 0 && c.Sent != tt.sent || c.Received != tt.per*c.Sent {
				t.Errorf("%s; want %d sent and each received %d times", c, tt.sent, tt.per)
			}
			for _, name := range tt.has {
				if m, ok := r.Get(name); !ok || m.Value <= 0 && m.Unit != "B/topic" && m.Unit != "B/subscription" {
					t.Errorf("%s is %v in %v", name, m, r.Metrics)
				}
			}
		})
	}
}

func TestConnectAndIdle(t *testing.T) {
	address := startBroker(t)
	o := small(t, Connect, address)
	o.Connections, o.Duration = 5, time.Second
	r := run(t, o)
	if m, _ := r.Get("rate"); m.Value < 1 {
		t.Errorf("connect: %v", r.Metrics)
	}
	o = small(t, Idle, address)
	o.Connections, o.PID = 50, os.Getpid()
	r = run(t, o)
	if _, ok := r.Get("memory"); !ok {
		t.Errorf("idle: %v", r.Metrics)
	}
	o.PID = 0
	if _, err := Run(context.Background(), o); err == nil {
		t.Error("idle without a process to look at")
	}
}

// Nothing is left in the broker: what the next client of the same name gets
// is a new session, and no retained message is there.
func TestNothingStays(t *testing.T) {
	address := startBroker(t)
	o := small(t, Offline, address)
	o.Messages, o.Sessions = 50, 2
	o, err := o.complete()
	if err != nil {
		t.Fatal(err)
	}
	l := newLoad(t.Context(), &o)
	if _, err := l.offline(); err != nil {
		t.Fatal(err)
	}
	if err := l.end(); err != nil {
		t.Fatal(err)
	}
	c, err := l.dialer.connect(t.Context(), login{id: l.id("s", 0), resume: true})
	if err != nil {
		t.Fatal(err)
	}
	if c.present {
		t.Error("a session is left")
	}
	c.disconnect()

	o = small(t, Retained, address)
	o.Topics, o.Clients = 20, 1
	if o, err = o.complete(); err != nil {
		t.Fatal(err)
	}
	l = newLoad(t.Context(), &o)
	if _, err := l.retained(); err != nil {
		t.Fatal(err)
	}
	var after Tally
	if _, err := l.getRetained(1, &after); err != nil {
		t.Fatal(err)
	}
	if after.Received > 0 {
		t.Errorf("%d retained messages are left", after.Received)
	}
}

var builtDir string // of the binary, if a test has needed it

// built builds comqtt, once.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "comqtt-bench-")
	if err != nil {
		return "", err
	}
	builtDir = dir
	path := filepath.Join(dir, "comqtt")
	out, err := exec.Command("go", "build", "-o", path, "github.com/wind-c/comqtt/v3/cmd/comqtt").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build comqtt: %w\n%s", err, out)
	}
	return path, nil
})

func comqttBinary(t testing.TB) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func comqttCommand(t testing.TB) Command {
	return Command{Args: []string{
		comqttBinary(t), "serve", "--data", "{dir}/data", "--tcp", "127.0.0.1:{port}", "--ws", "off", "--http", "off", "--log-level", "error",
	}}
}

func newTestBroker(t testing.TB, c Command) *Broker {
	t.Helper()
	b, err := NewBroker(c, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// The real binary, killed and stopped with a backlog: everything is there
// afterwards.
func TestRestart(t *testing.T) {
	o := small(t, Restart, "")
	o.Process = newTestBroker(t, comqttCommand(t))
	o.Messages, o.Sessions, o.Topics = 500, 3, 400
	r := run(t, o)
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if c := r.Checks; c.Sent != 900 || c.Received != 500*3+400 {
		t.Errorf("%s", c)
	}
	for _, name := range []string{"first CONNACK after SIGKILL", "first CONNACK after SIGTERM", "SIGTERM to exit"} {
		if m, ok := r.Get(name); !ok || m.Value <= 0 {
			t.Errorf("%s is %v", name, m)
		}
	}
}

func TestBrokerThatDoesNotStart(t *testing.T) {
	b := newTestBroker(t, Command{Args: []string{"sh", "-c", "echo no such luck; exit 3"}})
	if _, _, err := b.Start(); err != nil {
		t.Fatal(err)
	}
	err := b.Ready(t.Context())
	if err == nil {
		t.Fatal("ready")
	}
	if want := "no such luck"; !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%q does not say %q", err, want)
	}
	if err := b.Stop(os.Interrupt); err == nil {
		t.Error("its exit code is not reported")
	}
	if _, err := NewBroker(Command{}, t.TempDir()); err == nil {
		t.Error("an empty command line is taken")
	}
}
