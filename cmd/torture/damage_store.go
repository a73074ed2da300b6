package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/wal"
)

// A store is a data directory with a history, as a broker left it, and what it
// holds.
type store struct {
	name    string
	dir     string // never changed
	clean   bool   // the broker was stopped in order
	busy    bool   // killed under load: its last frame is the one that may be torn
	files   []storeFile
	clock   int64 // unix ms, for all starts
	want    content
	lastSeg string // path of the last segment
	lastOff int64  // where its last frame begins
	usedEnd int64  // where it ends
}

// storeFile is a file that can be damaged.
type storeFile struct {
	path string // in the data directory
	kind string // log, archive, manifest, backend
	size int64
	used int64 // of a segment: bytes of frames
}

// content is what a broker has after its start.
type content struct {
	digest   [32]byte // of sessions, queues, subscriptions, retained messages and all bodies
	hash     core.Hash
	sessions int
	messages int
}

// crumbs are the bytes a small store's segments have.
const crumbs = "COMQTT_SEGMENT_SIZE=16384"

// makeStores lets brokers write three: one stopped, one killed in the quiet, one
// killed under load.
func makeStores(ctx context.Context, o options, bin, dir string, rnd *rand.Rand) ([]*store, error) {
	var list []*store
	for _, s := range []*store{{name: "stopped", clean: true}, {name: "killed"}, {name: "killed-busy", busy: true}} {
		s.dir = filepath.Join(dir, s.name)
		if err := s.make(ctx, o, bin, filepath.Join(dir, s.name+"-broker"), rnd); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

func (s *store) make(ctx context.Context, o options, bin, dir string, rnd *rand.Rand) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("torture: %w", err)
	}
	srv, err := newServer(bin, dir)
	if err != nil {
		return err
	}
	defer srv.log.Close()
	srv.engine, srv.data = o.engine, s.dir
	for life := range 3 {
		p, err := srv.start(crumbs, "COMQTT_CHECKPOINT_MS=100")
		if err != nil {
			return err
		}
		if err = p.ready(ctx, srv.addr()); err == nil {
			err = s.traffic(ctx, srv.addr(), life, rnd)
		}
		switch {
		case err != nil:
		case life < 2 || s.clean:
			p.term()
			if !p.wait(stopTimeout) || p.state.ExitCode() != 0 {
				err = fmt.Errorf("torture: make a store: %v", p.state)
			}
		case s.busy:
			// A checkpoint has come and gone by; the last messages are in the log only.
			err = s.fill(ctx, srv.addr(), "late", 5, rnd)
		default:
			err = quietly(ctx, time.Second) // checkpoint and idle mark
		}
		p.kill()
		<-p.exited
		if err != nil {
			return fmt.Errorf("torture: make a store: %w", err)
		}
	}
	return s.look(ctx)
}

func quietly(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// traffic makes sessions, queues of absent subscribers and retained messages.
func (s *store) traffic(ctx context.Context, addr string, life int, rnd *rand.Rand) error {
	for n := range 4 {
		c, err := connect(ctx, addr, fmt.Sprintf("absent-%d", n), false)
		if err != nil {
			return err
		}
		filters := []packets.Subscription{{Filter: fmt.Appendf(nil, "q/%d/#", n), Options: 2}, {Filter: []byte("q/all"), Options: 1}}
		if n == 3 {
			filters = append(filters, packets.Subscription{Filter: []byte("$share/g/q/share"), Options: 1})
		}
		c.out = (&packets.Subscribe{PacketID: 1, Filters: filters}).AppendTo(c.out, packets.V5)
		_, err = await[*packets.Suback](ctx, c)
		c.close() // messages that came meanwhile stay in flight
		if err != nil {
			return err
		}
	}
	return s.fill(ctx, addr, fmt.Sprint("life-", life), 60, rnd)
}

// fill publishes n messages and waits for their acknowledgements.
func (s *store) fill(ctx context.Context, addr, word string, n int, rnd *rand.Rand) error {
	c, err := connect(ctx, addr, "publisher", false)
	if err != nil {
		return err
	}
	defer c.close()
	topics := []string{"q/0/a", "q/1/b", "q/2", "q/3/c/d", "q/all", "q/share", "r/0", "r/1", "r/2"}
	for i := range n {
		topic := topics[rnd.IntN(len(topics))]
		size := rnd.IntN(300)
		if rnd.IntN(10) == 0 {
			size = rnd.IntN(9000)
		}
		payload := append(fmt.Appendf(nil, "%s %d ", word, i), make([]byte, size)...)
		for j := range payload[len(payload)-size:] {
			payload[len(payload)-size+j] = byte('a' + rnd.IntN(26))
		}
		m := packets.Publish{QoS: byte(1 + rnd.IntN(2)), PacketID: uint16(i + 1), Topic: []byte(topic), Payload: payload, Retain: topic[0] == 'r'}
		c.out = m.AppendTo(c.out, packets.V5)
		want := packets.TypePuback
		if m.QoS == 2 {
			want = packets.TypePubrec
		}
		for {
			p, err := await[*packets.Ack](ctx, c)
			if err != nil {
				return err
			}
			if p.Type == want && p.PacketID == m.PacketID {
				break
			}
		}
		if m.QoS == 2 && rnd.IntN(4) > 0 { // some stay open
			c.out = packets.AppendAck(c.out, packets.V5, packets.TypePubrel, m.PacketID, packets.CodeSuccess)
		}
	}
	c.flush()
	return nil
}

// look notes what the store consists of and holds.
func (s *store) look(ctx context.Context) error {
	ends := map[string][]int64{} // of frames
	in, err := wal.Scan(recovery.LogDir(s.dir), [16]byte{}, func(seg *wal.SegmentInfo, _ *wal.Frame) error {
		ends[seg.Path] = append(ends[seg.Path], seg.Valid)
		return nil
	})
	if err != nil {
		return fmt.Errorf("torture: look at a store: %w", err)
	}
	s.clock = in.LastTime + 1000
	used := map[string]int64{}
	for _, seg := range in.Segments {
		used[seg.Path] = seg.Valid
		if seg.Valid == 0 {
			continue
		}
		s.lastSeg, s.usedEnd, s.lastOff = filepath.Join("wal", seg.Name), seg.Valid, 0
		for _, end := range ends[seg.Path] {
			if end < seg.Valid {
				s.lastOff = end
			}
		}
	}
	err = filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.dir, path)
		f := storeFile{path: rel, size: info.Size(), used: used[path]}
		switch {
		case strings.HasPrefix(rel, "wal/") && isSegment(e.Name()):
			f.kind = "log"
		case strings.HasPrefix(rel, "archive/"):
			f.kind = "archive"
		case strings.HasPrefix(rel, "MANIFEST"):
			f.kind = "manifest"
		case rel == "state.bbolt":
			f.kind = "backend"
		}
		if f.kind != "" && f.size > 0 {
			s.files = append(s.files, f)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("torture: look at a store: %w", err)
	}
	work := s.dir + "-look"
	if err := errors.Join(copyStore(s.dir, work)); err != nil {
		return err
	}
	_, s.want, err = s.open(ctx, work)
	return errors.Join(err, os.RemoveAll(work))
}

// open starts on the directory, as a broker would, and reads all it holds. The
// error is that of the start.
func (s *store) open(ctx context.Context, dir string) (rep recovery.Report, c content, err error) {
	st, err := recovery.Open(ctx, recovery.Options{
		Dir: dir, Clock: func() int64 { return s.clock }, SegmentSize: 16 << 10,
		Archive: recovery.ArchiveOptions{On: true},
	})
	if err != nil {
		return rep, c, err
	}
	rep = st.Report
	c, err = contentOf(ctx, st)
	if err != nil {
		err = &contentError{err}
	}
	if cerr := st.Close(ctx); cerr != nil && err == nil {
		err = &contentError{cerr}
	}
	return rep, c, err
}

// contentError says that a store that was opened cannot be read or closed.
type contentError struct{ err error }

func (e *contentError) Error() string { return "opened, and then: " + e.err.Error() }
func (e *contentError) Unwrap() error { return e.err }

// contentOf reads everything.
func contentOf(ctx context.Context, st *recovery.State) (c content, err error) {
	m := st.Machine
	if err := m.Check(); err != nil {
		return c, err
	}
	h := sha256.New()
	m.Sessions(func(s *session.Session) bool {
		c.sessions++
		fmt.Fprintf(h, "session %q %d\n", s.ClientID, s.ID)
		for _, f := range s.Filters() {
			sub, _ := s.Subscription(f)
			fmt.Fprintf(h, "sub %q %+v\n", f, sub)
		}
		fmt.Fprintf(h, "received %v\n", s.Received())
		s.Out.All(func(e *session.Entry[uint64]) bool {
			fmt.Fprintf(h, "entry %d %d %d\n", e.Msg, e.PID, e.QoS)
			return true
		})
		waiting, owned, durable, ok := m.Group(core.GroupKey{Share: "g", Filter: "q/share"})
		fmt.Fprintln(h, waiting, owned, durable, ok)
		return true
	})
	var retained []string
	m.AllRetained(func(topic string, e retain.Entry) bool {
		retained = append(retained, fmt.Sprintf("retained %q %d %d\n", topic, e.Message, e.QoS))
		return true
	})
	slices.Sort(retained)
	fmt.Fprint(h, retained)
	var ids []uint64
	var sums []uint32
	m.Messages(func(msg core.StoredMessage) bool {
		c.messages++
		ids, sums = append(ids, msg.ID), append(sums, msg.CRC)
		return true
	})
	err = st.Bodies.Load(ctx, ids, func(i int, body []byte) error {
		if sum := crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)); sum != sums[i] {
			return fmt.Errorf("message %d has checksum %08x, want %08x", ids[i], sum, sums[i])
		}
		fmt.Fprintf(h, "body %d %q\n", ids[i], body)
		return nil
	})
	h.Sum(c.digest[:0])
	c.hash = m.Hash(&st.Manifest.HashKey)
	return c, err
}

// copyStore makes to a copy of a data directory.
func copyStore(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return fmt.Errorf("torture: copy a store: %w", err)
	}
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case e.Type().IsRegular():
			return copyFile(path, filepath.Join(to, rel))
		}
		return nil // a socket
	})
	if err != nil {
		return fmt.Errorf("torture: copy a store: %w", err)
	}
	return nil
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	return err
}
