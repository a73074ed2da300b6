package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/listeners"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

func TestExitCodes(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("recovery: open: %w", err) }
	for _, tt := range []struct {
		err  error
		code int
		says string
	}{
		{nil, exitOK, ""},
		{errors.New("odd"), exitFailed, "comqtt: odd"},
		{&exitError{code: exitUsage, err: errors.New("what")}, exitUsage, "comqtt: what"},
		{wrap(&wal.CorruptError{Segment: "00007.wal", Offset: 4096, Err: wal.ErrChecksum, Durable: 12}), exitDamaged, "00007.wal:4096"},
		{wrap(&recovery.DamageError{File: "MANIFEST", What: "missing"}), exitDamaged, "MANIFEST: missing"},
		{wrap(recovery.ErrVersion), exitConfig, "newer version"},
		{wrap(&recovery.LockedError{Path: "/data/LOCK", PID: 7}), exitLocked, "process 7"},
		{fmt.Errorf("%w: mkdir /x: %w", recovery.ErrCreate, syscall.EROFS), exitCantCreate, "must be writable"},
		{wrap(wal.ErrStray), exitDamaged, "nothing was repaired"},
		{wrap(&backends.CorruptError{}), exitDamaged, "copy the data directory"},
		{wrap(backends.ErrDamaged), exitDamaged, "nothing was repaired"},
		{wrap(backends.ErrNotStore), exitDamaged, "not a comqtt store"},
		{wrap(wal.ErrForeign), exitDamaged, "another broker's data directory"},
		{wrap(&wal.CorruptError{Segment: "1.wal", Err: wal.ErrForeign}), exitDamaged, "another broker's data directory"},
		{wrap(wal.ErrVersion), exitConfig, "newer version"},
		{wrap(backends.ErrSchema), exitConfig, "newer version"},
		{wrap(&record.UnknownError{}), exitConfig, "newer version"},
		{wrap(wal.ErrLocked), exitLocked, "another comqtt"},
		{wrap(backends.ErrLocked), exitLocked, "--data DIR"},
		{wrap(&broker.InvariantError{Record: 7, What: "x"}), exitSoftware, "defect of comqtt"},
		{wrap(wal.ErrPoisoned), exitIO, "acknowledged is on disk"},
		{wrap(backends.ErrSyncFailed), exitIO, "acknowledged is on disk"},
		{wrap(syscall.ENOSPC), exitIO, "free space"},
		{wrap(&fs.PathError{Op: "open", Path: "/data/LOCK", Err: syscall.EACCES}), exitCantCreate, "must be writable"},
		{wrap(&fs.PathError{Op: "read", Path: "/data/x", Err: syscall.EIO}), exitIO, "/data/x"},
		{wrap(os.NewSyscallError("fsync", syscall.EIO)), exitIO, "fsync"},
		{&listeners.BindError{ID: "ws", Network: "tcp", Address: "127.0.0.1:1", Err: syscall.EADDRINUSE}, exitUnavailable, "COMQTT_WS"},
		{&listeners.BindError{ID: "tcp", Network: "tcp", Address: "192.0.2.1:1", Err: syscall.EADDRNOTAVAIL}, exitUnavailable, "--tcp off"},
		{&listeners.BindError{ID: "unix", Network: "unix", Address: "/x", Err: listeners.ErrNotSocket}, exitUnavailable, "--unix PATH"},
		{errors.Join(wrap(wal.ErrLocked), errors.New("second line")), exitLocked, "comqtt: second line"},
	} {
		var stderr bytes.Buffer
		p := &program{stderr: &stderr}
		if code := p.report(tt.err); code != tt.code || !strings.Contains(stderr.String(), tt.says) {
			t.Errorf("%v: exit %d, want %d, saying\n%s", tt.err, code, tt.code, stderr.String())
		}
		if tt.err != nil && !strings.HasPrefix(stderr.String(), "comqtt: ") {
			t.Errorf("%v: said %q", tt.err, stderr.String())
		}
	}
}

// The kernel's table as it is, with a listener of this process in it.
func TestAddressOwnerIsThisProcess(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("no /proc")
	}
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Log(err) // no IPv6 here
			continue
		}
		defer l.Close()
		want := fmt.Sprintf("(pid %d)", os.Getpid())
		if got := addressOwner("tcp", l.Addr().String()); !strings.HasSuffix(got, want) {
			t.Errorf("owner of %v is %q, want %s", l.Addr(), got, want)
		}
	}
	for _, address := range []string{"127.0.0.1:1", "nonsense", "host:http"} {
		if got := addressOwner("tcp", address); got != "" {
			t.Errorf("owner of %s is %q", address, got)
		}
	}
}
