package main

import (
	"errors"
	"log/slog"

	"github.com/wind-c/comqtt/v3/broker/admin"
)

// adminSocket is the admin socket of a broker that serves.
type adminSocket struct {
	*admin.Socket
	served chan error
}

// openSocket opens the admin socket. The broker does without, where there can be
// none: too long a path, a file system without sockets.
func openSocket(dir string, c admin.Control, log *slog.Logger) *adminSocket {
	s, err := admin.ListenSocket(admin.SocketOptions{Dir: dir, Control: c, Version: version(), Logger: log})
	if err != nil {
		log.Warn("no admin socket: backup, sessions and retained do not work", "error", err)
		return nil
	}
	a := &adminSocket{Socket: s, served: make(chan error, 1)}
	go func() { a.served <- s.Serve() }()
	return a
}

func (a *adminSocket) close(log *slog.Logger) {
	if a == nil {
		return
	}
	if err := errors.Join(a.Close(), <-a.served); err != nil {
		log.Warn("admin socket", "error", err)
	}
}
