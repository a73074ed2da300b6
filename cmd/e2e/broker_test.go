package e2e

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait in these tests. Nothing takes nearly that long;
// the machine may be busy.
const patience = 30 * time.Second

// broker is a comqtt process that a test started, and starts again.
type broker struct {
	t              *testing.T
	dir            string
	tcp, ws, http  string   // addresses
	args           []string // after those that newBroker chooses
	command        []string // instead of all arguments
	cmd            *exec.Cmd
	exited         chan struct{}
	stdout, stderr *transcript
}

// newBroker chooses addresses and a data directory, and starts nothing yet.
func newBroker(t *testing.T, args ...string) *broker {
	t.Helper()
	b := &broker{
		t: t, dir: filepath.Join(t.TempDir(), "data"), tcp: freeAddress(t), ws: freeAddress(t), http: freeAddress(t),
		args: args, stdout: &transcript{}, stderr: &transcript{},
	}
	t.Cleanup(func() {
		b.kill()
		if t.Failed() {
			t.Logf("broker's standard output:\n%s\nstandard error:\n%s", b.stdout, b.stderr)
		}
	})
	return b
}

// startBroker starts a broker and waits until it is ready.
func startBroker(t *testing.T, args ...string) *broker {
	t.Helper()
	b := newBroker(t, args...)
	b.start()
	return b
}

// start starts the process and waits until it is ready.
func (b *broker) start() {
	b.t.Helper()
	b.launch()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if resp, err := http.Get("http://" + b.http + "/readyz"); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-b.exited:
			b.t.Fatalf("the broker ended: %v\n%s", b.cmd.ProcessState, b.stderr)
		case <-deadline:
			b.t.Fatalf("the broker was not ready within %v\n%s", patience, b.stderr)
		case <-tick.C:
		}
	}
}

// launch starts the process.
func (b *broker) launch() {
	b.t.Helper()
	args := append([]string{"serve", "--data", b.dir, "--tcp", b.tcp, "--ws", b.ws, "--http", b.http}, b.args...)
	if b.command != nil {
		args = b.command
	}
	b.cmd = exec.Command(program, args...)
	b.cmd.Stdout, b.cmd.Stderr = b.stdout, b.stderr
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	cmd, exited := b.cmd, make(chan struct{})
	b.exited = exited
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
}

// kill ends the process with SIGKILL, if it still runs.
func (b *broker) kill() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Kill()
	<-b.exited
}

// signal sends a signal to the process.
func (b *broker) signal(sig syscall.Signal) {
	b.t.Helper()
	if err := b.cmd.Process.Signal(sig); err != nil {
		b.t.Fatal(err)
	}
}

// trySignal sends a signal to a process that may have ended.
func (b *broker) trySignal(sig syscall.Signal) { _ = b.cmd.Process.Signal(sig) }

// exitCode waits for the end of the process.
func (b *broker) exitCode() int {
	b.t.Helper()
	wait(b.t, b.exited, "the broker's end")
	return b.cmd.ProcessState.ExitCode()
}

// stop ends the process with SIGTERM, which must succeed.
func (b *broker) stop() {
	b.t.Helper()
	b.signal(syscall.SIGTERM)
	if code := b.exitCode(); code != 0 {
		b.t.Fatalf("SIGTERM: exit code %d, want 0\n%s", code, b.stderr)
	}
}

// freeAddress finds a free port of 127.0.0.1 below those that the kernel gives
// to outgoing connections, so that no client takes it while the broker is down.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(12_000+rand.IntN(20_000)))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return addr
	}
	t.Fatal("no free port on 127.0.0.1")
	return ""
}

// result is what a comqtt that ended left.
type result struct {
	code           int
	stdout, stderr string
}

// comqtt runs the program to its end.
func comqtt(t *testing.T, args ...string) result {
	t.Helper()
	return finish(t, exec.Command(program, args...))
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = orNew(cmd.SysProcAttr)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		t.Fatalf("%q did not end within %v", cmd.Args, patience)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func orNew(a *syscall.SysProcAttr) *syscall.SysProcAttr {
	if a == nil {
		return &syscall.SysProcAttr{}
	}
	return a
}

// wait waits for a channel to be closed, or for a value of it.
func wait[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-c:
		return v
	case <-timer.C:
		t.Fatalf("%s did not come within %v", what, patience)
		panic("unreachable")
	}
}

// transcript collects what a process writes.
type transcript struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	watched string
	found   chan struct{}
}

func (w *transcript) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.buf.Write(b)
	if w.found != nil && bytes.Contains(w.buf.Bytes(), []byte(w.watched)) {
		close(w.found)
		w.found = nil
	}
	return n, err
}

// seen returns a channel that is closed when text is written from now on.
func (w *transcript) seen(text string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watched, w.found = text, make(chan struct{})
	return w.found
}

func (w *transcript) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}
