package core

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/wind-c/comqtt/v3/wal/record"
)

// state builds a machine with every kind of entry, and its entries.
func stateWithEverything(t testing.TB) (*rig, *backend) {
	r := newRig(t)
	a := r.connect("a", receiveMaximum(2), withWill(5))
	a.subscribe("x", qos2, 1)
	a.subscribe("+", qos1, 2)
	a.subscribe("$share/g/x", qos2)
	r.publish("x", "m1", 2, to("g", "x", a), lives(1000))
	a.rec(1, 0)
	r.publish("x", "m2", 2, retained, a.asPublisher, packetID(3))
	r.publish("x", "m3", 1, ephemeralMember(5, 1))
	b := r.connect("b", withWill(10), expiry(60))
	b.subscribe("#", qos1)
	b.disconnect(false)
	r.publish("y", "m4", 1)
	r.apply(&record.LoggedWill{Epoch: 88, ClientID: []byte("e"), Will: record.Will{QoS: 1, Message: message5("w", "w")}})
	back := newBackend(t.Fatalf)
	r.m.Collect(back)
	tables := map[byte]bool{}
	for name := range back.entries {
		tables[name[0]] = true
	}
	if len(tables) != 9 {
		t.Fatalf("tables %v", tables)
	}
	return r, back
}

// A state that has lost an entry, or has one that does not belong, is not
// loaded: Load finds every reference that leads nowhere and every message
// that nothing refers to.
func TestLoadRefuses(t *testing.T) {
	r, b := stateWithEverything(t)
	load := func(entries map[string][]byte) error {
		_, err := Load((&backend{entries: entries}).scan, r.m.Applied(), r.m.Now())
		return err
	}
	if err := load(b.entries); err != nil {
		t.Fatal(err)
	}
	for name := range b.entries {
		entries := maps.Clone(b.entries)
		delete(entries, name)
		err := load(entries)
		switch name[0] {
		case TableSubscription, TableReceived, TableWill, TableRetained, TableQueue, TableGroup, TableSession:
			// Without one of these the rest may still make sense; the hash is
			// there to notice.
			if err != nil && !errors.Is(err, ErrEntry) {
				t.Errorf("without %q: %v", name, err)
			}
		default:
			if !errors.Is(err, ErrEntry) && !strings.Contains(fmt.Sprint(err), "feature level") {
				t.Errorf("without %q: %v", name, err)
			}
		}
	}
	for name, value := range b.entries {
		for what, bad := range map[string][]byte{
			"empty": {}, "cut": value[:len(value)-1], "longer": append(slices.Clone(value), 0), "of the future": append([]byte{2}, value[1:]...),
		} {
			entries := maps.Clone(b.entries)
			entries[name] = bad
			if err := load(entries); err == nil {
				t.Errorf("%q, %s: loaded", name, what)
			} else if !errors.Is(err, ErrEntry) {
				t.Errorf("%q, %s: %v is no ErrEntry", name, what, err)
			}
		}
	}
}

// Whatever is done to entries, Load either refuses them or makes a machine
// that is sound, and that writes down what it was loaded from.
func TestLoadAnything(t *testing.T) {
	r, b := stateWithEverything(t)
	names := slices.Sorted(maps.Keys(b.entries))
	loaded := 0
	rapid.Check(t, func(t *rapid.T) {
		entries := maps.Clone(b.entries)
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			name := rapid.SampledFrom(names).Draw(t, "entry")
			value := slices.Clone(entries[name])
			switch rapid.IntRange(0, 3).Draw(t, "change") {
			case 0:
				delete(entries, name)
			case 1:
				if len(value) > 0 {
					value[rapid.IntRange(0, len(value)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
				}
				entries[name] = value
			case 2:
				key := []byte(name)
				at := rapid.IntRange(1, len(key)-1).Draw(t, "at")
				key[at] = rapid.Byte().Draw(t, "byte")
				entries[string(key)] = value
			case 3:
				entries[name] = entries[rapid.SampledFrom(names).Draw(t, "from")]
			}
		}
		m, err := Load((&backend{entries: entries}).scan, r.m.Applied(), r.m.Now())
		if err != nil {
			return
		}
		loaded++
		if err := m.Check(); err != nil {
			t.Fatalf("loaded, and %v", err)
		}
		if m.level == 0 {
			return // all gone
		}
		for name, value := range exported(m) {
			if name[0] != TableConfig && string(value) != string(entries[name]) {
				t.Fatalf("%q is %x, loaded from %x", name, value, entries[name])
			}
		}
		var fx Effects
		for _, rec := range [][]byte{(&record.ServerStart{Boot: 9}).AppendTo(nil), record.Tick{}.AppendTo(nil)} {
			if err := m.Apply(m.Applied()+1, m.Now()+1e9, rec, &fx); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Check(); err != nil {
			t.Fatalf("went on, and %v", err)
		}
	})
	if loaded == 0 {
		t.Error("nothing was loaded")
	}
}

// CheckSlots finds a fault of one session, in slices.
func TestCheckSlots(t *testing.T) {
	r := newRig(t)
	for i := range 10 {
		r.connect(fmt.Sprint("c", i)).subscribe("x", qos1)
	}
	r.publish("x", "m", 1)
	walk := func() error {
		for at, calls := uint32(0), 0; ; calls++ {
			next, err := r.m.CheckSlots(at, 3)
			if err != nil || next == 0 {
				if err == nil && calls != 3 {
					t.Fatalf("%d calls for ten sessions in slices of three", calls+1)
				}
				return err
			}
			at = next
		}
	}
	if err := walk(); err != nil {
		t.Fatal(err)
	}
	s := r.m.SessionOf("c7")
	s.QueuedBytes++
	if walk() == nil {
		t.Error("wrong byte count is not found")
	}
	s.QueuedBytes--
	r.m.Index().Unsubscribe("x", s.Ref)
	if walk() == nil || r.m.Check() == nil {
		t.Error("missing subscription is not found")
	}
	sub, _ := s.Subscription("x")
	s.Subscribe("x", sub)
	r.m.index.Subscribe("x", r.m.scratch.matches.Subs[s.Ref])
	if err := r.m.Check(); err != nil {
		t.Fatal(err)
	}
}

// The hash does not depend on the order of entries, an entry can be taken out
// again, and each of key, table and value counts.
func TestHash(t *testing.T) {
	k, other := [16]byte{1}, [16]byte{2}
	var a, b, c Hash
	a.Add(&k, 'S', []byte("k1"), []byte("v"))
	a.Add(&k, 'S', []byte("k2"), []byte("v"))
	b.Add(&k, 'S', []byte("k2"), []byte("v"))
	b.Add(&k, 'Q', []byte("x"), []byte("y"))
	b.Add(&k, 'S', []byte("k1"), []byte("v"))
	if a == b {
		t.Error("an entry more does not count")
	}
	b.Remove(&k, 'Q', []byte("x"), []byte("y"))
	if a != b {
		t.Error("order counts, or an entry cannot be taken out")
	}
	if HashOf(a.Bytes()) != a || a == c {
		t.Error("bytes do not give the hash back")
	}
	c = a
	c.Add(&k, 'S', nil, nil)
	c.Remove(&k, 'S', nil, nil)
	if c != a {
		t.Error("an empty entry leaves a trace")
	}
	seen := map[Hash]string{}
	for what, h := range map[string]func(h *Hash){
		"plain":            func(h *Hash) { h.Add(&k, 'S', []byte("ab"), []byte("c")) },
		"key and value":    func(h *Hash) { h.Add(&k, 'S', []byte("a"), []byte("bc")) },
		"table":            func(h *Hash) { h.Add(&k, 'T', []byte("ab"), []byte("c")) },
		"hash key":         func(h *Hash) { h.Add(&other, 'S', []byte("ab"), []byte("c")) },
		"value":            func(h *Hash) { h.Add(&k, 'S', []byte("ab"), []byte("d")) },
		"longer than 256":  func(h *Hash) { h.Add(&k, 'S', []byte("ab"), make([]byte, 300)) },
		"longer, one more": func(h *Hash) { h.Add(&k, 'S', []byte("ab"), make([]byte, 301)) },
		"twice":            func(h *Hash) { h.Add(&k, 'S', []byte("ab"), []byte("c")); h.Add(&k, 'S', []byte("ab"), []byte("c")) },
	} {
		var sum Hash
		h(&sum)
		if s, same := seen[sum]; same {
			t.Errorf("%s and %s have one hash", what, s)
		}
		seen[sum] = what
	}
}

// What is no record of this release, or not the next one, is an error, and
// the machine says what it cannot read.
func TestApplyRefuses(t *testing.T) {
	var fx Effects
	genesis := (&record.Genesis{FeatureLevel: FeatureLevel}).AppendTo(nil)
	fresh := func() *Machine {
		m := New()
		if err := m.Apply(1, 1, genesis, &fx); err != nil {
			t.Fatal(err)
		}
		return m
	}
	if err := fresh().Apply(3, 1, record.Tick{}.AppendTo(nil), &fx); !errors.Is(err, ErrGap) {
		t.Errorf("gap: %v", err)
	}
	var unknown *record.UnknownError
	for name, rec := range map[string][]byte{
		"future kind": {77, 1}, "future version": {byte(record.KindPublish), 9, 0}, "future config": {byte(record.KindConfig), 2},
	} {
		if err := fresh().Apply(2, 1, rec, &fx); !errors.As(err, &unknown) {
			t.Errorf("%s: %v", name, err)
		}
		if err := New().Apply(1, 1, rec, &fx); err == nil {
			t.Errorf("%s: first record of a store", name)
		}
	}
	for name, rec := range map[string][]byte{
		"second genesis":          genesis,
		"level 0":                 (&record.Genesis{}).AppendTo(nil),
		"newer level":             (&record.Upgrade{Level: FeatureLevel + 1}).AppendTo(nil),
		"cut":                     (&record.Connect{Epoch: 1}).AppendTo(nil)[:6],
		"empty":                   {},
		"message without a topic": (&record.Publish{Message: message5("", "x")}).AppendTo(nil),
		"no message":              (&record.Publish{}).AppendTo(nil),
	} {
		if err := fresh().Apply(2, 1, rec, &fx); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := New().Apply(1, 1, record.Tick{}.AppendTo(nil), &fx); err == nil {
		t.Error("a store that begins without a genesis")
	}
}
