package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/wind-c/comqtt/v3/broker/listeners"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// startBroker runs a broker as serve wires it. stop ends it, before the end of
// the test if need be.
func startBroker(t *testing.T) (dir, address string, stop func()) {
	t.Helper()
	s := &settings{data: t.TempDir(), backend: "bbolt"}
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
	return s.data, l.Address(), stop
}

// ephemeral connects a client whose session ends with its connection.
func ephemeral(t *testing.T, address, id string, got chan<- string) *paho.Client {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := paho.NewClient(paho.ClientConfig{Conn: conn, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
		func(p paho.PublishReceived) (bool, error) {
			got <- fmt.Sprintf("%s at QoS %d", p.Packet.Payload, p.Packet.QoS)
			return true, nil
		},
	}})
	if _, err := c.Connect(t.Context(), &paho.Connect{ClientID: id, CleanStart: true, KeepAlive: 60}); err != nil {
		t.Fatal(err)
	}
	return c
}

// logged counts the records in a stopped broker's log.
func logged(t *testing.T, dir string) map[record.Kind]int {
	t.Helper()
	m, _, err := recovery.ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[record.Kind]int{}
	if _, err := wal.Scan(filepath.Join(dir, "wal"), m.StoreID, func(_ *wal.SegmentInfo, f *wal.Frame) error {
		return f.Records(func(_ uint64, rec []byte) error {
			kinds[record.KindOf(rec)]++
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	return kinds
}

// P6: what promises nothing durable never touches the disk, at any QoS.
func TestUnloggedTraffic(t *testing.T) {
	dir, address, stop := startBroker(t)
	got := make(chan string, 8)
	sub := ephemeral(t, address, "sub", got)
	pub := ephemeral(t, address, "pub", got)
	if _, err := sub.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "a/#", QoS: 2}}}); err != nil {
		t.Fatal(err)
	}
	for qos := range byte(3) {
		if _, err := pub.Publish(t.Context(), &paho.Publish{Topic: "a/b", QoS: qos, Payload: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("x at QoS %d", qos); <-got != want {
			t.Errorf("not delivered as %s", want)
		}
	}
	if _, err := sub.Unsubscribe(t.Context(), &paho.Unsubscribe{Topics: []string{"a/#"}}); err != nil {
		t.Fatal(err)
	}
	// One that is durable, so that the test sees what it looks for.
	if _, err := pub.Publish(t.Context(), &paho.Publish{Topic: "kept", QoS: 1, Retain: true, Payload: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	stop()
	kinds := logged(t, dir)
	if kinds[record.KindPublish] != 1 {
		t.Errorf("%d publishes logged, want the retained one", kinds[record.KindPublish])
	}
	for _, own := range []record.Kind{record.KindGenesis, record.KindServerStart, record.KindStateHash, record.KindPublish} {
		delete(kinds, own)
	}
	if len(kinds) > 0 {
		t.Errorf("logged as well: %v", kinds)
	}
}

// A stop that comes during recovery gives the addresses back and is no error.
func TestCloseBeforeReady(t *testing.T) {
	s := &settings{data: t.TempDir(), backend: "bbolt", shutdownTimeout: time.Second}
	b, err := newBroker(s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l := listeners.NewTCP("tcp", "127.0.0.1:0")
	if err := b.AddListener(l); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Serve(context.Background()); err != nil {
		t.Errorf("Serve after Close: %v", err)
	}
	again, err := net.Listen("tcp", l.Address())
	if err != nil {
		t.Fatal("address still taken:", err)
	}
	again.Close()
}
