package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"
)

// TestRecovery runs the transcripts of docs/recovery.md, one file for each
// section: testdata/recovery/*.txtar. Beside the commands of TestScripts:
//
//	client ADDR ID FILTER…     a durable session of this client with subscriptions
//	publish ADDR TOPIC SIZE N  N retained QoS 1 messages of SIZE bytes, acknowledged
//	rot FILE TEXT              one byte inverted, a hundred behind the text
//	garbage FILE               half a frame at the end of the last file that matches
//	await PATTERN              until a file matches; ! await: until none does
//	plain FILE                 steady, and what else differs: records, times, hashes
func TestRecovery(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Deadline:            time.Now().Add(3 * time.Minute),
		Dir:                 "testdata/recovery",
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
			"exits": cmdExits, "serve": cmdServe, "halt": cmdStop, "steady": cmdSteady, "freeport": cmdFreePort, "flip": cmdFlip,
			"client": cmdClient, "publish": cmdPublish, "garbage": cmdGarbage, "rot": cmdRot, "await": cmdAwait, "plain": cmdPlain,
		},
	})
}

// What differs from run to run in the transcripts of the recovery page.
var unplain = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "HASH"},
	{regexp.MustCompile(`20\d\d-\d\d-\d\dT[0-9:.]+Z`), "TIME"},
	{regexp.MustCompile(`\b(records?|message|base at record|identifier) \d+( to \d+)?`), "$1 N"},
	{regexp.MustCompile(`\b\d+( acknowledged)? records\b`), "N$1 records"},
	{regexp.MustCompile(`: \d+ of them`), ": N of them"},
	{regexp.MustCompile(`; \d+ of them`), "; N of them"},
	{regexp.MustCompile(`, \d+ to \d+;`), ", N to N;"},
	{regexp.MustCompile(`records up to \d+`), "records up to N"},
	{regexp.MustCompile(`\b\d+ recorded ones`), "N recorded ones"},
	{regexp.MustCompile(`\b\d+ (bytes|intact frames|segments)\b`), "N $1"},
	{regexp.MustCompile(`\(N to N\)|\(\d+ to \d+\)`), "(N to N)"},
	{regexp.MustCompile(`(00000000000000\d+):\d+`), "$1:OFFSET"},
	{regexp.MustCompile(`uid \d+, pid \d+`), "uid UID, pid PID"},
	{regexp.MustCompile(`(?m)^ +\d+ +TIME`), "N TIME"},
	{regexp.MustCompile(`0000000000000\d{7}`), "SEGMENT"},
	{regexp.MustCompile(` {2,}`), "   "},
}

func cmdPlain(ts *testscript.TestScript, neg bool, args []string) {
	cmdSteady(ts, neg, args)
	text := ts.ReadFile(args[0])
	for _, u := range unplain {
		text = u.re.ReplaceAllString(text, u.to)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] await PATTERN")
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if list, err := filepath.Glob(ts.MkAbs(args[0])); err == nil && (len(list) > 0) != neg {
			return
		}
	}
	ts.Fatalf("waited in vain for %s", args[0])
}

func cmdGarbage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: garbage PATTERN")
	}
	list, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(list) == 0 {
		ts.Fatalf("nothing matches %s", args[0])
	}
	f, err := os.OpenFile(list[len(list)-1], os.O_APPEND|os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteString("CQW\xf2\x01 a frame that was never written to its end")
	ts.Check(err)
	ts.Check(f.Close())
}

func cmdRot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: rot PATTERN TEXT")
	}
	list, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	for _, path := range list {
		data, err := os.ReadFile(path)
		ts.Check(err)
		const behind = 100
		if at := bytes.Index(data, []byte(args[1])); at >= 0 {
			data[at+behind] ^= 0xff
			ts.Check(os.WriteFile(path, data, 0o600))
			return
		}
	}
	ts.Fatalf("no file %s has %q", args[0], args[1])
}

// speaker is an MQTT 3.1.1 client of few words.
type speaker struct {
	ts *testscript.TestScript
	nc net.Conn
	r  *bufio.Reader
}

func speak(ts *testscript.TestScript, addr, id string, clean bool) *speaker {
	nc, err := net.Dial("tcp", addr)
	ts.Check(err)
	s := &speaker{ts: ts, nc: nc, r: bufio.NewReader(nc)}
	flags := byte(0)
	if clean {
		flags = 2
	}
	s.send(0x10, append([]byte{0, 4, 'M', 'Q', 'T', 'T', 4, flags, 0, 0}, text16(id)...))
	s.expect(0x20)
	return s
}

func text16(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

func (s *speaker) send(head byte, body []byte) {
	b := binary.AppendUvarint([]byte{head}, uint64(len(body))) // MQTT's lengths are uvarints
	_, err := s.nc.Write(append(b, body...))
	s.ts.Check(err)
}

func (s *speaker) expect(head byte) {
	got, err := s.r.ReadByte()
	s.ts.Check(err)
	n, err := binary.ReadUvarint(s.r)
	s.ts.Check(err)
	body := make([]byte, n)
	_, err = io.ReadFull(s.r, body)
	s.ts.Check(err)
	if got != head {
		s.ts.Fatalf("packet %x %x, expected %x", got, body, head)
	}
}

func (s *speaker) bye() {
	s.send(0xe0, nil)
	_, err := s.r.ReadByte() // until the broker has closed: the session is away by then
	if err != io.EOF {
		s.ts.Fatalf("after DISCONNECT: %v", err)
	}
	s.ts.Check(s.nc.Close())
}

func cmdClient(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: client ADDR ID FILTER…")
	}
	s := speak(ts, args[0], args[1], false)
	for i, f := range args[2:] {
		s.send(0x82, append(append([]byte{0, byte(i + 1)}, text16(f)...), 1))
		s.expect(0x90)
	}
	s.bye()
}

func cmdPublish(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: publish ADDR TOPIC SIZE N")
	}
	size, err := strconv.Atoi(args[2])
	ts.Check(err)
	n, err := strconv.Atoi(args[3])
	ts.Check(err)
	s := speak(ts, args[0], "publisher", true)
	for i := range n {
		body := append(text16(args[1]), 0, byte(i%250+1))
		s.send(0x33, append(body, bytes.Repeat([]byte{'x'}, size)...))
		s.expect(0x40)
	}
	s.bye()
}

// pageFile is the page whose transcripts TestRecovery plays.
const pageFile = "../../docs/recovery.md"

// transcript finds a block of the page: the comment that says which part of
// which script it is, and what the fence holds.
var transcript = regexp.MustCompile("(?s)<!-- transcript (\\S+) (\\S+) -->\n```console\n(.*?)```\n")

// TestRecoveryPage checks that every transcript on the page is what the scripts
// of TestRecovery expect: the page cannot be stale. -update writes them anew.
func TestRecoveryPage(t *testing.T) {
	page, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	fresh := transcript.ReplaceAllStringFunc(string(page), func(block string) string {
		m := transcript.FindStringSubmatch(block)
		text, err := transcriptOf(m[1], m[2])
		if err != nil {
			t.Error(err)
			return block
		}
		shown[m[1]+" "+m[2]] = true
		return fmt.Sprintf("<!-- transcript %s %s -->\n```console\n%s```\n", m[1], m[2], text)
	})
	if len(shown) < 8 {
		t.Errorf("the page shows %d transcripts", len(shown))
	}
	if fresh == string(page) {
		return
	}
	if !*updateGolden {
		t.Fatal("docs/recovery.md differs from the transcripts of testdata/recovery: go test ./cmd/comqtt -run TestRecoveryPage -update")
	}
	if err := os.WriteFile(pageFile, []byte(fresh), 0o600); err != nil {
		t.Fatal(err)
	}
}

// transcriptOf returns a part of a script with the command that printed it: the
// last comqtt command before the script compares its output with the part.
func transcriptOf(script, part string) (string, error) {
	return transcriptIn("testdata/recovery", script, part)
}

// transcriptIn is transcriptOf for the scripts of a folder.
func transcriptIn(folder, script, part string) (string, error) {
	a, err := txtar.ParseFile(filepath.Join(folder, script+".txtar"))
	if err != nil {
		return "", err
	}
	command := ""
	for line := range strings.Lines(string(a.Comment)) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "exits "); ok {
			code, cmd, _ := strings.Cut(rest, " ")
			command = "$ " + cmd + "\n"
			if code != "0" {
				command = "$ " + cmd + "    # exit " + code + "\n"
			}
		}
		if rest, ok := strings.CutPrefix(line, "serve "); ok {
			_, args, _ := strings.Cut(rest, " ")
			command = "$ comqtt serve " + args + "\n"
		}
		if strings.HasPrefix(line, "cmp ") && strings.HasSuffix(line, " "+part) {
			for _, f := range a.Files {
				if f.Name == part {
					return command + string(f.Data), nil
				}
			}
		}
	}
	return "", fmt.Errorf("%s/%s.txtar compares nothing with %s", folder, script, part)
}
