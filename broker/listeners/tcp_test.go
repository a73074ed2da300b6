package listeners_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/broker/listeners"
)

func TestTCPHandsOverTheRawConnection(t *testing.T) {
	l := listeners.NewTCP("t1", "127.0.0.1:0")
	conns := serve(t, l)
	if l.ID() != "t1" || l.Protocol() != "tcp" || strings.HasSuffix(l.Address(), ":0") {
		t.Errorf("ID %q, Protocol %q, Address %q", l.ID(), l.Protocol(), l.Address())
	}
	client := dial(t, "tcp", l.Address())
	server := <-conns
	if _, ok := server.(*net.TCPConn); !ok {
		t.Errorf("got a %T, want *net.TCPConn", server)
	}
	exchange(t, client, server)

	// Close takes the address back and leaves the connection alone.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	exchange(t, client, server)
	server.Close()
	if again, err := net.Listen("tcp", l.Address()); err != nil {
		t.Errorf("address not free after Close: %v", err)
	} else {
		again.Close()
	}
}

func TestTCPConnectsBeforeServeWait(t *testing.T) {
	l := listeners.NewTCP("t1", "127.0.0.1:0")
	if err := l.Listen(); err != nil {
		t.Fatal(err)
	}
	client := dial(t, "tcp", l.Address()) // while the broker still replays
	server := <-serve(t, l)
	exchange(t, client, server)
	server.Close()
}

func TestTakenPortSaysWhichAddress(t *testing.T) {
	first := listeners.NewTCP("first", "127.0.0.1:0")
	serve(t, first)
	for _, l := range []listeners.Listener{
		listeners.NewTCP("second", first.Address()),
		listeners.NewWebsocket("second", first.Address(), ""),
	} {
		err := l.Listen()
		var bind *listeners.BindError
		if !errors.As(err, &bind) || !bind.InUse() || bind.Address != first.Address() || bind.ID != "second" {
			t.Errorf("%T: got %#v", l, err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("%T: Close after a failed Listen: %v", l, err)
		}
	}
	err := listeners.NewTCP("third", "192.0.2.1:1883").Listen() // not our address
	var bind *listeners.BindError
	if !errors.As(err, &bind) || bind.InUse() {
		t.Errorf("foreign address: got %v", err)
	}
}

func TestServeAndCloseInAnyOrder(t *testing.T) {
	for _, mk := range []func() listeners.Listener{
		func() listeners.Listener { return listeners.NewTCP("x", "127.0.0.1:0") },
		func() listeners.Listener { return listeners.NewWebsocket("x", "127.0.0.1:0", "") },
		func() listeners.Listener { return listeners.NewUnix("x", t.TempDir()+"/s") },
	} {
		l := mk()
		if err := l.Close(); err != nil {
			t.Errorf("%T: Close first: %v", l, err)
		}
		if err := l.Serve(nil); err != nil {
			t.Errorf("%T: Serve after Close: %v", l, err)
		}
		if err := l.Listen(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%T: Listen after Close: %v", l, err)
		}

		l = mk()
		serve(t, l)
		addr := l.Address()
		if err := l.Listen(); err != nil || l.Address() != addr {
			t.Errorf("%T: second Listen: %v, %s then %s", l, err, addr, l.Address())
		}
	}
}

func TestSecondServeIsRefused(t *testing.T) {
	l := listeners.NewTCP("x", "127.0.0.1:0")
	conns := serve(t, l)
	dial(t, "tcp", l.Address())
	(<-conns).Close() // the first Serve runs
	if err := l.Serve(nil); !errors.Is(err, listeners.ErrServing) {
		t.Errorf("got %v", err)
	}
}

func TestNetServesAGivenListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := listeners.NewNet("given", ln)
	conns := serve(t, l)
	client := dial(t, "tcp", l.Address())
	server := <-conns
	exchange(t, client, server)
	server.Close()

	unused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listeners.NewNet("unused", unused).Close(); err != nil {
		t.Error(err)
	}
	if _, err := unused.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the wrapped listener was left open: %v", err)
	}
}
