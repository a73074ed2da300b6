package recovery

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The advice can be pasted into a shell, whatever the directory is called.
func TestAdvice(t *testing.T) {
	for dir, want := range map[string]string{
		"/var/lib/comqtt": " --data /var/lib/comqtt says",
		"my data":         " --data 'my data' says",
		"it's; rm -rf":    ` --data 'it'\''s; rm -rf' says`,
	} {
		if got := Advice(dir); !strings.HasPrefix(got, "comqtt recover repair --dry-run") || !strings.Contains(got, want) {
			t.Errorf("Advice(%q) = %s", dir, got)
		}
	}
}

// Any number may look at once; whoever looks keeps a writer out, and a writer
// those who look. Nothing is made by looking.
func TestLockShared(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(LogDir(dir), dirPerm); err != nil {
		t.Fatal(err)
	}
	a, err := LockShared(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, lockName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("looking made a lock file: %v", err)
	}
	if err := a.Release(); err != nil {
		t.Fatal(err)
	}
	w, err := acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	var locked *LockedError
	if _, err := LockShared(dir); !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("looking beside a writer: %v", err)
	}
	if err := w.release(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l, err := LockShared(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Release() //nolint:errcheck // only read
	}
	if _, err := acquire(dir); !errors.As(err, &locked) || locked.PID != 0 {
		t.Errorf("writing beside those who look: %v", err)
	}
}
