package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// testing.TB and *rapid.T have this in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

// driver is a small broker: it logs records, applies them, hands frames and
// checkpoints to recovery, and keeps a second machine beside it that has seen
// every record of the log and was never loaded from anything.
type driver struct {
	t    tester
	opt  Options
	s    *State
	ref  *core.Machine
	now  atomic.Int64 // log time; the archive looks at it too
	conn uint32
	fx   core.Effects

	// history is every record ever given to the log, and its log time: record i
	// at i-1. acked is the index of the last one whose Commit returned.
	history []logged
	acked   uint64
	gate    *gateStore
}

type logged struct {
	rec []byte
	now int64
}

// start2026 is the wall clock of the tests, unix ms.
const start2026 = 1_767_225_600_000

// newDriver returns a driver for a directory that no driver has seen.
func newDriver(t tester, o Options) *driver {
	d := &driver{t: t, opt: o, ref: core.New()}
	d.now.Store(start2026)
	d.opt.Clock = func() int64 { return d.now.Load() }
	d.opt.WrapStore = func(s backends.Store) backends.Store {
		d.gate = &gateStore{Store: s}
		return d.gate
	}
	if d.opt.WAL.IdleMark == 0 {
		d.opt.WAL.IdleMark = -1 // no background writes: the tests decide what is on disk
	}
	return d
}

// open opens the directory and compares what it holds with the reference.
func (d *driver) open() {
	d.t.Helper()
	s, err := Open(context.Background(), d.opt)
	if err != nil {
		d.t.Fatalf("open: %v", err)
	}
	d.s = s
	d.now.Store(max(d.now.Load(), s.Report.LogTime))
	d.catchUp()
	d.compare()
}

// catchUp lets the reference see what Open has logged.
func (d *driver) catchUp() {
	d.t.Helper()
	err := d.s.Log.Replay(d.ref.Applied()+1, func(f *wal.Frame) error {
		return f.Records(func(index uint64, rec []byte) error {
			d.history = append(d.history[:index-1], logged{bytes.Clone(rec), f.Time})
			return d.ref.Apply(index, f.Time, rec, &d.fx)
		})
	})
	if err != nil {
		d.t.Fatalf("replay into the reference: %v", err)
	}
	d.acked = d.ref.Applied()
}

// compare checks that the state is the reference's.
func (d *driver) compare() {
	d.t.Helper()
	key := d.s.Manifest.HashKey
	if got, want := d.s.Machine.Applied(), d.ref.Applied(); got != want {
		d.t.Fatalf("state at record %d, reference at %d", got, want)
	}
	if got, want := d.s.Machine.Hash(&key), d.ref.Hash(&key); got != want {
		d.t.Fatalf("state after record %d differs from the reference:\n%s", d.ref.Applied(), diffStates(d.s.Machine, d.ref))
	}
}

// diffStates lists the entries in which two states differ.
func diffStates(got, want *core.Machine) string {
	entries := func(m *core.Machine) map[string]string {
		all := map[string]string{}
		m.Export(func(table byte, key, value []byte) {
			all[fmt.Sprintf("%c %q", table, key)] = fmt.Sprintf("%x", value)
		})
		return all
	}
	g, w := entries(got), entries(want)
	var b bytes.Buffer
	for k, v := range g {
		if w[k] != v {
			fmt.Fprintf(&b, "%s: got %s, want %q\n", k, v, w[k])
		}
	}
	for k, v := range w {
		if _, ok := g[k]; !ok {
			fmt.Fprintf(&b, "%s: missing, want %s\n", k, v)
		}
	}
	return b.String()
}

// log commits records as one frame and applies them, as the broker does.
func (d *driver) log(recs ...[]byte) uint64 {
	d.t.Helper()
	f := wal.Frame{Time: d.now.Add(1), Term: 1}
	for _, rec := range recs {
		f.Body = wal.AppendRecord(f.Body, rec)
		f.Count++
	}
	for _, rec := range recs {
		d.history = append(d.history, logged{bytes.Clone(rec), f.Time})
	}
	if err := d.s.Log.Commit(&f); err != nil {
		d.t.Fatalf("commit: %v", err)
	}
	d.acked = f.Last()
	d.s.Bodies.AddFrame(&f, nil)
	d.apply(&f)
	return f.First
}

func (d *driver) apply(f *wal.Frame) {
	d.t.Helper()
	err := f.Records(func(index uint64, rec []byte) error {
		if err := d.s.Machine.Apply(index, f.Time, rec, &d.fx); err != nil {
			return err
		}
		return d.ref.Apply(index, f.Time, rec, &d.fx)
	})
	if err != nil {
		d.t.Fatalf("apply: %v", err)
	}
}

// stored returns the stored message of a Publish record.
func (d *driver) stored(id uint64) []byte {
	msg, ok := message(d.history[id-1].rec)
	if !ok {
		d.t.Fatalf("record %d is no publish", id)
	}
	return msg
}

// checkpoint collects the changes.
func (d *driver) checkpoint() {
	d.s.Compactor.Checkpoint(d.s.Machine, d.s.Machine.Applied(), d.s.Machine.Now())
}

// flush brings everything to the backend.
func (d *driver) flush() {
	d.t.Helper()
	d.checkpoint()
	if err := d.s.Compactor.Flush(context.Background()); err != nil {
		d.t.Fatalf("flush: %v", err)
	}
}

// close stops in good order.
func (d *driver) close() {
	d.t.Helper()
	d.checkpoint()
	if err := d.s.Close(context.Background()); err != nil {
		d.t.Fatalf("close: %v", err)
	}
}

// abandon ends the use of a directory that the test has copied.
func (d *driver) abandon() {
	if d.s == nil {
		return
	}
	d.s.Compactor.stop()
	_ = errors.Join(d.s.mirror.close(), d.s.Log.Close(), d.s.Store.Close(), d.s.lock.release())
}

// alive returns the ids of the messages that the state refers to.
func (d *driver) alive() []uint64 {
	var ids []uint64
	d.ref.Messages(func(m core.StoredMessage) bool {
		ids = append(ids, m.ID)
		return true
	})
	return ids
}

// checkBodies checks that every message that is referred to can be read.
func (d *driver) checkBodies() {
	d.t.Helper()
	ids := d.alive()
	next := 0
	err := d.s.Bodies.Load(context.Background(), ids, func(i int, msg []byte) error {
		if i != next {
			return fmt.Errorf("message %d of %d came when %d was due", i, len(ids), next)
		}
		next++
		if want := d.stored(ids[i]); !bytes.Equal(msg, want) {
			return fmt.Errorf("message %d is %.80q, want %.80q", ids[i], msg, want)
		}
		return nil
	})
	if err != nil || next != len(ids) {
		d.t.Fatalf("load %d bodies, got %d: %v", len(ids), next, err)
	}
}

// checkBackend checks that the backend holds exactly the reference's state and
// the bodies of its messages, after a flush.
func (d *driver) checkBackend() {
	d.t.Helper()
	ctx := context.Background()
	want := map[string][]byte{}
	d.ref.Export(func(table byte, key, value []byte) {
		want[string(backends.Key(nil, table, key))] = bytes.Clone(value)
	})
	if d.opt.Backend != BackendMemory {
		for _, id := range d.alive() {
			want[string(backends.IDKey(nil, backends.TableBody, id))] = d.stored(id)
		}
	}
	err := d.s.Store.Scan(ctx, nil, func(key, val []byte) error {
		w, ok := want[string(key)]
		if !ok {
			return fmt.Errorf("backend holds %q, which is not in the state", key)
		}
		if !bytes.Equal(val, w) {
			return fmt.Errorf("backend holds %x at %q, want %x", val, key, w)
		}
		delete(want, string(key))
		return nil
	})
	for key := range want {
		err = errors.Join(err, fmt.Errorf("backend lacks %q", key))
	}
	mark, merr := d.s.Store.Mark(ctx)
	if key := d.s.Manifest.HashKey; mark.Hash != d.ref.Hash(&key).Bytes() || mark.Applied != d.ref.Applied() {
		err = errors.Join(err, fmt.Errorf("mark %+v does not fit the state at %d", mark, d.ref.Applied()))
	}
	if err = errors.Join(err, merr); err != nil {
		d.t.Fatalf("%v", err)
	}
}

// Records.

func (d *driver) connect(client string, change func(c *record.Connect)) uint64 {
	d.t.Helper()
	d.conn++
	c := record.Connect{
		Epoch: record.NewEpoch(d.s.Report.Boot, d.conn), ClientID: []byte(client), Version: 5,
		Expiry: 3600, ReceiveMaximum: 100,
	}
	if change != nil {
		change(&c)
	}
	d.log(c.AppendTo(nil))
	return d.ref.SessionOf(client).ID
}

func (d *driver) subscribe(client string, filters ...string) {
	d.t.Helper()
	s := d.ref.SessionOf(client)
	r := record.Subscribe{Session: s.ID, Epoch: s.Epoch, PacketID: 1}
	for _, f := range filters {
		r.Filters = append(r.Filters, record.Filter{Name: []byte(f), Options: topic.Options(2)})
	}
	d.log(r.AppendTo(nil))
}

func (d *driver) disconnect(client string) {
	d.t.Helper()
	s := d.ref.SessionOf(client)
	r := record.Disconnect{Session: s.ID, Epoch: s.Epoch}
	d.log(r.AppendTo(nil))
}

// publish returns an encoded Publish record.
func publish(name string, qos uint8, retain bool, payload []byte) []byte {
	m := packets.Publish{Payload: payload}
	p := record.Publish{QoS: qos, Retain: retain, Message: m.AppendMessage(nil, []byte(name))}
	if qos > 0 {
		p.PacketID = 1
	}
	return p.AppendTo(nil)
}

// ack acknowledges what is in flight to a client, n messages at most.
func (d *driver) ack(client string, n int) {
	d.t.Helper()
	s := d.ref.SessionOf(client)
	if s == nil || !s.Connected() {
		return
	}
	a := record.Ack{Session: s.ID, Epoch: s.Epoch}
	var recs [][]byte
	for _, e := range s.Out.Inflight() {
		if n == 0 {
			break
		}
		n--
		if e.QoS == 2 && e.Phase == 0 {
			r := record.Rec{Session: s.ID, Epoch: s.Epoch, PacketID: e.PID}
			recs = append(recs, r.AppendTo(nil))
			continue
		}
		a.Add(e.PID)
	}
	if len(a.Runs) > 0 {
		recs = append(recs, a.AppendTo(nil))
	}
	if len(recs) > 0 {
		d.log(recs...)
	}
}

// gateStore lets a test look at each commit, delay it and fail it.
type gateStore struct {
	backends.Store
	mu     sync.Mutex // held during a commit, and by a test that copies the directory
	before func(b *backends.Batch, m backends.Mark) error
	after  func(b *backends.Batch, m backends.Mark)
}

// set replaces what is called around commits.
func (g *gateStore) set(before func(*backends.Batch, backends.Mark) error, after func(*backends.Batch, backends.Mark)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.before, g.after = before, after
}

// Commit implements backends.Store.
func (g *gateStore) Commit(ctx context.Context, b *backends.Batch, m backends.Mark) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.before != nil {
		if err := g.before(b, m); err != nil {
			return err
		}
	}
	err := g.Store.Commit(ctx, b, m)
	if err == nil && g.after != nil {
		g.after(b, m)
	}
	return err
}

// crash copies what a crash would leave of the directory now, and returns a
// driver for the copy. With wait it waits for a commit in progress.
func (d *driver) crash(to string, wait bool) *driver {
	d.t.Helper()
	if wait {
		d.gate.mu.Lock()
		defer d.gate.mu.Unlock()
	}
	copyDir(d.t, d.opt.Dir, to)
	c := newDriver(d.t, d.opt)
	c.opt.Dir, c.opt.WAL.Hooks = to, nil
	c.conn, c.acked = d.conn, d.acked
	c.now.Store(d.now.Load())
	c.history = slices.Clone(d.history)
	return c
}

// openCrashed opens what a crash left. The reference sees every record that
// was left, from the first one on: all that was acknowledged must be there.
func (d *driver) openCrashed() {
	d.t.Helper()
	s, err := Open(context.Background(), d.opt)
	if err != nil {
		d.t.Fatalf("open after a crash at record %d: %v", d.acked, err)
	}
	d.s = s
	left := s.Report.Last - 1 // without the start itself
	if s.Report.Created {
		left = 0
	}
	if left < d.acked || left > uint64(len(d.history)) {
		d.t.Fatalf("%d records left, %d acknowledged of %d", left, d.acked, len(d.history))
	}
	d.history = d.history[:left]
	for i, h := range d.history {
		if err := d.ref.Apply(uint64(i+1), h.now, h.rec, &d.fx); err != nil {
			d.t.Fatalf("reference: record %d: %v", i+1, err)
		}
	}
	d.now.Store(max(d.now.Load(), s.Report.LogTime))
	d.catchUp()
	d.compare()
}

// openCrashedSelf opens the driver's own directory again after a failed stop.
func (d *driver) openCrashedSelf() {
	d.t.Helper()
	d.ref = core.New()
	d.openCrashed()
}

// copyDir copies a directory, holes as holes. Files that go meanwhile are left
// out.
func copyDir(t tester, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		return copyFile(path, filepath.Join(to, rel))
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("copy %s: %v", from, err)
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	const block = 4096
	var zero [block]byte
	for off := 0; off < len(b); off += block {
		part := b[off:min(off+block, len(b))]
		if bytes.Equal(part, zero[:len(part)]) {
			continue
		}
		if _, err = f.WriteAt(part, int64(off)); err != nil {
			break
		}
	}
	return errors.Join(err, f.Truncate(int64(len(b))), f.Close())
}

func testOptions(tb testing.TB) Options {
	tb.Helper()
	return Options{Dir: filepath.Join(fastDir(tb), "data"), SegmentSize: 4096}
}

// fastDir returns a directory in memory, where there is one: tests that copy
// files to see what a crash leaves need no disk, and some make hundreds of
// stores.
func fastDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "recovery-test-")
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}
