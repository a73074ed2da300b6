package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// readyTimeout bounds the wait for a broker to serve, replay included.
const readyTimeout = 60 * time.Second

// A server knows how to start the broker under test, always on the same data
// directory and address.
type server struct {
	command func(s *server) *exec.Cmd // nil = comqtt
	bin     string
	engine  string // of the log, "" = the broker's default
	sync    string // when the log is synced
	dir     string // working directory of the run: data, log, side files
	data    string // data directory
	port    int
	log     *os.File
	starts  int
	read    int64 // how much of the log has been looked at
}

// newServer prepares dir for a run of bin.
func newServer(bin, dir string) (*server, error) {
	log, err := os.OpenFile(filepath.Join(dir, "broker.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("torture: create broker log: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	return &server{bin: bin, sync: "always", dir: dir, data: filepath.Join(dir, "data"), port: port, log: log}, nil
}

// freePort finds a port below those the kernel gives to outgoing connections:
// otherwise a client that dials while the broker is down can be given the
// broker's own port, and then talks to itself.
func freePort() (int, error) {
	for range 100 {
		port := 12_000 + rand.IntN(20_000) // not from the seed: others run beside us
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("torture: no free port on 127.0.0.1")
}

func (s *server) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// syncedFile is where a binary built with the tag failpoints notes how much of
// the log is on stable storage.
func (s *server) syncedFile() string { return filepath.Join(s.dir, "synced") }

func (s *server) comqtt() *exec.Cmd {
	cmd := exec.Command(s.bin, "serve",
		"--data", s.data, "--tcp", s.addr(), "--ws", "off", "--http", "off", "--sync", s.sync, "--log-format", "text")
	if s.engine != "" {
		cmd.Args = append(cmd.Args, "--log-engine", s.engine)
	}
	return cmd
}

// A process is one life of the broker.
type process struct {
	cmd     *exec.Cmd
	started time.Time
	exited  chan struct{} // closed when it has ended and state is set
	state   *os.ProcessState
}

// races returns what a binary built with -race has said since the last call.
func (s *server) races() (string, error) {
	f, err := os.Open(s.log.Name())
	if err != nil {
		return "", fmt.Errorf("torture: read broker log: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, s.read, 1<<40))
	if err != nil {
		return "", fmt.Errorf("torture: read broker log: %w", err)
	}
	s.read += int64(len(b))
	_, report, found := strings.Cut(string(b), "WARNING: DATA RACE")
	if !found {
		return "", nil
	}
	report, _, _ = strings.Cut(report, "==================")
	return report, nil
}

// start starts the broker with additional environment.
func (s *server) start(env ...string) (*process, error) {
	s.starts++
	if err := os.Remove(s.syncedFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("torture: %w", err)
	}
	command := (*server).comqtt
	if s.command != nil {
		command = s.command
	}
	cmd := command(s)
	cmd.Env = append(os.Environ(), append(env,
		"COMQTT_SYNCED_FILE="+s.syncedFile(), "COMQTT_RESTART_GRACE=1s")...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	fmt.Fprintf(s.log, "--- start %d: %v\n", s.starts, env)
	p := &process{cmd: cmd, started: time.Now(), exited: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("torture: start broker: %w", err)
	}
	go func() {
		_ = cmd.Wait() // the state says it all
		p.state = cmd.ProcessState
		close(p.exited)
	}()
	return p, nil
}

// kill sends SIGKILL. It may be called at any time, also when it is too late.
func (p *process) kill() { _ = p.cmd.Process.Kill() }

func (p *process) term() { _ = p.cmd.Process.Signal(syscall.SIGTERM) }

// killed reports whether the process ended by SIGKILL. Only after exited.
func (p *process) killed() bool {
	ws, ok := p.state.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
}

// wait waits for the end of the process, and kills it at the deadline.
func (p *process) wait(d time.Duration) (inTime bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.exited:
		return true
	case <-timer.C:
		p.kill()
		<-p.exited
		return false
	}
}

var errExited = errors.New("torture: broker ended")

// ready waits until the broker accepts a CONNECT; errExited if it ends first.
func (p *process) ready(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for {
		if err := probe(ctx, addr, p.exited); err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return errExited
		case <-ctx.Done():
			return fmt.Errorf("torture: broker not ready: %w", ctx.Err())
		case <-ticker.C: // refused: not listening yet
		}
	}
}

// probe connects a client without durability and waits for the CONNACK.
func probe(ctx context.Context, addr string, stop <-chan struct{}) error {
	l, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer l.close()
	l.out = (&packets.Connect{CleanStart: true, ClientID: []byte("probe")}).AppendTo(l.out, packets.V5)
	l.flush()
	for {
		select {
		case chunk, ok := <-l.in:
			if !ok {
				return errEnded
			}
			l.take(chunk)
		case <-stop:
			return errExited
		case <-ctx.Done():
			return ctx.Err()
		}
		f, ok, err := l.next()
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		var ack packets.Connack
		if err := ack.Decode(packets.V5, f.Flags(), f.Body); err != nil {
			return err
		}
		if ack.Code != packets.CodeSuccess {
			return fmt.Errorf("torture: probe refused: %s", ack.Code)
		}
		return nil
	}
}
