package broker_test

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/listeners"
	"github.com/wind-c/comqtt/v3/broker/packets"
)

// While the disk is nearly full an MQTT 5 client is told (0x97, section
// 4.1.0), an MQTT 3 client waits for its PUBACK, and both are served as soon
// as there is room. Nothing that was acknowledged depends on a write that may
// fail (promise P7).
func TestNearlyFullDisk(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 40)
	s, err := broker.New(&broker.Options{
		DataDir: t.TempDir(), AllowAnonymous: true, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Limits: broker.Limits{FreeSpaceLow: 1 << 30, MaxInflight: 8},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.SetFreeSpace(free.Load)
	l := listeners.NewTCP("tcp", "127.0.0.1:0")
	if err := s.AddListener(l); err != nil {
		t.Fatal(err)
	}
	r := &running{Server: s, addr: l.Address(), done: make(chan error, 1)}
	go func() { r.done <- s.Serve(context.Background()) }()

	absent(t, r)
	five := dial(t, r, packets.V5, "five", true, 0)
	three := dial(t, r, packets.V311, "three", true, 0)
	greedy := dial(t, r, packets.V311, "greedy", true, 0)
	free.Store(1)
	s.CheckSpace()

	five.publish("a/b", "refused", 1, 1)
	if a, ok := five.receive().(*packets.Ack); !ok || a.Code != packets.CodeQuotaExceeded {
		t.Errorf("MQTT 5 publish: %+v, want 0x97", a)
	}
	five.send(&packets.Publish{Retain: true, Topic: []byte("a/r"), Payload: []byte("x")})
	ping(t, five)
	if n := r.Info().Dropped["disk-full"]; n != 1 {
		t.Errorf("%d retained QoS 0 messages counted as dropped, want 1", n)
	}
	three.publish("a/b", "held 1", 1, 1)
	three.publish("a/b", "held 2", 1, 2)
	ping(t, three) // still read and answered, but no PUBACK
	for i := range 9 {
		greedy.publish("a/b", "x", 1, uint16(i+1))
	}
	if pk := greedy.receive(); pk != nil {
		t.Errorf("more held publishes than the window: %+v, want the connection closed", pk)
	}
	refused := &client{t: t, v: packets.V5, nc: redial(t, r)}
	pk := packets.Connect{Version: packets.V5, ClientID: []byte("new")}
	pk.Props.HasSessionExpiry, pk.Props.SessionExpiry = true, 100
	refused.send(&pk)
	if a, ok := refused.receive().(*packets.Connack); !ok || a.Code != packets.CodeQuotaExceeded {
		t.Errorf("new durable session: %+v, want 0x97", a)
	}
	refused.nc.Close()
	dial(t, r, packets.V5, "sub", false, 1000).close() // one that exists is resumed, to be emptied

	free.Store(1 << 40)
	s.CheckSpace()
	for pid := uint16(1); pid <= 2; pid++ {
		if a, ok := three.receive().(*packets.Ack); !ok || a.PacketID != pid {
			t.Errorf("held publish: %+v, want PUBACK %d", a, pid)
		}
	}
	three.close()
	greedy.nc.Close()
	five.close()
	sub := dial(t, r, packets.V5, "sub", false, 1000)
	for _, want := range []string{"held 1", "held 2"} {
		if p, ok := sub.receive().(*packets.Publish); !ok || string(p.Payload) != want {
			t.Errorf("got %+v, want %s", p, want)
		}
	}
	sub.close()
	r.stop(t)
}
