package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// mosquitto makes the server start Debian's mosquitto instead of comqtt.
func mosquitto(t *testing.T, dir string) func(*server) *exec.Cmd {
	t.Helper()
	bin, err := exec.LookPath("/usr/sbin/mosquitto")
	if err != nil {
		t.Skip("no /usr/sbin/mosquitto (apt-get install mosquitto): an independent broker for the checker is missing")
	}
	return func(s *server) *exec.Cmd {
		data := filepath.Join(dir, "mosquitto")
		if err := os.MkdirAll(data, 0o777); err != nil {
			t.Error(err)
		}
		conf := filepath.Join(dir, "mosquitto.conf")
		text := fmt.Sprintf(`listener %d 127.0.0.1
allow_anonymous true
user root
persistence true
persistence_location %s/
max_queued_messages 0
max_inflight_messages 200
log_type error
log_type warning
`, s.port, data)
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Error(err)
		}
		return exec.Command(bin, "-c", conf)
	}
}

// against runs the fleet against mosquitto, whose known flaws are kept out of
// the way, and returns what was found.
func against(t *testing.T, lives int, pl plan) []Finding {
	t.Helper()
	var out io.Writer = io.Discard
	if testing.Verbose() {
		out = os.Stdout
	}
	dir := t.TempDir()
	c, err := newCampaign(options{kills: lives, seed: 1, mode: "kill", history: 200_000, out: out}, "", dir)
	if err != nil {
		t.Fatal(err)
	}
	c.server.command = mosquitto(t, dir)
	c.fleet.remove("g0", "g1")           // its shared subscriptions do not survive a restart
	for _, cl := range c.fleet.clients { // it exceeds a receive maximum, and then loses the order
		cl.maxima = []uint16{0}
		cl.habits.restart = 0 // it does not save a session that began with clean start
		if cl.will != nil {
			cl.habits.takeover = 0 // it does not always publish the will then
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c.fleet.start(ctx)
	defer c.fleet.wg.Wait()
	defer cancel()
	for range lives {
		if err = c.round(ctx, pl); err != nil {
			break
		}
	}
	if err == nil {
		err = c.quiet(ctx)
	}
	if err != nil && !errors.Is(err, errFound) {
		t.Fatal(err)
	}
	s := c.journal.Stats()
	if s.Accepted < 50 || s.Delivered < 50 || s.Completed == 0 {
		t.Errorf("hardly any traffic: %+v", s)
	}
	found, _ := c.journal.Findings()
	return found
}

// A broker that saves its state when it is asked to stop keeps every promise
// over such stops: the checker has nothing to say.
func TestMosquittoStoppedIsClean(t *testing.T) {
	found := against(t, 1, plan{name: "SIGTERM", after: 700 * time.Millisecond, term: true, limit: stopTimeout})
	for i := range found {
		t.Error(found[i].String())
	}
}

// Killed, the same broker forgets what it acknowledged: the checker sees that.
func TestMosquittoKilledIsFound(t *testing.T) {
	found := against(t, 1, plan{name: "SIGKILL", after: 300 * time.Millisecond})
	if len(found) == 0 {
		t.Error("no finding, although mosquitto lost its state")
	}
}
