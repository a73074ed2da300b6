package listeners

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"
)

// DefaultUnixMode lets the owner and the group connect.
const DefaultUnixMode fs.FileMode = 0o660

// staleTimeout bounds the question whether somebody still answers on a socket
// file. A local connect is answered at once unless the backlog is full, and a
// full backlog means that somebody is there.
const staleTimeout = 2 * time.Second

// Unix listens for MQTT on a Unix domain socket.
type Unix struct {
	acceptor

	// Mode is the permission of the socket file; connecting needs write
	// permission. 0 means DefaultUnixMode. Set before Listen.
	Mode fs.FileMode
	// Logger gets accept errors. Nil discards them. Set before Listen.
	Logger *slog.Logger
}

var _ Listener = (*Unix)(nil)

// ErrNotSocket is the cause of a BindError when the path holds something that
// is not a socket. It is never removed.
var ErrNotSocket = errors.New("the path exists and is not a socket")

// NewUnix returns a listener on path. A socket file that a dead process left
// behind is replaced; one that answers is not.
func NewUnix(id, path string) *Unix {
	u := &Unix{}
	u.acceptor = newAcceptor(id, "unix", path, func() (net.Listener, error) { return u.bindPath(path) })
	return u
}

func (u *Unix) bindPath(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	mode := u.Mode
	if mode == 0 {
		mode = DefaultUnixMode
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// removeStale removes the socket file at path if nobody answers on it.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return ErrNotSocket
	}
	c, err := net.DialTimeout("unix", path, staleTimeout)
	if err == nil {
		// The answer is what counts; nothing was said on c that could be lost.
		_ = c.Close()
		return fmt.Errorf("%w: a process answers on it", syscall.EADDRINUSE)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w: cannot tell whether it is used: %w", syscall.EADDRINUSE, err)
	}
	return os.Remove(path)
}

// ID returns the listener's name.
func (u *Unix) ID() string { return u.id }

// Protocol returns "unix".
func (u *Unix) Protocol() string { return "unix" }

// Address returns the path.
func (u *Unix) Address() string { return u.addr() }

// Listen binds the path and sets its mode.
func (u *Unix) Listen() error { return u.listen() }

// Serve accepts until Close; handle gets a *net.UnixConn.
func (u *Unix) Serve(handle func(net.Conn)) error { return u.serve(logger(u.Logger), handle) }

// Close stops accepting and removes the socket file.
func (u *Unix) Close() error { return u.close() }
