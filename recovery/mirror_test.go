package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/redis"
	"github.com/wind-c/comqtt/v3/backends/redis/redistest"
)

// mirrorTimeout bounds every wait of these tests.
const mirrorTimeout = 60 * time.Second

// mirrored returns a driver with a mirror on srv that tries again quickly.
func mirrored(t *testing.T, srv *redistest.Server) *driver {
	o := Options{Dir: fastDir(t) + "/data", SegmentSize: 4096}
	o.Checkpoint.BatchBytes = 2000
	o.Mirror = MirrorOptions{
		URL:   srv.URL("p", "max_retries=-1", "read_timeout=300ms", "dial_timeout=300ms"),
		Probe: 20 * time.Millisecond, Retry: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond,
	}
	return newDriver(t, o)
}

// await waits until the mirror is as wanted.
func (d *driver) await(t *testing.T, what string, ok func(s MirrorStatus) bool) MirrorStatus {
	t.Helper()
	timeout := time.After(mirrorTimeout)
	for {
		s := d.s.mirror.status()
		if ok(s) {
			return s
		}
		select {
		case <-d.s.mirror.change:
		case <-timeout:
			t.Fatalf("mirror is not %s: %+v", what, s)
		}
	}
}

// caughtUp waits until the mirror is as far as the backend, and compares them.
func (d *driver) caughtUp(t *testing.T) MirrorStatus {
	t.Helper()
	d.flush()
	s := d.await(t, "live", func(s MirrorStatus) bool {
		return s.State == MirrorLive && s.Applied == d.s.Compactor.Applied() && s.Waiting == 0
	})
	d.checkBackend()
	r, err := redis.Open(t.Context(), d.opt.Mirror.URL, redis.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want, got := dump(t, d.s.Store), dump(t, r)
	if want != got {
		t.Fatalf("the mirror differs:\n%.2000s\nwant\n%.2000s", got, want)
	}
	have, err := r.Mark(t.Context())
	mark, merr := d.s.Store.Mark(t.Context())
	mark.Sealed = false
	if err != nil || merr != nil || have != mark {
		t.Fatalf("mark %+v, %v; want %+v, %v", have, err, mark, merr)
	}
	return s
}

func dump(t *testing.T, s backends.Store) string {
	t.Helper()
	var b bytes.Buffer
	err := s.Scan(t.Context(), nil, func(k, v []byte) error {
		fmt.Fprintf(&b, "%q=%x\n", k, v)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// traffic queues n messages and lets some of them go.
func (d *driver) traffic(n int) {
	d.t.Helper()
	for i := range n {
		d.log(publish("a", 1, i%5 == 0, bytes.Repeat([]byte{byte('a' + i%26)}, 300)))
	}
	d.ack("away", n/2)
}

// populated opens a store with a subscriber that is away and messages for it.
func populated(t *testing.T, srv *redistest.Server) *driver {
	t.Helper()
	d := mirrored(t, srv)
	d.open()
	d.connect("away", nil)
	d.subscribe("away", "a")
	d.traffic(40)
	d.caughtUp(t)
	return d
}

func TestMirror_Follows(t *testing.T) {
	srv := redistest.Start(t)
	d := populated(t, srv)
	for range 5 {
		d.traffic(20)
		d.caughtUp(t)
	}
	d.traffic(20)
	d.close()
	d.open()
	if s := d.caughtUp(t); s.Fills != 0 {
		t.Errorf("filled again after a clean stop: %+v", s)
	}
	d.close()
}

// killedAhead kills the broker when the backend is ahead of the server, and
// starts the next one.
func (d *driver) killedAhead(t *testing.T, srv *redistest.Server) *driver {
	t.Helper()
	srv.Kill()
	d.traffic(10)
	d.flush()
	d.traffic(10) // in the log only
	next := d.crash(fastDir(t)+"/data", true)
	d.abandon()
	srv.Restart()
	next.openCrashed()
	return next
}

// What a broker that was killed left behind is compared.
func TestMirror_BrokerKilled(t *testing.T) {
	srv := redistest.Start(t, "--appendonly", "yes")
	d := populated(t, srv)
	next := d.killedAhead(t, srv)
	s := next.caughtUp(t)
	if s.Fills != 1 {
		t.Errorf("not compared: %+v", s)
	}
	next.close()
}

// A server that has forgotten is filled again by itself.
func TestMirror_Forgetful(t *testing.T) {
	forget := map[string]func(t *testing.T, d *driver, srv *redistest.Server){
		"FLUSHALL": func(_ *testing.T, _ *driver, srv *redistest.Server) { srv.Do("FLUSHALL") },
		"restart":  func(_ *testing.T, _ *driver, srv *redistest.Server) { srv.Kill(); srv.Restart() },
		"failover": func(t *testing.T, d *driver, srv *redistest.Server) {
			srv.Do("SAVE")
			old, err := os.ReadFile(srv.Path("dump.rdb"))
			if err != nil {
				t.Fatal(err)
			}
			d.traffic(30)
			d.caughtUp(t)
			srv.Kill()
			if err := os.WriteFile(srv.Path("dump.rdb"), old, 0o600); err != nil {
				t.Fatal(err)
			}
			srv.Restart()
		},
		"pairs lost": func(_ *testing.T, _ *driver, srv *redistest.Server) {
			srv.Do("DEL", "{p}:meta") // as an eviction would
		},
	}
	for name, f := range forget {
		t.Run(name, func(t *testing.T) {
			srv := redistest.Start(t)
			d := populated(t, srv)
			before := d.s.mirror.status()
			f(t, d, srv)
			d.await(t, "filled", func(s MirrorStatus) bool { return s.Fills > before.Fills })
			d.traffic(20)
			s := d.caughtUp(t)
			if s.Err != nil || s.Failures == before.Failures {
				t.Errorf("%+v", s)
			}
			d.close()
		})
	}
}

// A second broker on the same prefix is refused; the first goes on.
func TestMirror_SecondBroker(t *testing.T) {
	srv := redistest.Start(t)
	d := populated(t, srv)
	other := mirrored(t, srv)
	_, err := Open(t.Context(), other.opt)
	if !errors.Is(err, ErrBackend) || !errors.Is(err, redis.ErrForeign) || ExitCode(err) != ExitConfig {
		t.Fatalf("open = %v, exit code %d", err, ExitCode(err))
	}
	d.traffic(10)
	d.caughtUp(t)
	d.close()
}

// Two brokers with copies of one directory: the later one has the server, the
// other one goes on without it.
func TestMirror_CopiedDirectory(t *testing.T) {
	srv := redistest.Start(t)
	d := populated(t, srv)
	next := d.crash(fastDir(t)+"/data", true)
	next.openCrashed()
	d.traffic(10)
	d.flush()
	s := d.await(t, "refused", func(s MirrorStatus) bool { return s.State == MirrorRefused })
	if !errors.Is(s.Err, redis.ErrTaken) {
		t.Errorf("%+v", s)
	}
	next.traffic(5)
	next.caughtUp(t)
	d.traffic(10)
	d.flush()
	d.checkBackend()
	d.close()
	next.close()
}

// A directory that is older than the server's keys is refused.
func TestMirror_OlderDirectory(t *testing.T) {
	srv := redistest.Start(t)
	d := populated(t, srv)
	old := d.crash(fastDir(t)+"/data", true)
	d.traffic(30)
	d.caughtUp(t)
	d.close()
	_, err := Open(t.Context(), old.opt)
	if !errors.Is(err, ErrBackend) || !errors.Is(err, redis.ErrNewer) {
		t.Fatalf("open = %v", err)
	}
}

// A server that is not there keeps nobody from starting or stopping.
func TestMirror_AwayAtTheStart(t *testing.T) {
	srv := redistest.Start(t)
	srv.Kill()
	d := mirrored(t, srv)
	d.open()
	d.connect("away", nil)
	d.subscribe("away", "a")
	d.traffic(20)
	d.flush()
	s := d.await(t, "away", func(s MirrorStatus) bool { return s.State == MirrorAway && s.Failures > 2 })
	if s.Err == nil || s.Waiting == 0 && s.Fills > 0 {
		t.Errorf("%+v", s)
	}
	d.close()
	d.open()
	srv.Restart()
	d.caughtUp(t)
	d.close()
}

// TestMirror_ServerKilled kills the server again and again while it is written.
// With its log of commands it comes back with some whole state.
func TestMirror_ServerKilled(t *testing.T) {
	srv := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	d := populated(t, srv)
	for range 5 {
		d.traffic(60)
		d.checkpoint()
		at := d.s.mirror.status().Commits
		flushed := make(chan error, 1)
		go func() { flushed <- d.s.Compactor.Flush(context.Background()) }()
		d.await(t, "writing", func(s MirrorStatus) bool { return s.Commits > at }) // the first of several
		srv.Kill()
		if err := <-flushed; err != nil {
			t.Fatal(err)
		}
		srv.Restart()
		d.caughtUp(t)
	}
	d.close()
}

// TestMirror_Hangs stops the server's process under load: the backend goes on,
// what waits is a set of keys, and all is made good afterwards.
func TestMirror_Hangs(t *testing.T) {
	for _, limit := range []int64{0, 2000} { // enough for the keys, and too little
		srv := redistest.Start(t)
		d := mirrored(t, srv)
		d.opt.Mirror.KeyBytes = limit
		d.open()
		d.connect("away", nil)
		d.subscribe("away", "a")
		d.caughtUp(t)
		srv.Signal(syscall.SIGSTOP)
		first := d.s.Log.First()
		var s MirrorStatus
		for tried := d.s.mirror.status().Failures + 4; s.State != MirrorAway || s.Failures < tried; s = d.s.mirror.status() {
			srv.Signal(syscall.SIGSTOP) // again and again: others may wake up what is stopped
			d.traffic(50)
			d.flush()
			d.checkBackend()
		}
		if d.s.Log.First() == first {
			t.Error("the log was not shortened meanwhile")
		}
		if lag := d.s.Compactor.Lag(); lag.Err != nil || lag.Over {
			t.Errorf("the backend suffers: %+v", lag)
		}
		if s.Err == nil || s.Waiting == 0 && limit == 0 {
			t.Errorf("%+v", s)
		}
		srv.Signal(syscall.SIGCONT)
		d.caughtUp(t)
		d.close()
	}
}

// A stop does not wait for a server that hangs.
func TestMirror_HangsAtTheStop(t *testing.T) {
	srv := redistest.Start(t)
	d := populated(t, srv)
	srv.Signal(syscall.SIGSTOP)
	d.traffic(5)
	begin := time.Now()
	d.close()
	if took := time.Since(begin); took > 3*mirrorLast {
		t.Errorf("the stop took %v", took)
	}
	srv.Signal(syscall.SIGCONT)
	d.open()
	d.caughtUp(t)
	d.close()
}

// A changed pair on the server is found at the next comparison, not before: it
// is a copy for others to read.
func TestMirror_Meddling(t *testing.T) {
	srv := redistest.Start(t, "--appendonly", "yes")
	d := populated(t, srv)
	srv.Do("HSET", "{p}:data", "Sxxxxxxxx", "zzzz")
	srv.Do("ZADD", "{p}:keys", "0", "Sxxxxxxxx")
	next := d.killedAhead(t, srv)
	next.caughtUp(t)
	next.close()
}
