package inspect_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/recovery/inspect"
	"github.com/wind-c/comqtt/v3/recovery/inspect/inspecttest"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// stores has data directories as releases have left them, NAME.zip, and what
// is in them, NAME.json. A store opens for ever: neither is ever edited, only new
// ones are added, with
//
//	go test ./recovery/inspect -run TestGoldenStores -new-stores v3.1
const stores = "testdata/stores"

var newStores = flag.String("new-stores", "", "make the golden stores of this release")

// kinds are the stores of a release.
var kinds = map[string]inspecttest.Options{
	"clean":   {Clean: true, Records: everything},
	"killed":  {Records: everything},
	"archive": {Clean: true, SegmentSize: 8 << 10, Archive: true, Records: everything},
	"memory":  {Backend: recovery.BackendMemory, Clean: true, Records: everything},
}

// everything makes state of every kind: sessions that are connected and not,
// with and without a will, deliveries in each phase, queues longer than a stored
// chunk, several subscription identifiers, retained messages that expire and do
// not, a shared group that waits, a receipt of QoS 2.
func everything(b *inspecttest.Builder) error {
	will := func(name string, retain bool) func(c *record.Connect) {
		return func(c *record.Connect) {
			p := packets.Publish{Payload: []byte("gone")}
			c.HasWill = true
			c.Will = record.Will{QoS: 1, Retain: retain, Delay: 60, Message: p.AppendMessage(nil, []byte(name))}
		}
	}
	err := errors.Join(
		inspecttest.Story(b),
		b.Connect("window", func(c *record.Connect) { c.ReceiveMaximum = 3; c.User = []byte("operator") }),
		b.Subscribe("window", "data/#", topic.Options(2), 1),
		b.Subscribe("window", "data/+/x", topic.Options(1), 2),
		b.Connect("absent", will("will/absent", true)),
		b.Subscribe("absent", "data/#", topic.Options(1), 0),
		b.Subscribe("absent", "$share/group/work", topic.Options(1), 0),
		b.Disconnect("absent"),
		b.Connect("old", func(c *record.Connect) { c.Version, c.Expiry = 3, session.Forever }),
		b.Subscribe("old", "data/7/x", topic.Options(2), 0),
	)
	for i := range 200 {
		_, failed := b.Publish(fmt.Sprintf("data/%d/x", i%20), strings.Repeat("payload ", i%9), uint8(1+i%2), func(p *record.Publish) {
			p.Retain = i%3 == 0
			p.HasExpiry, p.Expiry = i%5 == 0, 1_000_000_000
		})
		err = errors.Join(err, failed)
	}
	for i := range 3 {
		_, failed := b.Publish("work", fmt.Sprint(i), 1, func(p *record.Publish) {
			p.Choices = []record.Choice{{Share: []byte("group"), Filter: []byte("work")}}
		})
		err = errors.Join(err, failed)
	}
	_, failed := b.Publish("receipt", "open", 2, func(p *record.Publish) {
		s := b.State.Machine.SessionOf("window")
		p.Session, p.Epoch, p.PacketID = s.ID, s.Epoch, 77
	})
	return errors.Join(err, failed, b.Ack("window", 2), b.Flush(), b.Ack("window", 1))
}

// Every store that a release has left opens, holds what it held, and is sound.
func TestGoldenStores(t *testing.T) {
	if *newStores != "" {
		for kind, o := range kinds {
			makeStore(t, *newStores+"-"+kind, o)
		}
	}
	list, err := filepath.Glob(filepath.Join(stores, "*.zip"))
	if err != nil || len(list) < len(kinds) {
		t.Fatalf("%d stores, %v", len(list), err)
	}
	for _, path := range list {
		name := strings.TrimSuffix(filepath.Base(path), ".zip")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			unzip(t, path, dir)
			want, err := os.ReadFile(filepath.Join(stores, name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			state := sound(t, dir)
			if got := inJSON(t, &state); !bytes.Equal(got, want) {
				t.Errorf("holds %s\nheld %s", got, want)
			}
			serveOnce(t, dir, &state)
			sound(t, dir)
		})
	}
}

// sound verifies a directory and returns its state.
func sound(t *testing.T, dir string) (state inspect.StateInfo) {
	t.Helper()
	looking(t, dir, func(d *inspect.Dir) {
		v, err := d.Verify(background)
		if err != nil || v.Err() != nil {
			t.Fatal(err, v.Err())
		}
		state = *v.State
	})
	return state
}

// serveOnce starts on a directory as the broker does, reads everything, and
// stops.
func serveOnce(t *testing.T, dir string, want *inspect.StateInfo) {
	t.Helper()
	manifest, _, err := recovery.ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := recovery.Open(background, recovery.Options{
		Dir: dir, Backend: manifest.Backend,
		Clock: func() int64 { return int64(want.Time) + 1 },
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.Machine.SessionIDs(nil)); n != want.Sessions {
		t.Errorf("%d sessions, there were %d", n, want.Sessions)
	}
	var ids []uint64
	s.Machine.Messages(func(m core.StoredMessage) bool {
		ids = append(ids, m.ID)
		return true
	})
	if len(ids) != want.Messages {
		t.Errorf("%d messages, there were %d", len(ids), want.Messages)
	}
	bodies := 0
	err = s.Bodies.Load(background, ids, func(_ int, body []byte) error {
		bodies++
		_, err := packets.ParseMessage(body)
		return err
	})
	if err != nil || bodies != len(ids) {
		t.Errorf("%d bodies of %d messages: %v", bodies, len(ids), err)
	}
	s.Compactor.Checkpoint(s.Machine, s.Machine.Applied(), s.Machine.Now())
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func inJSON(t *testing.T, state *inspect.StateInfo) []byte {
	t.Helper()
	text, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

// makeStore adds a store. It never replaces one.
func makeStore(t *testing.T, name string, o inspecttest.Options) {
	t.Helper()
	dir, _ := build(t, o)
	state := sound(t, dir)
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "LOCK" {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		w, err := z.Create(filepath.ToSlash(rel))
		if err != nil {
			return err
		}
		_, err = w.Write(body)
		return err
	})
	if err = errors.Join(err, z.Close(), os.MkdirAll(stores, 0o755)); err != nil {
		t.Fatal(err)
	}
	for file, body := range map[string][]byte{name + ".zip": archive.Bytes(), name + ".json": inJSON(t, &state)} {
		f, err := os.OpenFile(filepath.Join(stores, file), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Write(body)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func unzip(t *testing.T, path, dir string) {
	t.Helper()
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, f := range z.File {
		to := filepath.Join(dir, filepath.FromSlash(f.Name))
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close(), os.MkdirAll(filepath.Dir(to), 0o700)); err == nil {
			err = os.WriteFile(to, body, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
