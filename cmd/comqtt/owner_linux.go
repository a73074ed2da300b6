package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// addressOwner names the process that listens on a TCP address, as
// "mosquitto (pid 4123)", or returns "" if that cannot be found out: the
// process of another user shows its sockets to root only.
func addressOwner(network, address string) string {
	_, port, err := net.SplitHostPort(address)
	if network != "tcp" || err != nil {
		return ""
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return ""
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for _, inode := range listeningInodes(data, uint16(n)) {
			if owner := socketOwner(inode); owner != "" {
				return owner
			}
		}
	}
	return ""
}

// listeningInodes returns the inodes of the sockets that listen on port, from
// the text of /proc/net/tcp.
func listeningInodes(table []byte, port uint16) []string {
	const (
		fieldLocal, fieldState, fieldInode = 1, 3, 9
		stateListen                        = "0A"
	)
	suffix := fmt.Sprintf(":%04X", port)
	var inodes []string
	for lines := bufio.NewScanner(bytes.NewReader(table)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) > fieldInode && f[fieldState] == stateListen && strings.HasSuffix(f[fieldLocal], suffix) {
			inodes = append(inodes, f[fieldInode])
		}
	}
	return inodes
}

// socketOwner looks for the process that holds the socket.
func socketOwner(inode string) string {
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || target != "socket:["+inode+"]" {
			continue // gone meanwhile, not ours to see, or another file
		}
		dir := filepath.Dir(filepath.Dir(fd))
		name, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			return "pid " + filepath.Base(dir)
		}
		return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), filepath.Base(dir))
	}
	return ""
}
