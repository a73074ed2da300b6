package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/wal/archive"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// archived returns a driver whose log goes into an archive.
func archived(t *testing.T, change func(o *ArchiveOptions)) *driver {
	t.Helper()
	o := testOptions(t)
	o.Archive = ArchiveOptions{On: true, Rest: 1, Tick: time.Hour}
	if change != nil {
		change(&o.Archive)
	}
	d := newDriver(t, o)
	d.open()
	t.Cleanup(func() {
		if d.s != nil {
			_ = d.s.Close(context.Background())
		}
	})
	return d
}

// live is n rounds of what a broker does: sessions come, go and queue, retained
// messages are replaced, state hashes are logged.
func (d *driver) live(r *rand.Rand, n int) {
	d.t.Helper()
	for range n {
		client := fmt.Sprintf("c%d", r.IntN(5))
		s := d.ref.SessionOf(client)
		switch k := r.IntN(20); {
		case s == nil:
			d.connect(client, nil)
			d.subscribe(client, "t/#", fmt.Sprintf("own/%s", client))
		case !s.Connected():
			d.connect(client, nil)
		case k < 2:
			d.disconnect(client)
		case k < 6:
			d.ack(client, 1+r.IntN(8))
		case k == 6:
			d.log((&record.SessionRemove{ClientID: []byte(client), By: []byte("test")}).AppendTo(nil))
		case k == 7:
			d.log((&record.StateHash{Index: d.ref.Applied(), Hash: d.ref.Hash(&d.s.Manifest.HashKey).Bytes()}).AppendTo(nil))
		default:
			payload := bytes.Repeat([]byte{byte(r.IntN(256))}, r.IntN(200))
			d.log(publish(fmt.Sprintf("t/%d", r.IntN(4)), uint8(r.IntN(3)), k == 8, payload),
				publish("own/"+client, 1, false, payload))
		}
	}
}

// referenceAt replays the driver's own list of records.
func (d *driver) referenceAt(index uint64) *core.Machine {
	d.t.Helper()
	m := core.New()
	var fx core.Effects
	for i, h := range d.history[:index] {
		if err := m.Apply(uint64(i+1), h.now, h.rec, &fx); err != nil {
			d.t.Fatalf("reference: %v", err)
		}
	}
	return m
}

// checkPast compares a state of the past, its bodies too, with the reference.
func (d *driver) checkPast(h *archive.History, index uint64) {
	d.t.Helper()
	p, err := OpenPast(context.Background(), PastOptions{History: h, Index: index, HashKey: d.s.Manifest.HashKey})
	if err != nil {
		d.t.Fatalf("past at %d: %v", index, err)
	}
	defer p.Close() //nolint:errcheck // only read
	want := d.referenceAt(index)
	if p.Machine.Hash(&p.HashKey) != want.Hash(&p.HashKey) {
		d.t.Fatalf("past at %d differs:\n%s", index, diffStates(p.Machine, want))
	}
	found := 0
	err = p.Bodies(context.Background(), func(id uint64, body []byte) error {
		found++
		if !bytes.Equal(body, d.stored(id)) {
			return fmt.Errorf("body of message %d differs", id)
		}
		return nil
	})
	if err != nil || found != want.Counts().Messages {
		d.t.Fatalf("past at %d: %d of %d bodies: %v", index, found, want.Counts().Messages, err)
	}
}

func (d *driver) openHistory() *archive.History {
	d.t.Helper()
	h, err := archive.OpenHistory(ArchiveDir(d.opt.Dir), LogDir(d.opt.Dir), d.s.Manifest.StoreID)
	if err != nil {
		d.t.Fatalf("history: %v", err)
	}
	return h
}

func TestPast_EveryIndexIsTheReference(t *testing.T) {
	d := archived(t, nil)
	r := rand.New(rand.NewPCG(1, 2))
	for range 6 {
		d.live(r, 150)
		d.flush()
		d.s.Archive.Step()
		if err := d.s.commit.writeBase(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if d.s.Log.First() == 1 || len(d.s.Archive.Catalog().Segments) == 0 {
		t.Fatalf("nothing was archived: log from %d, %+v", d.s.Log.First(), d.s.Archive.Stats())
	}
	h := d.openHistory()
	if index, _, ok := h.Reach(); !ok || index != 1 {
		t.Fatalf("reaches back to %d, %v", index, ok)
	}
	for range 100 {
		d.checkPast(h, 1+r.Uint64N(d.ref.Applied()))
	}
	d.checkPast(h, d.ref.Applied())
}

func TestPast_ReachesTheRecordedHashes(t *testing.T) {
	d := archived(t, nil)
	r := rand.New(rand.NewPCG(3, 4))
	recorded := map[uint64][16]byte{}
	for len(recorded) < 100 {
		d.live(r, 7)
		at := d.ref.Applied()
		recorded[at] = d.ref.Hash(&d.s.Manifest.HashKey).Bytes()
		d.log((&record.StateHash{Index: at, Hash: recorded[at]}).AppendTo(nil))
		if len(recorded)%20 == 0 {
			d.flush()
			d.s.Archive.Step()
		}
	}
	h := d.openHistory()
	for at, want := range recorded {
		p, err := OpenPast(context.Background(), PastOptions{History: h, Index: at, HashKey: d.s.Manifest.HashKey})
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Machine.Hash(&p.HashKey).Bytes(); got != want || p.Hashes == 0 {
			t.Errorf("state at %d: hash %x, recorded %x, %d compared", at, got, want, p.Hashes)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A base that follows from the last one and the segments is the same as one of
// the live state.
func TestArchive_NextBase(t *testing.T) {
	d := archived(t, func(o *ArchiveOptions) { o.Bytes = 64 << 10 })
	r := rand.New(rand.NewPCG(5, 6))
	for d.s.Archive.Stats().Bases < 3 {
		d.live(r, 100)
		d.flush()
		d.s.Archive.Step()
		if err := d.s.Archive.Stats().LastError; err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range d.s.Archive.Catalog().Bases {
		base, err := archive.OpenBase(b.Path)
		if err != nil {
			t.Fatal(err)
		}
		if err := base.Verify(); err != nil {
			t.Error(err)
		}
		if want := d.referenceAt(b.Applied).Hash(&d.s.Manifest.HashKey).Bytes(); base.Hash != want {
			t.Errorf("base at %d has hash %x, want %x", b.Applied, base.Hash, want)
		}
		if err := base.Close(); err != nil {
			t.Error(err)
		}
	}
	h := d.openHistory()
	from, _, ok := h.Reach()
	if !ok {
		t.Fatal("the archive reaches nowhere")
	}
	for range 20 {
		d.checkPast(h, from+r.Uint64N(d.ref.Applied()-from+1))
	}
	if s := d.s.Archive.Stats(); s.SegmentBytes > 64<<10 {
		t.Errorf("%d bytes of segments", s.SegmentBytes)
	}
}

// lostBackend is a directory whose log no longer begins with record 1.
func lostBackend(t *testing.T, clean bool) *driver {
	t.Helper()
	d := archived(t, nil)
	r := rand.New(rand.NewPCG(7, 8))
	for range 3 {
		d.live(r, 200)
		d.flush()
		d.s.Archive.Step()
	}
	if d.s.Log.First() == 1 {
		t.Fatal("the log was not shortened")
	}
	if clean {
		d.close()
	} else {
		d.live(r, 20)
		d.s.Compactor.stop()
		if err := errors.Join(d.s.Archive.Close(), d.s.Log.Close(), d.s.Store.Close(), d.s.lock.release()); err != nil {
			t.Fatal(err)
		}
	}
	d.s = nil
	return d
}

func TestOpen_LostBackendIsRebuiltFromTheArchive(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprintf("clean=%v", clean), func(t *testing.T) {
			d := lostBackend(t, clean)
			if err := os.Remove(BackendFile(d.opt.Dir)); err != nil {
				t.Fatal(err)
			}
			d.open() // compares with the reference
			d.checkBodies()
			d.flush()
			d.checkBackend()
			if len(d.s.Report.Warnings) != 1 {
				t.Errorf("warnings: %q", d.s.Report.Warnings)
			}
			d.close()
		})
	}
}

func TestOpen_BrokenBackendIsRebuiltFromTheArchive(t *testing.T) {
	d := lostBackend(t, false)
	path := BackendFile(d.opt.Dir)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 4096; i < len(b); i += 512 {
		b[i] ^= 0x10
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	d.open()
	d.checkBodies()
	d.flush()
	d.checkBackend()
	moved, err := os.ReadFile(filepath.Join(d.opt.Dir, QuarantineDir, boltName))
	if err != nil || !bytes.Equal(moved, b) {
		t.Errorf("the damaged file was not kept: %v", err)
	}
	d.close()
}

func TestOpen_BrokenBackendBeyondTheArchiveIsRefused(t *testing.T) {
	d := lostBackend(t, false)
	if err := os.RemoveAll(ArchiveDir(d.opt.Dir)); err != nil {
		t.Fatal(err)
	}
	path := BackendFile(d.opt.Dir)
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	_, err := Open(context.Background(), d.opt)
	if ExitCode(err) != ExitDamaged {
		t.Fatalf("got %v", err)
	}
	var damage *DamageError
	if !errors.As(err, &damage) || damage.Lost == "" || damage.File != path {
		t.Errorf("got %+v", damage)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 4096 {
		t.Errorf("the file was touched: %v", err)
	}
}

// A full disk takes the archive, not the broker, and the log goes on being
// shortened.
func TestArchive_FailureHoldsNothingBack(t *testing.T) {
	d := archived(t, nil)
	r := rand.New(rand.NewPCG(9, 10))
	d.live(r, 50)
	dir := ArchiveDir(d.opt.Dir)
	if err := os.RemoveAll(dir); err != nil { // whatever is written there fails
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.live(r, 300)
	d.flush()
	d.s.Archive.Step()
	s := d.s.Archive.Stats()
	if s.Failed == 0 || s.LastError == nil {
		t.Errorf("stats %+v", s)
	}
	if d.s.Log.First() == 1 {
		t.Error("the log was held back")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d.s.Archive.Step() // there is room again: the archive begins anew, with a base of the live state
	if h := d.openHistory(); len(h.Bases) == 0 {
		t.Errorf("no base after the failure: %+v", d.s.Archive.Stats())
	}
	d.live(r, 100)
	d.flush()
	d.s.Archive.Step()
	h := d.openHistory()
	from, _, ok := h.Reach()
	if !ok || from == 1 {
		t.Fatalf("reaches back to %d, %v", from, ok)
	}
	d.checkPast(h, from)
	d.checkPast(h, d.ref.Applied())
}

func TestArchive_HoldKeepsEverything(t *testing.T) {
	d := archived(t, nil)
	r := rand.New(rand.NewPCG(11, 12))
	release := d.s.Archive.Hold()
	d.live(r, 300)
	d.flush()
	d.s.Archive.Step()
	if d.s.Log.First() != 1 || len(d.s.Archive.Catalog().Segments) != 0 {
		t.Fatal("a segment left the log")
	}
	release()
	d.s.Archive.Step()
	if d.s.Log.First() == 1 {
		t.Fatal("the log is still held")
	}
}

// A base that rotted gives way to the one before it.
func TestPast_DamagedBase(t *testing.T) {
	d := archived(t, nil)
	r := rand.New(rand.NewPCG(13, 14))
	for range 3 {
		d.live(r, 150)
		d.flush()
		d.s.Archive.Step()
		if err := d.s.commit.writeBase(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	bases := d.s.Archive.Catalog().Bases
	if len(bases) < 2 {
		t.Fatalf("%d bases", len(bases))
	}
	for _, b := range bases[1:] {
		content, err := os.ReadFile(b.Path)
		if err != nil {
			t.Fatal(err)
		}
		content[len(content)/2] ^= 1
		if err := os.WriteFile(b.Path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.checkPast(d.openHistory(), d.ref.Applied())
}

func TestPast_NotReached(t *testing.T) {
	d := lostBackend(t, true)
	if err := os.RemoveAll(ArchiveDir(d.opt.Dir)); err != nil {
		t.Fatal(err)
	}
	m, _, err := ReadManifest(d.opt.Dir)
	if err != nil {
		t.Fatal(err)
	}
	h, err := archive.OpenHistory(ArchiveDir(d.opt.Dir), LogDir(d.opt.Dir), m.StoreID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenPast(t.Context(), PastOptions{History: h, Index: d.ref.Applied()}); !errors.Is(err, archive.ErrReach) {
		t.Errorf("got %v", err)
	}
}
