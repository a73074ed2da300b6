package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/recovery/inspect/inspecttest"
)

// TestRecoverScripts runs the verbs of recover that look: testdata/recover/*.txtar
// are transcripts. Beside the commands of TestScripts:
//
//	store DIR [clean] [small] [memory] [archive] [keep] [large]
//	                       make the data directory of package inspecttest
//	chop FILE BYTES        cut bytes off the end of a file
//	lose DIR N             remove the N-th segment of its log
//	interrupt CODE ARGS…   run comqtt, send SIGINT while it writes, check the code
func TestRecoverScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Deadline:            time.Now().Add(5 * time.Minute),
		Dir:                 "testdata/recover",
		UpdateScripts:       *updateGolden,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			r := &runner{running: map[string]*process{}}
			env.Values[runnerKey{}] = r
			env.Defer(r.killAll)
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":     cmdExits,
			"serve":     cmdServe,
			"halt":      cmdStop,
			"flip":      cmdFlip,
			"steady":    cmdSteadyStore,
			"store":     cmdStore,
			"chop":      cmdChop,
			"lose":      cmdLose,
			"interrupt": cmdInterrupt,
		},
	})
}

func cmdStore(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: store DIR [clean] [small] [memory] [archive] [keep] [large]")
	}
	var o inspecttest.Options
	for _, a := range args[1:] {
		switch a {
		case "clean":
			o.Clean = true
		case "small":
			o.SegmentSize = 1024
		case "memory":
			o.Backend = recovery.BackendMemory
		case "keep":
			o.Keep = true
		case "archive":
			o.Archive = true
		case "large":
			o.Fast, o.Records = true, largeStore
		default:
			ts.Fatalf("store: unknown word %s", a)
		}
	}
	_, err := inspecttest.Build(ts.MkAbs(args[0]), o)
	ts.Check(err)
}

// largeStore makes some ten megabytes of retained messages.
func largeStore(b *inspecttest.Builder) error {
	payload := strings.Repeat("x", 2000)
	for i := range 5000 {
		if _, err := b.Publish("t/"+strconv.Itoa(i), payload, 0, nil); err != nil {
			return err
		}
	}
	return nil
}

func cmdChop(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: chop FILE BYTES")
	}
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), info.Size()-n))
}

func cmdLose(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lose DIR N")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	list, err := filepath.Glob(filepath.Join(recovery.LogDir(ts.MkAbs(args[0])), "0*"))
	ts.Check(err)
	if n < 1 || n >= len(list) {
		ts.Fatalf("lose: the log has %d segments", len(list))
	}
	ts.Check(os.Remove(list[n-1]))
}

// cmdInterrupt sends the signal when the output has begun and the pipe is full:
// the rest, which is larger, is read only then.
func cmdInterrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: interrupt CODE ARGS…")
	}
	cmd := exec.Command(lookPath(ts, "comqtt"), args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{"GORACE=atexit_sleep_ms=0"}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	_, err = io.ReadFull(out, make([]byte, 1))
	ts.Check(err)
	ts.Check(cmd.Process.Signal(syscall.SIGINT))
	n, err := io.Copy(io.Discard, out)
	ts.Check(err)
	checkCode(ts, cmd.Wait(), args[0])
	const all = 10_000_000
	if n >= all {
		ts.Fatalf("it wrote everything, %d bytes", n)
	}
	if !strings.Contains(stderr.String(), "comqtt: stopped: interrupt") {
		ts.Fatalf("stderr: %s", stderr.String())
	}
}

// What differs from store to store.
var unsteadyStore = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "HASH"},
	{regexp.MustCompile(`in (less than 1ms|about [0-9.]+m?s), as measured`), "in TIME, as measured"},
	{regexp.MustCompile(`[0-9.]+ (KiB|MiB)`), "SIZE"},
	{regexp.MustCompile(`(backend\s+good\s+)\d+ bytes`), "${1}N bytes"},
	{regexp.MustCompile(`"(bytes|load_seconds|replay_seconds)": [0-9.e-]+`), `"$1": N`},
	{regexp.MustCompile(`process \d+`), "process PID"},
}

func cmdSteadyStore(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: steady FILE")
	}
	text := strings.ReplaceAll(ts.ReadFile(args[0]), ts.Getenv("WORK"), "$WORK")
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(steadyStore(text)), 0o600))
}

func steadyStore(text string) string {
	for _, u := range unsteadyStore {
		text = u.re.ReplaceAllString(text, u.to)
	}
	return text
}

// What the README shows is what the program says.
func TestReadmeShowsRealOutput(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	script, err := txtar.ParseFile("testdata/recover/look.txtar")
	if err != nil {
		t.Fatal(err)
	}
	text, found := steadyStore(string(readme)), 0
	for _, f := range script.Files {
		if f.Name != "verify.txt" && f.Name != "whyone.txt" {
			continue
		}
		found++
		if !strings.Contains(text, string(f.Data)) {
			t.Errorf("README.md does not show %s:\n%s", f.Name, f.Data)
		}
	}
	if found != 2 {
		t.Errorf("%d of 2 transcripts found", found)
	}
}

// flagsFirst must not take a word for a flag's value, nor lose one.
func TestFlagsFirst(t *testing.T) {
	for in, want := range map[string]string{
		"1 2":                       "1 2",
		"1 2 --data d":              "--data d 1 2",
		"1 --data d 2":              "--data d 1 2",
		"--quiet 1 2":               "--quiet 1 2",
		"1 --quiet 2 -o json":       "--quiet -o json 1 2",
		"--data=d 1 2":              "--data=d 1 2",
		"1 2 --data":                "--data 1 2",
		"-- --data 2":               "-- --data 2",
		"1 -- 2":                    "1 -- 2",
		"--help":                    "--help",
		"2026-01-01T00:00:00Z 5 -h": "-h 2026-01-01T00:00:00Z 5",
	} {
		if got := strings.Join(flagsFirst(strings.Fields(in), "quiet", "help", "h"), " "); got != want {
			t.Errorf("flagsFirst(%s) = %s, want %s", in, got, want)
		}
	}
}

// The progress: on a terminal one line that is redrawn and taken away, off it a
// plain line a second, and nothing for short work.
func TestProgress(t *testing.T) {
	now := time.Unix(1000, 0)
	run := func(terminal bool) string {
		var b bytes.Buffer
		g := &progress{w: &b, terminal: terminal, now: func() time.Time { return now }}
		for i := range int64(5) {
			g.show("scan log", i*100<<20, 400<<20)
			now = now.Add(500 * time.Millisecond)
		}
		g.show("replay records", 0, 100)
		now = now.Add(10 * time.Millisecond)
		g.show("replay records", 100, 100)
		g.end()
		return b.String()
	}
	plain := "scan log 50 % of 400 MiB, 200 MiB/s, ETA 1s\nscan log 100 % of 400 MiB, 200 MiB/s\n"
	if got := run(false); got != plain {
		t.Errorf("off a terminal: %q", got)
	}
	got := run(true)
	if !strings.HasPrefix(got, "\rscan log [======                  ] 25 % of 400 MiB, 200 MiB/s, ETA 2s") || !strings.HasSuffix(got, "\r") ||
		strings.Contains(got, "\n") || strings.Contains(got, "replay") {
		t.Errorf("on a terminal: %q", got)
	}
	quiet := &progress{now: time.Now}
	quiet.show("x", 1, 2)
	quiet.end()
}
