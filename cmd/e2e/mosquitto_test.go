package e2e

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func missingMosquitto() string {
	for _, name := range []string{"mosquitto_pub", "mosquitto_sub", "stdbuf"} {
		if _, err := exec.LookPath(name); err != nil {
			return name + " is not installed (apt-get install mosquitto-clients): skipped"
		}
	}
	return ""
}

func mosquittoKits() []kit {
	var kits []kit
	for _, v := range []struct{ name, flag string }{{"v5", "mqttv5"}, {"v3.1.1", "mqttv311"}, {"v3.1", "mqttv31"}} {
		kits = append(kits, kit{
			name: "mosquitto-" + v.name + "-tcp", v5: v.flag == "mqttv5", program: true, parting: v.flag == "mqttv5", missing: missingMosquitto,
			dial: func(t *testing.T, b *broker, o dialOptions) (client, bool) {
				return &mosquitto{b: b, o: o, version: v.flag, in: make(chan message, queueSize), ended: make(chan struct{})}, false
			},
		})
	}
	return kits
}

// mosquitto is a client made of mosquitto_sub, which runs from the first
// subscribe to the end, and of a mosquitto_pub for each publish.
type mosquitto struct {
	b       *broker
	o       dialOptions
	version string
	in      chan message
	ended   chan struct{}
	once    sync.Once
	cmd     *exec.Cmd
}

func (c *mosquitto) end() { c.once.Do(func() { close(c.ended) }) }

func (c *mosquitto) common() []string {
	host, port, _ := net.SplitHostPort(c.b.tcp)
	return []string{"-h", host, "-p", port, "-V", c.version}
}

// subscribe starts mosquitto_sub with this one filter.
func (c *mosquitto) subscribe(filter string, qos byte) error {
	if c.cmd != nil {
		return nil // one filter is all that a scenario needs of a program
	}
	format := "MSG %q %r %t %x"
	if c.version == "mqttv5" {
		format = "MSG %q %r %t %x R=%R D=%D P=%P"
	}
	args := append(c.common(), "-d", "-i", c.o.id, "-t", filter, "-q", fmt.Sprint(qos), "-F", format)
	if c.o.durable {
		args = append(args, "-c")
	}
	if w := c.o.will; w != nil {
		args = append(args, "--will-topic", w.Topic, "--will-payload", string(w.Payload), "--will-qos", fmt.Sprint(w.QoS))
	}
	c.cmd = exec.Command("stdbuf", append([]string{"-oL", "mosquitto_sub"}, args...)...) // it buffers the SUBACK line
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	c.cmd.Stderr = c.cmd.Stdout
	if err := c.cmd.Start(); err != nil {
		return err
	}
	granted := make(chan string, 1)
	go func() {
		c.read(bufio.NewReaderSize(out, 1<<20), granted)
		_ = c.cmd.Wait()
		c.end()
	}()
	select {
	case line := <-granted:
		if !strings.HasSuffix(line, fmt.Sprintf(": %d", qos)) {
			return fmt.Errorf("%q, want granted %d", line, qos)
		}
		return nil
	case <-c.ended:
		return errors.New("mosquitto_sub ended")
	case <-time.After(patience):
		return errors.New("no SUBACK in time")
	}
}

// read takes mosquitto_sub's output apart.
func (c *mosquitto) read(r *bufio.Reader, granted chan<- string) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "Subscribed (mid:"):
			granted <- line
		case strings.HasPrefix(line, "MSG "):
			if m, err := parseMosquitto(line); err == nil {
				c.in <- m
			}
		}
	}
}

// parseMosquitto reads "MSG qos retain topic hex R=response D=correlation P=k:v k:v".
func parseMosquitto(line string) (message, error) {
	f := strings.SplitN(line, " ", 6)
	if len(f) < 5 {
		return message{}, fmt.Errorf("short line %q", line)
	}
	payload, err := hex.DecodeString(f[4])
	if err != nil {
		return message{}, err
	}
	m := message{Topic: f[3], Payload: payload, QoS: f[1][0] - '0', Retain: f[2] == "1"}
	if len(f) < 6 {
		return m, nil
	}
	response, rest, _ := strings.Cut(strings.TrimPrefix(f[5], "R="), " D=")
	correlation, user, _ := strings.Cut(rest, " P=")
	m.ResponseTopic = response
	if correlation != "" {
		m.Correlation = []byte(correlation)
	}
	for _, pair := range strings.Fields(user) {
		key, value, _ := strings.Cut(pair, ":")
		m.User = append(m.User, property{key, value})
	}
	return m, nil
}

func (c *mosquitto) publish(m message) error {
	args := append(c.common(), "-t", m.Topic, "-q", fmt.Sprint(m.QoS))
	if m.Retain {
		args = append(args, "-r")
	}
	if m.ResponseTopic != "" {
		args = append(args, "-D", "publish", "response-topic", m.ResponseTopic)
	}
	if m.Correlation != nil {
		args = append(args, "-D", "publish", "correlation-data", string(m.Correlation))
	}
	for _, u := range m.User {
		args = append(args, "-D", "publish", "user-property", u.Key, u.Value)
	}
	if len(m.Payload) == 0 {
		args = append(args, "-n")
	} else {
		args = append(args, "-s")
	}
	cmd := exec.Command("mosquitto_pub", args...)
	cmd.Stdin = bytes.NewReader(m.Payload)
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%q: %w: %s", cmd.Args, err, out)
	}
	return nil
}

func (c *mosquitto) messages() <-chan message { return c.in }
func (c *mosquitto) gone() <-chan struct{}    { return c.ended }

// close lets mosquitto_sub disconnect.
func (c *mosquitto) close() { c.signal(syscall.SIGTERM) }

func (c *mosquitto) cut() { c.signal(syscall.SIGKILL) }

func (c *mosquitto) signal(sig syscall.Signal) {
	if c.cmd == nil {
		c.end()
		return
	}
	_ = c.cmd.Process.Signal(sig)
	select {
	case <-c.ended:
	case <-time.After(patience):
		_ = c.cmd.Process.Kill()
	}
}
