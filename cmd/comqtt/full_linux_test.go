package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/wind-c/comqtt/v3/broker/listeners"
)

// lines is a log that can be searched while it grows.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.buf.String(), text)
}

// smallDisk mounts a file system of so many megabytes, where that is allowed.
func smallDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// P7: the disk of the backend is full. The log grows to its limit, then QoS 1
// publishers are told, others go on; when there is room the backend catches up,
// and nothing that was acknowledged is missing.
func TestFullBackend(t *testing.T) {
	disk := smallDisk(t, "20m")
	s := &settings{data: t.TempDir(), backend: "bbolt", maxLog: 64 << 20}
	_, _, stop := runBroker(t, s)
	stop() // has made the backend, which now moves to the small disk
	from, to := filepath.Join(s.data, "state.bbolt"), filepath.Join(disk, "state.bbolt")
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(to, data, 0o600), os.Remove(from), os.Symlink(to, from)); err != nil {
		t.Fatal(err)
	}
	said := &lines{}
	b, err := newBroker(s, slog.New(slog.NewTextHandler(said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	l := listeners.NewTCP("tcp", "127.0.0.1:0")
	if err := b.AddListener(l); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.Serve(context.Background()) }()
	<-b.Ready()
	address := l.Address()

	away := durable(t, address, "away", func(string) {})
	if _, err := away.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "load", QoS: 1}}}); err != nil {
		t.Fatal(err)
	}
	if err := away.Disconnect(&paho.Disconnect{}); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	pub := ephemeral(t, address, "pub", got)
	taken := 0
	publish := func() bool {
		r, err := pub.Publish(t.Context(), &paho.Publish{Topic: "load", QoS: 1, Payload: make([]byte, 32<<10)})
		switch {
		case err == nil && r.ReasonCode == 0:
			taken++
			return true
		case r != nil && r.ReasonCode == 0x97: // quota exceeded
			return false
		}
		t.Fatalf("publish after %d: %v, %+v", taken, err, r)
		return false
	}
	for deadline := time.Now().Add(2 * time.Minute); publish(); {
		if time.Now().After(deadline) {
			t.Fatal("never pushed back")
		}
	}
	pushed := taken
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); !said.has("checkpoint failed") || !said.has("no space left"); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the log does not say why")
		}
	}
	// What needs no room in the log goes on.
	if _, err := pub.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "live", QoS: 0}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := pub.Publish(t.Context(), &paho.Publish{Topic: "live", Payload: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if v := <-got; v != "x at QoS 0" {
		t.Error(v)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=600m"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); !publish(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("never taken again")
		}
	}
	t.Logf("%d taken until the disk was full, one more when there was room", pushed)
	var drained atomic.Int64
	back := durable(t, address, "away", func(string) { drained.Add(1) })
	for deadline := time.Now().Add(2 * time.Minute); drained.Load() < int64(taken); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d taken, %d received", taken, drained.Load())
		}
	}
	for _, c := range []*paho.Client{pub, back} {
		if err := c.Disconnect(&paho.Disconnect{}); err != nil {
			t.Error(err)
		}
	}
	if err := b.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
