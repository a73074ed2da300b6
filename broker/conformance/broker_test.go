package conformance

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/listeners"
)

// patience is how long a test waits for something that must happen. It is
// only ever used up by a failure.
const patience = 15 * time.Second

// instance is a running broker.
type instance struct {
	opts broker.Options
	srv  *broker.Server
	tcp  string // address
	ws   string // address
	log  *journal
	done chan error
}

// launch starts a broker on a data directory.
func launch(o broker.Options) (*instance, error) {
	in := &instance{opts: o, done: make(chan error, 1), log: new(journal)}
	if o.Logger == nil {
		o.Logger = slog.New(in.log)
	}
	srv, err := broker.New(&o)
	if err != nil {
		return nil, err
	}
	tcp, ws := listeners.NewTCP("tcp", "127.0.0.1:0"), listeners.NewWebsocket("ws", "127.0.0.1:0", "")
	for _, l := range []listeners.Listener{tcp, ws} {
		if err := srv.AddListener(l); err != nil {
			return nil, err
		}
	}
	in.srv, in.tcp, in.ws = srv, tcp.Address(), ws.Address()
	done := in.done
	go func() { done <- srv.Serve(context.Background()) }()
	return in, nil
}

// halt stops the broker and returns what it ended with.
func (in *instance) halt() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := in.srv.Close(ctx); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	select {
	case err := <-in.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start starts a broker of the test's own; edit changes its options.
func start(t *testing.T, edit func(o *broker.Options)) *instance {
	t.Helper()
	o := broker.Options{DataDir: t.TempDir(), AllowAnonymous: true}
	if edit != nil {
		edit(&o)
	}
	in, err := launch(o)
	if err != nil {
		t.Fatalf("start broker: %v", err)
	}
	t.Cleanup(func() {
		if err := in.halt(); err != nil {
			t.Errorf("stop broker: %v", err)
		}
	})
	return in
}

// restart stops the broker and starts another on the same data, as many
// milliseconds later as it is told to believe.
func (in *instance) restart(t *testing.T, later time.Duration) {
	t.Helper()
	if err := in.halt(); err != nil {
		t.Fatalf("stop broker: %v", err)
	}
	o := in.opts
	before := o.Clock
	o.Clock = func() int64 {
		now := time.Now().UnixMilli()
		if before != nil {
			now = before()
		}
		return now + later.Milliseconds()
	}
	next, err := launch(o)
	if err != nil {
		t.Fatalf("restart broker: %v", err)
	}
	*in = *next
}

// common is the broker that most tests share.
var common struct {
	once sync.Once
	in   *instance
	err  error
	dir  string
}

// shared returns the broker that most tests share, with default options. Tests
// keep out of each other's way by names of their own: see name.
func shared(t *testing.T) *instance {
	t.Helper()
	common.once.Do(func() {
		if common.dir, common.err = os.MkdirTemp("", "conformance"); common.err != nil {
			return
		}
		common.in, common.err = launch(broker.Options{DataDir: common.dir, AllowAnonymous: true})
	})
	if common.err != nil {
		t.Fatalf("start the shared broker: %v", common.err)
	}
	return common.in
}

var names atomic.Uint64

// name returns a string that no other test has: for client identifiers and
// as the first levels of topics.
func name(t *testing.T) string {
	base, _, _ := strings.Cut(t.Name(), "/")
	return fmt.Sprintf("%s-%d", strings.TrimPrefix(base, "Test"), names.Add(1))
}

var update = flag.Bool("update", false, "write docs/conformance.md")

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "64"); err != nil { // most of them wait for time to pass or for the disk
		panic(err)
	}
	code := m.Run()
	if common.in != nil {
		if err := common.in.halt(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the shared broker:", err)
			code = 1
		}
	}
	if common.dir != "" {
		if err := os.RemoveAll(common.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
