package listeners_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/wind-c/comqtt/v3/broker/listeners"
)

// handshake is a client's opening request; protocols are header lines.
func handshake(addr, path string, protocols ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", path, addr)
	b.WriteString("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")
	b.WriteString("Origin: http://elsewhere.example\r\n")
	for _, p := range protocols {
		fmt.Fprintf(&b, "Sec-WebSocket-Protocol: %s\r\n", p)
	}
	return b.String() + "\r\n"
}

// frame is a masked client frame.
func frame(fin bool, opcode byte, payload string) []byte {
	b := []byte{opcode}
	if fin {
		b[0] |= 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := [4]byte{1, 2, 3, 4}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// readFrame reads one unmasked server frame.
func readFrame(t *testing.T, r io.Reader) (opcode byte, payload []byte) {
	t.Helper()
	var head [10]byte
	read := func(b []byte) {
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatal("reading a frame:", err)
		}
	}
	read(head[:2])
	n := uint64(head[1])
	switch n {
	case 126:
		read(head[2:4])
		n = uint64(binary.BigEndian.Uint16(head[2:4]))
	case 127:
		read(head[2:10])
		n = binary.BigEndian.Uint64(head[2:10])
	}
	payload = make([]byte, n)
	read(payload)
	if head[0]&0x80 == 0 {
		t.Errorf("frame without FIN")
	}
	return head[0] & 0x0f, payload
}

// rawClient does the handshake by hand and returns both ends; extra is sent in
// the same write as the request.
func rawClient(t *testing.T, l listeners.Listener, conns <-chan net.Conn, extra ...byte) (net.Conn, *bufio.Reader, net.Conn) {
	t.Helper()
	client := dial(t, "tcp", l.Address())
	if _, err := client.Write(append([]byte(handshake(l.Address(), "/mqtt", "mqtt")), extra...)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(client)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v, %v", resp, err)
	}
	server := <-conns
	t.Cleanup(func() { server.Close() })
	return client, r, server
}

func newWebsocket(t *testing.T) (*listeners.Websocket, <-chan net.Conn) {
	t.Helper()
	l := listeners.NewWebsocket("w1", "127.0.0.1:0", "")
	return l, serve(t, l)
}

func TestWebsocketWithARealClient(t *testing.T) {
	l, conns := newWebsocket(t)
	if l.Protocol() != "ws" || l.Path() != "/mqtt" {
		t.Errorf("Protocol %q, Path %q", l.Protocol(), l.Path())
	}
	ctx := t.Context()
	ws, resp, err := websocket.Dial(ctx, "ws://"+l.Address()+"/mqtt", &websocket.DialOptions{
		Subprotocols:    []string{"mqttv3.1", "mqtt"},
		CompressionMode: websocket.CompressionContextTakeover,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if ws.Subprotocol() != "mqtt" || resp.Header.Get("Sec-WebSocket-Extensions") != "" {
		t.Errorf("subprotocol %q, extensions %q", ws.Subprotocol(), resp.Header.Get("Sec-WebSocket-Extensions"))
	}
	client := websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
	server := <-conns
	exchange(t, client, server)
	if server.RemoteAddr().Network() != "tcp" || server.LocalAddr().String() != l.Address() {
		t.Errorf("addresses %v, %v", server.RemoteAddr(), server.LocalAddr())
	}
	// A close frame in place of a bare end of stream: what the client sees is a
	// clean close, without a handshake that would have kept the broker waiting.
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	_, _, err = ws.Read(ctx)
	if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("client saw %v", err)
	}
	if err := server.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
}

func TestWebsocket_MQTT_6_0_0_3_SubprotocolMustBeOffered(t *testing.T) {
	l, conns := newWebsocket(t)
	for _, tt := range []struct {
		offered []string
		status  int
	}{
		{nil, http.StatusBadRequest},
		{[]string{"mqttv3.1"}, http.StatusBadRequest},
		{[]string{"MQTT"}, http.StatusBadRequest}, // names are compared exactly
		{[]string{"mqtt"}, http.StatusSwitchingProtocols},
		{[]string{"chat, MQTT,mqttv3.1 , mqtt"}, http.StatusSwitchingProtocols},
		{[]string{"chat", "mqtt"}, http.StatusSwitchingProtocols},
	} {
		client := dial(t, "tcp", l.Address())
		fmt.Fprint(client, handshake(l.Address(), "/mqtt", tt.offered...))
		resp, err := http.ReadResponse(bufio.NewReader(client), nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != tt.status {
			t.Errorf("offered %q: status %d, want %d", tt.offered, resp.StatusCode, tt.status)
		}
		if tt.status != http.StatusSwitchingProtocols {
			body, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Contains(body, []byte("MQTT-6.0.0-3")) {
				t.Errorf("offered %q: answer %q, %v", tt.offered, body, err)
			}
			continue
		}
		// [MQTT-6.0.0-4]: the server answers with the name mqtt.
		if got := resp.Header.Values("Sec-Websocket-Protocol"); len(got) != 1 || got[0] != "mqtt" {
			t.Errorf("offered %q: answered %q", tt.offered, got)
		}
		(<-conns).Close()
	}
}

func TestWebsocketRefusesWhatIsNoHandshake(t *testing.T) {
	l, _ := newWebsocket(t)
	for request, want := range map[string]string{
		handshake(l.Address(), "/", "mqtt"):                                                      "404",
		"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n":                                                  "426",
		"POST /mqtt HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n":                            "426",
		"\x10\x0c\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00\r\n\r\n":                               "400", // MQTT on the wrong port
		strings.Replace(handshake(l.Address(), "/mqtt", "mqtt"), "Version: 13", "Version: 8", 1): "400",
		"GET /mqtt HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n":        "431",
	} {
		client := dial(t, "tcp", l.Address())
		fmt.Fprint(client, request)
		line, err := bufio.NewReader(client).ReadString('\n')
		if err != nil || !strings.Contains(line, want) {
			t.Errorf("%.40q: answer %q, %v, want %s", request, line, err, want)
		}
	}
}

func TestWebsocketOrigins(t *testing.T) {
	l := listeners.NewWebsocket("w1", "127.0.0.1:0", "/other")
	l.Origins = []string{"*.example.com"}
	conns := serve(t, l)
	for origin, want := range map[string]int{
		"http://elsewhere.example": http.StatusForbidden,
		"http://app.example.com":   http.StatusSwitchingProtocols,
	} {
		client := dial(t, "tcp", l.Address())
		request := handshake(l.Address(), "/other", "mqtt")
		fmt.Fprint(client, strings.Replace(request, "http://elsewhere.example", origin, 1))
		resp, err := http.ReadResponse(bufio.NewReader(client), nil)
		if err != nil || resp.StatusCode != want {
			t.Errorf("%s: %v, %v", origin, resp, err)
		}
	}
	(<-conns).Close()
}

func TestWebsocket_MQTT_6_0_0_1_TextFramesCloseTheConnection(t *testing.T) {
	l, conns := newWebsocket(t)
	client, r, server := rawClient(t, l, conns)
	client.Write(frame(true, opText, "hello"))
	buf := make([]byte, 16)
	if n, err := server.Read(buf); n != 0 || !errors.Is(err, listeners.ErrTextFrame) {
		t.Errorf("Read gave %d, %v", n, err)
	}
	if _, err := server.Read(buf); !errors.Is(err, listeners.ErrTextFrame) {
		t.Errorf("the error does not stick: %v", err)
	}
	op, payload := readFrame(t, r)
	if op != opClose || binary.BigEndian.Uint16(payload) != uint16(websocket.StatusUnsupportedData) {
		t.Errorf("client got frame %x %q", op, payload)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("the connection is still open")
	}
}

// Packets need not align with frames; a receiver must not assume it.
func TestWebsocket_MQTT_6_0_0_2_FramesAreAStream(t *testing.T) {
	l, conns := newWebsocket(t)
	client, r, server := rawClient(t, l, conns)
	long := strings.Repeat("0123456789abcdef", 70<<10/16) // needs a 64-bit length
	var out []byte
	out = append(out, frame(false, opBinary, "one ")...)       // fragments of a message,
	out = append(out, frame(true, opPing, "are you there")...) // a ping between them,
	out = append(out, frame(false, opContinuation, "")...)     // an empty one,
	out = append(out, frame(true, opContinuation, "two ")...)
	out = append(out, frame(true, opBinary, "")...) // an empty message,
	out = append(out, frame(true, opBinary, "three ")...)
	out = append(out, frame(true, opBinary, long)...)
	sent := make(chan error, 1)
	go func() {
		var err error
		for _, b := range out[:64] { // torn over many segments
			if _, err = client.Write([]byte{b}); err != nil {
				break
			}
		}
		if err == nil {
			_, err = client.Write(out[64:])
		}
		sent <- err
	}()
	want := "one two three " + long
	got := make([]byte, len(want))
	if _, err := io.ReadFull(server, got); err != nil || string(got) != want {
		t.Errorf("got %.40q…, %v", got, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if op, payload := readFrame(t, r); op != opPong || string(payload) != "are you there" {
		t.Errorf("ping answered by frame %x %q", op, payload)
	}
	for _, n := range []int{0, 1, 125, 126, 1<<16 - 1, 1 << 16, 200 << 10} {
		msg := bytes.Repeat([]byte{byte(n)}, n)
		go func() {
			wrote, err := server.Write(msg)
			if wrote != n {
				err = errors.Join(err, fmt.Errorf("wrote %d of %d", wrote, n))
			}
			sent <- err
		}()
		if n > 0 { // an empty Write sends nothing
			if op, payload := readFrame(t, r); op != opBinary || !bytes.Equal(payload, msg) {
				t.Errorf("%d bytes came as frame %x of %d bytes", n, op, len(payload))
			}
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}
}

func TestWebsocketPacketsSentWithTheHandshake(t *testing.T) {
	l, conns := newWebsocket(t)
	_, _, server := rawClient(t, l, conns, frame(true, opBinary, "CONNECT")...)
	got := make([]byte, 7)
	if _, err := io.ReadFull(server, got); err != nil || string(got) != "CONNECT" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWebsocketEndsAsTCPWould(t *testing.T) {
	l, conns := newWebsocket(t)
	ends := map[string]struct {
		end  func(client, server net.Conn)
		want error
	}{
		"close frame":  {func(c, _ net.Conn) { c.Write(frame(true, opClose, "\x03\xe8bye")) }, io.EOF},
		"bare close":   {func(c, _ net.Conn) { c.Write(frame(true, opClose, "")) }, io.EOF},
		"end of TCP":   {func(c, _ net.Conn) { c.Close() }, io.EOF},
		"torn frame":   {func(c, _ net.Conn) { c.Write(frame(true, opBinary, "abc")[:7]); c.Close() }, io.ErrUnexpectedEOF},
		"our Close":    {func(_, s net.Conn) { s.Close() }, net.ErrClosed},
		"our deadline": {func(_, s net.Conn) { s.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
	}
	for name, tt := range ends {
		client, _, server := rawClient(t, l, conns)
		got := make(chan error)
		go func() {
			_, err := io.ReadFull(server, make([]byte, 8))
			got <- err
		}()
		tt.end(client, server)
		err := <-got
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: Read gave %v, want %v", name, err, tt.want)
		}
		var ne net.Error
		if tt.want == os.ErrDeadlineExceeded && (!errors.As(err, &ne) || !ne.Timeout()) {
			t.Errorf("%s: %v is no timeout", name, err)
		}
		if err := server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: Close: %v", name, err)
		}
		if _, err := server.Write([]byte("x")); err == nil {
			t.Errorf("%s: Write after Close succeeds", name)
		}
	}
}

// The broker wakes a reader by a deadline and lets it go on: wherever in a frame
// that happens, nothing of it may be lost.
func TestWebsocketReadGoesOnAfterADeadline(t *testing.T) {
	l, conns := newWebsocket(t)
	client, r, server := rawClient(t, l, conns)
	stream := append(frame(false, opBinary, "ab"), frame(true, opPing, "p")...)
	stream = append(stream, frame(true, opContinuation, strings.Repeat("x", 126))...)
	var got []byte
	buf := make([]byte, 300)
	for _, b := range stream {
		server.SetReadDeadline(time.Unix(1, 0))
		if n, err := server.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("after %q: read %d, %v", got, n, err)
		}
		server.SetReadDeadline(time.Time{})
		read := make(chan int)
		go func() {
			// Ends by payload or, for the bytes around it, by the deadline below.
			n, _ := server.Read(buf)
			read <- n
		}()
		client.Write([]byte{b})
		server.SetReadDeadline(time.Now().Add(time.Millisecond))
		got = append(got, buf[:<-read]...)
	}
	server.SetReadDeadline(time.Time{})
	for want := "ab" + strings.Repeat("x", 126); string(got) != want; {
		if !strings.HasPrefix(want, string(got)) {
			t.Fatalf("got %q", got)
		}
		n, err := server.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf[:n]...)
	}
	if op, payload := readFrame(t, r); op != opPong || string(payload) != "p" {
		t.Errorf("ping answered by frame %x %q", op, payload)
	}
}

// A peer that pings and never reads holds nobody up for ever; Close ends it.
func TestWebsocketCloseWhileAPongIsStuck(t *testing.T) {
	l, conns := newWebsocket(t)
	client, _, server := rawClient(t, l, conns)
	if err := client.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	read := make(chan error)
	go func() {
		_, err := server.Read(make([]byte, 4096))
		read <- err
	}()
	// Once the server does not take pings any more, it is stuck in a pong.
	flood := bytes.Repeat(frame(true, opPing, strings.Repeat("p", 125)), 1000)
	for err := error(nil); !errors.Is(err, os.ErrDeadlineExceeded); {
		client.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err = client.Write(flood); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	server.Close()
	if err := <-read; err == nil {
		t.Error("Read after Close succeeds")
	}
}

// Broken framing (RFC 6455): closed with an error, never a panic or a hang.
func TestWebsocketMalformedFrames(t *testing.T) {
	l, conns := newWebsocket(t)
	for name, bytes := range map[string][]byte{
		"unmasked":           {0x82, 1, 'x'},
		"reserved bit":       {0xC2, 0x81, 0, 0, 0, 0, 'x'},
		"unknown opcode":     {0x83, 0x81, 0, 0, 0, 0, 'x'},
		"stray continuation": frame(true, opContinuation, "x"),
		"fragmented ping":    frame(false, opPing, "x"),
		"long ping":          frame(true, opPing, strings.Repeat("x", 126)),
		"new message inside": append(frame(false, opBinary, "x"), frame(true, opBinary, "y")...),
		"close of 1 byte":    frame(true, opClose, "x"),
		"close status 1005":  frame(true, opClose, "\x03\xed"),
		"close status 999":   frame(true, opClose, "\x03\xe7"),
		"negative length":    {0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
	} {
		client, r, server := rawClient(t, l, conns)
		client.Write(bytes)
		if _, err := io.Copy(io.Discard, server); err == nil {
			t.Errorf("%s: read as a clean end", name)
		}
		op, payload := readFrame(t, r)
		if op != opClose || binary.BigEndian.Uint16(payload) != uint16(websocket.StatusProtocolError) {
			t.Errorf("%s: client got frame %x %x", name, op, payload)
		}
		server.Close()
	}
}

// A peer that connects and says nothing can't hold Close up, nor one in the
// middle of its request.
func TestWebsocketCloseWithHandshakesPending(t *testing.T) {
	l := listeners.NewWebsocket("w1", "127.0.0.1:0", "")
	conns := serve(t, l)
	dial(t, "tcp", l.Address())
	half := dial(t, "tcp", l.Address())
	fmt.Fprint(half, handshake(l.Address(), "/mqtt", "mqtt")[:40])
	client, _, server := rawClient(t, l, conns) // accepted after the two
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := half.Read(make([]byte, 1)); err == nil {
		t.Error("a pending handshake survived Close")
	}
	client.Write(frame(true, opBinary, "still here"))
	got := make([]byte, 10)
	if _, err := io.ReadFull(server, got); err != nil || string(got) != "still here" {
		t.Errorf("a connection handed over was closed: %q, %v", got, err)
	}
}

func TestWebsocketWriteDoesNotAllocate(t *testing.T) {
	l, conns := newWebsocket(t)
	_, r, server := rawClient(t, l, conns)
	drained := make(chan struct{})
	go func() { defer close(drained); io.Copy(io.Discard, r) }()
	msg := make([]byte, 200)
	if n := testing.AllocsPerRun(200, func() { server.Write(msg) }); n != 0 {
		t.Errorf("%v allocations per Write", n)
	}
	server.Close()
	<-drained
}
