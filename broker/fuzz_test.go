package broker_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/wal"
)

// FuzzConnection sends arbitrary bytes as a client. The broker must neither
// panic nor stall nor answer with anything that is not MQTT, and it must end
// the connection when the client's half is closed.
func FuzzConnection(f *testing.F) {
	connect := func(v packets.Version, id string) []byte {
		pk := packets.Connect{Version: v, CleanStart: true, ClientID: []byte(id)}
		return pk.AppendTo(nil, v)
	}
	for _, v := range []packets.Version{packets.V31, packets.V311, packets.V5} {
		b := connect(v, "fuzz")
		sub := packets.Subscribe{PacketID: 1, Filters: []packets.Subscription{{Filter: []byte("a/#"), Options: 2}}}
		b = sub.AppendTo(b, v)
		for qos := range byte(3) {
			pub := packets.Publish{QoS: qos, Topic: []byte("a/b"), Payload: []byte("x"), Retain: qos == 1}
			if qos > 0 {
				pub.PacketID = uint16(qos)
			}
			b = pub.AppendTo(b, v)
		}
		rel := packets.Ack{Type: packets.TypePubrel, PacketID: 2}
		b = rel.AppendTo(b, v)
		uns := packets.Unsubscribe{PacketID: 2, Filters: [][]byte{[]byte("a/#")}}
		b = uns.AppendTo(b, v)
		ping := packets.Ping{Type: packets.TypePingreq}
		b = ping.AppendTo(b, v)
		f.Add(b)
		bye := packets.Disconnect{}
		f.Add(bye.AppendTo(b, v))
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	r := start(f, broker.Options{DataDir: f.TempDir(), Sync: wal.SyncNever, Limits: broker.Limits{ConnectTimeout: 2 * time.Second}})
	f.Cleanup(func() { r.stop(f) })
	f.Fuzz(func(t *testing.T, data []byte) {
		nc, err := net.Dial("unix", r.path)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Write(data); err != nil {
			return // closed already, as it may be
		}
		if err := nc.(*net.UnixConn).CloseWrite(); err != nil {
			return
		}
		answer, err := io.ReadAll(nc)
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			t.Fatalf("the connection does not end; answered %x", answer)
		}
		version := packets.V311
		if f, n, _, err := packets.Next(data, 0); err == nil && n > 0 && f.Type() == packets.TypeConnect {
			var pk packets.Connect
			if pk.Decode(f.Flags(), f.Body) == nil {
				version = pk.Version
			}
		}
		for len(answer) > 0 {
			f, n, _, err := packets.Next(answer, 0)
			if err != nil || n == 0 {
				t.Fatalf("not a packet: %x (%v)", answer, err)
			}
			if _, err := f.Decode(version); err != nil && f.Type() != packets.TypeConnack {
				t.Fatalf("answer %x: %v", answer[:n], err)
			}
			answer = answer[n:]
		}
	})
}
