package listeners_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/wind-c/comqtt/v3/broker/listeners"
)

// firstRecord is a slog.Handler that tells when something is logged.
type firstRecord struct{ got chan string }

func (h firstRecord) Enabled(context.Context, slog.Level) bool { return true }
func (h firstRecord) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h firstRecord) WithGroup(string) slog.Handler            { return h }
func (h firstRecord) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	select {
	case h.got <- text:
	default:
	}
	return nil
}

// With no file descriptor left, connecting clients wait in the backlog and are
// served when there is one again.
func TestOutOfFileDescriptors(t *testing.T) {
	h := firstRecord{got: make(chan string, 1)}
	tcp := listeners.NewTCP("t1", "127.0.0.1:0")
	tcp.Logger = slog.New(h)
	ws := listeners.NewWebsocket("w1", "127.0.0.1:0", "")
	ws.Logger = slog.New(h)
	for _, l := range []listeners.Listener{tcp, ws} {
		t.Run(l.Protocol(), func(t *testing.T) { outOfFileDescriptors(t, l, h) })
	}
}

func outOfFileDescriptors(t *testing.T, l listeners.Listener, h firstRecord) {
	conns := serve(t, l)
	addr, err := net.ResolveTCPAddr("tcp", l.Address())
	if err != nil {
		t.Fatal(err)
	}
	// The client's descriptor exists before the limit falls.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	client := os.NewFile(uintptr(fd), "client")
	defer client.Close()

	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	low := old
	low.Cur = 3 // below every descriptor that a new one could get
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())})
	logged := <-h.got
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(logged, "too many open files") || !strings.Contains(logged, l.ID()) {
		t.Errorf("logged %q", logged)
	}
	if l.Protocol() == "ws" {
		if _, err := client.WriteString(handshake(l.Address(), "/mqtt", "mqtt")); err != nil {
			t.Fatal(err)
		}
	}
	(<-conns).Close()
}
