package powerfs

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func rnd(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// mounted mounts a disk, or skips the test where that cannot be done.
func mounted(t *testing.T, d *Disk) (dir string, unmount func()) {
	t.Helper()
	dir = t.TempDir()
	m, err := d.Mount(dir)
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	must(t, err)
	return dir, func() { must(t, m.Unmount()) }
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func syncPath(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	must(t, errors.Join(f.Sync(), f.Close()))
}

// Through the kernel: names and contents are durable after their syncs and not
// before, and a rename between directories is one change.
func TestMountedCut(t *testing.T) {
	d := New()
	dir, unmount := mounted(t, d)
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	must(t, os.Mkdir(a, 0o755))
	must(t, os.Mkdir(b, 0o755))
	syncPath(t, dir)
	write := func(path, content string, sync bool) {
		must(t, os.WriteFile(path, []byte(content), 0o600))
		if sync {
			syncPath(t, path)
		}
	}
	write(filepath.Join(a, "whole"), "synced", true)
	write(filepath.Join(a, "old-name"), "moved", true)
	write(filepath.Join(a, "gone"), "removed", true)
	write(filepath.Join(a, "hollow"), "never synced", false)
	syncPath(t, a)
	write(filepath.Join(a, "nameless"), "its name was never synced", true)
	must(t, os.Remove(filepath.Join(a, "gone")))
	f, err := os.OpenFile(filepath.Join(a, "whole"), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("SYNC+more"), 0)
	must(t, errors.Join(err, f.Close()))
	if b, err := os.ReadFile(filepath.Join(a, "whole")); err != nil || string(b) != "SYNC+more" {
		t.Errorf("before the cut: %q, %v", b, err)
	}
	unmount()
	dmg := d.Crash(LoseAll, rnd(1))
	if dmg.Undone != 2 || dmg.Lost != 2 {
		t.Errorf("lost %+v, want 2 names and 2 writes", dmg)
	}
	dir, unmount = mounted(t, d)
	a, b = filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for name, want := range map[string]string{"whole": "synced", "old-name": "moved", "gone": "removed", "hollow": ""} {
		if got, err := os.ReadFile(filepath.Join(a, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(a, "nameless")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nameless: %v", err)
	}
	must(t, os.Rename(filepath.Join(a, "old-name"), filepath.Join(b, "new-name")))
	syncPath(t, a)
	unmount()
	d.Crash(LoseAll, rnd(1))
	if tree := d.Tree(); tree["b/new-name"] != 5 || len(tree) != 4 {
		t.Errorf("after the rename: %v", tree)
	}
}

// What hangs at a cut fails when it is released, and did not happen.
func TestMountedCutAtOperation(t *testing.T) {
	d := New()
	dir, unmount := mounted(t, d)
	path := filepath.Join(dir, "f")
	must(t, os.WriteFile(path, []byte("one"), 0o600))
	syncPath(t, dir)
	n := 0
	d.Arm(func(op Op) bool {
		if op.Kind == OpSync && op.Path == "f" {
			n++
		}
		return n == 2
	})
	syncPath(t, path)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("two"), 0)
	must(t, err)
	failed := make(chan error)
	go func() { failed <- f.Sync() }()
	<-d.Off()
	d.Release()
	if err := <-failed; !errors.Is(err, syscall.EIO) {
		t.Errorf("sync: %v, want EIO", err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("write: %v, want EIO", err)
	}
	must(t, f.Close())
	unmount()
	d.Crash(LoseAll, rnd(1))
	if got := d.root.kids["f"].data; string(got) != "one" {
		t.Errorf("content %q, want what was synced", got)
	}
}

// Whatever is lost, what was synced stays, and each sector of the rest is one
// that was there at some time or zeros.
func TestCrashKeepsWhatWasSynced(t *testing.T) {
	torn, grown := 0, 0
	for seed := range uint64(300) {
		r, d := rnd(seed), New()
		n, errno := d.create(d.root, "f", syscall.S_IFREG|0o600)
		if errno != 0 {
			t.Fatal(errno)
		}
		ever := map[int64]map[byte]bool{}
		fill := func(c byte) {
			off, size := r.Int64N(8)*Sector, (1+r.Int64N(8))*Sector
			d.write(n, bytes.Repeat([]byte{c}, int(size)), off)
			for s := off / Sector; s < (off+size)/Sector; s++ {
				if ever[s] == nil {
					ever[s] = map[byte]bool{}
				}
				ever[s][c] = true
			}
		}
		fill('a')
		d.sync(n)
		d.sync(d.root)
		before := slices.Clone(n.stable)
		for s := range int64(len(before) / Sector) {
			ever[s] = map[byte]bool{before[s*Sector]: true}
		}
		fill('b')
		fill('c')
		loss := Loss(r.IntN(int(Losses)))
		dmg := d.Crash(loss, r)
		got := d.root.kids["f"].data
		if len(got) < len(before) {
			t.Fatalf("seed %d, %v: shorter than what was synced", seed, loss)
		}
		if loss == LoseAll && !bytes.Equal(got, before) {
			t.Fatalf("seed %d: something not synced is left", seed)
		}
		for at := 0; at < len(got); at += Sector {
			part := got[at : at+Sector]
			if c := part[0]; slices.ContainsFunc(part, func(b byte) bool { return b != c }) {
				t.Fatalf("seed %d: sector %d was torn inside", seed, at/Sector)
			} else if !ever[int64(at/Sector)][c] && (c != 0 || at < len(before)) {
				t.Fatalf("seed %d: sector %d holds %q, which it never did", seed, at/Sector, c)
			}
		}
		torn += dmg.Torn
		if len(got) > len(before) {
			grown++
		}
	}
	if torn < 50 || grown < 50 {
		t.Errorf("of 300: %d torn, %d with something kept; want more", torn, grown)
	}
}

// Names of one directory are lost from the last on; those of a directory whose
// own name is lost go with it.
func TestCrashLosesNamesInOrder(t *testing.T) {
	some := 0
	for seed := range uint64(200) {
		d := New()
		for _, name := range []string{"1", "2", "3", "4"} {
			d.create(d.root, name, syscall.S_IFREG)
		}
		sub, _ := d.create(d.root, "5", syscall.S_IFDIR)
		d.create(sub, "x", syscall.S_IFREG)
		d.Crash(LoseSome, rnd(seed))
		left := sorted(d.root.kids)
		for i, name := range left {
			if name != string(rune('1'+i)) {
				t.Fatalf("seed %d: left %v", seed, left)
			}
		}
		if len(left) > 0 && len(left) < 5 {
			some++
		}
	}
	if some < 50 {
		t.Errorf("only %d of 200 lost a part", some)
	}
}

// A disk that is deaf on one ear loses what was synced there, and only that.
func TestDeafen(t *testing.T) {
	d := New()
	d.Deafen(func(op Op) bool { return op.Kind == OpSyncDir && op.Path == "" })
	n, _ := d.create(d.root, "f", syscall.S_IFREG)
	d.write(n, []byte("x"), 0)
	d.sync(n)
	d.sync(d.root)
	if d.Crash(LoseAll, rnd(1)); len(d.root.kids) != 0 {
		t.Errorf("the name outlived a sync that was ignored")
	}
}
