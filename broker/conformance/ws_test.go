package conformance

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// wsClient is the client's side of a WebSocket, by hand: frames can be cut,
// joined and wrong. As a net.Conn it carries the payload of binary frames.
type wsClient struct {
	net.Conn
	r       *bufio.Reader
	rest    []byte
	closing uint16 // status of the close frame that came, 0 = none
}

// upgrade asks for a WebSocket with the given subprotocol headers.
func upgrade(t *testing.T, addr, path string, protocols ...string) (*wsClient, *http.Response) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	var key [16]byte
	if _, err := rand.Read(key[:]); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n",
		path, addr, base64.StdEncoding.EncodeToString(key[:]))
	for _, p := range protocols {
		fmt.Fprintf(&b, "Sec-WebSocket-Protocol: %s\r\n", p)
	}
	if _, err := io.WriteString(nc, b.String()+"\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(nc)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("upgrade: %v", err)
	}
	return &wsClient{Conn: nc, r: r}, resp
}

// Opcodes of frames.
const (
	opContinue, opText, opBinary, opClose, opPing, opPong = 0, 1, 2, 8, 9, 10
)

// frame builds one masked frame.
func frame(op byte, fin bool, payload []byte) []byte {
	b := []byte{op, 0x80}
	if fin {
		b[0] |= 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b[1] |= byte(n)
	case n < 1<<16:
		b[1] |= 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] |= 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	mask := [4]byte{1, 2, 3, 4}
	b = append(b, mask[:]...)
	for i, x := range payload {
		b = append(b, x^mask[i%4])
	}
	return b
}

// Write sends one binary frame.
func (w *wsClient) Write(p []byte) (int, error) {
	if _, err := w.Conn.Write(frame(opBinary, true, p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Read returns payload of binary frames; any other data frame is an error.
func (w *wsClient) Read(p []byte) (int, error) {
	for len(w.rest) == 0 {
		op, payload, err := w.readFrame()
		if err != nil {
			return 0, err
		}
		switch op {
		case opBinary, opContinue:
			w.rest = payload
		case opClose:
			if len(payload) >= 2 {
				w.closing = binary.BigEndian.Uint16(payload)
			}
			return 0, io.EOF
		case opPing, opPong:
		default:
			return 0, fmt.Errorf("frame with opcode %d", op)
		}
	}
	n := copy(p, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

func (w *wsClient) readFrame() (op byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(w.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := uint64(head[1] & 0x7f)
	if head[1]&0x80 != 0 {
		return 0, nil, fmt.Errorf("masked frame from a server")
	}
	switch n {
	case 126:
		var x [2]byte
		_, err = io.ReadFull(w.r, x[:])
		n = uint64(binary.BigEndian.Uint16(x[:]))
	case 127:
		var x [8]byte
		_, err = io.ReadFull(w.r, x[:])
		n = binary.BigEndian.Uint64(x[:])
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(w.r, payload)
	return head[0] & 0xf, payload, err
}

// dialWS opens a WebSocket to the shared broker.
func dialWS(t *testing.T) (*client, *wsClient) {
	t.Helper()
	w, resp := upgrade(t, shared(t).ws, "/mqtt", "mqtt")
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %s", resp.Status)
	}
	return newClient(t, w).under(shared(t)), w
}

// Proves 5.0 [MQTT-6.0.0-3] [MQTT-6.0.0-4]; 3.1.1 [MQTT-6.0.0-3] [MQTT-6.0.0-4].
func TestWebSocket_MQTT_6_0_0_4_Subprotocol(t *testing.T) {
	t.Parallel()
	for _, offers := range [][]string{{"mqtt"}, {"mqttv3.1, mqtt"}, {"x", "mqtt"}, {"mqtt, mqttv3.1"}, {" a ,\tmqtt , b"}} {
		w, resp := upgrade(t, shared(t).ws, "/mqtt", offers...)
		if got := resp.Header.Get("Sec-WebSocket-Protocol"); resp.StatusCode != 101 || got != "mqtt" {
			t.Fatalf("offered %q: %s, subprotocol %q", offers, resp.Status, got)
		}
		c := newClient(t, w)
		must(t, "CONNACK", c.hello(packets.V5, name(t)).Code, 0)
		c.quiet()
	}
	for _, offers := range [][]string{nil, {"mqttv3.1"}, {"MQTT"}, {"mqtt5"}} {
		if _, resp := upgrade(t, shared(t).ws, "/mqtt", offers...); resp.StatusCode == 101 {
			t.Errorf("offered %q: accepted", offers)
		}
	}
	if _, resp := upgrade(t, shared(t).ws, "/elsewhere", "mqtt"); resp.StatusCode == 101 {
		t.Error("accepted at another path")
	}
}

// Proves 5.0 [MQTT-6.0.0-1]; 3.1.1 [MQTT-6.0.0-1].
func TestWebSocket_MQTT_6_0_0_1_BinaryOnly(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		topic := name(t)
		watch := shared(t).connect(t, packets.V5, name(t))
		watch.mustSubscribe(topic, 1)
		c, w := dialWS(t)
		c.hello(v, name(t), will(topic, 1, false, "text"))
		c.quiet() // the answers are binary frames: Read refuses others
		if _, err := w.Conn.Write(frame(opText, true, []byte(packets.Pingreq))); err != nil {
			t.Fatal(err)
		}
		c.closed()
		watch.expect(topic, "text")
		c, w = dialWS(t) // as the first frame
		if _, err := w.Conn.Write(frame(opText, true, (&packets.Connect{CleanStart: true, ClientID: []byte("x")}).AppendTo(nil, v))); err != nil {
			t.Fatal(err)
		}
		c.closed()
	})
}

// Packets cut over frames and frames that hold several packets, control frames
// among them.
//
// Proves 5.0 [MQTT-6.0.0-2]; 3.1.1 [MQTT-6.0.0-2].
func TestWebSocket_MQTT_6_0_0_2_NotAligned(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		stream := func(topic, id string) []byte {
			b := (&packets.Connect{CleanStart: true, ClientID: []byte(id)}).AppendTo(nil, v)
			b = (&packets.Subscribe{PacketID: 1, Filters: []packets.Subscription{{Filter: []byte(topic), Options: 2}}}).AppendTo(b, v)
			for i := range 40 {
				m := message(topic, 1, fmt.Sprint(i))
				m.PacketID = uint16(i + 10)
				b = m.AppendTo(b, v)
			}
			return b
		}
		cuts := map[string]func(b []byte) []byte{
			"one frame": func(b []byte) []byte { return frame(opBinary, true, b) },
			"single bytes": func(b []byte) (out []byte) {
				for i := range b {
					out = append(out, frame(opBinary, true, b[i:i+1])...)
				}
				return out
			},
			"sevens": func(b []byte) (out []byte) {
				for len(b) > 0 {
					n := min(7, len(b))
					out = append(out, frame(opBinary, true, b[:n])...)
					b = b[n:]
				}
				return out
			},
			"fragments": func(b []byte) (out []byte) { // one message, with pings and empty frames between
				op := byte(opBinary)
				for len(b) > 0 {
					n := min(13, len(b))
					out = append(out, frame(op, n == len(b), b[:n])...)
					out = append(out, frame(opPing, true, []byte("hey"))...)
					if n < len(b) {
						out = append(out, frame(opContinue, false, nil)...)
					}
					op, b = opContinue, b[n:]
				}
				return out
			},
			"empty frames": func(b []byte) []byte {
				return bytes.Join([][]byte{frame(opBinary, true, nil), frame(opBinary, true, b[:9]), frame(opBinary, true, nil), frame(opBinary, true, b[9:])}, nil)
			},
		}
		for what, cut := range cuts {
			t.Run(what, func(t *testing.T) {
				topic := name(t)
				c, w := dialWS(t)
				c.v = v
				b := stream(topic, name(t))
				c.strict.v = v
				c.strict.sent(b)
				if _, err := w.Conn.Write(cut(b)); err != nil {
					t.Fatal(err)
				}
				must(t, "CONNACK", c.welcome().Code, 0)
				for i := range 40 {
					c.ack(packets.TypePuback, uint16(i+10))
				}
				c.suback(1)
				for i := range 40 {
					c.see(topic, fmt.Sprint(i))
				}
				c.quiet()
			})
		}
	})
}

// A large message over WebSocket, and the reasons for an end.
//
// Proves 5.0 [MQTT-4.2.0-1] [MQTT-4.13.1-1].
func TestWebSocket_Stream(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v packets.Version) {
		topic := name(t)
		c, w := dialWS(t)
		c.hello(v, name(t))
		c.mustSubscribe(topic, 2)
		payload := strings.Repeat("0123456789", 200_000)
		c.publish(message(topic, 2, payload))
		if m := c.take(); string(m.Payload) != payload {
			t.Fatalf("%d bytes arrived", len(m.Payload))
		}
		c.raw(0x36, 0)
		c.rejected(packets.CodeMalformedPacket)
		_ = w
		c, w = dialWS(t)
		c.hello(v, name(t))
		if _, err := w.Conn.Write(frame(opClose, true, []byte{3, 0xe8})); err != nil { // 1000
			t.Fatal(err)
		}
		c.closed()
		c, w = dialWS(t)
		c.hello(v, name(t))
		b := frame(opBinary, true, []byte(packets.Pingreq))
		b[1] &^= 0x80 // not masked
		if _, err := w.Conn.Write(b); err != nil {
			t.Fatal(err)
		}
		c.gone()
	})
}
