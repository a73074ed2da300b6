package restore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a small broker on a data directory: it logs records, applies them, and
// remembers what the state hash was after some of them.
type rig struct {
	t      *testing.T
	dir    string
	opt    recovery.Options
	s      *recovery.State
	rnd    *rand.Rand
	now    atomic.Int64 // log time; the archive looks at it too
	conn   uint32
	fx     core.Effects
	hashes map[uint64][16]byte
	times  map[uint64]int64
}

func newRig(t *testing.T, seed uint64) *rig {
	t.Helper()
	base, err := os.MkdirTemp("/dev/shm", "restore-test-")
	if err != nil {
		base = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) }) // of a test
	r := &rig{
		t: t, dir: filepath.Join(base, "data"), rnd: rand.New(rand.NewPCG(seed, 1)),
		hashes: map[uint64][16]byte{}, times: map[uint64]int64{},
	}
	r.now.Store(1_767_225_600_000)
	r.opt = recovery.Options{
		Dir: r.dir, SegmentSize: 4096, Clock: func() int64 { return r.now.Load() },
		Archive: recovery.ArchiveOptions{On: true, Tick: time.Hour, Rest: time.Nanosecond},
	}
	r.opt.WAL.IdleMark = -1
	r.open()
	t.Cleanup(r.stop)
	return r
}

func (r *rig) open() {
	r.t.Helper()
	s, err := recovery.Open(context.Background(), r.opt)
	if err != nil {
		r.t.Fatalf("open: %v", err)
	}
	r.s = s
	r.now.Store(max(r.now.Load(), s.Report.LogTime))
}

// stop ends in good order.
func (r *rig) stop() {
	if r.s == nil {
		return
	}
	r.s.Compactor.Checkpoint(r.s.Machine, r.s.Machine.Applied(), r.s.Machine.Now())
	if err := r.s.Close(context.Background()); err != nil {
		r.t.Errorf("close: %v", err)
	}
	r.s = nil
}

func (r *rig) log(rec []byte) uint64 {
	r.t.Helper()
	f := wal.Frame{Time: r.now.Add(7), Term: 1, Count: 1, Body: wal.AppendRecord(nil, rec)}
	if err := r.s.Log.Commit(&f); err != nil {
		r.t.Fatal(err)
	}
	r.s.Bodies.AddFrame(&f, nil)
	if err := r.s.Machine.Apply(f.First, f.Time, rec, &r.fx); err != nil {
		r.t.Fatal(err)
	}
	return f.First
}

// note remembers the hash of now.
func (r *rig) note() uint64 {
	at := r.s.Machine.Applied()
	r.hashes[at] = r.s.Machine.Hash(&r.s.Manifest.HashKey).Bytes()
	r.times[at] = r.now.Load()
	return at
}

func (r *rig) connect(client string) {
	r.conn++
	c := record.Connect{
		Epoch: record.NewEpoch(r.s.Report.Boot, r.conn), ClientID: []byte(client), Version: 5, Expiry: 36_000, ReceiveMaximum: 20,
	}
	r.log(c.AppendTo(nil))
}

func (r *rig) publish(name string, qos uint8, retain bool, size int) uint64 {
	m := packets.Publish{Payload: make([]byte, size)}
	p := record.Publish{QoS: qos, Retain: retain, Message: m.AppendMessage(nil, []byte(name))}
	if qos > 0 {
		p.PacketID = 1
	}
	return r.log(p.AppendTo(nil))
}

// live is n records of what a broker does.
func (r *rig) live(n int) {
	r.t.Helper()
	for range n {
		client := fmt.Sprintf("c%d", r.rnd.IntN(4))
		s := r.s.Machine.SessionOf(client)
		switch k := r.rnd.IntN(16); {
		case s == nil:
			r.connect(client)
			s = r.s.Machine.SessionOf(client)
			sub := record.Subscribe{Session: s.ID, Epoch: s.Epoch, PacketID: 1, Filters: []record.Filter{{Name: []byte("t/" + client), Options: topic.Options(1)}}}
			r.log(sub.AppendTo(nil))
		case !s.Connected():
			r.connect(client)
		case k == 0:
			d := record.Disconnect{Session: s.ID, Epoch: s.Epoch}
			r.log(d.AppendTo(nil))
		case k < 4 && len(s.Out.Inflight()) > 0:
			a := record.Ack{Session: s.ID, Epoch: s.Epoch}
			a.Add(s.Out.Inflight()[0].PID)
			r.log(a.AppendTo(nil))
		default:
			r.publish("t/"+client, 1, k == 5, r.rnd.IntN(150))
		}
	}
}

// flush brings everything to the backend and the passed segments to the archive.
func (r *rig) flush() {
	r.t.Helper()
	r.s.Compactor.Checkpoint(r.s.Machine, r.s.Machine.Applied(), r.s.Machine.Now())
	if err := r.s.Compactor.Flush(context.Background()); err != nil {
		r.t.Fatal(err)
	}
	r.s.Archive.Step()
}

// crashed returns a copy of the directory as a crash would leave it now.
func (r *rig) crashed() string {
	r.t.Helper()
	to := filepath.Join(filepath.Dir(r.dir), fmt.Sprintf("crashed%d", r.rnd.Uint32()))
	if err := os.CopyFS(to, os.DirFS(r.dir)); err != nil {
		r.t.Fatal(err)
	}
	return to
}

// openState opens a directory as serve does and returns the state hash it began
// with, before the start's own records, and its machine.
func openState(t *testing.T, dir string) (*recovery.State, error) {
	t.Helper()
	o := recovery.Options{Dir: dir, SegmentSize: 4096, Clock: func() int64 { return 1_767_300_000_000 }}
	o.WAL.IdleMark = -1
	return recovery.Open(context.Background(), o)
}
