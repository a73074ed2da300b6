package bbolt_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/bbolt"
)

const pageSize = 4096

// state is what a store holds.
type state struct {
	mark  backends.Mark
	pairs map[string]string
}

func (s *state) equal(o *state) bool { return s.mark == o.mark && maps.Equal(s.pairs, o.pairs) }

// image is a file, closed, and what it holds; before is what it held before its
// last commit.
type image struct {
	file       []byte
	old        []byte // the file before its last commit
	state, was state
	ever       map[string]bool // every pair that was ever there, as "key=value"
}

// load reads a whole store.
func load(t *testing.T, s *bbolt.Store) (*state, error) {
	st := &state{pairs: map[string]string{}}
	var err error
	if st.mark, err = s.Mark(t.Context()); err != nil {
		return st, err
	}
	return st, s.Scan(t.Context(), nil, func(key, val []byte) error {
		if _, ok := st.pairs[string(key)]; ok {
			return fmt.Errorf("key %q twice", key)
		}
		st.pairs[string(key)] = string(val)
		return nil
	})
}

// build makes a file of some 60 pages with every shape there is: inline and
// deep buckets, overflow pages, freed pages, folded keys.
func build(t *testing.T) *image {
	t.Helper()
	dir := t.TempDir()
	s := open(t, dir).(*bbolt.Store)
	r := rand.New(rand.NewPCG(1, 2))
	cur := state{pairs: map[string]string{}}
	img := &image{ever: map[string]bool{}}
	var b backends.Batch
	commit := func() {
		cur.mark.Applied++
		cur.mark.Schema = backends.Schema
		if err := s.Commit(t.Context(), &b, cur.mark); err != nil {
			t.Fatal(err)
		}
		b.Reset()
	}
	put := func(key, val []byte) {
		b.Put(key, val)
		cur.pairs[string(key)] = string(val)
		img.ever[string(key)+"="+string(val)] = true
	}
	del := func(key []byte) {
		b.Delete(key)
		delete(cur.pairs, string(key))
	}
	change := func(from, to uint64) {
		for i := from; i < to; i++ {
			put(backends.IDKey(nil, backends.TableBody, i), bytes.Repeat([]byte{byte(i)}, r.IntN(300)))
			put(backends.PairKey(nil, backends.TableQueue, r.Uint64N(9), i), binary.BigEndian.AppendUint64(nil, i))
			if i%3 == 0 {
				del(backends.IDKey(nil, backends.TableBody, i/2))
			}
		}
	}
	change(0, 150)
	put([]byte("Wsmall"), []byte("inline bucket"))
	put([]byte("T"+strings.Repeat("t", 5000)), []byte("folded"))
	commit()
	large := make([]byte, 3*pageSize)
	for i := range large {
		large[i] = byte(r.Uint32())
	}
	put(backends.IDKey(nil, backends.TableBody, 1000), large)
	change(150, 250)
	commit()
	del([]byte("Wsmall"))
	put([]byte("Wother"), []byte("inline bucket"))
	change(250, 300)
	commit()
	img.was = state{cur.mark, maps.Clone(cur.pairs)}
	var err error
	if img.old, err = os.ReadFile(file(dir)); err != nil {
		t.Fatal(err)
	}
	change(300, 320)
	commit()
	img.state = cur
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if img.file, err = os.ReadFile(file(dir)); err != nil {
		t.Fatal(err)
	}
	// What bbolt keeps in store at the end of the file is of no interest here.
	img.file = img.file[:img.inUse()*pageSize]
	img.old = img.old[:len(img.file)]
	return img
}

// inUse returns the number of pages that the newer meta page says are in use.
func (img *image) inUse() int {
	n := uint64(0)
	for _, off := range []int{0, pageSize} {
		n = max(n, binary.NativeEndian.Uint64(img.file[off+16+40:]))
	}
	return int(n)
}

// newer returns the offset of the meta page with the higher transaction.
func newer(file []byte) int {
	if txid(file, pageSize) > txid(file, 0) {
		return pageSize
	}
	return 0
}

func txid(file []byte, off int) uint64 { return binary.NativeEndian.Uint64(file[off+16+48:]) }

// mutation is damage done to a copy of the file.
type mutation struct {
	name string
	do   func(b []byte) []byte
	// wild: it makes a leaf lie about its number of pages or pretend to be a
	// branch page, its own id kept.
	wild bool
	// must: it hits what every live page has, and must be found.
	must bool
}

func flip(bit int) mutation {
	at := bit / 8 % pageSize
	return mutation{
		name: fmt.Sprintf("flip bit %d of page %d byte %d", bit%8, bit/8/pageSize, at),
		do: func(b []byte) []byte {
			b[bit/8] ^= 1 << (bit % 8)
			return b
		},
		wild: at >= 12 && at < 16,
	}
}

// live lists the pages that hold something, as bbolt sees it.
func (img *image) live(t *testing.T) []int {
	t.Helper()
	path := file(t.TempDir())
	if err := os.WriteFile(path, img.file, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var pages []int
	err = db.View(func(tx *bolt.Tx) error {
		for p := 2; p < img.inUse(); p++ {
			if info, err := tx.Page(p); err != nil || info.Type != "free" {
				pages = append(pages, p)
			}
		}
		return nil
	})
	if err != nil || len(pages) < 20 {
		t.Fatal(pages, err)
	}
	return pages
}

// mutations are every bit of the meta pages, and in live pages some of every
// header and first element, random bits, lost sectors, exchanged and repeated
// pages, and cuts.
func (img *image) mutations(t *testing.T, random int) []mutation {
	var all []mutation
	live := img.live(t)
	r := rand.New(rand.NewPCG(3, 4))
	pick := func() int { return live[r.IntN(len(live))] }
	for bit := range (16 + 64) * 8 {
		all = append(all, flip(bit), flip(pageSize*8+bit))
	}
	for _, p := range live {
		bits := []int{10 * 8, 10*8 + 1, 8 * 8, 0} // of count, type and id
		for range 16 {
			bits = append(bits, r.IntN((16+16)*8))
		}
		for _, bit := range bits {
			m := flip(p*pageSize*8 + bit)
			m.must = true
			all = append(all, m)
		}
		for s := range pageSize / 512 {
			all = append(all, mutation{name: fmt.Sprintf("zero sector %d of page %d", s, p), do: func(b []byte) []byte {
				clear(b[p*pageSize+s*512 : p*pageSize+(s+1)*512])
				return b
			}, must: s == 0})
		}
	}
	for range random {
		all = append(all, flip(pick()*pageSize*8+r.IntN(pageSize*8)))
	}
	for range random / 4 {
		from, to := pick(), pick()
		keepID := r.IntN(2) == 0
		all = append(all, mutation{name: fmt.Sprintf("page %d over page %d, keep id %t", from, to, keepID), do: func(b []byte) []byte {
			start := 0
			if keepID {
				start = 8
			}
			copy(b[to*pageSize+start:(to+1)*pageSize], b[from*pageSize+start:(from+1)*pageSize])
			return b
		}, must: from != to, wild: keepID})
	}
	for p := range img.inUse() {
		all = append(all,
			mutation{name: fmt.Sprintf("cut before page %d", p), do: func(b []byte) []byte { return b[:p*pageSize] }, must: true},
			mutation{name: fmt.Sprintf("cut in page %d", p), do: func(b []byte) []byte { return b[:p*pageSize+100] }, must: true})
	}
	return all
}

// TestDamagedFiles damages a file in thousands of ways. Each is found when the
// file is opened, or lies where nothing is stored, or in the newest meta page:
// then the state before the last commit is shown, as after a crash.
func TestDamagedFiles(t *testing.T) {
	img := build(t)
	d := newDisk(t, img.file)
	found, harmless, older := 0, 0, 0
	for _, m := range img.mutations(t, 800) {
		bad := m.do(bytes.Clone(img.file))
		d.write(bad)
		got, err := openAndLoad(t, d.path, bbolt.Options{ReadOnly: true})
		switch {
		case err != nil:
			if !errors.Is(err, backends.ErrDamaged) && !errors.Is(err, backends.ErrNotStore) && !errors.Is(err, backends.ErrSchema) {
				t.Fatalf("%s: %v", m.name, err)
			}
			found++
		case m.must:
			t.Errorf("%s: not found", m.name)
		case got.equal(&img.state):
			harmless++
		case got.equal(&img.was) && bytes.Equal(bad[2*pageSize:], img.file[2*pageSize:]):
			older++
		default:
			t.Fatalf("%s: not found, and another state is served: mark %+v, %d pairs", m.name, got.mark, len(got.pairs))
		}
	}
	t.Logf("%d found, %d harmless, %d show the state before", found, harmless, older)
}

// disk is a file that is rewritten where it changes.
type disk struct {
	t    *testing.T
	path string
	now  []byte
}

func newDisk(t *testing.T, b []byte) *disk {
	d := &disk{t: t, path: file(t.TempDir())}
	if err := os.WriteFile(d.path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	d.now = b
	return d
}

// write makes b the content of the file.
func (d *disk) write(b []byte) {
	d.t.Helper()
	f, err := os.OpenFile(d.path, os.O_RDWR, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	err = f.Truncate(int64(len(b)))
	for at := 0; at < len(b) && err == nil; at += 512 {
		end := min(at+512, len(b))
		if end > len(d.now) || !bytes.Equal(b[at:end], d.now[at:end]) {
			_, err = f.WriteAt(b[at:end], int64(at))
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		d.t.Fatal(err)
	}
	d.now = b
}

func openAndLoad(t *testing.T, path string, o bbolt.Options) (st *state, err error) {
	s, err := bbolt.Open(path, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return load(t, s)
}

// TestDamagedFilesUnchecked does the same to files whose leaves are not checked
// at open, as those of a large file are not: no call crashes or hangs, and no
// pair is served that was never there. A pair may be missing, or old if its whole
// page is an old one, which the state hash in the mark tells. What is left out is what
// Options.Preread warns of.
func TestDamagedFilesUnchecked(t *testing.T) {
	img := build(t)
	d := newDisk(t, img.file)
	var keys [][]byte
	for k := range img.state.pairs {
		keys = append(keys, []byte(k))
	}
	found := 0
	for i, m := range img.mutations(t, 600) {
		if i%3 != 0 || m.wild {
			continue
		}
		readOnly := i%30 != 0
		d.write(m.do(bytes.Clone(img.file)))
		s, err := bbolt.Open(d.path, bbolt.Options{ReadOnly: readOnly, Preread: -1})
		if err != nil {
			found++ // and nothing was written
			continue
		}
		if useDamaged(t, m.name, s, img.ever, keys) {
			found++
		}
		if err := s.Close(); err != nil {
			t.Fatalf("%s: close: %v", m.name, err)
		}
		if !readOnly { // a commit left its traces
			d = newDisk(t, img.file)
		}
	}
	t.Logf("%d found", found)
}

// useDamaged reads everything and writes a little, and says whether an error
// told of damage.
func useDamaged(t *testing.T, name string, s *bbolt.Store, ever map[string]bool, keys [][]byte) (found bool) {
	judge := func(what string, err error) {
		if err == nil {
			return
		}
		if !errors.Is(err, backends.ErrDamaged) && !errors.Is(err, backends.ErrSchema) && !errors.Is(err, backends.ErrReadOnly) {
			t.Fatalf("%s: %s: %v", name, what, err)
		}
		found = true
	}
	err := s.Get(t.Context(), keys, func(i int, val []byte) error {
		if val != nil && !ever[string(keys[i])+"="+string(val)] {
			t.Fatalf("%s: get serves a wrong value for %q", name, keys[i])
		}
		return nil
	})
	judge("get", err)
	err = s.Scan(t.Context(), nil, func(key, val []byte) error {
		if !ever[string(key)+"="+string(val)] {
			t.Fatalf("%s: scan serves a wrong pair %q", name, key)
		}
		return nil
	})
	judge("scan", err)
	var b backends.Batch
	for i := range uint64(100) {
		b.Put(backends.IDKey(nil, backends.TableBody, i*10), []byte("new"))
		b.Delete(backends.IDKey(nil, backends.TableBody, i*10+1))
	}
	judge("commit", s.Commit(t.Context(), &b, backends.Mark{}))
	judge("check", s.Check(t.Context()))
	return found
}

// TestCrashImages builds what a crash during a commit can leave: any part of the
// changed pages, in any mix of old and new sectors, with the old meta page or a
// torn new one, shows the state before; only the whole new meta page, which is
// written after a sync, shows the new one.
func TestCrashImages(t *testing.T) {
	img := build(t)
	path := file(t.TempDir())
	at := newer(img.file)
	r := rand.New(rand.NewPCG(5, 6))
	check := func(name string, b []byte, want *state) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, o := range []bbolt.Options{{ReadOnly: true}, {}} {
			got, err := openAndLoad(t, path, o)
			if err != nil || !got.equal(want) {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	pad := func() []byte { // the old file, grown as a commit grows it first
		b := make([]byte, len(img.file))
		copy(b, img.old)
		return b
	}
	for i := range 200 {
		b := pad()
		for sector := 2 * pageSize / 512; sector < len(b)/512; sector++ {
			if r.IntN(3) > i%4 {
				copy(b[sector*512:(sector+1)*512], img.file[sector*512:])
			}
		}
		check(fmt.Sprintf("mix %d", i), b, &img.was)
	}
	for n := range 16 + 64 {
		b := bytes.Clone(img.file)
		copy(b[at+n:at+pageSize], pad()[at+n:])
		if bytes.Equal(b, img.file) {
			continue
		}
		check(fmt.Sprintf("meta page torn after %d bytes", n), b, &img.was)
	}
	check("old file", img.old, &img.was)
	check("whole", img.file, &img.state)
}
