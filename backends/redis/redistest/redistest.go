// Package redistest starts the real redis-server for tests, on a free port of
// the loopback interface and in a directory of its own.
package redistest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Server is a running server. It ends with the test.
type Server struct {
	Addr string // host:port, the same after a restart
	Dir  string // where it keeps dump.rdb and its log of commands

	t    testing.TB
	args []string
	cmd  *exec.Cmd
	done chan struct{} // the process has ended
}

// Start starts a server that keeps nothing on disk, unless args, in the form
// "--appendonly", "yes", say otherwise. It skips the test if redis-server is not
// installed.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed (Debian: apt-get install redis-server)")
	}
	s := &Server{t: t, Dir: t.TempDir(), args: args}
	for range 5 { // somebody may take the port in between
		s.Addr = freeAddr(t)
		if s.start() == nil {
			t.Cleanup(s.Kill)
			return s
		}
	}
	t.Fatal("redis-server does not start")
	return nil
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *Server) start() error {
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	args := append([]string{"--bind", host, "--port", port, "--dir", s.Dir, "--save", "", "--daemonize", "no"}, s.args...)
	s.cmd = exec.Command("redis-server", args...)
	s.cmd.SysProcAttr = dieWithParent()
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.done = make(chan struct{})
	lines := bufio.NewReader(out)
	var said strings.Builder
	for {
		line, err := lines.ReadString('\n')
		said.WriteString(line)
		if err != nil {
			close(s.done)
			return fmt.Errorf("redis-server: %w: %s", s.cmd.Wait(), said.String())
		}
		if strings.Contains(line, "Ready to accept connections") {
			break
		}
	}
	cmd, done := s.cmd, s.done
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, lines)
		_ = cmd.Wait()
	}()
	return nil
}

// URL returns the URL of a prefix on the server. options, such as
// "read_timeout=1s", are appended.
func (s *Server) URL(prefix string, options ...string) string {
	u := "redis://" + s.Addr + "/0?prefix=" + prefix
	for _, o := range options {
		u += "&" + o
	}
	return u
}

// Kill ends the server with SIGKILL, if it runs, and waits for its end.
func (s *Server) Kill() {
	s.Signal(syscall.SIGKILL)
	<-s.done
}

// Restart starts the server again after Kill, at the same address and in the
// same directory.
func (s *Server) Restart() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

// Signal sends a signal; SIGSTOP makes the server hang, SIGCONT wakes it up.
func (s *Server) Signal(sig syscall.Signal) {
	select {
	case <-s.done:
	default:
		_ = s.cmd.Process.Signal(sig)
	}
}

// Do runs a command on a connection of its own and returns the first line of
// the answer.
func (s *Server) Do(args ...string) string {
	s.t.Helper()
	c, err := net.Dial("tcp", s.Addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	cmd := "*" + strconv.Itoa(len(args)) + "\r\n"
	for _, a := range args {
		cmd += "$" + strconv.Itoa(len(a)) + "\r\n" + a + "\r\n"
	}
	if _, err := io.WriteString(c, cmd); err != nil {
		s.t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// Path returns the path of a file in the server's directory.
func (s *Server) Path(name string) string { return s.Dir + string(os.PathSeparator) + name }
