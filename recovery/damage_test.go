package recovery

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// used makes a directory with a history: two starts, a shortened log, an
// absent subscriber with messages in the backend and in the log, and then what
// a crash leaves.
func used(t *testing.T, root string) *driver {
	t.Helper()
	d := newDriver(t, Options{Dir: filepath.Join(root, "data"), SegmentSize: 4096})
	queueing(t, d)
	for range 20 {
		d.log(publish("a", 1, true, make([]byte, 900)))
	}
	d.close()
	d.open()
	d.flush()
	d.gate.set(func(*backends.Batch, backends.Mark) error { return backends.ErrFull }, nil)
	for range 20 {
		d.log(publish("a", 1, true, make([]byte, 900)))
	}
	c := d.crash(filepath.Join(root, "crash"), true)
	d.abandon()
	return c
}

func segments(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, walName, "0*"))
	if err != nil || len(names) < 4 {
		t.Fatalf("segments %v, %v", names, err)
	}
	slices.Sort(names)
	return names
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// flip changes bits of a byte; a negative offset counts from the end.
func flip(t *testing.T, path string, off int64, mask byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	info, err := f.Stat()
	must(t, err)
	if off < 0 {
		off += info.Size()
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], off)
	must(t, err)
	b[0] ^= mask
	_, err = f.WriteAt(b[:], off)
	must(t, errors.Join(err, f.Close()))
}

// What a crash cannot explain is refused, with a typed error that says what,
// and nothing in the directory changes. What is only a copy is done without.
func TestDamage(t *testing.T) {
	root := fastDir(t)
	base := used(t, root)
	foreign := used(t, filepath.Join(root, "foreign"))

	tests := []struct {
		name  string
		harm  func(t *testing.T, dir string)
		code  int    // 0 = recovers with nothing lost
		names string // what the error must name
	}{
		{"nothing", func(*testing.T, string) {}, 0, ""},
		{"manifest missing, old one there", func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, manifestName)))
		}, 0, ""},
		{"manifest damaged, old one there", func(t *testing.T, dir string) {
			flip(t, filepath.Join(dir, manifestName), 40, 1)
		}, 0, ""},
		{"old manifest missing", func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, manifestOld)))
		}, 0, ""},
		{"both manifests missing", func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, manifestName)))
			must(t, os.Remove(filepath.Join(dir, manifestOld)))
		}, ExitDamaged, manifestName},
		{"both manifests damaged", func(t *testing.T, dir string) {
			flip(t, filepath.Join(dir, manifestName), 40, 1)
			flip(t, filepath.Join(dir, manifestOld), 40, 1)
		}, ExitDamaged, manifestName},
		{"manifest of another store", func(t *testing.T, dir string) {
			must(t, copyFile(filepath.Join(foreign.opt.Dir, manifestName), filepath.Join(dir, manifestName)))
		}, ExitDamaged, boltName},
		{"manifest from the future", func(t *testing.T, dir string) {
			rewriteManifest(t, dir, "comqtt manifest 1\n", "comqtt manifest 2\nnew-field x\n")
		}, ExitConfig, "version 2"},
		{"backend missing", func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, boltName)))
		}, ExitDamaged, boltName},
		{"backend empty", func(t *testing.T, dir string) {
			must(t, os.Truncate(filepath.Join(dir, boltName), 0))
		}, ExitDamaged, boltName},
		{"backend of another store", func(t *testing.T, dir string) {
			must(t, copyFile(filepath.Join(foreign.opt.Dir, boltName), filepath.Join(dir, boltName)))
		}, ExitDamaged, "belongs to store"},
		{"backend newer than the log", func(t *testing.T, dir string) {
			newer := newDriver(t, base.opt)
			newer.opt.Dir = filepath.Join(root, "newer")
			copyDir(t, base.opt.Dir, newer.opt.Dir)
			s, err := Open(t.Context(), newer.opt)
			must(t, err)
			newer.s, newer.ref = s, s.Machine
			must(t, s.Compactor.Flush(t.Context()))
			must(t, s.Close(t.Context()))
			must(t, copyFile(filepath.Join(newer.opt.Dir, boltName), filepath.Join(dir, boltName)))
		}, ExitDamaged, walName},
		{"log missing", func(t *testing.T, dir string) {
			must(t, os.RemoveAll(filepath.Join(dir, walName)))
		}, ExitDamaged, walName},
		{"log of another store", func(t *testing.T, dir string) {
			must(t, os.RemoveAll(filepath.Join(dir, walName)))
			copyDir(t, filepath.Join(foreign.opt.Dir, walName), filepath.Join(dir, walName))
		}, ExitDamaged, walName},
		{"first segment missing", func(t *testing.T, dir string) {
			names := segments(t, dir)
			must(t, os.Remove(names[0]))
		}, ExitDamaged, walName},
		{"segment missing in the middle", func(t *testing.T, dir string) {
			names := segments(t, dir)
			must(t, os.Remove(names[len(names)/2]))
		}, ExitDamaged, walName},
		{"bit rot in a segment", func(t *testing.T, dir string) {
			flip(t, segments(t, dir)[1], 700, 8)
		}, ExitDamaged, walName},
		{"end of the log cut off", func(t *testing.T, dir string) {
			names := segments(t, dir)
			for _, n := range names[1:] {
				must(t, os.Remove(n))
			}
			info, err := os.Stat(names[0])
			must(t, err)
			must(t, os.Truncate(names[0], min(100, info.Size())))
		}, ExitDamaged, walName},
		{"lock file missing", func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, lockName)))
		}, 0, ""},
		{"unfinished files", func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, manifestName+".tmp"), []byte("comq"), 0o600))
			must(t, os.WriteFile(filepath.Join(dir, boltName+".new"), []byte("x"), 0o600))
		}, 0, ""},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := base.crash2(t, filepath.Join(root, fmt.Sprint("case", i)))
			tt.harm(t, d.opt.Dir)
			if tt.code != 0 {
				before := snapshot(t, d.opt.Dir)
				wantDamage(t, d.opt, tt.code)
				_, err := Open(t.Context(), d.opt)
				if !strings.Contains(err.Error(), tt.names) {
					t.Errorf("the error does not name %q: %v", tt.names, err)
				}
				if after := snapshot(t, d.opt.Dir); after != before {
					t.Errorf("the refused directory was changed:\n%s\nwas\n%s", after, before)
				}
				return
			}
			d.openCrashed()
			if strings.Contains(tt.name, "manifest") && !strings.HasPrefix(tt.name, "old") && len(d.s.Report.Warnings) == 0 {
				t.Error("no warning")
			}
			d.checkBodies()
			d.flush()
			d.checkBackend()
			d.close()
			d.open()
			if len(d.s.Report.Warnings) > 0 {
				t.Errorf("still warned: %v", d.s.Report.Warnings)
			}
			d.close()
		})
	}
}

// crash2 is another copy of a crashed directory.
func (d *driver) crash2(t *testing.T, to string) *driver {
	copyDir(t, d.opt.Dir, to)
	c := newDriver(t, d.opt)
	c.opt.Dir = to
	c.now.Store(d.now.Load())
	c.conn, c.acked, c.history = d.conn, d.acked, slices.Clone(d.history)
	return c
}

// snapshot describes the content of a directory, but for the lock and what
// bbolt writes when it opens.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == lockName || e.Name() == boltName {
			return err
		}
		content, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %d %x\n", strings.TrimPrefix(path, dir), len(content), sum(content))
		return err
	}))
	return b.String()
}

func rewriteManifest(t *testing.T, dir, old, new string) {
	t.Helper()
	path := filepath.Join(dir, manifestName)
	b, err := os.ReadFile(path)
	must(t, err)
	at := bytes.LastIndex(b, []byte("crc32c "))
	b = bytes.Replace(b[:at], []byte(old), []byte(new), 1)
	must(t, os.WriteFile(path, fmt.Appendf(b, "crc32c %08x\n", sum(b)), 0o600))
}

// Every bit of the backend's file: either bbolt and the seals notice, or the
// state hash does, or the bit does not matter.
func TestDamage_BackendBitFlips(t *testing.T) {
	root := fastDir(t)
	base := used(t, root)
	path := filepath.Join(base.opt.Dir, boltName)
	b, err := os.ReadFile(path)
	must(t, err)
	var at []int64 // one bit in each used part of 512 bytes
	for off := 0; off < len(b); off += 512 {
		if part := b[off : off+512]; !bytes.Equal(part, make([]byte, 512)) {
			for i, c := range part {
				if c != 0 && (off/512+i)%7 == 0 {
					at = append(at, int64(off+i))
					break
				}
			}
		}
	}
	refused := 0
	for _, off := range at {
		dir := filepath.Join(root, "flipped")
		must(t, os.RemoveAll(dir))
		d := base.crash2(t, dir)
		flip(t, filepath.Join(dir, boltName), off, 4)
		s, err := Open(t.Context(), d.opt)
		if err != nil {
			refused++
			if c := ExitCode(err); c != ExitDamaged && c != ExitConfig {
				t.Fatalf("flip at %d: %v", off, err)
			}
			continue
		}
		must(t, s.Close(t.Context()))
		must(t, os.RemoveAll(dir))
		d = base.crash2(t, dir)
		flip(t, filepath.Join(dir, boltName), off, 4)
		d.openCrashed() // compares the state
		d.checkBodies()
		d.close()
	}
	t.Logf("%d of %d flips refused, the others did not matter", refused, len(at))
	if refused < len(at)/2 {
		t.Fatalf("%d of %d flips refused", refused, len(at))
	}
}

// Pairs that are missing, or were added, are seen by the state hash even though
// every pair that is there is sound.
func TestDamage_BackendPairs(t *testing.T) {
	root := fastDir(t)
	base := used(t, root)
	for i, harm := range []func(b *backends.Batch, store backends.Store, s *session.Session){
		func(b *backends.Batch, _ backends.Store, s *session.Session) { // the subscription
			b.Delete(backends.NameKey(nil, backends.TableSubscription, s.ID, "a"))
		},
		func(b *backends.Batch, _ backends.Store, s *session.Session) { // a received identifier
			b.Put(append(backends.IDKey(nil, backends.TableReceived, s.ID), 0, 7), []byte{1})
		},
		func(b *backends.Batch, store backends.Store, s *session.Session) { // a queue entry of a message that others keep
			key := backends.PairKey(nil, backends.TableQueue, s.ID, 0)
			var message uint64
			s.Out.Chunk(0, func(e *session.Entry[uint64]) {
				if e.Seq == 20 {
					message = e.Msg
				}
			})
			must(t, store.Get(t.Context(), [][]byte{key}, func(_ int, val []byte) error {
				less := core.Without(key[0], key[1:], val, message)
				if len(less) == 0 || len(less) >= len(val) {
					t.Fatalf("message %d is not in chunk %x", message, val)
				}
				b.Put(key, less)
				return nil
			}))
		},
	} {
		d := base.crash2(t, filepath.Join(root, fmt.Sprint(i)))
		o := d.opt
		var store backends.Store
		o.WrapStore = func(s backends.Store) backends.Store { store = s; return s }
		s, err := Open(t.Context(), o)
		must(t, err)
		must(t, s.Compactor.Flush(t.Context()))
		s.Compactor.stop()
		mark, err := store.Mark(t.Context())
		must(t, err)
		var b backends.Batch
		harm(&b, store, s.Machine.SessionOf("away"))
		must(t, store.Commit(t.Context(), &b, mark))
		must(t, errors.Join(s.Log.Close(), s.Store.Close(), s.lock.release()))
		wantDamage(t, d.opt, ExitDamaged)
	}
}

// A log that begins at record 1 stands in for a backend that is not there.
func TestDamage_BackendRebuiltFromWholeLog(t *testing.T) {
	d := newDriver(t, testOptions(t))
	d.opt.SegmentSize = 1 << 20
	d.open()
	traffic(d)
	d.close()
	must(t, os.Remove(filepath.Join(d.opt.Dir, boltName)))
	d.open()
	if w := d.s.Report.Warnings; len(w) != 1 || d.s.Report.Records == 0 {
		t.Fatalf("report %+v", d.s.Report)
	}
	d.flush()
	d.checkBackend()
	d.checkBodies()
	d.close()
}

// An older copy of the backend is brought up to date if the log reaches back to
// it, and refused if it does not.
func TestDamage_OlderBackend(t *testing.T) {
	root := fastDir(t)
	for _, dropped := range []bool{false, true} {
		d := newDriver(t, Options{Dir: filepath.Join(root, fmt.Sprint(dropped)), SegmentSize: 1 << 20})
		if dropped {
			d.opt.SegmentSize = 4096
		}
		queueing(t, d)
		d.log(publish("a", 1, true, make([]byte, 900)))
		d.flush()
		old := filepath.Join(root, "old")
		must(t, copyFile(filepath.Join(d.opt.Dir, boltName), old))
		for range 20 {
			d.log(publish("a", 1, true, make([]byte, 900)))
		}
		d.flush()
		h := record.StateHash{Index: d.ref.Applied(), Hash: d.s.commit.mark.Hash}
		d.log(h.AppendTo(nil))
		d.close()
		must(t, copyFile(old, filepath.Join(d.opt.Dir, boltName)))
		if dropped {
			wantDamage(t, d.opt, ExitDamaged)
			continue
		}
		d.open()
		if d.s.Report.Records < 20 || d.s.Report.Hashes < 2 {
			t.Fatalf("report %+v", d.s.Report)
		}
		d.checkBodies()
		d.flush()
		d.checkBackend()
		d.close()
	}
}

// With the memory backend only the manifest knows how far the log reached.
func TestDamage_EndOfLogMissing_Memory(t *testing.T) {
	d := newDriver(t, testOptions(t))
	d.opt.Backend = BackendMemory
	d.open()
	for range 20 {
		d.log(publish("a", 1, true, make([]byte, 900)))
	}
	d.close()
	names := segments(t, d.opt.Dir)
	for _, n := range names[2:] {
		must(t, os.Remove(n))
	}
	wantDamage(t, d.opt, ExitDamaged)
}

// The memory backend needs the whole log.
func TestDamage_MemoryOverShortenedLog(t *testing.T) {
	base := used(t, fastDir(t))
	base.opt.Backend = BackendMemory
	if _, err := Open(t.Context(), base.opt); !errors.Is(err, ErrBackend) || ExitCode(err) != ExitConfig {
		t.Fatalf("open: %v", err)
	}
	base.opt.Backend = BackendBbolt
	base.openCrashed()
	base.close()
}

// A directory can go from bbolt to memory and back while the log is whole.
func TestOpen_MemoryAndBack(t *testing.T) {
	d := newDriver(t, testOptions(t))
	d.opt.SegmentSize = 1 << 20
	d.open()
	traffic(d)
	d.close()
	d.opt.Backend = BackendMemory
	d.open()
	traffic(d)
	d.checkBodies()
	d.close()
	d.opt.Backend = BackendBbolt
	d.open()
	d.flush()
	d.checkBackend()
	d.checkBodies()
	d.close()
}
