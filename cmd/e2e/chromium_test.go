package e2e

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func missingChromium() string {
	if _, err := exec.LookPath("chromium"); err != nil {
		return "chromium is not installed (apt-get install chromium): MQTT.js in a web page is skipped"
	}
	return missingPackage()
}

// startChromium opens a page in a headless browser. The page loads MQTT.js and
// then does what the test says over a WebSocket of its own.
func startChromium(t *testing.T) *node {
	t.Helper()
	pages, opened := servePage(t)
	home, err := os.MkdirTemp("", "comqtt-e2e-chromium-")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
		"--disable-dev-shm-usage", "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
		"--user-data-dir="+home, pages.URL+"/")
	stderr := &transcript{}
	cmd.Stdout, cmd.Stderr = stderr, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = patience // Wait returns when no process of the browser holds stderr any more
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the whole group
		<-exited
		if err := os.RemoveAll(home); err != nil {
			t.Logf("the browser's directory is not removed: %v", err)
		}
		if t.Failed() {
			t.Logf("the browser wrote:\n%s", stderr)
		}
	})
	select {
	case n := <-opened:
		wait(t, n.hello, "the page's first word")
		return n
	case <-exited:
		t.Fatalf("chromium ended: %v\n%s", cmd.ProcessState, stderr)
	case <-time.After(2 * patience): // on a busy machine the first start is slow
		t.Fatalf("chromium did not open the page within %v\n%s", 2*patience, stderr)
	}
	return nil
}

// servePage serves the page and what it loads, and returns the page that has
// connected.
func servePage(t *testing.T) (*httptest.Server, <-chan *node) {
	t.Helper()
	dir, _ := nodePath()
	opened := make(chan *node, 1)
	mux := http.NewServeMux()
	for path, file := range map[string]string{
		"/{$}":         "testdata/mqttjs/page.html",
		"/drive.js":    "testdata/mqttjs/drive.js",
		"/mqtt.min.js": filepath.Join(dir, "mqtt", "dist", "mqtt.min.js"),
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
	}
	mux.HandleFunc("GET /control", func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		ws.SetReadLimit(-1)
		conn := websocket.NetConn(context.Background(), ws, websocket.MessageText)
		n := newNode(conn)
		opened <- n
		n.read(conn)
		close(n.done)
		_ = conn.Close()
	})
	pages := httptest.NewServer(mux)
	t.Cleanup(pages.Close) // after the browser's end
	return pages, opened
}
