// Package inspecttest makes data directories for tests of the tools that look
// into them: the same records at the same log times every time. Only the
// identities and what follows from them (hashes, checksums) differ.
package inspecttest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Start is the log time of the first record, unix milliseconds:
// 2026-01-01T00:00:00Z. Every further record comes a second later.
const Start = 1_767_225_600_000

// Options says what to make. The zero value makes one segment, not
// checkpointed, as a kill would leave it.
type Options struct {
	Backend     string        // of recovery.Options
	SegmentSize int64         // of recovery.Options
	Limits      record.Limits // zero = recovery.DefaultLimits
	Archive     bool
	// Fast does not sync, so that a kill may explain any damage: for large ones.
	Fast bool
	// Keep brings nothing to the backend before the end, so that the log keeps
	// all records.
	Keep bool
	// Clean ends in good order; else the directory is what a kill would leave.
	Clean bool
	// Records makes the records; nil = Story.
	Records func(b *Builder) error
}

// Builder is a broker without clients: it logs records and applies them.
type Builder struct {
	State *recovery.State
	Now   int64 // log time of the next record

	fx    core.Effects
	conns uint32
	keep  bool
}

// Build makes a data directory in dir, which must not exist, and returns the
// state hash at its last record.
func Build(dir string, o Options) (hash [16]byte, err error) {
	work, err := os.MkdirTemp("", "inspecttest")
	if err != nil {
		return hash, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	now := int64(Start)
	sync := wal.SyncAlways
	if o.Fast {
		sync = wal.SyncNever
	}
	s, err := recovery.Open(context.Background(), recovery.Options{
		Dir: work, Backend: o.Backend, Sync: sync, SegmentSize: o.SegmentSize, Limits: o.Limits,
		Clock: func() int64 { return now },
		WAL:   wal.Options{IdleMark: -1},
		Archive: recovery.ArchiveOptions{
			On: o.Archive, Tick: time.Millisecond, Rest: time.Millisecond,
		},
	})
	if err != nil {
		return hash, err
	}
	b := &Builder{State: s, Now: now, keep: o.Keep}
	if o.Records == nil {
		o.Records = Story
	}
	if err := o.Records(b); err != nil {
		return hash, errors.Join(err, s.Close(context.Background()))
	}
	hash = s.Machine.Hash(&s.Manifest.HashKey).Bytes()
	if !o.Clean { // a kill: the files as they are now
		if err := errors.Join(copyDir(work, dir), s.Log.Err()); err != nil {
			return hash, errors.Join(err, s.Close(context.Background()))
		}
	}
	s.Compactor.Checkpoint(s.Machine, s.Machine.Applied(), s.Machine.Now())
	if err := s.Close(context.Background()); err != nil {
		return hash, err
	}
	if o.Clean {
		err = copyDir(work, dir)
	}
	return hash, err
}

// copyDir copies files. None of them changes meanwhile.
func copyDir(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
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
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o600)
	})
}

// Log logs a record a second after the last and applies it.
func (b *Builder) Log(rec []byte) (index uint64, err error) {
	b.Now += 1000
	f := wal.Frame{Time: b.Now, Term: 1, Count: 1, Body: wal.AppendRecord(nil, rec)}
	if err := b.State.Log.Commit(&f); err != nil {
		return 0, err
	}
	b.State.Bodies.AddFrame(&f, nil)
	return f.First, b.State.Machine.Apply(f.First, f.Time, rec, &b.fx)
}

// Flush brings the state to the backend, and logs its hash as a broker does.
func (b *Builder) Flush() error {
	m := b.State.Machine
	if !b.keep {
		b.State.Compactor.Checkpoint(m, m.Applied(), m.Now())
		if err := b.State.Compactor.Flush(context.Background()); err != nil {
			return err
		}
	}
	h := record.StateHash{Index: m.Applied(), Hash: m.Hash(&b.State.Manifest.HashKey).Bytes()}
	_, err := b.Log(h.AppendTo(nil))
	return err
}

// Epoch returns a connection that no record had yet.
func (b *Builder) Epoch() record.Epoch {
	b.conns++
	return record.NewEpoch(b.State.Machine.Boot(), b.conns)
}

// Connect logs the CONNECT of a durable client.
func (b *Builder) Connect(client string, change func(c *record.Connect)) error {
	c := record.Connect{Epoch: b.Epoch(), ClientID: []byte(client), Version: 5, Expiry: 3600, ReceiveMaximum: 10}
	if change != nil {
		change(&c)
	}
	_, err := b.Log(c.AppendTo(nil))
	return err
}

// Disconnect logs the end of a client's connection.
func (b *Builder) Disconnect(client string) error {
	s := b.State.Machine.SessionOf(client)
	d := record.Disconnect{Session: s.ID, Epoch: s.Epoch}
	_, err := b.Log(d.AppendTo(nil))
	return err
}

// Subscribe logs a client's subscription.
func (b *Builder) Subscribe(client, filter string, o topic.Options, id uint32) error {
	s := b.State.Machine.SessionOf(client)
	r := record.Subscribe{
		Session: s.ID, Epoch: s.Epoch, PacketID: 1, ID: id,
		Filters: []record.Filter{{Name: []byte(filter), Options: o}},
	}
	_, err := b.Log(r.AppendTo(nil))
	return err
}

// Publish logs a message of a client without a durable session.
func (b *Builder) Publish(name, payload string, qos uint8, change func(p *record.Publish)) (uint64, error) {
	m := packets.Publish{Payload: []byte(payload)}
	p := record.Publish{QoS: qos, Epoch: b.Epoch(), Message: m.AppendMessage(nil, []byte(name))}
	if qos > 0 {
		p.PacketID = 1
	}
	if change != nil {
		change(&p)
	}
	return b.Log(p.AppendTo(nil))
}

// Ack logs that a client acknowledges the oldest n messages in flight: PUBREC
// for those of QoS 2 that it has not taken, PUBACK and PUBCOMP for the others.
func (b *Builder) Ack(client string, n int) error {
	s := b.State.Machine.SessionOf(client)
	for _, e := range append([]session.Entry[uint64](nil), s.Out.Inflight()...)[:n] {
		var rec []byte
		if e.QoS == 2 && e.Phase == session.PhasePublish {
			r := record.Rec{Session: s.ID, Epoch: s.Epoch, PacketID: e.PID}
			rec = r.AppendTo(nil)
		} else {
			a := record.Ack{Session: s.ID, Epoch: s.Epoch}
			a.Add(e.PID)
			rec = a.AppendTo(nil)
		}
		if _, err := b.Log(rec); err != nil {
			return err
		}
	}
	return nil
}

// Hostile is a client identifier and topic that a terminal would act on.
const Hostile = "evil\x1b[31m\nname"

// Story is what a directory holds by default: two clients with durable
// sessions, messages that reach them or do not, retained ones, and names that
// are meant to harm.
func Story(b *Builder) error {
	steps := []func() error{
		func() error { return b.Connect("alice", nil) },
		func() error { return b.Subscribe("alice", "room/#", topic.Options(1), 0) },
		func() error { return b.Disconnect("alice") },
		func() error { return b.Connect("bob", func(c *record.Connect) { c.User = []byte("operator") }) },
		func() error { return b.Subscribe("bob", "room/+", topic.Options(2), 7) },
		func() error { return b.Subscribe("bob", "hall/#", topic.Options(1)|topic.NoLocal, 0) },
		b.publish("room/t1", "21.5", 1, nil),
		func() error { return b.Ack("bob", 1) },
		b.publish("room/t2", "22", 2, func(p *record.Publish) { p.Retain = true }),
		func() error { return b.Ack("bob", 1) },
		b.publish("hall/door", "open", 1, func(p *record.Publish) {
			s := b.State.Machine.SessionOf("bob")
			p.Session, p.Epoch = s.ID, s.Epoch
		}),
		b.publish("alarm/fire", "\x00\xff", 1, func(p *record.Publish) { p.Retain = true }),
		b.publish("room/t3", "soon stale", 1, func(p *record.Publish) { p.HasExpiry, p.Expiry = true, 5 }),
		b.publish("room/t4", "nobody keeps this", 0, func(p *record.Publish) { p.Retain = true }),
		func() error { return b.Connect(Hostile, func(c *record.Connect) { c.Version = 4 }) },
		b.publish("room/"+Hostile, Hostile, 1, nil),
		b.Flush,
		func() error { b.Now += 60_000; return b.Connect("alice", nil) },
		func() error { return b.Ack("alice", 1) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (b *Builder) publish(name, payload string, qos uint8, change func(p *record.Publish)) func() error {
	return func() error {
		_, err := b.Publish(name, payload, qos, change)
		return err
	}
}
