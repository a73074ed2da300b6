package restore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/bbolt"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/recovery/restore"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal/archive"
)

// hashOf reads the state of a data directory out of its backend alone.
func hashOf(t *testing.T, dir string) (backends.Mark, *core.Machine) {
	t.Helper()
	m, _, err := recovery.ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := recovery.OpenBackend(t.Context(), dir, &m)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // only read
	if got := b.Machine.Hash(&m.HashKey).Bytes(); got != b.Mark.Hash {
		t.Fatalf("hash %x, mark %x", got, b.Mark.Hash)
	}
	return b.Mark, b.Machine
}

// A hundred states whose hashes were noted when they were, as directories.
func TestRestore_AHundredRecordedStates(t *testing.T) {
	r := newRig(t, 1)
	for len(r.hashes) < 100 {
		r.live(3 + r.rnd.IntN(20))
		r.note()
		if len(r.hashes)%13 == 0 {
			r.flush()
		}
	}
	if r.s.Log.First() == 1 {
		t.Fatal("the archive was not needed")
	}
	from := r.crashed()
	for n, at := range slices.Sorted(keysOf(r.hashes)) {
		to := filepath.Join(filepath.Dir(r.dir), fmt.Sprintf("then%d", n))
		o := restore.Options{Dir: from, To: to, Index: at}
		if n%2 == 1 { // half of them by their time
			o.Index, o.Time = 0, r.times[at]
		}
		rep, err := restore.Restore(t.Context(), o)
		if err != nil {
			t.Fatalf("restore to %d: %v", at, err)
		}
		mark, _ := hashOf(t, to)
		if rep.Index != at || mark.Applied != at || mark.Hash != r.hashes[at] || !mark.Sealed || mark.StoreID == r.s.Manifest.StoreID {
			t.Fatalf("restored to %d: %+v, mark %+v, want hash %x", at, rep, mark, r.hashes[at])
		}
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
	}
}

func keysOf(m map[uint64][16]byte) func(yield func(uint64) bool) {
	return func(yield func(uint64) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// A restored directory is a broker: it starts, its bodies are there, it goes on
// from the next record, and it has a past of its own.
func TestRestore_StartsAndGoesOn(t *testing.T) {
	r := newRig(t, 2)
	r.live(300)
	r.flush()
	r.live(50)
	at := r.note()
	r.live(40)
	to := filepath.Join(filepath.Dir(r.dir), "then")
	if _, err := restore.Restore(t.Context(), restore.Options{Dir: r.crashed(), To: to, Index: at}); err != nil {
		t.Fatal(err)
	}
	s, err := openState(t, to)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background()) //nolint:errcheck // of a test
	if s.Log.First() != at+1 || s.Report.Records != 0 {
		t.Errorf("log from %d, %+v", s.Log.First(), s.Report)
	}
	var ids []uint64
	s.Machine.Messages(func(m core.StoredMessage) bool { ids = append(ids, m.ID); return true })
	n := 0
	err = s.Bodies.Load(t.Context(), ids, func(int, []byte) error { n++; return nil })
	if err != nil || n != len(ids) || n == 0 {
		t.Errorf("%d of %d bodies: %v", n, len(ids), err)
	}
	again := filepath.Join(filepath.Dir(r.dir), "again")
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := restore.Restore(t.Context(), restore.Options{Dir: to, To: again, Index: at}); err != nil {
		t.Fatal(err)
	}
	if mark, _ := hashOf(t, again); mark.Hash != r.hashes[at] {
		t.Error("restored twice, and differs")
	}
}

func TestRestore_Refusals(t *testing.T) {
	r := newRig(t, 3)
	r.live(200)
	r.flush()
	from := r.crashed()
	base := filepath.Dir(r.dir)
	full := filepath.Join(base, "full")
	if err := os.MkdirAll(filepath.Join(full, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	without := r.crashed()
	if err := os.RemoveAll(filepath.Join(without, "archive")); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		o    restore.Options
		want error
	}{
		"target in use":    {restore.Options{Dir: from, To: full}, restore.ErrExists},
		"no such record":   {restore.Options{Dir: from, To: filepath.Join(base, "a"), Index: 1 << 40}, archive.ErrReach},
		"before the begin": {restore.Options{Dir: from, To: filepath.Join(base, "b"), Time: 1}, archive.ErrReach},
		"no directory":     {restore.Options{Dir: filepath.Join(base, "nowhere"), To: filepath.Join(base, "c")}, restore.ErrNoData},
		"not reached":      {restore.Options{Dir: without, To: filepath.Join(base, "d"), Index: 5}, archive.ErrReach},
		"in use":           {restore.Options{Dir: r.dir, To: filepath.Join(base, "e"), Index: 5}, recovery.ErrLocked},
	} {
		if _, err := restore.Restore(t.Context(), tt.o); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
		if tt.want != restore.ErrExists {
			if _, err := os.Stat(tt.o.To); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: the target is there", name)
			}
		}
	}
}

// An interrupted restore leaves no directory of the name, and nothing beside it.
func TestRestore_InterruptedLeavesNothing(t *testing.T) {
	r := newRig(t, 4)
	r.live(200)
	from, base := r.crashed(), t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	_, err := restore.Restore(ctx, restore.Options{Dir: from, To: filepath.Join(base, "then"), Progress: func(step string, _, _ int64) {
		if step == "write" {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if names, err := os.ReadDir(base); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

// What a start does to a directory after the plan was carried out.
func startAfter(t *testing.T, dir string) *recovery.State {
	t.Helper()
	s, err := openState(t, dir)
	if err != nil {
		t.Fatalf("start after the repair: %v", err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

func apply(t *testing.T, dir string) *restore.Plan {
	t.Helper()
	p, err := restore.MakePlan(t.Context(), restore.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Apply(), p.Close()); err != nil {
		t.Fatal(err)
	}
	return p
}

func flip(t *testing.T, path string, off int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if off < 0 {
		off += int64(len(b))
	}
	b[off] ^= 0x20
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func segments(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "wal", strings.Repeat("?", 20)))
	if err != nil || len(list) == 0 {
		t.Fatalf("%d segments: %v", len(list), err)
	}
	return list
}

func TestRepair_NothingIsWrong(t *testing.T) {
	r := newRig(t, 5)
	r.live(100)
	r.flush()
	r.live(10)
	dir := r.crashed()
	p, err := restore.MakePlan(t.Context(), restore.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close() //nolint:errcheck // of a test
	if len(p.Findings)+len(p.Steps) > 0 || !p.Sure {
		t.Errorf("%+v", p)
	}
}

func TestRepair_TornTail(t *testing.T) {
	r := newRig(t, 6)
	r.live(60)
	at := r.note()
	dir := r.crashed()
	segs := segments(t, dir)
	f, err := os.OpenFile(segs[len(segs)-1], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("half a frame"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	p := apply(t, dir)
	if len(p.Steps) != 1 || !p.Sure || p.Lost.Records != 0 {
		t.Errorf("%+v", p)
	}
	if _, err := os.Stat(filepath.Join(dir, "quarantine", filepath.Base(segs[len(segs)-1]))); err != nil {
		t.Error(err)
	}
	if s := startAfter(t, dir); s.Report.Last != at+1 || s.Report.TornBytes != 0 {
		t.Errorf("%+v", s.Report)
	}
}

// Rot in acknowledged records that no backend has: the log is cut off before
// it, and the plan names what is lost.
func TestRepair_DamagedLogNamesTheLoss(t *testing.T) {
	r := newRig(t, 7)
	r.live(40)
	r.flush()
	r.connect("victim")
	at := r.note()
	for i := range 30 {
		r.publish(fmt.Sprintf("lost/%d", i%3), 1, true, 200)
	}
	last := r.s.Machine.Applied()
	if err := r.s.Log.Mark(); err != nil {
		t.Fatal(err)
	}
	dir := r.crashed()
	segs := segments(t, dir)
	in := r.s.Log.Segments()
	seg := in[len(in)-1] // the first segment with a record after at
	for i := len(in) - 1; i >= 0 && in[i].Last > at; i-- {
		seg = in[i]
	}
	path := filepath.Join(dir, "wal", seg.Name)
	if !slices.Contains(segs, path) {
		t.Fatalf("no %s", path)
	}
	flip(t, path, seg.Valid-150) // in its last record
	if _, err := openState(t, dir); recovery.ExitCode(err) != recovery.ExitDamaged {
		t.Fatalf("a start says %v", err)
	}
	p := apply(t, dir)
	l := p.Lost
	if p.Sure || l.From != seg.Last || l.To != last || l.Records != last-seg.Last+1 || l.Unreadable == 0 || l.Unreadable == l.Records {
		t.Errorf("lost %+v, the segment ends with %d, the log with %d", l, seg.Last, last)
	}
	if want := int(l.Records - l.Unreadable); l.Messages != want || len(l.Topics) != 3 || l.Topics[0] != "lost/0" {
		t.Errorf("lost %+v", l)
	}
	if s := startAfter(t, dir); s.Report.Last != seg.Last { // one less, and the start
		t.Errorf("the log goes on at %d, cut at %d", s.Report.Last, seg.Last)
	}
}

// Rot in what the backend has already: nothing is lost.
func TestRepair_DamageBelowTheBackend(t *testing.T) {
	r := newRig(t, 8)
	release := r.s.Archive.Hold() // so that the log keeps what the backend has
	defer release()
	r.live(200)
	r.flush()
	r.live(5)
	r.note()
	dir := r.crashed()
	segs := segments(t, dir)
	flip(t, segs[1], 300)
	if _, err := openState(t, dir); recovery.ExitCode(err) != recovery.ExitDamaged {
		t.Fatalf("a start says %v", err)
	}
	p := apply(t, dir)
	if !p.Sure || len(p.Steps) != 1 {
		t.Errorf("%+v", p)
	}
	s := startAfter(t, dir)
	if s.Report.Last != r.s.Machine.Applied()+1 {
		t.Errorf("%+v", s.Report)
	}
}

func TestRepair_BackendFromTheArchive(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"missing": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"damaged": func(t *testing.T, path string) {
			if err := os.Truncate(path, 8192); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 9)
			r.live(300)
			r.flush()
			r.live(10)
			at := r.note()
			if r.s.Log.First() == 1 {
				t.Fatal("the archive is not needed")
			}
			dir := r.crashed()
			damage(t, recovery.BackendFile(dir))
			p := apply(t, dir)
			if !p.Sure || len(p.Findings) != 1 || len(p.Steps) != 1 {
				t.Errorf("%+v", p)
			}
			mark, _ := hashOf(t, dir)
			if mark.Applied != at || mark.Hash != r.hashes[at] {
				t.Errorf("mark %+v, want %d with %x", mark, at, r.hashes[at])
			}
			startAfter(t, dir)
		})
	}
}

// Without archive and backend nothing in place helps; salvage saves the rest.
func TestSalvage_OverAGap(t *testing.T) {
	r := newRig(t, 10)
	r.live(300)
	r.flush()
	first := r.s.Log.First()
	r.connect("later")
	kept := r.publish("kept", 1, true, 10)
	dir := r.crashed()
	if err := errors.Join(os.Remove(recovery.BackendFile(dir)), os.RemoveAll(filepath.Join(dir, "archive"))); err != nil {
		t.Fatal(err)
	}
	if _, err := restore.MakePlan(t.Context(), restore.Options{Dir: dir}); !errors.Is(err, restore.ErrBeyondRepair) {
		t.Fatalf("repair says %v", err)
	}
	to := filepath.Join(filepath.Dir(r.dir), "saved")
	rep, err := restore.Salvage(t.Context(), restore.Options{Dir: dir, To: to})
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Lost) != 1 || rep.Lost[0].From != 1 || rep.Lost[0].To != first-1 {
		t.Errorf("lost %+v, the log begins with %d", rep.Lost, first)
	}
	mark, m := hashOf(t, to)
	if mark.Applied != r.s.Machine.Applied() || m.SessionOf("later") == nil {
		t.Errorf("mark %+v", mark)
	}
	if e, ok := m.RetainedMessage("kept"); !ok || e.Message != kept {
		t.Error("an intact record is not in the state")
	}
	startAfter(t, to)
}

// Damage in the middle of the log: what follows it is saved.
func TestSalvage_PastDamage(t *testing.T) {
	r := newRig(t, 11)
	r.live(20)
	r.connect("a")
	for range 60 {
		r.publish("x", 0, true, 200)
	}
	r.connect("b")
	dir := r.crashed()
	if err := os.Remove(recovery.BackendFile(dir)); err != nil {
		t.Fatal(err)
	}
	segs := segments(t, dir)
	flip(t, segs[len(segs)/2], 700)
	to := filepath.Join(filepath.Dir(r.dir), "saved")
	rep, err := restore.Salvage(t.Context(), restore.Options{Dir: dir, To: to})
	if err != nil {
		t.Fatal(err)
	}
	_, m := hashOf(t, to)
	if len(rep.Lost) != 1 || rep.Lost[0].From != rep.Lost[0].To || m.SessionOf("a") == nil || m.SessionOf("b") == nil {
		t.Errorf("%+v", rep)
	}
	clients := 0
	m.Sessions(func(*session.Session) bool { clients++; return true })
	if clients != r.s.Machine.Counts().Sessions {
		t.Errorf("%d sessions", clients)
	}
}

// Two salvages of one directory agree.
func TestSalvage_Sound(t *testing.T) {
	r := newRig(t, 12)
	r.live(200)
	r.flush()
	r.live(20)
	at := r.note()
	to := filepath.Join(filepath.Dir(r.dir), "saved")
	rep, err := restore.Salvage(t.Context(), restore.Options{Dir: r.crashed(), To: to})
	if err != nil || len(rep.Lost) > 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if mark, _ := hashOf(t, to); mark.Hash != r.hashes[at] {
		t.Error("a sound directory comes out different")
	}
	s, err := bbolt.Open(recovery.BackendFile(to), bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Check(t.Context()), s.Close()); err != nil {
		t.Error(err)
	}
}
