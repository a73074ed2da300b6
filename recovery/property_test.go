package recovery

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// world drives a driver with random records and random mishaps.
type world struct {
	*driver
	rt    *rapid.T
	root  string
	dirs  int
	conns []record.Epoch // of ephemeral clients with a logged will
}

func (w *world) pick(label string, from ...string) string {
	return rapid.SampledFrom(from).Draw(w.rt, label)
}

func (w *world) n(label string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(w.rt, label) }

func (w *world) client() string { return w.pick("client", "c1", "c2", "c3", "c4") }

func (w *world) topic() string { return w.pick("topic", "a", "a/b", "b", "$s/x", "long/"+longName) }

// longName makes a topic too long to be a plain key of the backend.
var longName = fmt.Sprintf("%01100d", 7)

func (w *world) filter() string {
	return w.pick("filter", "a", "a/#", "+", "#", "long/#", "$share/g/a/#", "$share/h/#")
}

func (w *world) will() record.Will {
	m := packets.Publish{Payload: []byte("will")}
	return record.Will{
		QoS: uint8(w.n("will qos", 0, 2)), Retain: w.n("will retain", 0, 1) == 1, Delay: uint32(w.n("delay", 0, 2) * 30),
		Message: m.AppendMessage(nil, []byte(w.topic())),
	}
}

func (w *world) connectOne() {
	w.connect(w.client(), func(c *record.Connect) {
		c.CleanStart = w.n("clean", 0, 3) == 0
		c.Expiry = []uint32{0, 60, 3600, 1<<32 - 1}[w.n("expiry", 0, 3)]
		c.ReceiveMaximum = []uint16{1, 3, 100}[w.n("window", 0, 2)]
		if c.HasWill = w.n("has will", 0, 2) == 0; c.HasWill {
			c.Will = w.will()
		}
	})
}

// live draws a client and returns its session if it is connected.
func (w *world) live() (id uint64, epoch record.Epoch, client string, ok bool) {
	client = w.client()
	s := w.ref.SessionOf(client)
	if s == nil || !s.Connected() {
		return 0, 0, client, false
	}
	return s.ID, s.Epoch, client, true
}

func (w *world) sessionOp() {
	id, epoch, _, ok := w.live()
	if !ok {
		w.connectOne()
		return
	}
	switch w.n("session op", 0, 5) {
	case 0:
		r := record.Disconnect{Session: id, Epoch: epoch, DropWill: w.n("drop will", 0, 1) == 1}
		w.log(r.AppendTo(nil))
	case 1:
		r := record.Unsubscribe{Session: id, Epoch: epoch, Filters: [][]byte{[]byte(w.filter())}}
		w.log(r.AppendTo(nil))
	case 2:
		r := record.PubRel{Session: id, Epoch: epoch, PacketID: uint16(w.n("received", 1, 4))}
		w.log(r.AppendTo(nil))
	case 3:
		w.connectOne()
	default:
		r := record.Subscribe{Session: id, Epoch: epoch, ID: uint32(w.n("sub id", 0, 2))}
		for range w.n("filters", 1, 3) {
			opts := topic.Options(w.n("granted", 0, 2) | w.n("handling", 0, 2)<<4 | w.n("no local", 0, 1)<<2 | w.n("as published", 0, 1)<<3)
			r.Filters = append(r.Filters, record.Filter{Name: []byte(w.filter()), Options: opts})
		}
		w.log(r.AppendTo(nil))
	}
}

// publication draws a Publish record.
func (w *world) publication() []byte {
	name := w.topic()
	m := packets.Publish{Payload: make([]byte, w.n("size", 0, 3)*700)}
	p := record.Publish{
		QoS: uint8(w.n("qos", 0, 2)), Retain: w.n("retain", 0, 2) == 0, PacketID: uint16(w.n("pid", 1, 4)),
		Message: m.AppendMessage(nil, []byte(name)),
	}
	if p.HasExpiry = w.n("expires", 0, 3) == 0; p.HasExpiry {
		p.Expiry = uint32(w.n("expiry", 1, 100))
	}
	if id, epoch, _, ok := w.live(); ok {
		p.Session, p.Epoch = id, epoch
	}
	if due := w.ref.PendingDue(); len(due) > 0 && w.n("publish will", 0, 1) == 0 {
		p.WillOf, p.Session, p.Epoch = due[0], 0, 0
	}
	for _, g := range [][2]string{{"g", "a/#"}, {"h", "#"}} {
		if topic.Match(g[1], name) {
			c := record.Choice{Share: []byte(g[0]), Filter: []byte(g[1])}
			if s := w.ref.SessionOf(w.client()); s != nil {
				c.Session = s.ID
			} else if w.n("ephemeral member", 0, 1) == 0 {
				c.Epoch = record.NewEpoch(w.s.Report.Boot, 1<<31)
			}
			p.Choices = append(p.Choices, c)
		}
	}
	return p.AppendTo(nil)
}

func (w *world) groupOp() {
	var keys [][]byte
	w.ref.Export(func(table byte, key, _ []byte) {
		if table == core.TableGroup {
			keys = append(keys, append([]byte(nil), key...))
		}
	})
	if len(keys) == 0 {
		return
	}
	key := keys[w.n("pending", 0, len(keys)-1)]
	share := key[1 : 1+key[0]]
	filter := key[2+len(share) : len(key)-8]
	id := binary.BigEndian.Uint64(key[len(key)-8:])
	if w.n("group op", 0, 1) == 0 {
		r := record.Ack{Epoch: record.NewEpoch(w.s.Report.Boot, 1<<31), Share: share, Filter: filter, Message: id}
		w.log(r.AppendTo(nil))
		return
	}
	r := record.Dispatch{Share: share, Filter: filter, Message: id}
	if s := w.ref.SessionOf(w.client()); s != nil {
		r.Session = s.ID
	}
	w.log(r.AppendTo(nil))
}

func (w *world) adminOp() {
	switch w.n("admin op", 0, 5) {
	case 0:
		r := record.SessionRemove{ClientID: []byte(w.client())}
		w.log(r.AppendTo(nil))
	case 1:
		r := record.RetainClear{Topic: []byte(w.topic())}
		w.log(r.AppendTo(nil))
	case 2:
		w.conn++
		e := record.NewEpoch(w.s.Report.Boot, w.conn)
		r := record.LoggedWill{Epoch: e, ClientID: []byte("passing"), Will: w.will()}
		w.conns = append(w.conns, e)
		w.log(r.AppendTo(nil))
	case 3:
		if len(w.conns) > 0 {
			r := record.Disconnect{Epoch: w.conns[0], DropWill: w.n("drop will", 0, 1) == 1}
			w.conns = w.conns[1:]
			w.log(r.AppendTo(nil))
		}
	default:
		w.now.Add(int64(w.n("seconds", 1, 4000)) * 1000)
		w.log(record.Tick{}.AppendTo(nil))
	}
}

// takeHash logs a state hash that the compactor offers, as the broker does.
func (w *world) takeHash() {
	select {
	case h := <-w.s.Compactor.Hashes():
		w.driver.log(h.AppendTo(nil))
	default:
	}
}

func (w *world) recordOp() {
	switch w.n("record", 0, 9) {
	case 0, 1:
		w.sessionOp()
	case 2, 3, 4, 5:
		var recs [][]byte
		for range w.n("frame", 1, 4) {
			recs = append(recs, w.publication())
		}
		w.log(recs...)
	case 6, 7:
		w.ack(w.client(), w.n("acks", 1, 5))
	case 8:
		w.groupOp()
	default:
		w.adminOp()
	}
}

// restart crashes or stops, and opens what is left.
func (w *world) restart() {
	w.dirs++
	to := filepath.Join(w.root, fmt.Sprint(w.dirs))
	switch w.n("how", 0, 3) {
	case 0: // in good order
		w.gate.set(nil, nil)
		w.close()
		w.driver.open()
		w.misbehave()
	case 1: // without the last checkpoint
		w.gate.set(nil, nil)
		if err := w.s.Close(context.Background()); err != nil {
			w.t.Fatalf("close: %v", err)
		}
		w.driver.open()
		w.misbehave()
	default: // by a crash, in the middle of whatever the compactor does
		w.gate.mu.Lock()
		c, durable := w.crash(to, false), w.s.Log.Durable()
		if w.opt.Sync == wal.SyncNever && w.n("power", 0, 1) == 0 {
			loseUnsynced(w.t, to, durable, w.n("left", 0, 4000))
			c.acked = durable
		}
		w.gate.mu.Unlock()
		w.abandon()
		w.driver = c
		c.openCrashed()
		w.misbehave()
	}
	w.checkBodies()
}

// misbehave lets the backend refuse some commits, and takes its time.
func (w *world) misbehave() {
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(w.rt, "moods"), 0))
	share := []float64{0, 0.5}[w.n("refuses", 0, 1)]
	w.gate.set(func(*backends.Batch, backends.Mark) error {
		if r.Float64() < share {
			return backends.ErrFull
		}
		return nil
	}, nil)
}

// loseUnsynced cuts a log as a power cut may: what was not synced is gone from
// some byte on.
func loseUnsynced(t tester, dir string, durable uint64, left int) {
	t.Helper()
	var last wal.SegmentInfo
	keep := int64(0)
	_, err := wal.Scan(filepath.Join(dir, walName), [16]byte{}, func(seg *wal.SegmentInfo, f *wal.Frame) error {
		if seg.Path != last.Path {
			keep = 0
		}
		last = *seg
		if f.Last() <= durable {
			keep = seg.Valid
		}
		return nil
	})
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	if size := keep + int64(left); size < last.Size {
		if err := os.Truncate(last.Path, size); err != nil {
			t.Fatalf("cut: %v", err)
		}
	}
}

// Any records, checkpoints at any time, and crashes and stops at any moment:
// the state is always that of a machine that saw every record and was never
// loaded from anything; every body that is referred to can be read; and the
// backend holds what the state is, no more and no less.
func TestProperty_ReplayEquivalence(t *testing.T) {
	root := fastDir(t)
	cases := 0
	rapid.Check(t, func(rt *rapid.T) {
		cases++
		w := &world{rt: rt, root: filepath.Join(root, fmt.Sprintf("case%d", cases))}
		o := Options{Dir: filepath.Join(w.root, "0"), SegmentSize: 4096}
		o.Backend = w.pick("backend", BackendBbolt, BackendBbolt, BackendBbolt, BackendMemory)
		o.Sync = []wal.SyncMode{wal.SyncAlways, wal.SyncNever}[w.n("sync", 0, 1)]
		o.CacheBytes = int64(1) << w.n("cache", 10, 20)
		o.Limits = DefaultLimits()
		o.Limits.MaxInflight = 4
		o.Limits.QueueMessages = []uint64{0, 5}[w.n("queue", 0, 1)]
		o.Limits.DropOldest = w.n("oldest", 0, 1) == 1
		o.Checkpoint.Retry = time.Microsecond
		o.Checkpoint.BatchBytes = []int{1000, 1 << 20}[w.n("batch", 0, 1)]
		w.driver = newDriver(rt, o)
		w.driver.open()
		w.misbehave()
		defer func() {
			w.abandon()
			if err := os.RemoveAll(w.root); err != nil {
				t.Error(err)
			}
		}()
		for range w.n("steps", 1, 60) {
			switch op := w.n("op", 0, 19); {
			case op < 14:
				w.recordOp()
			case op < 17:
				w.checkpoint()
			case op < 18:
				w.flush()
				w.checkBackend()
				w.checkBodies()
				w.takeHash()
			default:
				w.restart()
			}
		}
		w.compare()
		w.flush()
		w.checkBackend()
		w.checkBodies()
	})
}
