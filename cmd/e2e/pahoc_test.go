package e2e

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pahocKits share one program, which is compiled when the first of them dials.
// The library (1.3.12) tells whether the session is present with MQTT 3 only.
func pahocKits(t *testing.T) []kit {
	build := sync.OnceValues(func() (string, error) { return buildPahoC(t.TempDir()) })
	missing := sync.OnceValue(missingPahoC)
	var kits []kit
	for _, v := range []struct {
		name    string
		version int
	}{{"v5", 5}, {"v3.1.1", 4}} {
		kits = append(kits, kit{
			name: "paho.c-" + v.name + "-tcp", v5: v.version == 5, silent: v.version == 5, missing: missing,
			dial: func(t *testing.T, b *broker, o dialOptions) (client, bool) {
				program, err := build()
				if err != nil {
					t.Fatal(err)
				}
				return dialPahoC(t, program, b, v.version, o)
			},
		})
	}
	return kits
}

func missingPahoC() string {
	if _, err := exec.LookPath("gcc"); err != nil {
		return "gcc is not installed: Paho C is skipped"
	}
	if exec.Command("gcc", "-fsyntax-only", "-include", "MQTTClient.h", "-x", "c", os.DevNull).Run() != nil {
		return "MQTTClient.h is not installed (apt-get install libpaho-mqtt-dev): Paho C is skipped"
	}
	return ""
}

func buildPahoC(dir string) (string, error) {
	out := filepath.Join(dir, "pahoc")
	cmd := exec.Command("gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-o", out,
		"testdata/pahoc/pahoc.c", "-lpaho-mqtt3c")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build pahoc.c: %w\n%s", err, text)
	}
	return out, nil
}

// pahoc is a process with one connection of Paho C.
type pahoc struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers chan []string // words, one line for each command
	in      chan message
	ended   chan struct{} // closed when the process has ended
}

func dialPahoC(t *testing.T, program string, b *broker, version int, o dialOptions) (client, bool) {
	t.Helper()
	c := &pahoc{
		cmd: exec.Command(program), answers: make(chan []string, 1), in: make(chan message, queueSize),
		ended: make(chan struct{}),
	}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.cmd.Stderr = os.Stderr
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin = stdin
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.cut)
	go func() {
		c.read(stdout)
		_ = c.cmd.Wait()
		close(c.ended)
	}()
	words := []string{"connect", "tcp://" + b.tcp, hexWord([]byte(o.id)), fmt.Sprint(version), digit(o.durable)}
	if w := o.will; w != nil {
		words = append(words, hexWord([]byte(w.Topic)), hexWord(w.Payload), fmt.Sprint(w.QoS), digit(w.Retain))
	}
	present, err := c.call("connected", words...)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	return c, present == "1"
}

// read takes the program's output apart.
func (c *pahoc) read(r io.Reader) {
	lines := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		switch w := strings.Fields(line); w[0] {
		case "message":
			m, err := parsePahoC(w)
			if err != nil {
				m = message{Topic: err.Error()} // no scenario expects that
			}
			c.in <- m
		default:
			c.answers <- w
		}
	}
}

func parsePahoC(w []string) (message, error) {
	if len(w) < 7 || len(w)%2 == 0 {
		return message{}, fmt.Errorf("%d words in a message of pahoc", len(w))
	}
	var fields [][]byte
	for i, word := range w[1:] {
		if i == 2 || i == 3 || word == "-" {
			fields = append(fields, nil)
			continue
		}
		b, err := hex.DecodeString(strings.TrimPrefix(word, "="))
		if err != nil {
			return message{}, err
		}
		fields = append(fields, b)
	}
	m := message{
		Topic: string(fields[0]), Payload: fields[1], QoS: w[3][0] - '0', Retain: w[4] == "1",
		ResponseTopic: string(fields[4]), Correlation: fields[5],
	}
	for u := fields[6:]; len(u) > 0; u = u[2:] {
		m.User = append(m.User, property{string(u[0]), string(u[1])})
	}
	return m, nil
}

// call sends a command and returns what its answer says after the word want.
func (c *pahoc) call(want string, words ...string) (string, error) {
	if _, err := io.WriteString(c.stdin, strings.Join(words, " ")+"\n"); err != nil {
		return "", err
	}
	select {
	case answer := <-c.answers:
		if answer[0] != want {
			return "", errors.New(strings.Join(answer, " "))
		}
		return answer[1], nil
	case <-c.ended:
		return "", fmt.Errorf("pahoc ended: %v", c.cmd.ProcessState)
	case <-time.After(patience):
		return "", errors.New("no answer in time")
	}
}

func (c *pahoc) subscribe(filter string, qos byte) error {
	granted, err := c.call("granted", "subscribe", hexWord([]byte(filter)), fmt.Sprint(qos))
	if err == nil && granted != fmt.Sprint(qos) {
		err = fmt.Errorf("granted %s, want %d", granted, qos)
	}
	return err
}

func (c *pahoc) publish(m message) error {
	words := []string{"publish", hexWord([]byte(m.Topic)), hexWord(m.Payload), fmt.Sprint(m.QoS), digit(m.Retain), "-", "-"}
	if m.ResponseTopic != "" {
		words[5] = hexWord([]byte(m.ResponseTopic))
	}
	if m.Correlation != nil {
		words[6] = hexWord(m.Correlation)
	}
	for _, u := range m.User {
		words = append(words, hexWord([]byte(u.Key)), hexWord([]byte(u.Value)))
	}
	_, err := c.call("published", words...)
	return err
}

func (c *pahoc) messages() <-chan message { return c.in }
func (c *pahoc) gone() <-chan struct{}    { return c.ended }

// close lets the program disconnect and end.
func (c *pahoc) close() {
	_, _ = io.WriteString(c.stdin, "disconnect\n")
	select {
	case <-c.ended:
	case <-time.After(patience):
		c.cut()
	}
}

func (c *pahoc) cut() {
	_ = c.cmd.Process.Kill()
	<-c.ended
}

// hexWord is how pahoc.c reads and writes bytes.
func hexWord(b []byte) string { return "=" + hex.EncodeToString(b) }

func digit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
