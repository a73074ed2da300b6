package listeners_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/wind-c/comqtt/v3/broker/listeners"
)

func TestUnixHandsOverTheRawConnection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mqtt.sock")
	l := listeners.NewUnix("u1", path)
	conns := serve(t, l)
	client := dial(t, "unix", path)
	server := <-conns
	if _, ok := server.(*net.UnixConn); !ok || l.Protocol() != "unix" || l.Address() != path {
		t.Errorf("got a %T at %s %s", server, l.Protocol(), l.Address())
	}
	exchange(t, client, server)
	server.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket file left behind: %v", err)
	}
}

func TestUnixMode(t *testing.T) {
	for _, tt := range []struct{ set, want fs.FileMode }{{0, 0o660}, {0o600, 0o600}, {0o666, 0o666}} {
		path := filepath.Join(t.TempDir(), "mqtt.sock")
		l := listeners.NewUnix("u1", path)
		l.Mode = tt.set
		if err := l.Listen(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode().Perm() != tt.want {
			t.Errorf("mode %v gives %v, %v", tt.set, info.Mode(), err)
		}
		l.Close()
	}
}

// A killed broker leaves its socket file behind; the next one must start.
func TestUnixStaleFileIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mqtt.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal("no stale file to replace", err)
	}
	l := listeners.NewUnix("u1", path)
	conns := serve(t, l)
	client := dial(t, "unix", path)
	server := <-conns
	exchange(t, client, server)
	server.Close()
}

func TestUnixLiveSocketIsNotTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mqtt.sock")
	first := listeners.NewUnix("first", path)
	conns := serve(t, first)
	err := listeners.NewUnix("second", path).Listen()
	var bind *listeners.BindError
	if !errors.As(err, &bind) || !bind.InUse() || bind.Address != path {
		t.Errorf("got %v", err)
	}
	(<-conns).Close() // the question itself was a connection
	client := dial(t, "unix", path)
	server := <-conns
	exchange(t, client, server)
	server.Close()
}

func TestUnixOtherFilesAreNeverRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := listeners.NewUnix("u1", path).Listen()
	var bind *listeners.BindError
	if !errors.As(err, &bind) || !errors.Is(err, listeners.ErrNotSocket) || bind.InUse() {
		t.Errorf("got %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "data" {
		t.Errorf("file is now %q, %v", data, err)
	}
}
