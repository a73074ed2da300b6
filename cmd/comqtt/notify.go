package main

import (
	"fmt"
	"net"
)

// notifyManager tells the service manager (systemd's sd_notify protocol) about
// a state, such as "READY=1". Without a manager that asked for it, NOTIFY_SOCKET
// is unset and nothing happens.
func (p *program) notifyManager(state string) error {
	path, ok := p.lookupEnv("NOTIFY_SOCKET")
	if !ok || path == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	return nil
}
