package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/wind-c/comqtt/v3/broker/admin"
	"github.com/wind-c/comqtt/v3/broker/listeners"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves status on a port of its own and returns the base URL and a
// client, both gone at the end of the test.
func start(t *testing.T, status func() admin.Status) (string, *http.Client) {
	t.Helper()
	s := admin.New(admin.Options{Addr: "127.0.0.1:0", Version: "3.0.0-test", Status: status})
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		if err := s.Close(context.Background()); err != nil { // t.Context has ended by now
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Address(), client
}

func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestHealthThroughTheLifeOfABroker(t *testing.T) {
	var status atomic.Pointer[admin.Status]
	base, client := start(t, func() admin.Status { return *status.Load() })
	checks := []admin.Check{
		{Name: "log", OK: true, Detail: "sync always"},
		{Name: "recovery", Detail: "12 of 34 records"},
	}
	for _, tt := range []struct {
		status admin.Status
		path   string
		code   int
		body   string
	}{
		{admin.Status{Percent: 43}, "/livez", 200, "ok\n"},
		{admin.Status{Percent: 43}, "/readyz", 503, "recovering 43%\n"},
		{admin.Status{Percent: 101}, "/readyz", 503, "recovering 100%\n"},
		{admin.Status{Percent: -1}, "/readyz", 503, "recovering\n"},
		{
			admin.Status{Percent: 35, Checks: checks},
			"/readyz?verbose", 503,
			"recovering 35%\n[+] log        sync always\n[-] recovery   12 of 34 records\n",
		},
		{admin.Status{State: admin.Ready, Checks: checks[:1]}, "/readyz", 200, "ok\n"},
		{admin.Status{State: admin.Ready, Checks: checks[:1]}, "/readyz?verbose", 200, "ok\n[+] log        sync always\n"},
		{admin.Status{State: admin.Stopping}, "/livez", 200, "ok\n"},
		{admin.Status{State: admin.Stopping}, "/readyz", 503, "stopping\n"},
		{admin.Status{State: admin.Failed, Err: errors.New("wal: sync: disk gone")}, "/livez", 503, "failed: wal: sync: disk gone\n"},
		{admin.Status{State: admin.Failed}, "/readyz", 503, "failed\n"},
	} {
		status.Store(&tt.status)
		if code, body := get(t, client, base+tt.path); code != tt.code || body != tt.body {
			t.Errorf("%s in %v: %d %q, want %d %q", tt.path, tt.status.State, code, body, tt.code, tt.body)
		}
	}
}

func TestVersion(t *testing.T) {
	base, client := start(t, func() admin.Status { return admin.Status{} })
	code, body := get(t, client, base+"/version")
	var got map[string]string
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != 200 {
		t.Fatalf("%d %q: %v", code, body, err)
	}
	if got["version"] != "3.0.0-test" || got["go"] != runtime.Version() || got["os"] != runtime.GOOS || got["arch"] != runtime.GOARCH {
		t.Errorf("got %v", got)
	}
}

func TestOtherPathsAndMethods(t *testing.T) {
	base, client := start(t, func() admin.Status { return admin.Status{State: admin.Ready} })
	if code, _ := get(t, client, base+"/clients"); code != http.StatusNotFound {
		t.Errorf("unknown path: %d", code)
	}
	resp, err := client.Post(base+"/readyz", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", resp.StatusCode)
	}
	resp, err = client.Head(base + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("HEAD: %d", resp.StatusCode)
	}
}

func TestTakenPort(t *testing.T) {
	base, _ := start(t, func() admin.Status { return admin.Status{} })
	s := admin.New(admin.Options{Addr: strings.TrimPrefix(base, "http://")})
	var bind *listeners.BindError
	if err := s.Listen(); !errors.As(err, &bind) || !bind.InUse() || bind.ID != "http" {
		t.Errorf("got %v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCloseWithoutServe(t *testing.T) {
	s := admin.New(admin.Options{Addr: "127.0.0.1:0"})
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	addr := s.Address()
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := admin.New(admin.Options{Addr: addr})
	if err := again.Listen(); err != nil {
		t.Error("address not free:", err)
	}
	if err := again.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
