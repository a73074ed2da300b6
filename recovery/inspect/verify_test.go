package inspect_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/recovery/inspect"
	"github.com/wind-c/comqtt/v3/recovery/inspect/inspecttest"
)

// One number from four places: the running broker, a replay of the whole log, a
// scan of the backend, and the records.
func TestHashesAgree(t *testing.T) {
	for name, o := range map[string]inspecttest.Options{
		"killed": {}, "clean": {Clean: true}, "segments": {SegmentSize: 1024, Clean: true}, "memory": {Backend: recovery.BackendMemory},
	} {
		t.Run(name, func(t *testing.T) {
			dir, running := build(t, o)
			looking(t, dir, func(d *inspect.Dir) {
				ov, err := d.Overview(background)
				if err != nil || ov.Err() != nil {
					t.Fatal(err, ov.Err())
				}
				if ov.State.Hash != inspect.ID(running) {
					t.Errorf("overview: hash %s at record %d, the broker had %x", ov.State.Hash, ov.State.Index, running)
				}
				if o.Clean && ov.Backend.Hash != inspect.ID(running) {
					t.Errorf("backend: hash %s, the broker had %x", ov.Backend.Hash, running)
				}
				v, err := d.Verify(background)
				if err != nil || v.Err() != nil {
					t.Fatal(err, v.Err())
				}
				if v.State.Hash != inspect.ID(running) {
					t.Errorf("verify: hash %s, the broker had %x", v.State.Hash, running)
				}
			})
		})
	}
}

// Of the log, every flipped bit is found: in its place, or as the torn tail of
// the last frame, which a crash could have left as well.
func TestVerify_EveryFlipOfTheLog(t *testing.T) {
	dir, _ := build(t, inspecttest.Options{SegmentSize: 1024, Keep: true})
	list := segments(t, dir)
	for i, seg := range list {
		size := fileSize(t, seg)
		for at := int64(0); at < size; at += 17 {
			bit := uint(at % 8)
			flip(t, seg, at, bit)
			looking(t, dir, func(d *inspect.Dir) {
				v, err := d.Verify(background)
				if err != nil {
					t.Fatal(err)
				}
				ov, err := d.Overview(background)
				if err != nil {
					t.Fatal(err)
				}
				damage := ov.Log.Damage
				switch {
				case damage == nil:
					t.Fatalf("bit %d of byte %d of segment %d: not found", bit, at, i)
				case damage.Torn && i < len(list)-1:
					t.Fatalf("byte %d of segment %d: taken for a torn tail", at, i)
				case !damage.Torn && v.Sound:
					t.Fatalf("byte %d of segment %d: verify says that it is sound", at, i)
				case !v.Sound && (len(v.Findings) == 0 || v.Findings[0].Offset > at || filepath.Base(v.Findings[0].File) > filepath.Base(seg)):
					t.Fatalf("byte %d of %s: found at %+v", at, seg, v.Findings)
				}
			})
			flip(t, seg, at, bit)
		}
	}
}

// What inspect says a start would do is what a start does, for every way in
// which a directory may be harmed.
func TestOverview_DecidesAsAStart(t *testing.T) {
	harms := map[string]func(t *testing.T, dir string) error{
		"none": func(*testing.T, string) error { return nil },
		"torn": func(t *testing.T, dir string) error {
			list := segments(t, dir)
			tail := list[len(list)-1]
			return os.Truncate(tail, fileSize(t, tail)-5)
		},
		"flip": func(t *testing.T, dir string) error { flip(t, segments(t, dir)[0], 130, 1); return nil },
		"first segment missing": func(t *testing.T, dir string) error {
			return os.Remove(segments(t, dir)[0])
		},
		"last segment missing": func(t *testing.T, dir string) error {
			list := segments(t, dir)
			return os.Remove(list[len(list)-1])
		},
		"log missing":     func(_ *testing.T, dir string) error { return os.RemoveAll(recovery.LogDir(dir)) },
		"backend missing": func(_ *testing.T, dir string) error { return os.Remove(recovery.BackendFile(dir)) },
		"backend emptied": func(_ *testing.T, dir string) error { return os.Truncate(recovery.BackendFile(dir), 0) },
		"backend flipped": func(t *testing.T, dir string) error {
			flip(t, recovery.BackendFile(dir), fileSize(t, recovery.BackendFile(dir))/2, 2)
			return nil
		},
		"backend of another": func(t *testing.T, dir string) error {
			other, _ := build(t, inspecttest.Options{Clean: true})
			return os.Rename(recovery.BackendFile(other), recovery.BackendFile(dir))
		},
		"log of another": func(t *testing.T, dir string) error {
			other, _ := build(t, inspecttest.Options{})
			return errors.Join(os.RemoveAll(recovery.LogDir(dir)), os.Rename(recovery.LogDir(other), recovery.LogDir(dir)))
		},
		"manifest missing": func(_ *testing.T, dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "MANIFEST")), os.RemoveAll(filepath.Join(dir, "MANIFEST.old")))
		},
		"manifest flipped": func(t *testing.T, dir string) error { flip(t, filepath.Join(dir, "MANIFEST"), 40, 1); return nil },
		"manifest of the future": func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "MANIFEST"), []byte("comqtt manifest 2\nshards 4096\ncrc32c a51ddf05\n"), 0o600)
		},
		"stray file": func(t *testing.T, dir string) error {
			return os.WriteFile(segments(t, dir)[0]+".START", nil, 0o600)
		},
	}
	for state, o := range map[string]inspecttest.Options{
		"killed": {SegmentSize: 1024}, "kept": {SegmentSize: 1024, Keep: true}, "clean": {Clean: true}, "clean segments": {Clean: true, SegmentSize: 1024},
	} {
		for harm, do := range harms {
			t.Run(state+"/"+harm, func(t *testing.T) {
				dir, _ := build(t, o)
				if err := do(t, dir); err != nil {
					t.Fatal(err)
				}
				compareWithStart(t, dir)
			})
		}
	}
}

func compareWithStart(t *testing.T, dir string) {
	t.Helper()
	trial := copyTree(t, dir)
	s, startErr := recovery.Open(background, recovery.Options{Dir: trial, Clock: func() int64 { return inspecttest.Start + 3_600_000 }})
	if startErr == nil {
		defer func() {
			if err := s.Close(background); err != nil {
				t.Error(err)
			}
		}()
	}
	d, err := inspect.Open(dir, nil)
	if err != nil { // nothing to look at, or of the future: then a start refuses too
		if startErr == nil || recovery.ExitCode(err) != recovery.ExitCode(startErr) {
			t.Fatalf("open: %v; a start: %v", err, startErr)
		}
		return
	}
	ov, err := d.Overview(background)
	if err := errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	if ov.Start.Serves != (startErr == nil) || recovery.ExitCode(ov.Err()) != recovery.ExitCode(startErr) {
		t.Fatalf("inspect says: %v\na start says: %v", ov.Err(), startErr)
	}
	if startErr != nil {
		return
	}
	r := &s.Report
	torn := int64(0)
	if ov.Start.Cut != nil {
		torn = ov.Start.Cut.Bytes
	}
	if torn != r.TornBytes || !ov.Start.Rebuild && ov.Start.Records != r.Records {
		t.Errorf("inspect: %d torn, %d to replay; a start: %d torn, %d replayed", torn, ov.Start.Records, r.TornBytes, r.Records)
	}
	if ov.State != nil && (ov.State.Sessions != r.Sessions || ov.State.Retained != r.Retained) {
		t.Errorf("inspect: %+v; a start: %+v", ov.State, r)
	}
}

// What is not in the state hash, or only together with something else.
func TestVerify_Backend(t *testing.T) {
	edit := func(t *testing.T, dir string, fn func(tx *bolt.Tx) error) {
		t.Helper()
		db, err := bolt.Open(recovery.BackendFile(dir), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(fn), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	first := func(tx *bolt.Tx, table byte) (*bolt.Bucket, []byte) {
		b := tx.Bucket([]byte{table})
		key, _ := b.Cursor().First()
		return b, key
	}
	for name, tt := range map[string]struct {
		edit func(tx *bolt.Tx) error
		want string
	}{
		"body gone": {func(tx *bolt.Tx) error {
			b, key := first(tx, backends.TableBody)
			return b.Delete(key)
		}, "is missing"},
		"body altered": {func(tx *bolt.Tx) error { // and sealed again
			b, key := first(tx, backends.TableBody)
			return b.Put(key, backends.Seal(nil, key, []byte("not what was published")))
		}, "is not the one that was stored"},
		"session gone": {func(tx *bolt.Tx) error {
			b, key := first(tx, backends.TableSubscription)
			return b.Delete(key)
		}, "hash"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := build(t, inspecttest.Options{Clean: true})
			edit(t, dir, tt.edit)
			v, err := open(t, dir).Verify(background)
			if err != nil {
				t.Fatal(err)
			}
			if v.Sound || !strings.Contains(fmt.Sprint(v.Findings), tt.want) {
				t.Errorf("findings: %+v", v.Findings)
			}
		})
	}
}
