package admin_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/broker/admin"
)

// fakeControl is a broker with three sessions and one retained message.
type fakeControl struct {
	by       string
	held     int
	released chan struct{}
	fail     error
}

func (f *fakeControl) Sessions(_ context.Context, fn func(admin.Session) error) error {
	for i := range 3 {
		if f.fail != nil && i == 2 {
			return f.fail
		}
		if err := fn(admin.Session{Client: fmt.Sprintf("c%d", i), Queued: i}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeControl) SessionDetail(_ context.Context, client string) (*admin.SessionDetail, error) {
	if client != "c/1 &?" {
		return nil, nil
	}
	return &admin.SessionDetail{Session: admin.Session{Client: client}, Filters: []admin.Subscription{{Filter: "a/#", QoS: 1}}}, nil
}

func (f *fakeControl) RemoveSession(_ context.Context, client, by string) (uint64, error) {
	f.by = by
	if client != "c1" {
		return 0, f.fail
	}
	return 7, nil
}

func (f *fakeControl) Retained(_ context.Context, filter string, fn func(admin.Retained) error) error {
	return fn(admin.Retained{Topic: filter, Bytes: 3})
}

func (f *fakeControl) RetainedMessage(_ context.Context, topic string) (*admin.RetainedMessage, error) {
	return &admin.RetainedMessage{Retained: admin.Retained{Topic: topic}, Payload: []byte{0, 255}}, nil
}

func (f *fakeControl) ClearRetained(context.Context, string, string) (uint64, error) { return 9, nil }

func (f *fakeControl) Hold(_ context.Context, base bool) (admin.Held, func(), error) {
	f.held++
	h := admin.Held{Durable: 12}
	if base {
		h.Base = "base"
	}
	return h, func() { close(f.released) }, nil
}

func startSocket(t *testing.T, dir string, c admin.Control) *admin.Client {
	t.Helper()
	s, err := admin.ListenSocket(admin.SocketOptions{Dir: dir, Control: c, Version: "v"})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	client := admin.NewClient(dir)
	t.Cleanup(func() {
		client.Close()
		if err := errors.Join(s.Close(), <-served); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, admin.SocketName)); !errors.Is(err, os.ErrNotExist) {
			t.Error("the socket is left behind")
		}
	})
	return client
}

func TestSocket(t *testing.T) {
	f := &fakeControl{released: make(chan struct{})}
	dir := t.TempDir()
	c := startSocket(t, dir, f)
	ctx := t.Context()
	info, err := os.Stat(filepath.Join(dir, admin.SocketName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	n := 0
	if err := c.Sessions(ctx, func(s admin.Session) error { n += s.Queued; return nil }); err != nil || n != 3 {
		t.Errorf("sessions: %d, %v", n, err)
	}
	if d, err := c.Session(ctx, "c/1 &?"); err != nil || d.Client != "c/1 &?" || d.Filters[0].Filter != "a/#" {
		t.Errorf("session: %+v, %v", d, err)
	}
	if _, err := c.Session(ctx, "nobody"); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	if index, err := c.RemoveSession(ctx, "c1"); err != nil || index != 7 || !strings.HasPrefix(f.by, "admin socket, ") {
		t.Errorf("remove: %d by %q, %v", index, f.by, err)
	}
	if _, err := c.RemoveSession(ctx, "c2"); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("remove nobody: %v", err)
	}
	var topics []string
	if err := c.Retained(ctx, "a/+/#", func(r admin.Retained) error { topics = append(topics, r.Topic); return nil }); err != nil || topics[0] != "a/+/#" {
		t.Errorf("retained: %q, %v", topics, err)
	}
	if m, err := c.RetainedMessage(ctx, "ä/1"); err != nil || m.Topic != "ä/1" || string(m.Payload) != "\x00\xff" {
		t.Errorf("message: %+v, %v", m, err)
	}
	if index, err := c.ClearRetained(ctx, "x"); err != nil || index != 9 {
		t.Errorf("clear: %d, %v", index, err)
	}
}

// A hold ends with its connection.
func TestSocket_Hold(t *testing.T) {
	f := &fakeControl{released: make(chan struct{})}
	c := startSocket(t, t.TempDir(), f)
	h, release, err := c.Hold(t.Context(), true)
	if err != nil || h.Durable != 12 || h.Base != "base" || h.Version != "v" {
		t.Fatalf("%+v, %v", h, err)
	}
	select {
	case <-f.released:
		t.Fatal("released at once")
	default:
	}
	release()
	<-f.released
}

// A list that breaks off is an error, never a short list.
func TestSocket_BrokenList(t *testing.T) {
	f := &fakeControl{fail: errors.New("the broker stops")}
	c := startSocket(t, t.TempDir(), f)
	if err := c.Sessions(t.Context(), func(admin.Session) error { return nil }); err == nil {
		t.Error("a broken list looks whole")
	}
	if _, err := c.RemoveSession(t.Context(), "c2"); err == nil || !strings.Contains(err.Error(), "the broker stops") {
		t.Errorf("got %v", err)
	}
}

func TestSocket_LongPathAndLeftover(t *testing.T) {
	dir := t.TempDir()
	for len(dir) < 180 {
		dir = filepath.Join(dir, strings.Repeat("d", 40))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, admin.SocketName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := startSocket(t, dir, &fakeControl{})
	if _, err := c.ClearRetained(t.Context(), "x"); err != nil {
		t.Error(err)
	}
}

func TestClient_NoBroker(t *testing.T) {
	c := admin.NewClient(t.TempDir())
	if _, err := c.ClearRetained(t.Context(), "x"); !errors.Is(err, admin.ErrNoBroker) {
		t.Errorf("got %v", err)
	}
}
