package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// readyTimeout is how long a broker may take until it accepts connections.
	readyTimeout = 60 * time.Second
	// stopTimeout is how long it may take to end after SIGTERM.
	stopTimeout = 30 * time.Second
	readyPoll   = 2 * time.Millisecond
)

// Process is a broker that a run may start and stop.
type Process interface {
	// Start starts the broker and returns its process and address as soon as
	// it runs, before it accepts connections.
	Start() (pid int, address string, err error)
	// Stop sends the signal and waits until the process has ended.
	Stop(signal os.Signal) error
}

// Command is the command line of a broker. In Args and in the contents of
// Files, {dir} stands for a directory of its own and {port} for the port to
// listen on.
type Command struct {
	Args  []string
	Files map[string]string // written into the directory before the first start
}

// Broker is a child process.
type Broker struct {
	command Command
	dir     string
	port    int
	log     *os.File // output of the process
	cmd     *exec.Cmd
	ended   chan error // what Wait returned
}

var _ Process = (*Broker)(nil)

// NewBroker prepares a broker with its files in a new directory under parent,
// on a free port.
func NewBroker(c Command, parent string) (*Broker, error) {
	if len(c.Args) == 0 {
		return nil, fmt.Errorf("%w: empty command line", ErrOptions)
	}
	dir, err := os.MkdirTemp(parent, "broker-")
	if err != nil {
		return nil, fmt.Errorf("bench: broker: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	b := &Broker{command: c, dir: dir, port: port}
	for name, text := range c.Files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), []byte(b.expand(text)), 0o644); err != nil {
			return nil, fmt.Errorf("bench: broker: %w", err)
		}
	}
	if b.log, err = os.Create(filepath.Join(dir, "output")); err != nil {
		return nil, fmt.Errorf("bench: broker: %w", err)
	}
	return b, nil
}

// freePort returns a port that was free a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("bench: find a free port: %w", err)
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func (b *Broker) expand(s string) string {
	return strings.NewReplacer("{dir}", b.dir, "{port}", strconv.Itoa(b.port)).Replace(s)
}

// Dir is the broker's directory.
func (b *Broker) Dir() string { return b.dir }

// Address is where it listens.
func (b *Broker) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port)) }

// Start implements Process.
func (b *Broker) Start() (int, string, error) {
	args := make([]string, len(b.command.Args))
	for i, a := range b.command.Args {
		args[i] = b.expand(a)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = b.log, b.log
	cmd.SysProcAttr = diesWithParent()
	if err := cmd.Start(); err != nil {
		return 0, "", fmt.Errorf("bench: start %s: %w", args[0], err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	b.cmd, b.ended = cmd, ended
	return cmd.Process.Pid, b.Address(), nil
}

// Ready waits until the broker accepts connections.
func (b *Broker) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		nc, err := net.Dial("tcp", b.Address())
		if err == nil {
			return nc.Close()
		}
		select {
		case err := <-b.ended:
			b.ended <- err
			return fmt.Errorf("bench: %s ended before it was ready: %w%s", b.command.Args[0], orExit0(err), b.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("bench: %s does not accept connections: %w%s", b.command.Args[0], ctx.Err(), b.lastWords())
		case <-tick.C:
		}
	}
}

var errExit0 = errors.New("exit status 0")

func orExit0(err error) error {
	if err == nil {
		return errExit0
	}
	return err
}

// lastWords returns the end of the broker's output, for an error message.
func (b *Broker) lastWords() string {
	const most = 2048
	f, err := os.Open(b.log.Name())
	if err != nil {
		return ""
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err != nil || size == 0 {
		return ""
	} else if _, err := f.Seek(max(0, size-most), io.SeekStart); err != nil {
		return ""
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return ""
	}
	return "\n" + strings.TrimSpace(string(text))
}

// Stop implements Process. A process that does not end in time is killed.
func (b *Broker) Stop(signal os.Signal) error {
	if b.cmd == nil {
		return nil
	}
	_ = b.cmd.Process.Signal(signal) // it may have ended: Wait says
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	var err error
	select {
	case err = <-b.ended:
	case <-timer.C:
		_ = b.cmd.Process.Kill()
		<-b.ended
		err = fmt.Errorf("bench: %s did not end within %s", b.command.Args[0], stopTimeout)
	}
	b.cmd = nil
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		// Ended by our signal is as good as 0; not every broker handles SIGTERM.
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == signal {
			return nil
		}
		return fmt.Errorf("bench: %s: %w%s", b.command.Args[0], err, b.lastWords())
	}
	return err
}

// Close ends the broker if it runs and removes its directory.
func (b *Broker) Close() error {
	var err error
	if b.cmd != nil {
		err = b.Stop(syscall.SIGTERM)
	}
	return errors.Join(err, b.log.Close(), os.RemoveAll(b.dir))
}
