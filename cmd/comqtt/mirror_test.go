package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/wind-c/comqtt/v3/backends/redis/redistest"
	"github.com/wind-c/comqtt/v3/broker/admin"
	"github.com/wind-c/comqtt/v3/broker/listeners"
	"github.com/wind-c/comqtt/v3/recovery"
)

// runBroker runs a broker as serve wires it, with these settings.
func runBroker(t *testing.T, s *settings) (b *brokerServer, address string, stop func()) {
	t.Helper()
	b, err := newBroker(s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l := listeners.NewTCP("tcp", "127.0.0.1:0")
	if err := b.AddListener(l); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.Serve(context.Background()) }()
	select {
	case <-b.Ready():
	case err := <-served:
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return b, l.Address(), stop
}

// durable connects a client whose session outlives its connection.
func durable(t *testing.T, address, id string, got func(payload string)) *paho.Client {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := paho.NewClient(paho.ClientConfig{Conn: conn, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
		func(p paho.PublishReceived) (bool, error) {
			got(string(p.Packet.Payload))
			return true, nil
		},
	}})
	expiry := uint32(3600)
	if _, err := c.Connect(t.Context(), &paho.Connect{
		ClientID: id, KeepAlive: 60, Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry},
	}); err != nil {
		t.Fatal(err)
	}
	return c
}

// awaitMirror asks until the mirror is as wanted. It is asked as /readyz asks.
func awaitMirror(t *testing.T, b *brokerServer, what string, ok func(m recovery.MirrorStatus) bool) recovery.MirrorStatus {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		m, _ := b.MirrorInfo()
		if ok(m) {
			return m
		}
		if time.Now().After(deadline) {
			t.Fatalf("mirror is not %s: %+v", what, m)
		}
	}
}

// mirrorLine is the mirror's line of /readyz?verbose.
func mirrorLine(t *testing.T, b *brokerServer) admin.Check {
	t.Helper()
	for _, c := range b.describe(admin.Status{State: admin.Ready}).Checks {
		if c.Name == "mirror" {
			return c
		}
	}
	t.Fatal("no line about the mirror")
	return admin.Check{}
}

// P7: Redis is stopped under load, for COMQTT_TEST_REDIS_STOP (2 s; 30 s is the
// long form). Nothing is lost and nobody waits, and afterwards Redis has all.
func TestRedisStops(t *testing.T) {
	stopped := 2 * time.Second
	if v := os.Getenv("COMQTT_TEST_REDIS_STOP"); v != "" {
		var err error
		if stopped, err = time.ParseDuration(v); err != nil {
			t.Fatal(err)
		}
	}
	srv := redistest.Start(t)
	b, address, stop := runBroker(t, &settings{
		data: t.TempDir(), backend: srv.URL("p", "max_retries=-1", "read_timeout=300ms", "dial_timeout=300ms"),
	})
	var online, offline atomic.Int64
	sub := durable(t, address, "online", func(string) { online.Add(1) })
	away := durable(t, address, "offline", func(string) {})
	for _, c := range []*paho.Client{sub, away} {
		if _, err := c.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "load/#", QoS: 1}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := away.Disconnect(&paho.Disconnect{}); err != nil {
		t.Fatal(err)
	}
	awaitMirror(t, b, "live", func(m recovery.MirrorStatus) bool { return m.State == recovery.MirrorLive })
	pub := ephemeral(t, address, "pub", nil)
	sent := 0
	var longest time.Duration
	publish := func() {
		begin := time.Now()
		r, err := pub.Publish(t.Context(), &paho.Publish{Topic: fmt.Sprintf("load/%d", sent%10), QoS: 1, Payload: make([]byte, 200)})
		if err != nil || r.ReasonCode != 0 {
			t.Fatalf("publish %d: %v, %+v", sent, err, r)
		}
		longest = max(longest, time.Since(begin))
		sent++
	}
	noticed := false
	for begin := time.Now(); time.Since(begin) < stopped || !noticed; {
		srv.Signal(syscall.SIGSTOP) // again and again: others may wake up what is stopped
		publish()
		if m, _ := b.MirrorInfo(); m.State == recovery.MirrorAway && m.Failures > 0 {
			noticed = true
		}
		if time.Since(begin) > stopped+30*time.Second {
			t.Fatalf("nobody has noticed that Redis does not answer: %d sent, %+v", sent, mirrorLine(t, b))
		}
	}
	if c := mirrorLine(t, b); c.OK || !strings.Contains(c.Detail, "away") {
		t.Logf("line: %+v", c) // it may just be trying again
	}
	applied := b.Info().Applied
	srv.Signal(syscall.SIGCONT)
	m := awaitMirror(t, b, "caught up", func(m recovery.MirrorStatus) bool {
		return m.State == recovery.MirrorLive && m.Applied >= applied && m.Err == nil
	})
	if c := mirrorLine(t, b); !c.OK || !strings.Contains(c.Detail, "live") {
		t.Errorf("line: %+v", c)
	}
	t.Logf("%d published in %v, the slowest in %v; mirror %+v", sent, stopped, longest, m)
	back := durable(t, address, "offline", func(string) { offline.Add(1) })
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); online.Load() < int64(sent) || offline.Load() < int64(sent); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d sent, %d and %d received", sent, online.Load(), offline.Load())
		}
	}
	for _, c := range []*paho.Client{sub, back, pub} {
		if err := c.Disconnect(&paho.Disconnect{}); err != nil {
			t.Error(err)
		}
	}
	stop()
}

// A prefix with another broker's state is refused before anybody is served.
func TestRedisOfAnother(t *testing.T) {
	srv := redistest.Start(t)
	_, _, stop := runBroker(t, &settings{data: t.TempDir(), backend: srv.URL("p")})
	stop()
	b, err := newBroker(&settings{data: t.TempDir(), backend: srv.URL("p")}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	err = b.Serve(t.Context())
	if e := classify(err); e.code != exitConfig || !strings.Contains(err.Error(), "belong to another store") {
		t.Errorf("serve = %v, exit code %d", err, e.code)
	}
}

// A URL's password is not shown.
func TestBackendSecrets(t *testing.T) {
	s := &settings{}
	if err := setBackend(s, "redis://user:secret@host/1?prefix=x"); err != nil {
		t.Fatal(err)
	}
	if got := s.backendName(); got != "bbolt, mirror redis://host/1?prefix=x" {
		t.Error(got)
	}
	if got := public("backend", "redis://user:secret@host/nonsense"); strings.Contains(got, "secret") {
		t.Error(got)
	}
	for _, bad := range []string{"", "mysql", "redis://user:secret@host/x"} {
		if err := setBackend(s, bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
