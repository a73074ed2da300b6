package core

import (
	"slices"
	"testing"

	"github.com/wind-c/comqtt/v3/wal/record"
)

// FuzzApply: no bytes in the place of a record make the machine panic or
// leave a state that is not sound; either it says that it can't read them, or
// it goes on, and what it writes down afterwards can be loaded.
func FuzzApply(f *testing.F) {
	r, b := stateWithEverything(f)
	a := r.m.SessionOf("a")
	for _, rec := range []encoder{
		&record.Publish{QoS: 2, Retain: true, Message: message5("x", "m"), Choices: []record.Choice{{Share: []byte("g"), Filter: []byte("x"), Session: a.ID}}},
		&record.Publish{WillOf: 1, Message: message5("x", "m")},
		&record.Connect{Epoch: 99, ClientID: []byte("a"), Expiry: 5, HasWill: true, Will: record.Will{Message: message5("w", "w")}},
		&record.Disconnect{Session: a.ID, Epoch: a.Epoch, HasExpiry: true},
		&record.Disconnect{Epoch: 88},
		&record.Subscribe{Session: a.ID, Epoch: a.Epoch, Filters: []record.Filter{{Name: []byte("$share/h/#"), Options: 2}, {Name: []byte("#"), Options: 1}}},
		&record.Unsubscribe{Session: a.ID, Epoch: a.Epoch, Filters: [][]byte{[]byte("$share/g/x"), []byte("+")}},
		&record.Ack{Session: a.ID, Epoch: a.Epoch, Runs: []record.Run{{First: 1, Count: 65535}, {First: 65535, Count: 65535}}},
		&record.Ack{Epoch: 5, Share: []byte("g"), Filter: []byte("x"), Message: r.m.Applied() - 5},
		&record.Rec{Session: a.ID, Epoch: a.Epoch, PacketID: 1, Code: 0x80},
		&record.PubRel{Session: a.ID, Epoch: a.Epoch, PacketID: 3},
		&record.Dispatch{Share: []byte("g"), Filter: []byte("x"), Message: r.m.Applied() - 5, Session: a.ID},
		&record.LoggedWill{Epoch: 88, Will: record.Will{Message: message5("w", "w")}},
		&record.SessionRemove{ClientID: []byte("a")}, &record.RetainClear{Topic: []byte("x")},
		&record.ServerStart{Boot: 2},
		record.Tick{},
		&record.Config{}, &record.Upgrade{Level: 1}, &record.StateHash{},
	} {
		f.Add(rec.AppendTo(nil), uint32(100))
	}
	f.Fuzz(func(t *testing.T, rec []byte, later uint32) {
		m, err := Load(b.scan, r.m.Applied(), r.m.Now())
		if err != nil {
			t.Fatal(err)
		}
		var fx Effects
		in := slices.Clone(rec)
		if err := m.Apply(m.Applied()+1, r.m.Now()+int64(later), rec, &fx); err != nil {
			return
		}
		if !slices.Equal(in, rec) {
			t.Fatal("Apply wrote into the record")
		}
		clear(rec)
		if err := m.Check(); err != nil {
			t.Fatal(err)
		}
		loaded := newBackend(t.Fatalf)
		m.Export(func(table byte, key, value []byte) { loaded.Put(table, key, value, true) })
		again, err := Load(loaded.scan, m.Applied(), m.Now())
		if err != nil {
			t.Fatalf("%x leaves what can't be loaded: %v", in, err)
		}
		if again.Hash(&worldHashKey) != loaded.hash {
			t.Fatalf("%x leaves what loads as something else", in)
		}
	})
}
