package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/wind-c/comqtt/v3/backends/redis/redistest"
	"github.com/wind-c/comqtt/v3/recovery/inspect/inspecttest"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// TestMigration runs the transcripts of docs/migration.md, one file for each
// section: testdata/migrate/*.txtar. Beside the commands of TestScripts and
// TestRecovery:
//
//	retain DIR N          make a data directory with N retained messages of 300 bytes
//	redis VAR ARGS…       start a redis-server, and put its address into VAR
//	tidy FILE             steady, and what else differs: hashes, times, sizes
//	half CODE ARGS…       run comqtt, kill it when it has copied a part, check
//	unchanged DIR         as it was when it was asked first, but for its lock file
func TestMigration(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Deadline:            time.Now().Add(3 * time.Minute),
		Dir:                 "testdata/migrate",
		UpdateScripts:       *updateGolden,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			r := &runner{running: map[string]*process{}}
			env.Values[runnerKey{}] = r
			env.Values[sumsKey{}] = map[string]string{}
			env.Defer(r.killAll)
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits, "serve": cmdServe, "halt": cmdStop, "steady": cmdSteady, "freeport": cmdFreePort, "flip": cmdFlip,
			"client": cmdClient, "publish": cmdPublish, "store": cmdStore, "tidy": cmdTidy, "half": cmdHalf, "unchanged": cmdUnchanged,
			"retain": func(ts *testscript.TestScript, _ bool, args []string) {
				n, err := strconv.Atoi(args[1])
				ts.Check(err)
				ts.Check(buildRetained(ts.MkAbs(args[0]), n))
			},
			"redis": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv(args[0], redistest.Start(t, args[1:]...).Addr)
			},
		},
	})
}

// What differs from run to run in the transcripts of migrations.
var untidy = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "HASH"},
	{regexp.MustCompile(`20\d\d-\d\d-\d\dT[0-9:.]+Z`), "TIME"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDR"},
	{regexp.MustCompile(`\b(record) [0-9 ]*\d`), "$1 N"},
	{regexp.MustCompile(`[0-9 ]*\d (records of it|pairs,|of an earlier)`), " N $1"},
	{regexp.MustCompile(`pairs, [0-9.]+ [KM]?i?B`), "pairs, SIZE"},
	{regexp.MustCompile(`\b[0-9.]+ GiB free`), "SIZE free"},
	{regexp.MustCompile(`in [0-9.]+m?s`), "in SECONDS"},
	{regexp.MustCompile(`copied( +)[0-9 ]*\d pairs`), "copied$1 N pairs"},
	{regexp.MustCompile(`, after [0-9 ]*\d of`), ", after N of"},
	{regexp.MustCompile(`equal( +)[0-9 ]*\d of [0-9 ]*\d pairs`), "equal$1 N of N pairs"},
	{regexp.MustCompile(`pid \d+`), "pid PID"},
	{regexp.MustCompile(` {2,}`), "   "},
}

func cmdTidy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: tidy FILE")
	}
	text := strings.ReplaceAll(ts.ReadFile(args[0]), ts.Getenv("WORK"), "$WORK")
	for _, u := range untidy {
		text = u.re.ReplaceAllString(text, u.to)
	}
	text = strings.TrimSuffix(text, "\n") + "\n" // a question has none at its end
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// cmdHalf kills a migration, which has a rate, when its first line of progress
// says that it copies.
func cmdHalf(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: half ARGS…")
	}
	cmd := exec.Command(lookPath(ts, "comqtt"), args...)
	cmd.Dir = ts.MkAbs(".")
	out, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	var said strings.Builder
	buf := make([]byte, 1024)
	for !strings.Contains(said.String(), "copy ") {
		n, err := out.Read(buf)
		if err != nil {
			ts.Fatalf("it ended: %v: %s", cmd.Wait(), said.String())
		}
		said.Write(buf[:n])
	}
	ts.Check(cmd.Process.Kill())
	_, err = io.Copy(io.Discard, out)
	ts.Check(err)
	checkCode(ts, cmd.Wait(), "-1")
}

// sumsKey is where a script keeps what directories held.
type sumsKey struct{}

func cmdUnchanged(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: unchanged DIR")
	}
	sums := ts.Value(sumsKey{}).(map[string]string)
	now, err := sumOf(ts.MkAbs(args[0]))
	ts.Check(err)
	if was := sums[args[0]]; was != "" && was != now {
		ts.Fatalf("%s has changed", args[0])
	}
	sums[args[0]] = now
}

// sumOf is a checksum over the names and contents of all files but the lock.
func sumOf(dir string) (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == "LOCK" {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(h, "%s %d ", path, len(b))
		h.Write(b)
		return err
	})
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

// migratePage is the page whose transcripts TestMigration plays.
const migratePage = "../../docs/migration.md"

// TestMigrationPage checks that every transcript on the page is what the scripts
// of TestMigration expect. -update writes them anew.
func TestMigrationPage(t *testing.T) {
	page, err := os.ReadFile(migratePage)
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	fresh := transcript.ReplaceAllStringFunc(string(page), func(block string) string {
		m := transcript.FindStringSubmatch(block)
		text, err := transcriptIn("testdata/migrate", m[1], m[2])
		if err != nil {
			t.Error(err)
			return block
		}
		shown++
		return fmt.Sprintf("<!-- transcript %s %s -->\n```console\n%s```\n", m[1], m[2], text)
	})
	if shown < 8 {
		t.Errorf("the page shows %d transcripts", shown)
	}
	if fresh == string(page) {
		return
	}
	if !*updateGolden {
		t.Fatal("docs/migration.md differs from the transcripts of testdata/migrate: go test ./cmd/comqtt -run TestMigrationPage -update")
	}
	if err := os.WriteFile(migratePage, []byte(fresh), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestMigrationKilled kills the real program at a random moment fifty times, by
// a seed, with --resume in between: the source is always as it was, the target
// is half made, which nobody takes for a good one, or verifies.
func TestMigrationKilled(t *testing.T) {
	kills := 50
	if testing.Short() {
		kills = 5
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	link := filepath.Join(dir, "comqtt") // testscript knows the program by its name
	if err := os.Symlink(program, link); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(dir, "source")
	if err := buildRetained(source, 3000); err != nil {
		t.Fatal(err)
	}
	before, err := sumOf(source)
	if err != nil {
		t.Fatal(err)
	}
	const seed = 20261126
	rnd := rand.New(rand.NewPCG(seed, seed))
	k := killer{t: t, program: link, source: source, before: before, kills: kills}
	for round := 0; k.killed < kills; round++ {
		kind := []string{"bbolt", "badger"}[round%2]
		k.target = kind + "://" + filepath.Join(dir, fmt.Sprint("target", round))
		for !k.once(rnd) {
		}
	}
	t.Logf("%d kills; half made afterwards %d times, whole %d times", k.killed, k.half, k.whole)
	if k.half == 0 || k.whole == 0 {
		t.Errorf("half made %d times, whole %d times", k.half, k.whole)
	}
}

// buildRetained makes a data directory with n retained messages of 300 bytes.
func buildRetained(dir string, n int) error {
	payload := strings.Repeat("x", 300)
	_, err := inspecttest.Build(dir, inspecttest.Options{Fast: true, Records: func(b *inspecttest.Builder) error {
		for i := range n {
			_, err := b.Publish("t/"+strconv.Itoa(i), payload, 0, func(p *record.Publish) { p.Retain = true })
			if err != nil {
				return err
			}
		}
		return nil
	}})
	return err
}

// killer is one TestMigrationKilled.
type killer struct {
	t                       *testing.T
	program, source, before string
	target                  string
	kills                   int // that are wanted
	killed, half, whole     int
	took                    time.Duration // by the run that ended last
}

// once runs the migration, kills it perhaps, and says whether it is done.
func (k *killer) once(rnd *rand.Rand) bool {
	const least = 400 * time.Millisecond // so that a run that resumes near the end does not make all others short
	k.took = max(k.took, least)
	cmd := k.command("run", "--yes", "--resume", "--quiet", "--batch", "32KiB")
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	delay := time.Duration(rnd.Int64N(int64(k.took)))
	if k.killed >= k.kills {
		delay = time.Hour // enough: this one may end
	}
	fuse := time.NewTimer(delay)
	defer fuse.Stop()
	select {
	case err := <-ended:
		if err != nil {
			k.t.Fatalf("run: %v\n%s", err, cmd.Stderr)
		}
		k.took = time.Since(begin)
	case <-fuse.C:
		if err := cmd.Process.Kill(); err == nil {
			k.killed++
		}
		<-ended
	}
	return k.judge()
}

// judge looks at both sides and says whether the target is whole.
func (k *killer) judge() bool {
	after, err := sumOf(k.source)
	if err != nil || after != k.before {
		k.t.Fatalf("kill %d: the source has changed: %v", k.killed, err)
	}
	verify := k.command("verify", "--quiet", "--sample", "all")
	err = verify.Run()
	if err == nil {
		k.whole++
		return true
	}
	k.half++
	said := fmt.Sprint(verify.Stderr)
	_, dir, _ := strings.Cut(k.target, "://")
	_, merr := os.Stat(filepath.Join(dir, "MANIFEST"))
	switch code := verify.ProcessState.ExitCode(); {
	case merr == nil:
		k.t.Fatalf("kill %d: a manifest, and it does not verify: %s", k.killed, said)
	case code == exitNoInput && strings.Contains(said, "no such source"), code == exitCantCreate && strings.Contains(said, "half made"):
	default:
		k.t.Fatalf("kill %d: verify: %d: %s", k.killed, code, said)
	}
	return false
}

func (k *killer) command(verb string, args ...string) *exec.Cmd {
	cmd := exec.Command(k.program, append([]string{"migrate", verb, "--from", "bbolt://" + k.source, "--to", k.target}, args...)...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	var said strings.Builder
	cmd.Stderr = &said
	return cmd
}
