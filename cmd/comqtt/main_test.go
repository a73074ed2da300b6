package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// updateGolden rewrites the expected output in the scripts (make golden).
var updateGolden = flag.Bool("update", false, "rewrite golden output")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"comqtt": main})
}

// TestScripts runs the real program: testdata/script/*.txtar are transcripts.
// Beside testscript's own commands:
//
//	exits CODE comqtt ARGS…   run and check the exit code
//	serve NAME ARGS…          start a broker and wait until it says READY=1;
//	                          its output goes to NAME.out and NAME.err
//	halt NAME SIGNAL CODE     send a signal, wait, check the exit code
//	steady FILE               replace what differs between runs: version, ports,
//	                          times, directories
//	freeport VAR              put an unused local address into the environment
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		// A broker that should have refused and serves instead is ended then.
		Deadline:            time.Now().Add(2 * time.Minute),
		Dir:                 "testdata/script",
		UpdateScripts:       *updateGolden,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			r := &runner{running: map[string]*process{}}
			env.Values[runnerKey{}] = r
			env.Defer(r.killAll)
			// A program under the race detector waits a second at its end by default.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    cmdExits,
			"serve":    cmdServe,
			"halt":     cmdStop,
			"steady":   cmdSteady,
			"freeport": cmdFreePort,
			"flip":     cmdFlip,
		},
	})
}

type runnerKey struct{}

// runner holds the brokers a script has started.
type runner struct {
	mu      sync.Mutex
	running map[string]*process
}

type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of Wait; valid once exited is closed

	manager *net.UnixConn // what it tells its service manager
}

func (r *runner) killAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.running {
		_ = b.cmd.Process.Kill() // it may have ended by itself
		b.reap()
	}
}

// reap waits for the end of the process.
func (b *process) reap() {
	<-b.exited
	if b.manager != nil {
		_ = b.manager.Close() // nothing is written to it
	}
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE program [args…]")
	}
	checkCode(ts, ts.Exec(args[1], args[2:]...), args[0])
}

func checkCode(ts *testscript.TestScript, err error, want string) {
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != want {
		ts.Fatalf("exit code %d, want %s", code, want)
	}
}

// notifySockets numbers the abstract sockets of this process.
var notifySockets atomic.Int64

func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: serve NAME [args…]")
	}
	name := args[0]
	socket := fmt.Sprintf("@comqtt-test-%d-%d", os.Getpid(), notifySockets.Add(1))
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	ts.Check(err)
	b := start(ts, name, append([]string{"serve"}, args[1:]...), "NOTIFY_SOCKET="+socket)
	b.manager = manager
	select {
	case <-b.told("READY=1"):
	case <-b.exited:
		ts.Fatalf("broker %s ended: %v\n%s", name, b.err, ts.ReadFile(name+".err"))
	}
}

// told is closed when the broker tells its service manager about a state.
func (b *process) told(state string) <-chan struct{} {
	heard := make(chan struct{})
	go func() {
		buf := make([]byte, 1024)
		for {
			n, err := b.manager.Read(buf)
			if err != nil {
				return // closed with the broker
			}
			if strings.HasPrefix(string(buf[:n]), state+"\n") {
				close(heard)
				return
			}
		}
	}()
	return heard
}

func start(ts *testscript.TestScript, name string, args []string, env ...string) *process {
	r := ts.Value(runnerKey{}).(*runner)
	cmd := exec.Command(lookPath(ts, "comqtt"), args...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = env
	for _, v := range []string{"PATH", "HOME", "TMPDIR", "STATE_DIRECTORY", "GORACE"} {
		cmd.Env = append(cmd.Env, v+"="+ts.Getenv(v))
	}
	for ext, to := range map[string]*io.Writer{".out": &cmd.Stdout, ".err": &cmd.Stderr} {
		f, err := os.Create(ts.MkAbs(name + ext))
		ts.Check(err)
		defer f.Close() // the child has its own
		*to = f
	}
	ts.Check(cmd.Start())
	b := &process{cmd: cmd, exited: make(chan struct{})}
	go func() {
		b.err = cmd.Wait()
		close(b.exited)
	}()
	r.mu.Lock()
	r.running[name] = b
	r.mu.Unlock()
	return b
}

func lookPath(ts *testscript.TestScript, program string) string {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path := filepath.Join(dir, program); isFile(path) {
			return path
		}
	}
	ts.Fatalf("%s not found", program)
	return ""
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func cmdStop(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}
	if neg || len(args) != 3 {
		ts.Fatalf("usage: halt NAME TERM|INT|KILL CODE")
	}
	r := ts.Value(runnerKey{}).(*runner)
	r.mu.Lock()
	b := r.running[args[0]]
	delete(r.running, args[0])
	r.mu.Unlock()
	if b == nil {
		ts.Fatalf("no broker %s", args[0])
	}
	stopping := b.told("STOPPING=1")
	ts.Check(b.cmd.Process.Signal(signals[args[1]]))
	if args[1] != "KILL" {
		select {
		case <-stopping:
		case <-b.exited: // perhaps before the message was read; it is in the log
		}
	}
	b.reap()
	checkCode(ts, b.err, args[2])
}

// What differs from run to run, and what stands for it in the transcripts.
var unsteady = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`\S+ \(go\S+, \w+/\w+\)`), "VERSION"},
	{regexp.MustCompile(`(127\.0\.0\.1|\[::\]):\d+`), "$1:PORT"},
	{regexp.MustCompile(`-p \d+`), "-p PORT"},
	{regexp.MustCompile(` in [0-9.]+(µs|ms|s)\b`), " in TIME"},
	{regexp.MustCompile(`time=\S+`), "time=TIME"},
	{regexp.MustCompile(`\(pid \d+\)`), "(pid PID)"},
	{regexp.MustCompile(`process \d+`), "process PID"},
}

func cmdSteady(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: steady FILE")
	}
	text := strings.ReplaceAll(ts.ReadFile(args[0]), ts.Getenv("WORK"), "$WORK")
	for _, u := range unsteady {
		text = u.re.ReplaceAllString(text, u.to)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// cmdFreePort asks the kernel for a port. Another process may take it before
// the script does; the kernel hands ports out in turn, so that takes thousands.
func cmdFreePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: freeport VAR")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], l.Addr().String())
	ts.Check(l.Close())
}

// cmdFlip inverts one byte of a file: bit rot.
func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("no file %s", args[0])
	}
	data, err := os.ReadFile(files[0])
	ts.Check(err)
	data[offset] ^= 0xff
	ts.Check(os.WriteFile(files[0], data, 0o600))
}
