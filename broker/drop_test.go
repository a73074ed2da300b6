package broker_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/packets"
)

// No message is dropped in silence: each has a reason, a counter and, sampled,
// a log line (promise P8).
func TestDropsAreCountedByReason(t *testing.T) {
	for _, tt := range []struct {
		reason string
		limits broker.Limits
		drop   func(t *testing.T, r *running)
		want   uint64
	}{
		{"queue-full", broker.Limits{QueueMessages: 2}, queueFull, 3},
		{"expired", broker.Limits{}, expired, 1},
		{"too-large", broker.Limits{}, tooLarge, 1},
		{"outbox-full", broker.Limits{OutboxBytes: 1 << 10}, outboxFull, 0},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			var log bytes.Buffer
			now := time.Now().UnixMilli()
			r := start(t, broker.Options{
				DataDir: t.TempDir(), Limits: tt.limits, Logger: slog.New(slog.NewTextHandler(&log, nil)),
				Clock: func() int64 { return now },
			})
			tt.drop(t, r)
			got := r.Info().Dropped
			r.stop(t)
			if len(got) != 1 || got[tt.reason] == 0 || tt.want > 0 && got[tt.reason] != tt.want {
				t.Errorf("dropped %v, want %d of reason %s", got, tt.want, tt.reason)
			}
			if !strings.Contains(log.String(), "reason="+tt.reason) {
				t.Errorf("no log line names the reason:\n%s", &log)
			}
		})
	}
}

// absent leaves a durable session that is subscribed to a/#.
func absent(t *testing.T, r *running) {
	t.Helper()
	sub := dial(t, r, packets.V5, "sub", true, 1000)
	sub.subscribe("a/#", 1)
	sub.close()
}

func queueFull(t *testing.T, r *running) {
	absent(t, r)
	pub := dial(t, r, packets.V311, "pub", true, 0)
	for i := range 5 {
		pub.publish("a/b", "x", 1, uint16(i+1))
		pub.receive()
	}
	pub.close()
}

func expired(t *testing.T, r *running) {
	absent(t, r)
	pub := dial(t, r, packets.V5, "pub", true, 0)
	p := packets.Publish{QoS: 1, PacketID: 1, Topic: []byte("a/b")}
	p.Props.HasExpiry = true // at once: an absent client cannot get it in time
	pub.send(&p)
	pub.receive()
	pub.close()
	sub := dial(t, r, packets.V5, "sub", false, 1000)
	ping(t, sub)
	sub.close()
}

func tooLarge(t *testing.T, r *running) {
	nc := dial(t, r, packets.V5, "sub", true, 0)
	nc.close()
	sub := &client{t: t, v: packets.V5}
	sub.nc = redial(t, r)
	pk := packets.Connect{Version: packets.V5, CleanStart: true, ClientID: []byte("sub")}
	pk.Props.HasMaximumPacketSize, pk.Props.MaximumPacketSize = true, 64
	sub.send(&pk)
	sub.receive()
	sub.subscribe("a/#", 1)
	pub := dial(t, r, packets.V311, "pub", true, 0)
	pub.publish("a/b", strings.Repeat("x", 100), 1, 1)
	pub.receive()
	pub.close()
	ping(t, sub)
	sub.close()
}

// outboxFull floods a client that does not read.
func outboxFull(t *testing.T, r *running) {
	sub := dial(t, r, packets.V311, "sub", true, 0)
	sub.subscribe("a/#", 0)
	pub := dial(t, r, packets.V311, "pub", true, 0)
	payload := strings.Repeat("x", 64<<10)
	for range 1000 {
		pub.publish("a/b", payload, 0, 0)
		ping(t, pub)
		if r.Info().Dropped["outbox-full"] > 0 {
			break
		}
	}
	pub.close()
	sub.nc.Close()
}
