package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/redis/redistest"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/recovery/inspect/inspecttest"
)

func TestMain(m *testing.M) {
	// A pool whose server is gone asks for it once a second and notices its end
	// only then.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// mustURL reads a URL.
func mustURL(t testing.TB, text string) URL {
	t.Helper()
	u, err := ParseURL(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// story makes a data directory with a little of everything, most of it in the
// log only, as a kill leaves it.
func story(t testing.TB, o inspecttest.Options) URL {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "source")
	if _, err := inspecttest.Build(dir, o); err != nil {
		t.Fatal(err)
	}
	return mustURL(t, "bbolt://"+dir)
}

// contents returns all files of a directory but the lock's.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "LOCK" {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func same(t testing.TB, before, after map[string]string, what string) {
	t.Helper()
	if len(before) != len(after) {
		t.Fatalf("%s: %d files, before %d", what, len(after), len(before))
	}
	for name, b := range before {
		if after[name] != b {
			t.Fatalf("%s: %s has changed", what, name)
		}
	}
}

// run migrates and compares all.
func run(t testing.TB, o Options) *Report {
	t.Helper()
	r, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, o.From, o.To)
	return r
}

func equal(t testing.TB, from, to URL) *Comparison {
	t.Helper()
	c, err := Verify(context.Background(), VerifyOptions{From: from, To: to, Sample: -1})
	if err != nil {
		t.Fatal(err)
	}
	if !c.Equal || c.Compared != c.Source.Pairs {
		t.Fatalf("%d of %d pairs compared: %v", c.Compared, c.Source.Pairs, c.Difference())
	}
	return c
}

// serves opens a data directory as a broker does, and closes it again.
func serves(t testing.TB, u URL, want *Holdings) {
	t.Helper()
	s, err := recovery.Open(context.Background(), recovery.Options{Dir: u.Dir, Backend: u.Kind})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background()) //nolint:errcheck // of a test
	r := &s.Report
	if r.Applied != want.Index || r.Last != want.Index+1 || r.Sessions != want.Sessions || r.Retained != want.Retained ||
		r.Queued != want.Queued || r.Inflight != want.Inflight || !r.Clean {
		t.Errorf("%+v\nwant %+v", r, want)
	}
	var ids []uint64
	s.Machine.Messages(func(m core.StoredMessage) bool { ids = append(ids, m.ID); return true })
	if len(ids) != want.Messages {
		t.Errorf("%d messages, want %d", len(ids), want.Messages)
	}
}

// Every ordered pair of backends, each of which begins with the newest state of
// a directory whose log is ahead of its backend.
func TestEveryPair(t *testing.T) {
	server := redistest.Start(t).Addr
	for _, from := range []string{KindBbolt, KindBadger, KindRedis} {
		for _, to := range []string{KindBbolt, KindBadger, KindRedis} {
			t.Run(from+" to "+to, func(t *testing.T) {
				origin := story(t, inspecttest.Options{})
				base := t.TempDir()
				place := func(kind, name string) URL {
					if kind == KindRedis {
						return mustURL(t, fmt.Sprintf("redis://%s/0?prefix=%s-%s-%s", server, from, to, name))
					}
					return mustURL(t, kind+"://"+filepath.Join(base, name))
				}
				source := origin
				if from != KindBbolt {
					source = place(from, "a")
					run(t, Options{From: origin, To: source, Batch: 256})
				}
				target := place(to, "b")
				r := run(t, Options{From: source, To: target, Batch: 256})
				if r.Source.Sessions != 3 || r.Source.Messages == 0 || r.Written != r.Source.Pairs || r.Bytes != r.Source.Bytes {
					t.Errorf("%+v", r)
				}
				equal(t, origin, target)
				if to != KindRedis {
					serves(t, target, r.Source)
				}
			})
		}
	}
}

// The source is only read, wherever its state is.
func TestSourceIsNotTouched(t *testing.T) {
	for name, o := range map[string]inspecttest.Options{
		"log only": {Keep: true}, "both": {}, "clean": {Clean: true}, "memory": {Backend: recovery.BackendMemory}, "small": {SegmentSize: 1024},
	} {
		t.Run(name, func(t *testing.T) {
			from := story(t, o)
			before := contents(t, from.Dir)
			to := mustURL(t, "bbolt://"+filepath.Join(t.TempDir(), "deep", "er", "target"))
			if _, err := MakePlan(context.Background(), Options{From: from, To: to}); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(to.Dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a plan made %s: %v", to.Dir, err)
			}
			run(t, Options{From: from, To: to})
			same(t, before, contents(t, from.Dir), "source")
		})
	}
}

// errKilled ends a run early.
var errKilled = errors.New("killed")

// A run that ends at any of its transactions, before or after it, is nothing
// that a broker takes, and --resume completes it without beginning anew.
func TestResumeAtEveryChunk(t *testing.T) {
	from := story(t, inspecttest.Options{})
	before := contents(t, from.Dir)
	for n := 1; ; n++ {
		to := mustURL(t, "bbolt://"+filepath.Join(t.TempDir(), "target"))
		ctx, cancel := context.WithCancelCause(context.Background())
		calls := 0
		o := Options{From: from, To: to, Batch: 128, Progress: func(step string, _, _ int64) {
			if step == "copy" || step == "read back" {
				if calls++; calls == n {
					cancel(errKilled)
				}
			}
		}}
		_, err := Run(ctx, o)
		cancel(nil)
		if err == nil {
			if n < 10 {
				t.Fatalf("it ended after %d steps", n)
			}
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if _, err := recovery.Open(context.Background(), recovery.Options{Dir: to.Dir}); !errors.Is(err, recovery.ErrDamaged) || recovery.ExitCode(err) != 65 {
			t.Fatalf("step %d: a broker takes it: %v", n, err)
		}
		if _, err := Verify(context.Background(), VerifyOptions{From: from, To: to}); !errors.Is(err, ErrUnfinished) {
			t.Fatalf("step %d: verify: %v", n, err)
		}
		o.Progress = nil
		if _, err := Run(context.Background(), o); !errors.Is(err, ErrUnfinished) {
			t.Fatalf("step %d: begun anew: %v", n, err)
		}
		o.Resume = true
		r := run(t, o)
		if n > 2 && r.Resumed == 0 || r.Resumed+r.Written != r.Source.Pairs {
			t.Fatalf("step %d: %+v", n, r)
		}
		if again, err := Run(context.Background(), o); err == nil || again != nil {
			t.Fatalf("step %d: a target without a note is resumed: %v", n, err)
		}
	}
	same(t, before, contents(t, from.Dir), "source")
}

// A crash at each of the last steps, after the seal.
func TestResumeAfterTheSeal(t *testing.T) {
	from := story(t, inspecttest.Options{})
	for _, manifest := range []bool{false, true} {
		to := mustURL(t, "bbolt://"+filepath.Join(t.TempDir(), "target"))
		r := run(t, Options{From: from, To: to})
		// As if the note had not been removed, and the manifest not been written.
		m, _, err := recovery.ReadManifest(to.Dir)
		if err != nil {
			t.Fatal(err)
		}
		s, err := openSource(context.Background(), from, func(string, int64, int64) {})
		if err != nil {
			t.Fatal(err)
		}
		n := newNote(s, &Options{From: from, To: to})
		n.StoreID, n.NodeID = m.StoreID, m.NodeID
		if err := errors.Join(writeNoteFile(to.Dir, n), s.close()); err != nil {
			t.Fatal(err)
		}
		if !manifest {
			if err := os.Remove(filepath.Join(to.Dir, "MANIFEST")); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Run(context.Background(), Options{From: from, To: to}); !errors.Is(err, ErrUnfinished) && !errors.Is(err, ErrExists) {
			t.Fatal(err)
		}
		got := run(t, Options{From: from, To: to, Resume: true})
		if got.Written != 0 || got.Already != manifest {
			t.Errorf("%+v", got)
		}
		serves(t, to, r.Source)
		if _, err := os.Stat(notePath(to.Dir)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the note is there: %v", err)
		}
	}
}

// A resume goes on only with what it began with.
func TestResumeRefuses(t *testing.T) {
	from, other := story(t, inspecttest.Options{}), story(t, inspecttest.Options{})
	to := mustURL(t, "bbolt://"+filepath.Join(t.TempDir(), "target"))
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Run(ctx, Options{From: from, To: to, Batch: 128, Progress: func(step string, done, _ int64) {
		if step == "copy" && done > 400 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	half := contents(t, to.Dir)
	if _, err := Run(context.Background(), Options{From: other, To: to, Resume: true}); !errors.Is(err, ErrOther) {
		t.Errorf("another source: %v", err)
	}
	if _, err := Run(context.Background(), Options{From: from, To: mustURL(t, "badger://"+to.Dir), Resume: true}); !errors.Is(err, ErrOther) {
		t.Errorf("another backend: %v", err)
	}
	if _, err := Run(context.Background(), Options{From: to, To: mustURL(t, "bbolt://"+t.TempDir())}); !errors.Is(err, ErrUnfinished) {
		t.Errorf("as a source: %v", err)
	}
	s, err := recovery.Open(context.Background(), recovery.Options{Dir: from.Dir}) // a broker runs meanwhile
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Run(context.Background(), Options{From: from, To: to, Resume: true}); !errors.Is(err, recovery.ErrLocked) {
		t.Errorf("a broker runs: %v", err)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(context.Background(), Options{From: from, To: to, Resume: true}); !errors.Is(err, ErrChanged) {
		t.Errorf("a changed source: %v", err)
	}
	same(t, half, contents(t, to.Dir), "half a target")
}

// A cursor that does not fit the pairs is no way to go on, whatever the note.
func TestResumeComparesThePairs(t *testing.T) {
	from := story(t, inspecttest.Options{})
	to := mustURL(t, "bbolt://"+filepath.Join(t.TempDir(), "target"))
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Run(ctx, Options{From: from, To: to, Batch: 128, Progress: func(step string, done, _ int64) {
		if step == "copy" && done > 400 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	store, err := openStore(to, false)
	if err != nil {
		t.Fatal(err)
	}
	c, err := readCursor(context.Background(), store)
	if err != nil || c.pairs == 0 {
		t.Fatal(c, err)
	}
	mark, err := store.Mark(context.Background())
	if err != nil || mark.Sealed || mark.Applied != 0 {
		t.Fatal(mark, err)
	}
	c.crc++
	var b backends.Batch
	b.Put(cursorKey(), c.encode())
	if err := errors.Join(store.Commit(context.Background(), &b, mark), store.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(context.Background(), Options{From: from, To: to, Resume: true}); !errors.Is(err, ErrChanged) {
		t.Errorf("%v", err)
	}
}

func TestTargetsThatAreRefused(t *testing.T) {
	from := story(t, inspecttest.Options{})
	served := story(t, inspecttest.Options{})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "letter.txt"), []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, u := range map[string]URL{
		"a broker's": served, "someone's": mustURL(t, "bbolt://"+dir), "badger": mustURL(t, "badger://"+served.Dir),
	} {
		before := contents(t, u.Dir)
		for _, resume := range []bool{false, true} {
			if _, err := Run(context.Background(), Options{From: from, To: u, Resume: resume}); !errors.Is(err, ErrExists) {
				t.Errorf("%s: %v", name, err)
			}
		}
		p, err := MakePlan(context.Background(), Options{From: from, To: u})
		if err != nil || p.Ready || !errors.Is(p.Refusal(), ErrExists) {
			t.Errorf("%s: %+v %v", name, p, err)
		}
		same(t, before, contents(t, u.Dir), name)
	}
	if _, err := Run(context.Background(), Options{From: from, To: from}); !errors.Is(err, ErrURL) {
		t.Errorf("onto itself: %v", err)
	}
	full := Options{From: from, To: mustURL(t, "bbolt://"+filepath.Join(dir, "new")), Free: func(string) (int64, error) { return 1 << 20, nil }}
	if _, err := Run(context.Background(), full); !errors.Is(err, ErrSpace) {
		t.Errorf("a full disk: %v", err)
	}
	if _, err := os.Stat(full.To.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a full disk: %v", err)
	}
}

func TestSourcesThatAreRefused(t *testing.T) {
	to := mustURL(t, "bbolt://"+filepath.Join(t.TempDir(), "target"))
	try := func(name string, from URL, want error) {
		t.Helper()
		if _, err := Run(context.Background(), Options{From: from, To: to}); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(to.Dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the target was begun: %v", name, err)
		}
	}
	try("nowhere", mustURL(t, "bbolt://"+filepath.Join(t.TempDir(), "nowhere")), ErrNoData)
	try("empty", mustURL(t, "bbolt://"+t.TempDir()), ErrNoData)
	clean := story(t, inspecttest.Options{Clean: true})
	try("another backend", mustURL(t, "badger://"+clean.Dir), ErrNoData)
	try("no server", mustURL(t, "redis://127.0.0.1:1/0"), ErrUnreachable)

	rotten := story(t, inspecttest.Options{})
	file := recovery.BackendFile(rotten.Dir)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	for at := 2*4096 + 100; at < int(info.Size()); at += 4096 { // each page, since some are free
		flip(t, file, at)
	}
	try("a rotten backend", rotten, backends.ErrDamaged)
	cut := story(t, inspecttest.Options{})
	if err := os.RemoveAll(recovery.LogDir(cut.Dir)); err != nil {
		t.Fatal(err)
	}
	try("no log", cut, recovery.ErrDamaged)
}

func flip(t testing.TB, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 0x40
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Verify finds whatever differs and says where: an entry, a pair that is
// missing or too many, a body, and bodies only if they are in the sample.
func TestVerifyFinds(t *testing.T) {
	from := story(t, inspecttest.Options{})
	change := func(do func(ctx context.Context, s backends.Store, b *backends.Batch, mark *backends.Mark)) URL {
		to := mustURL(t, "bbolt://"+filepath.Join(t.TempDir(), "target"))
		run(t, Options{From: from, To: to})
		s, err := openStore(to, false)
		if err != nil {
			t.Fatal(err)
		}
		mark, err := s.Mark(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		var b backends.Batch
		do(context.Background(), s, &b, &mark)
		if err := s.Commit(context.Background(), &b, mark); err != nil {
			t.Fatal(err)
		}
		m, _, err := recovery.ReadManifest(to.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if mark.Hash, err = recovery.StateHash(context.Background(), s, &m.HashKey); err != nil {
			t.Fatal(err)
		}
		// The mark says what is there: only a comparison can find it.
		if err := errors.Join(s.Commit(context.Background(), new(backends.Batch), mark), s.Close()); err != nil {
			t.Fatal(err)
		}
		return to
	}
	first := func(ctx context.Context, s backends.Store, table byte) (key, val []byte) {
		err := s.Scan(ctx, []byte{table}, func(k, v []byte) error {
			if key == nil {
				key, val = append(key, k...), append(val, v...)
			}
			return nil
		})
		if err != nil || key == nil {
			t.Fatal(err)
		}
		return key, val
	}
	for name, c := range map[string]struct {
		do    func(ctx context.Context, s backends.Store, b *backends.Batch, mark *backends.Mark)
		where string
	}{
		"a subscription is gone": {func(ctx context.Context, s backends.Store, b *backends.Batch, _ *backends.Mark) {
			key, _ := first(ctx, s, backends.TableSubscription)
			b.Delete(key)
		}, "the subscription of session"},
		"a body": {func(ctx context.Context, s backends.Store, b *backends.Batch, _ *backends.Mark) {
			key, val := first(ctx, s, backends.TableBody)
			val[len(val)-1] ^= 1
			b.Put(key, val)
		}, "the body of message"},
		"a body is gone": {func(ctx context.Context, s backends.Store, b *backends.Batch, _ *backends.Mark) {
			key, _ := first(ctx, s, backends.TableBody)
			b.Delete(key)
		}, "the body of message"},
		"the last record": {func(_ context.Context, _ backends.Store, _ *backends.Batch, mark *backends.Mark) {
			mark.Applied++
		}, "the last record"},
	} {
		t.Run(name, func(t *testing.T) {
			to := change(c.do)
			got, err := Verify(context.Background(), VerifyOptions{From: from, To: to, Sample: -1})
			if err != nil {
				t.Fatal(err)
			}
			if got.Equal || !strings.HasPrefix(got.Where, c.where) || !errors.Is(got.Difference(), ErrDiffer) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// What does not read back as it was written is not sealed.
func TestReadBack(t *testing.T) {
	from := story(t, inspecttest.Options{})
	to := mustURL(t, "bbolt://"+filepath.Join(t.TempDir(), "target"))
	s, err := openSource(context.Background(), from, func(string, int64, int64) {})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close() //nolint:errcheck // of a test
	o := Options{From: from, To: to}
	o.fill()
	for _, table := range []byte{backends.TableSubscription, backends.TableBody} {
		to := mustURL(t, "bbolt://"+filepath.Join(t.TempDir(), "target"))
		tg, err := openTarget(context.Background(), to, newNote(s, &o), 1)
		if err != nil {
			t.Fatal(err)
		}
		lossy := &losing{Store: tg.store, table: table}
		tg.store = lossy
		r := &Report{Source: s.holdings()}
		if err := tg.copy(context.Background(), s, &o, r); err != nil {
			t.Fatal(err)
		}
		err = tg.check(context.Background(), s, o.Progress)
		if !errors.Is(err, ErrDiffer) && !errors.Is(err, recovery.ErrDamaged) {
			t.Errorf("table %c: %v", table, err)
		}
		if err := tg.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// losing is a store that loses one pair of a table.
type losing struct {
	backends.Store
	table byte
	lost  bool
}

func (l *losing) Commit(ctx context.Context, b *backends.Batch, m backends.Mark) error {
	var kept backends.Batch
	for op := range b.Sorted() {
		key, val, err := backends.Unseal(op.Key, op.Value)
		if err != nil {
			return err
		}
		if _, rest, _ := backends.SplitID(key); !l.lost && key[0] == l.table && (l.table != backends.TableBody || len(rest) == 0) {
			l.lost = true
			continue
		}
		kept.Put(key, val)
	}
	return l.Store.Commit(ctx, &kept, m)
}

// A sample has the size that was asked for.
func TestSpread(t *testing.T) {
	for _, c := range []struct{ n, total uint64 }{{0, 10}, {1, 10}, {3, 10}, {10, 10}, {11, 10}, {999, 1000}, {7, 100000}, {5, 0}} {
		pick := spread(c.n, c.total)
		got := uint64(0)
		for i := range c.total {
			if pick(i) {
				got++
			}
		}
		if got != min(c.n, c.total) {
			t.Errorf("%d of %d: picked %d", c.n, c.total, got)
		}
	}
}

func TestParseURL(t *testing.T) {
	for text, want := range map[string]string{
		"bbolt://data": "bbolt data", "badger:///var/lib/x/": "badger /var/lib/x", "redis://h:1/0?prefix=p": "redis ",
		"bbolt://": "", "data": "", "mysql://x": "", "redis://h:1/0?prefix=": "", "": "",
	} {
		u, err := ParseURL(text)
		if want == "" {
			if !errors.Is(err, ErrURL) {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if got := u.Kind + " " + u.Dir; got != want || err != nil {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
	if got := mustURL(t, "redis://me:secret@h:1/0?prefix=p").String(); strings.Contains(got, "secret") {
		t.Errorf("%s", got)
	}
}
