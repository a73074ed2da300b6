package badger_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/badger"
)

// crashDir names the directory for the process that is going to be killed.
const crashDir = "COMQTT_BADGER_CRASH_DIR"

const (
	crashKeys  = 6_000
	crashValue = 2_000 // 12 MB in all: three transactions of badger
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		commitForEver(dir)
	}
	os.Exit(m.Run())
}

// rewrite fills b with a version of all keys. Each version has some keys that no
// other has.
func rewrite(b *backends.Batch, version int) {
	b.Reset()
	val := fmt.Sprintf("%08d%s", version, strings.Repeat("x", crashValue))
	for i := range crashKeys {
		b.Put(backends.IDKey(nil, 'B', uint64(i)), []byte(val))
	}
	b.Put(fmt.Appendf(nil, "S%d", version), []byte("own"))
	b.Delete(fmt.Appendf(nil, "S%d", version-1))
}

// commitForEver is the process that gets killed. It writes a line for each
// commit that has returned.
func commitForEver(dir string) {
	s, err := badger.Open(dir, badger.Options{Create: true})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	m, err := s.Mark(context.Background())
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	var b backends.Batch
	for v := int(m.Applied) + 1; ; v++ {
		rewrite(&b, v)
		fmt.Println("begin", v)
		if err := s.Commit(context.Background(), &b, backends.Mark{Applied: uint64(v)}); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println("done", v)
	}
}

// wantVersion checks that the store holds one version, whole, and returns it.
func wantVersion(t *testing.T, s backends.Store) int {
	t.Helper()
	m, err := s.Mark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = s.Scan(t.Context(), nil, func(key, val []byte) error {
		n++
		want := fmt.Sprintf("%08d", m.Applied)
		if key[0] == 'S' && string(key) != fmt.Sprintf("S%d", m.Applied) || key[0] == 'B' && string(val[:8]) != want {
			return fmt.Errorf("mark %d, but %q is %.10q", m.Applied, key, val)
		}
		return nil
	})
	if want := crashKeys + 1; err != nil || n != want && m.Applied > 0 {
		t.Fatalf("%d pairs, want %d: %v", n, want, err)
	}
	return int(m.Applied)
}

// files lists the files of a directory with their sizes and checksums.
func files(t *testing.T, dir string) string {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, d := range names {
		f, err := os.Open(filepath.Join(dir, d.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sum := crc32.NewIEEE()
		n, err := io.Copy(sum, io.LimitReader(f, 64<<20))
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %d %x\n", d.Name(), n, sum.Sum32())
	}
	return b.String()
}

// TestKill kills a process in the middle of commits of several transactions
// each, and looks at what is there.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := dirOf(t.TempDir())
	last := 0
	for round := range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		begun, done := 0, last
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var v int
			if _, err := fmt.Sscanf(lines.Text(), "done %d", &v); err == nil {
				done = v
				continue
			}
			if _, err := fmt.Sscanf(lines.Text(), "begin %d", &v); err != nil {
				t.Fatal(lines.Text())
			}
			if begun = v; begun == last+2+round%3 {
				if err := cmd.Process.Kill(); err != nil { // in the middle of this one
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed
		before := files(t, dir)
		r, rerr := badger.Open(dir, badger.Options{ReadOnly: true})
		if rerr != nil {
			t.Fatal(rerr)
		}
		seen := wantVersion(t, r)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if after := files(t, dir); after != before {
			t.Fatalf("reading has changed the files:\n%s\nwas\n%s", after, before)
		}
		s := open(t, strings.TrimSuffix(dir, "/state.badger"))
		got := wantVersion(t, s)
		if got < done || got > begun || got != seen {
			t.Fatalf("round %d: version %d, %d was committed, %d begun", round, got, done, begun)
		}
		t.Logf("round %d: killed in commit %d, %d done, found %d", round, begun, done, got)
		var b backends.Batch // the remains of what was killed stay away
		b.Put([]byte("Sother"), nil)
		b.Delete([]byte("Sother"))
		if err := s.Commit(t.Context(), &b, backends.Mark{Applied: uint64(got)}); err != nil {
			t.Fatal(err)
		}
		last = wantVersion(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// endsLate is a context that ends when it has been asked so many times.
type endsLate struct {
	context.Context
	left atomic.Int32
}

func (c *endsLate) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// TestGivenUpHalfWay: a commit that ends after its first transactions is not
// seen, not by later commits and not after opening again.
func TestGivenUpHalfWay(t *testing.T) {
	for _, reopen := range []bool{false, true} {
		dir := t.TempDir()
		s := open(t, dir)
		var b backends.Batch
		rewrite(&b, 1)
		if err := s.Commit(t.Context(), &b, backends.Mark{Applied: 1}); err != nil {
			t.Fatal(err)
		}
		rewrite(&b, 2)
		ctx := &endsLate{Context: t.Context()}
		ctx.left.Store(6)
		if err := s.Commit(ctx, &b, backends.Mark{Applied: 2}); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if v := wantVersion(t, s); v != 1 {
			t.Fatalf("version %d", v)
		}
		if reopen {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir)
		}
		b.Reset()
		if err := s.Commit(t.Context(), &b, backends.Mark{Applied: 1, LogTime: 5}); err != nil {
			t.Fatal(err)
		}
		if v := wantVersion(t, s); v != 1 {
			t.Fatalf("version %d", v)
		}
		rewrite(&b, 2)
		if err := s.Commit(t.Context(), &b, backends.Mark{Applied: 2}); err != nil {
			t.Fatal(err)
		}
		if v := wantVersion(t, s); v != 2 {
			t.Fatalf("version %d", v)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
