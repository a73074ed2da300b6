package inspect_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/wind-c/comqtt/v3/recovery/inspect"
	"github.com/wind-c/comqtt/v3/recovery/inspect/inspecttest"
)

// build makes a data directory and returns it, with the state hash at its end.
func build(t testing.TB, o inspecttest.Options) (dir string, hash [16]byte) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	hash, err := inspecttest.Build(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return dir, hash
}

// open opens a data directory for looking, until the test ends.
func open(t testing.TB, dir string) *inspect.Dir {
	t.Helper()
	d, err := inspect.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// looking runs fn on an open directory and closes it.
func looking(t testing.TB, dir string, fn func(d *inspect.Dir)) {
	t.Helper()
	d, err := inspect.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	fn(d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// fingerprint lists every file with its bytes and its times.
func fingerprint(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		sum := ""
		if !e.IsDir() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum = fmt.Sprintf("%x", sha256.Sum256(data))
		}
		all[path] = fmt.Sprintf("%s %d %v %s", info.Mode(), info.Size(), info.ModTime(), sum)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// copyTree copies a directory.
func copyTree(t testing.TB, from string) (to string) {
	t.Helper()
	to = filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// flip inverts one bit of a file.
func flip(t testing.TB, path string, at int64, bit uint) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[at%int64(len(data))] ^= 1 << bit
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func segments(t testing.TB, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "wal", "0*"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no segments in %s: %v", dir, err)
	}
	return list
}

func fileSize(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

var background = context.Background()
