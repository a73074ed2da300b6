package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// mqttjsKits share one Node and one web browser, which start when the first of
// them dials and end with the test t.
func mqttjsKits(t *testing.T) []kit {
	var kits []kit
	ws := func(b *broker) string { return "ws://" + b.ws + "/mqtt" }
	tcp := func(b *broker) string { return "mqtt://" + b.tcp }
	inNode := sync.OnceValue(func() *node { return startNode(t) })
	inPage := sync.OnceValue(func() *node { return startChromium(t) })
	for _, v := range []struct {
		name    string
		version int
		url     func(*broker) string
		start   func() *node
		missing func() string
	}{
		{"v5-ws", 5, ws, inNode, missingNode},
		{"v3.1.1-ws", 4, ws, inNode, missingNode},
		{"v5-tcp", 5, tcp, inNode, missingNode},
		{"v3.1.1-tcp", 4, tcp, inNode, missingNode},
		{"v5-chromium", 5, ws, inPage, missingChromium},
		{"v3.1.1-chromium", 4, ws, inPage, missingChromium},
	} {
		kits = append(kits, kit{
			name: "mqttjs-" + v.name, v5: v.version == 5, missing: v.missing,
			dial: func(t *testing.T, b *broker, o dialOptions) (client, bool) {
				return dialNode(t, v.start(), v.url(b), v.version, o)
			},
		})
	}
	return kits
}

// nodePath finds the directory that holds the package mqtt.
func nodePath() (string, bool) {
	top, err := filepath.Abs("../../.tools/node_modules")
	if err != nil {
		top = ""
	}
	for _, dir := range append(filepath.SplitList(os.Getenv("NODE_PATH")), top) {
		if dir == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "mqtt", "package.json")); err == nil {
			return dir, true
		}
	}
	return "", false
}

func missingNode() string {
	if _, err := exec.LookPath("node"); err != nil {
		return "node is not installed: MQTT.js is skipped"
	}
	return missingPackage()
}

func missingPackage() string {
	if _, ok := nodePath(); !ok {
		return "the npm package mqtt is neither on NODE_PATH nor in .tools/node_modules (npm install --prefix .tools mqtt): MQTT.js is skipped"
	}
	return ""
}

// node is what runs MQTT.js: a process or a web page.
type node struct {
	mu      sync.Mutex
	stdin   io.WriteCloser // takes commands
	calls   map[int]chan nodeEvent
	clients map[int]*mqttjs
	next    int
	hello   chan struct{}
	done    chan struct{}
}

type nodeEvent struct {
	Event       string
	ID, C       int
	Error       string
	Present     bool
	Code        int
	Topic       string
	Payload     []byte
	QoS         byte
	Retain      bool
	Response    string
	Correlation []byte
	User        []property
}

// mqttjs is a connection of MQTT.js.
type mqttjs struct {
	n      *node
	id     int
	in     chan message
	accept chan nodeEvent
	ended  chan struct{}
	once   sync.Once
}

// startNode starts Node.
func startNode(t *testing.T) *node {
	t.Helper()
	dir, _ := nodePath()
	cmd := exec.Command("node", "testdata/mqttjs/node.cjs")
	cmd.Env = append(os.Environ(), "NODE_PATH="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := newNode(stdin)
	go func() {
		n.read(stdout)
		_ = cmd.Wait()
		close(n.done)
	}()
	t.Cleanup(func() {
		_ = stdin.Close() // Node exits
		select {
		case <-n.done:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
		}
	})
	wait(t, n.hello, "Node")
	return n
}

func newNode(commands io.WriteCloser) *node {
	return &node{
		stdin: commands, calls: map[int]chan nodeEvent{}, clients: map[int]*mqttjs{},
		hello: make(chan struct{}), done: make(chan struct{}),
	}
}

func (n *node) read(r io.Reader) {
	lines := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var e nodeEvent
		if json.Unmarshal(line, &e) != nil {
			continue
		}
		n.mu.Lock()
		call, c := n.calls[e.ID], n.clients[e.C]
		delete(n.calls, e.ID)
		n.mu.Unlock()
		switch e.Event {
		case "hello":
			close(n.hello)
		case "done":
			call <- e
		case "message":
			m := message{Topic: e.Topic, Payload: e.Payload, QoS: e.QoS, Retain: e.Retain, ResponseTopic: e.Response, User: e.User}
			if len(e.Correlation) > 0 {
				m.Correlation = e.Correlation
			}
			c.in <- m
		case "connect":
			c.accept <- e
		case "close", "error":
			c.once.Do(func() { close(c.ended) })
		}
	}
}

func (n *node) send(command map[string]any) {
	line, err := json.Marshal(command)
	if err != nil {
		panic(err) // maps of plain values
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	_, _ = n.stdin.Write(append(line, '\n'))
}

// call sends a command and waits until it is done.
func (c *mqttjs) call(command map[string]any) (nodeEvent, error) {
	answer := make(chan nodeEvent, 1)
	c.n.mu.Lock()
	c.n.next++
	id := c.n.next
	c.n.calls[id] = answer
	c.n.mu.Unlock()
	command["id"], command["c"] = id, c.id
	c.n.send(command)
	select {
	case e := <-answer:
		if e.Error != "" {
			return e, errors.New(e.Error)
		}
		return e, nil
	case <-c.n.done:
		return nodeEvent{}, errors.New("what runs MQTT.js ended")
	case <-time.After(patience):
		return nodeEvent{}, errors.New("no answer in time")
	}
}

func dialNode(t *testing.T, n *node, url string, version int, o dialOptions) (client, bool) {
	t.Helper()
	c := &mqttjs{n: n, in: make(chan message, queueSize), accept: make(chan nodeEvent, 1), ended: make(chan struct{})}
	n.mu.Lock()
	n.next++
	c.id = n.next
	n.clients[c.id] = c
	n.mu.Unlock()
	options := map[string]any{"protocolVersion": version, "clientId": o.id, "clean": !o.durable}
	if version == 5 && o.durable {
		options["properties"] = map[string]any{"sessionExpiryInterval": 3600}
	}
	if w := o.will; w != nil {
		options["will"] = map[string]any{"topic": w.Topic, "payload": w.Payload, "qos": w.QoS, "retain": w.Retain}
	}
	n.send(map[string]any{"op": "connect", "c": c.id, "url": url, "options": options})
	return c, wait(t, c.accept, "CONNACK").Present
}

func (c *mqttjs) subscribe(filter string, qos byte) error {
	e, err := c.call(map[string]any{"op": "subscribe", "filter": filter, "qos": qos})
	if err == nil && e.Code != int(qos) {
		err = fmt.Errorf("granted 0x%02x, want %d", e.Code, qos)
	}
	return err
}

func (c *mqttjs) publish(m message) error {
	options := map[string]any{"qos": m.QoS, "retain": m.Retain}
	props := map[string]any{}
	if m.ResponseTopic != "" {
		props["responseTopic"] = m.ResponseTopic
	}
	if m.Correlation != nil {
		props["correlationData"] = m.Correlation
	}
	if m.User != nil {
		props["userProperties"] = m.User
	}
	if len(props) > 0 {
		options["properties"] = props
	}
	_, err := c.call(map[string]any{"op": "publish", "topic": m.Topic, "payload": m.Payload, "options": options})
	return err
}

func (c *mqttjs) messages() <-chan message { return c.in }
func (c *mqttjs) gone() <-chan struct{}    { return c.ended }

func (c *mqttjs) close() {
	c.n.send(map[string]any{"op": "end", "c": c.id})
	select {
	case <-c.ended:
	case <-time.After(patience):
	}
}

func (c *mqttjs) cut() { c.n.send(map[string]any{"op": "cut", "c": c.id}) }
