package listeners_test

import (
	"io"
	"net"
	"testing"

	"go.uber.org/goleak"

	"github.com/wind-c/comqtt/v3/broker/listeners"
)

func TestMain(m *testing.M) {
	// After a refused handshake net/http lingers for half a second, so that the
	// answer is read before the reset; it ends by itself.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// serve starts l and returns the connections it hands over. At the end of the
// test it closes l and checks that Serve returned nil.
func serve(t *testing.T, l listeners.Listener) <-chan net.Conn {
	t.Helper()
	if err := l.Listen(); err != nil {
		t.Fatal(err)
	}
	conns := make(chan net.Conn, 16)
	served := make(chan error, 1)
	go func() { served <- l.Serve(func(c net.Conn) { conns <- c }) }()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve after Close: %v", err)
		}
		for {
			select {
			case c := <-conns:
				c.Close()
			default:
				return
			}
		}
	})
	return conns
}

func dial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// exchange sends a message each way and checks that it arrives.
func exchange(t *testing.T, client, server net.Conn) {
	t.Helper()
	for _, way := range []struct{ from, to net.Conn }{{client, server}, {server, client}} {
		if _, err := way.from.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4)
		if _, err := io.ReadFull(way.to, got); err != nil || string(got) != "ping" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
}
