package redis_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/backendtest"
	"github.com/wind-c/comqtt/v3/backends/redis"
	"github.com/wind-c/comqtt/v3/backends/redis/redistest"
)

// prefix makes a prefix of a directory, since the suite knows directories only.
func prefix(dir string) string { return strings.ReplaceAll(strings.Trim(dir, "/"), "/", ":") }

func open(t *testing.T, url string, o redis.Options) *redis.Store {
	t.Helper()
	s, err := redis.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closing(t *testing.T, s *redis.Store) *redis.Store {
	t.Helper()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	srv := redistest.Start(t)
	backendtest.Run(t,
		func(t *testing.T, dir string) backends.Store { return open(t, srv.URL(prefix(dir)), redis.Options{}) },
		backendtest.WithDamage(func(t *testing.T, dir string, st backends.Store, key []byte) (backends.Store, error) {
			stored := string(backends.StoredKey(key))
			srv.Do("HSET", "{"+prefix(dir)+"}:data", stored, strings.Repeat("v", 104))
			return st, nil
		}))
}

func commit(t *testing.T, s *redis.Store, applied uint64, pairs ...string) error {
	t.Helper()
	var b backends.Batch
	for i := 0; i < len(pairs); i += 2 {
		b.Put([]byte(pairs[i]), []byte(pairs[i+1]))
	}
	return s.Commit(t.Context(), &b, backends.Mark{StoreID: [16]byte{1}, Applied: applied, Schema: backends.Schema})
}

func mustCommit(t *testing.T, s *redis.Store, applied uint64, pairs ...string) {
	t.Helper()
	if err := commit(t, s, applied, pairs...); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, s *redis.Store) string {
	t.Helper()
	var out []string
	err := s.Scan(t.Context(), nil, func(k, v []byte) error {
		out = append(out, string(k)+"="+string(v))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func mine(epoch uint64) redis.Options { return redis.Options{StoreID: [16]byte{1}, Epoch: epoch} }

// TestForeign: keys of another store are refused, untouched.
func TestForeign(t *testing.T) {
	srv := redistest.Start(t)
	s := closing(t, open(t, srv.URL("p"), mine(1)))
	mustCommit(t, s, 7, "Sa", "1")
	_, err := redis.Open(t.Context(), srv.URL("p"), redis.Options{StoreID: [16]byte{2}})
	if !errors.Is(err, redis.ErrForeign) || !redis.Refused(err) {
		t.Fatalf("open = %v, want ErrForeign", err)
	}
	mustCommit(t, s, 8, "Sb", "2") // it goes on as if nothing had happened
	if got := content(t, s); got != "Sa=1 Sb=2" {
		t.Error(got)
	}
}

// TestTaken: of two brokers with one store id the later one has the keys.
func TestTaken(t *testing.T) {
	srv := redistest.Start(t)
	first := closing(t, open(t, srv.URL("p"), mine(1)))
	mustCommit(t, first, 7, "Sa", "1")
	second := closing(t, open(t, srv.URL("p"), mine(1)))
	mustCommit(t, second, 9, "Sb", "2")
	for _, err := range []error{commit(t, first, 8, "Sc", "3"), first.Check(t.Context())} {
		if !errors.Is(err, redis.ErrTaken) {
			t.Errorf("the first: %v, want ErrTaken", err)
		}
	}
	mustCommit(t, second, 10)
	if got := content(t, second); got != "Sa=1 Sb=2" {
		t.Error(got)
	}
}

// TestNewer: somebody has brought the keys further with our own token's owner.
func TestNewer(t *testing.T) {
	srv := redistest.Start(t)
	s := closing(t, open(t, srv.URL("p"), mine(5)))
	mustCommit(t, s, 7, "Sa", "1")
	srv.Do("HSET", "{p}:meta", "token", "another", "applied", "8")
	if err := commit(t, s, 9); !errors.Is(err, redis.ErrNewer) {
		t.Errorf("commit = %v, want ErrNewer", err)
	}
}

// TestForgot: a server that was flushed, or that lost everything in a restart,
// says so, and can be filled again after Attach.
func TestForgot(t *testing.T) {
	srv := redistest.Start(t)
	s := closing(t, open(t, srv.URL("p", "max_retries=-1"), mine(1)))
	for i, forget := range []func(){
		func() { srv.Do("FLUSHALL") },
		func() { srv.Kill(); srv.Restart() },
	} {
		mustCommit(t, s, uint64(7+i), "Sa", "1")
		forget()
		if i == 1 { // the pool finds out that its connections are gone
			for errors.Is(s.Check(t.Context()), io.EOF) {
			}
		}
		if err := s.Check(t.Context()); !errors.Is(err, redis.ErrForgot) {
			t.Fatalf("check = %v, want ErrForgot", err)
		}
		if err := commit(t, s, 9, "Sb", "2"); !errors.Is(err, redis.ErrForgot) {
			t.Fatalf("commit = %v, want ErrForgot", err)
		}
		if m, err := s.Attach(t.Context()); err != nil || m != (backends.Mark{}) {
			t.Fatalf("attach = %+v, %v", m, err)
		}
		mustCommit(t, s, 9, "Sb", "2")
		if got := content(t, s); got != "Sb=2" {
			t.Error(got)
		}
	}
}

// TestOlderData: after a failover to a replica that lags.
func TestOlderData(t *testing.T) {
	srv := redistest.Start(t)
	old := open(t, srv.URL("p"), mine(1))
	mustCommit(t, old, 7, "Sa", "1")
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	if got := srv.Do("SAVE"); got != "+OK" {
		t.Fatal(got)
	}
	dump, err := os.ReadFile(srv.Path("dump.rdb"))
	if err != nil {
		t.Fatal(err)
	}
	s := closing(t, open(t, srv.URL("p"), mine(2))) // the owner in the dump is the one before
	mustCommit(t, s, 8, "Sb", "2")
	srv.Kill()
	if err := os.WriteFile(srv.Path("dump.rdb"), dump, 0o600); err != nil {
		t.Fatal(err)
	}
	srv.Restart()
	if err := commit(t, s, 9, "Sc", "3"); !errors.Is(err, redis.ErrForgot) {
		t.Fatalf("commit = %v, want ErrForgot", err)
	}
	m, err := s.Attach(t.Context())
	if err != nil || m.Applied != 7 {
		t.Fatalf("attach = %+v, %v", m, err)
	}
	mustCommit(t, s, 9, "Sc", "3")
	if got := content(t, s); got != "Sa=1 Sc=3" {
		t.Error(got)
	}
}

// lossy is a proxy that drops the answer to the nth commit script and cuts the
// connection.
func lossy(t *testing.T, to string) (addr string, lose func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	armed := make(chan struct{}, 1)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				return
			}
			asked := make(chan struct{}, 1)
			go func() {
				defer up.Close()
				buf := make([]byte, 1<<20)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if strings.Contains(strings.ToLower(string(buf[:n])), "evalsha") {
						select {
						case <-armed:
							asked <- struct{}{}
						default:
						}
					}
					if _, err := up.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
			go func() {
				defer c.Close()
				r := bufio.NewReader(up)
				buf := make([]byte, 1<<20)
				for {
					n, err := r.Read(buf)
					if err != nil {
						return
					}
					select {
					case <-asked: // it is done, and nobody hears of it
						return
					default:
					}
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String(), func() { armed <- struct{}{} }
}

// TestLostReply: a commit whose answer is lost is done once, and known to be.
func TestLostReply(t *testing.T) {
	srv := redistest.Start(t)
	addr, lose := lossy(t, srv.Addr)
	for _, retries := range []string{"3", "-1"} { // by the client's retry, and by our question
		s := closing(t, open(t, "redis://"+addr+"/0?prefix=p"+retries+"&max_retries="+retries, mine(1)))
		mustCommit(t, s, 7, "Sa", "1")
		lose()
		mustCommit(t, s, 8, "Sb", "2")
		if m, err := s.Mark(t.Context()); err != nil || m.Applied != 8 {
			t.Errorf("mark = %+v, %v", m, err)
		}
		mustCommit(t, s, 9, "Sc", "3")
		if got := content(t, s); got != "Sa=1 Sb=2 Sc=3" {
			t.Error(got)
		}
	}
}

// TestKilledInCommit kills the server in the middle of large commits. With its
// log of commands on, it comes back with one of the two states, whole.
func TestKilledInCommit(t *testing.T) {
	srv := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	s := closing(t, open(t, srv.URL("p", "max_retries=-1", "dial_timeout=1s"), mine(1)))
	var b backends.Batch
	fill := func(version int) {
		b.Reset()
		for i := range 20_000 {
			b.Put(backends.IDKey(nil, 'B', uint64(i)), fmt.Appendf(nil, "%d%s", version, strings.Repeat("x", 300)))
		}
	}
	for v := 1; v <= 4; v++ {
		fill(v)
		sent := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			sent <- s.Commit(ctx, &b, backends.Mark{Applied: uint64(v)})
		}()
		if v == 1 { // a first state, whole
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			continue
		}
		// Wait until a part of it has come, then some more work, then kill.
		for srv.Do("KEYS", "{p}:stage:*") == "*0" && len(sent) == 0 {
		}
		for range rand.IntN(20) {
			srv.Do("PING")
		}
		srv.Signal(syscall.SIGKILL)
		err := <-sent
		srv.Kill()
		srv.Restart()
		for tries := 0; ; tries++ { // connections of before are gone
			cerr := s.Check(t.Context())
			if cerr == nil {
				break
			}
			if tries > 20 || redis.Refused(cerr) || errors.Is(cerr, redis.ErrForgot) {
				t.Fatal(cerr)
			}
		}
		m, merr := s.Mark(t.Context())
		if merr != nil || err == nil && m.Applied != uint64(v) {
			t.Fatalf("commit %d = %v, but mark = %+v, %v", v, err, m, merr)
		}
		want := fmt.Sprintf("%dx", m.Applied)
		n := 0
		if err := s.Scan(t.Context(), nil, func(_, val []byte) error {
			if n++; string(val[:2]) != want {
				return fmt.Errorf("mark %d, value %.10s", m.Applied, val)
			}
			return nil
		}); err != nil || n != 20_000 {
			t.Fatalf("%d pairs, %v", n, err)
		}
		t.Logf("killed in commit %d (%v): found %d", v, err, m.Applied)
		if err := s.Commit(t.Context(), &b, backends.Mark{Applied: uint64(v)}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestURL(t *testing.T) {
	for _, good := range []string{
		"redis://localhost", "redis://u:p@h:1/2?prefix=x", "rediss://h:1/0?skip_verify=true", "unix:///run/redis.sock?db=1",
		"redis://h:1?master_name=m&addr=h2:2&prefix=x", "rediss://h:1?cluster=true&addr=h2:2",
	} {
		if err := redis.CheckURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"http://h", "redis://u:secret@h:port/x", "redis://u:secret@h/0?colour=blue", "redis://u:secret@h/0?prefix=", "redis://u:secret@h/0?prefix={a}", "redis://u:secret@h/x",
	} {
		err := redis.CheckURL(bad)
		if !errors.Is(err, redis.ErrURL) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if got := redis.Redact("rediss://u:secret@h:6380/3?prefix=a&read_timeout=3s"); got != "rediss://h:6380/3?prefix=a" {
		t.Error(got)
	}
}

// TestPassword: a wrong password is one clear error, and never in it.
func TestPassword(t *testing.T) {
	srv := redistest.Start(t, "--requirepass", "right")
	_, err := redis.Open(t.Context(), "redis://:wrong@"+srv.Addr+"/0", redis.Options{})
	if err == nil || !strings.Contains(err.Error(), "WRONGPASS") || strings.Contains(err.Error(), ":wrong@") {
		t.Errorf("open = %v", err)
	}
	closing(t, open(t, "redis://:right@"+srv.Addr+"/0", redis.Options{}))
}

// TestNotStore: keys of something else are left alone.
func TestNotStore(t *testing.T) {
	srv := redistest.Start(t)
	srv.Do("SET", "{p}:meta", "mine")
	if _, err := redis.Open(t.Context(), srv.URL("p"), mine(1)); !errors.Is(err, backends.ErrNotStore) {
		t.Errorf("open = %v", err)
	}
	if got := srv.Do("GET", "{p}:meta"); got != "$4" {
		t.Error(got)
	}
}

// TestFull: a server at its limit of memory says so, and has changed nothing.
func TestFull(t *testing.T) {
	srv := redistest.Start(t)
	s := closing(t, open(t, srv.URL("p"), mine(1)))
	mustCommit(t, s, 1, "Sa", "1")
	srv.Do("CONFIG", "SET", "maxmemory", "1")
	if err := commit(t, s, 2, "Sb", "2"); !errors.Is(err, backends.ErrFull) {
		t.Errorf("commit = %v", err)
	}
	srv.Do("CONFIG", "SET", "maxmemory", "0")
	mustCommit(t, s, 2, "Sb", "2")
	if got := content(t, s); got != "Sa=1 Sb=2" {
		t.Error(got)
	}
}
