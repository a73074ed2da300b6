package e2e

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Exit codes of sysexits that the README promises.
const (
	usage       = 64
	damaged     = 65
	unavailable = 69
	cantCreate  = 73
	locked      = 75
	config      = 78
)

// TestBanner: a person sees in at most 12 lines what runs, and health says so.
func TestBanner(t *testing.T) {
	b := startBroker(t)
	for _, path := range []string{"/livez", "/readyz"} {
		resp, err := http.Get("http://" + b.http + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	b.stop()
	banner := b.stdout.String()
	if n := strings.Count(banner, "\n"); n == 0 || n > 12 {
		t.Errorf("banner of %d lines, want 1 to 12:\n%s", n, banner)
	}
	for _, want := range []string{b.dir, "mqtt://" + b.tcp, "ws://" + b.ws + "/mqtt", b.http, "always"} {
		if !strings.Contains(banner, want) {
			t.Errorf("the banner does not name %q:\n%s", want, banner)
		}
	}
}

// TestEnvironment: every flag is an environment variable too.
func TestEnvironment(t *testing.T) {
	b := newBroker(t)
	for name, value := range map[string]string{"TCP": b.tcp, "WS": "off", "HTTP": b.http, "DATA": b.dir, "SYNC": "never"} {
		t.Setenv("COMQTT_"+name, value)
	}
	b.command = []string{"serve"}
	b.start()
	b.stop()
	if out := b.stdout.String(); !strings.Contains(out, "mqtt://"+b.tcp) || !strings.Contains(out, "never") {
		t.Errorf("the environment was not obeyed:\n%s", out)
	}
}

// TestPortTaken: exit 69, and the message names address and setting.
func TestPortTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	for _, flag := range []string{"tcp", "ws", "http"} {
		data := filepath.Join(t.TempDir(), "data")
		args := []string{"serve", "--data", data, "--tcp", "127.0.0.1:0", "--ws", "off", "--http", "off"}
		args = append(args, "--"+flag, addr)
		r := comqtt(t, args...)
		if r.code != unavailable {
			t.Errorf("--%s: exit code %d, want %d\n%s", flag, r.code, unavailable, r.stderr)
		}
		for _, want := range []string{addr, "--" + flag, "COMQTT_" + strings.ToUpper(flag)} {
			if !strings.Contains(r.stderr, want) {
				t.Errorf("--%s: the message does not name %s:\n%s", flag, want, r.stderr)
			}
		}
	}
}

// TestSecondBroker: two brokers never share a data directory.
func TestSecondBroker(t *testing.T) {
	b := startBroker(t)
	r := comqtt(t, "serve", "--data", b.dir, "--tcp", "127.0.0.1:0", "--ws", "off", "--http", "off")
	if r.code != locked {
		t.Fatalf("exit code %d, want %d\n%s", r.code, locked, r.stderr)
	}
	if !strings.Contains(r.stderr, "--data") {
		t.Errorf("the message does not name the setting:\n%s", r.stderr)
	}
	b.stop()
	b.start() // the refused one left nothing behind
	b.stop()
}

// TestUnwritableDirectory: exit 73 and the setting to change.
func TestUnwritableDirectory(t *testing.T) {
	parent := t.TempDir()
	for dir := parent; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // the other user must get here
			t.Fatal(err)
		}
	}
	if err := os.Chmod(parent, 0o555); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", "--data", filepath.Join(parent, "data"), "--tcp", "127.0.0.1:0", "--ws", "off", "--http", "off")
	cmd.Dir = "/"
	if os.Getuid() == 0 { // nothing is unwritable for root
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	r := finish(t, cmd)
	if r.code != cantCreate {
		t.Fatalf("exit code %d, want %d\n%s", r.code, cantCreate, r.stderr)
	}
	if !strings.Contains(r.stderr, "--data") {
		t.Errorf("the message does not name the setting:\n%s", r.stderr)
	}
}

// TestListeningWider: without --allow-anonymous nobody listens beyond loopback.
func TestListeningWider(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	r := comqtt(t, "serve", "--data", data, "--tcp", "0.0.0.0:0", "--ws", "off", "--http", "off")
	if r.code != usage && r.code != config {
		t.Fatalf("exit code %d, want %d or %d\n%s", r.code, usage, config, r.stderr)
	}
	if !strings.Contains(r.stderr, "--allow-anonymous") {
		t.Errorf("the message does not name the setting:\n%s", r.stderr)
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("the refused start has made a data directory")
	}
	b := newBroker(t, "--allow-anonymous")
	_, port, err := net.SplitHostPort(b.tcp)
	if err != nil {
		t.Fatal(err)
	}
	b.tcp = "0.0.0.0:" + port
	b.start()
	b.stop()
}

// TestForeignAndNewer: the log of another broker, a newer format and damage are
// refused, each with its code, and nothing is changed.
func TestForeignAndNewer(t *testing.T) {
	var stores []string
	for range 2 {
		b := startBroker(t)
		c, _ := dialPaho5(t, b, dialOptions{id: "durable", durable: true})
		for i := range 50 {
			publish(t, c, message{Topic: "kept/" + fmt.Sprint(i), Payload: []byte("value"), QoS: 1, Retain: true})
		}
		c.close()
		b.kill() // the log holds it all
		stores = append(stores, b.dir)
	}
	for _, tc := range []struct {
		name string
		code int
		do   func(t *testing.T, dir string)
	}{
		{"another broker's log", damaged, func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "wal")); err != nil {
				t.Fatal(err)
			}
			copyTree(t, filepath.Join(stores[1], "wal"), filepath.Join(dir, "wal"))
		}},
		{"a missing log", damaged, func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "wal")); err != nil {
				t.Fatal(err)
			}
		}},
		{"a changed byte in the log", damaged, func(t *testing.T, dir string) {
			segments, err := filepath.Glob(filepath.Join(dir, "wal", "0*"))
			if err != nil || len(segments) == 0 {
				t.Fatalf("no segments: %v", err)
			}
			edit(t, segments[0], func(b []byte) []byte { b[len(b)/3] ^= 1; return b })
		}},
		{"a newer manifest", config, func(t *testing.T, dir string) {
			for _, name := range []string{"MANIFEST", "MANIFEST.old"} {
				path := filepath.Join(dir, name)
				if _, err := os.Stat(path); err == nil {
					edit(t, path, newerManifest)
				}
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			copyTree(t, stores[0], dir)
			tc.do(t, dir)
			before := digest(t, dir)
			r := comqtt(t, "serve", "--data", dir, "--tcp", "127.0.0.1:0", "--ws", "off", "--http", "off")
			if r.code != tc.code {
				t.Errorf("exit code %d, want %d\n%s", r.code, tc.code, r.stderr)
			}
			if strings.TrimSpace(r.stderr) == "" {
				t.Error("refused without a word")
			}
			if after := digest(t, dir); after != before {
				t.Errorf("the refused directory was changed\nbefore:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// newerManifest gives a manifest the version of a later release.
func newerManifest(b []byte) []byte {
	b = bytes.Replace(b, []byte("comqtt manifest 1\n"), []byte("comqtt manifest 999\n"), 1)
	at := bytes.LastIndex(b, []byte("crc32c "))
	return fmt.Appendf(b[:at], "crc32c %08x\n", crc32.Checksum(b[:at], crc32.MakeTable(crc32.Castagnoli)))
}

func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o644); err != nil {
		t.Fatal(err)
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		case !d.Type().IsRegular(): // the admin socket of a broker that was killed
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// digest lists log and manifest with their content. (The backend's file gets a
// new page of its own at every start, with nothing new in it.)
func digest(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "LOCK" || d.Name() == "state.bbolt" {
			return err
		}
		b, err := os.ReadFile(path)
		lines = append(lines, fmt.Sprintf("%s %d %08x", path, len(b), crc32.ChecksumIEEE(b)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestTerminate: SIGTERM says goodbye with 0x8B to MQTT 5 clients, closes the
// others, exits 0, and the next start has everything.
func TestTerminate(t *testing.T) {
	b := startBroker(t)
	five, _ := dialPaho5(t, b, dialOptions{id: "five", durable: true})
	three, _ := dialPaho3(t, b, dialOptions{id: "three", durable: true})
	subscribe(t, five, "a/#", 1)
	subscribe(t, three, "a/#", 1)
	b.stop()
	wait(t, five.gone(), "the end of the MQTT 5 connection")
	wait(t, three.gone(), "the end of the MQTT 3.1.1 connection")
	const shuttingDown = 0x8b
	if code := five.(*paho5).disconnectCode(); code != shuttingDown {
		t.Errorf("DISCONNECT with reason 0x%02x, want 0x%02x [MQTT-3.14.2-1]", code, shuttingDown)
	}
	if _, err := net.Dial("tcp", b.tcp); err == nil {
		t.Error("something still listens")
	}
	b.start()
	for id, dial := range map[string]func(*testing.T, *broker, dialOptions) (client, bool){"five": dialPaho5, "three": dialPaho3} {
		c, present := dial(t, b, dialOptions{id: id, durable: true})
		if !present {
			t.Errorf("%s: the session is gone after an orderly stop", id)
		}
		c.close()
	}
	b.stop()
}

// TestSecondSignal: who is impatient sends a second signal, and the process
// ends at once with 128 plus its number. SIGSTOP holds the process in the middle
// of stopping, so that it finds the second signal there. It may have stopped
// before that: then the test tries again.
func TestSecondSignal(t *testing.T) {
	b := startBroker(t)
	c, _ := dialPaho5(t, b, dialOptions{id: "c", durable: true})
	subscribe(t, c, "#", 1)
	c.close()
	const tries, each = 20, 20
	sent := 0
	for code := 0; code == 0; b.start() {
		if sent == tries*each {
			t.Fatalf("the broker stopped faster than a second signal could come, %d times", tries)
		}
		pub, _ := dialPaho5(t, b, dialOptions{id: "pub"})
		for range each { // something to write down while stopping
			publish(t, pub, message{Topic: "a", Payload: make([]byte, 64<<10), QoS: 1})
			sent++
		}
		stopping := b.stderr.seen("stopping")
		b.signal(syscall.SIGTERM)
		wait(t, stopping, "the log line that says so")
		b.trySignal(syscall.SIGSTOP)
		// A second signal right after the first counts as its echo.
		<-time.After(150 * time.Millisecond)
		b.trySignal(syscall.SIGINT)
		b.trySignal(syscall.SIGCONT)
		if code = b.exitCode(); code != 0 && code != 128+int(syscall.SIGINT) {
			t.Fatalf("exit code %d, want %d\n%s", code, 128+int(syscall.SIGINT), b.stderr)
		}
	}
	again, present := dialPaho5(t, b, dialOptions{id: "c", durable: true})
	if !present {
		t.Error("the session is gone")
	}
	for range sent { // nothing was lost
		expect(t, again, message{Topic: "a", Payload: make([]byte, 64<<10), QoS: 1})
	}
	again.close()
	b.stop()
}

// TestSilentClient: a connection that never sends CONNECT is closed.
func TestSilentClient(t *testing.T) {
	b := startBroker(t, "--connect-timeout", "100ms")
	conn, err := net.Dial("tcp", b.tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %d bytes, %v; want the end of the connection", n, err)
	}
	b.stop()
}
