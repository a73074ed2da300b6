package broker_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/listeners"
	"github.com/wind-c/comqtt/v3/broker/packets"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a server of a test.
type running struct {
	*broker.Server
	addr string
	path string // of the Unix socket
	done chan error
}

func start(t testing.TB, o broker.Options) *running {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	o.AllowAnonymous = true
	s, err := broker.New(&o)
	if err != nil {
		t.Fatal(err)
	}
	l := listeners.NewTCP("tcp", "127.0.0.1:0")
	if err := s.AddListener(l); err != nil {
		t.Fatal(err)
	}
	u := listeners.NewUnix("unix", filepath.Join(t.TempDir(), "s"))
	if err := s.AddListener(u); err != nil {
		t.Fatal(err)
	}
	r := &running{s, l.Address(), u.Address(), make(chan error, 1)}
	go func() { r.done <- s.Serve(context.Background()) }()
	return r
}

func (r *running) stop(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := <-r.done; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// client is a bare MQTT client.
type client struct {
	t   testing.TB
	nc  net.Conn
	v   packets.Version
	buf []byte
}

func dial(t testing.TB, r *running, v packets.Version, id string, clean bool, expiry uint32) *client {
	t.Helper()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, nc: nc, v: v}
	pk := packets.Connect{Version: v, CleanStart: clean, ClientID: []byte(id)}
	if expiry > 0 {
		pk.Props.HasSessionExpiry, pk.Props.SessionExpiry = true, expiry
	}
	c.send(&pk)
	if ack, ok := c.receive().(*packets.Connack); !ok || ack.Code != packets.CodeSuccess {
		t.Fatalf("connack: %+v", ack)
	}
	return c
}

func (c *client) send(pk packets.Packet) {
	c.t.Helper()
	if _, err := c.nc.Write(pk.AppendTo(nil, c.v)); err != nil {
		c.t.Fatal(err)
	}
}

// receive returns the next packet, nil at the end of the connection.
func (c *client) receive() packets.Packet {
	c.t.Helper()
	if err := c.nc.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	for {
		f, n, _, err := packets.Next(c.buf, 0)
		if err != nil {
			c.t.Fatal(err)
		}
		if n > 0 {
			f.Body = append([]byte(nil), f.Body...)
			c.buf = c.buf[n:]
			pk, err := f.Decode(c.v)
			if err != nil {
				c.t.Fatal(err)
			}
			return pk
		}
		var b [4096]byte
		n, err = c.nc.Read(b[:])
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				c.t.Fatal("timeout")
			}
			return nil
		}
		c.buf = append(c.buf, b[:n]...)
	}
}

func (c *client) subscribe(filter string, qos byte) {
	c.t.Helper()
	c.send(&packets.Subscribe{PacketID: 1, Filters: []packets.Subscription{{Filter: []byte(filter), Options: qos}}})
	if _, ok := c.receive().(*packets.Suback); !ok {
		c.t.Fatal("no suback")
	}
}

func (c *client) publish(topic, payload string, qos byte, pid uint16) {
	c.t.Helper()
	c.send(&packets.Publish{QoS: qos, PacketID: pid, Topic: []byte(topic), Payload: []byte(payload)})
}

// close ends the connection in good order and waits until the broker has let
// go of it: what others do from here on finds the client absent.
func (c *client) close() {
	c.t.Helper()
	c.send(&packets.Disconnect{})
	for c.receive() != nil {
	}
	c.nc.Close()
}

// An acknowledged message for an absent durable session is there after a
// restart, once, with the acknowledgement only after its commit.
func TestOfflineQueueSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	r := start(t, broker.Options{DataDir: dir})
	sub := dial(t, r, packets.V5, "sub", true, 1000)
	sub.subscribe("a/#", 1)
	sub.close()
	pub := dial(t, r, packets.V311, "pub", true, 0)
	for i := range 100 {
		pub.publish("a/b", string(rune('a'+i%26)), 1, uint16(i+1))
	}
	for range 100 {
		if _, ok := pub.receive().(*packets.Ack); !ok {
			t.Fatal("no puback")
		}
	}
	pub.close()
	r.stop(t)

	r = start(t, broker.Options{DataDir: dir})
	sub = dial(t, r, packets.V5, "sub", false, 1000)
	for i := range 100 {
		p, ok := sub.receive().(*packets.Publish)
		if !ok || string(p.Payload) != string(rune('a'+i%26)) || p.Dup {
			t.Fatalf("message %d: %+v", i, p)
		}
		sub.send(&packets.Ack{Type: packets.TypePuback, PacketID: p.PacketID})
	}
	sub.close()
	r.stop(t)
}

// Stopping tells MQTT 5 clients why and says nothing to MQTT 3 clients
// [MQTT-3.14.0-1].
func TestCloseDisconnects(t *testing.T) {
	r := start(t, broker.Options{DataDir: t.TempDir()})
	v5 := dial(t, r, packets.V5, "five", true, 0)
	v3 := dial(t, r, packets.V311, "three", true, 0)
	r.stop(t)
	if d, ok := v5.receive().(*packets.Disconnect); !ok || d.Code != packets.CodeServerShuttingDown {
		t.Errorf("v5 got %+v", d)
	}
	if pk := v3.receive(); pk != nil {
		t.Errorf("v3 got %+v", pk)
	}
	v5.nc.Close()
	v3.nc.Close()
}

// A client that connects and says nothing is let go.
func TestConnectTimeout(t *testing.T) {
	r := start(t, broker.Options{DataDir: t.TempDir(), Limits: broker.Limits{ConnectTimeout: 50 * time.Millisecond}})
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, nc: nc}
	if pk := c.receive(); pk != nil {
		t.Errorf("got %+v", pk)
	}
	nc.Close()
	r.stop(t)
}

// A data directory that is in use is refused.
func TestSecondServerIsLockedOut(t *testing.T) {
	dir := t.TempDir()
	r := start(t, broker.Options{DataDir: dir})
	dial(t, r, packets.V5, "c", true, 0).close()
	s, err := broker.New(&broker.Options{DataDir: dir, AllowAnonymous: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(context.Background()); err == nil {
		t.Error("a second server runs on the same directory")
	}
	r.stop(t)
}

func redial(t testing.TB, r *running) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	return nc
}

// ping waits until the broker has handled everything the client sent.
func ping(t testing.TB, c *client) {
	t.Helper()
	c.send(&packets.Ping{Type: packets.TypePingreq})
	for {
		switch pk := c.receive().(type) {
		case *packets.Ping:
			return
		case nil:
			t.Fatal("connection closed")
		default:
			_ = pk
		}
	}
}
