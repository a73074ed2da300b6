package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/listeners"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Exit codes, after sysexits. The README has the same table.
const (
	exitOK          = 0   // done, or stopped as asked
	exitFailed      = 1   // anything without a code of its own
	exitUsage       = 64  // unknown flag or command, bad value of a flag
	exitDamaged     = 65  // data is damaged or belongs to another broker
	exitNoInput     = 66  // an input file or directory is missing
	exitUnavailable = 69  // an address cannot be bound
	exitSoftware    = 70  // the broker found a defect of its own and stopped
	exitCantCreate  = 73  // the data directory cannot be created or written
	exitIO          = 74  // log or backend failed while running
	exitLocked      = 75  // another process has the data directory; try later
	exitConfig      = 78  // bad value in the environment, or data of a newer version
	exitSignal      = 128 // plus the signal's number: a second signal cut the stop short
)

// exitError is an error with the code it ends the process with and what to do
// about it, a line each. A nil err exits silently.
type exitError struct {
	code  int
	err   error
	hints []string
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// report prints err with its hints and returns its exit code.
func (p *program) report(err error) int {
	if err == nil {
		return exitOK
	}
	e := classify(err)
	var out strings.Builder
	if e.err != nil {
		for i, line := range strings.Split(e.err.Error(), "\n") {
			if i > 0 && line == "" {
				continue
			}
			fmt.Fprintf(&out, "comqtt: %s\n", line)
		}
	}
	for _, h := range e.hints {
		fmt.Fprintf(&out, "  %s\n", h)
	}
	// Nobody is left to tell when standard error is gone; the code still says it.
	_, _ = fmt.Fprint(p.stderr, out.String())
	return e.code
}

// classify gives an error its exit code. The order is from the most specific:
// an I/O error inside damage is damage.
func classify(err error) *exitError {
	var (
		known   *exitError
		bind    *listeners.BindError
		corrupt *wal.CorruptError
		alien   *record.UnknownError
		broken  *broker.InvariantError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &bind):
		return bindFailed(bind)
	case errors.Is(err, wal.ErrForeign):
		return &exitError{exitDamaged, err, []string{
			"the log belongs to another broker's data directory; nothing was changed",
			"put the files back where they came from, or point --data at the right directory",
		}}
	case errors.Is(err, recovery.ErrVersion), errors.Is(err, wal.ErrVersion), errors.Is(err, backends.ErrSchema),
		errors.As(err, &alien):
		return &exitError{exitConfig, err, []string{
			"the data is intact; start the newer version of comqtt that wrote it",
		}}
	case errors.Is(err, recovery.ErrMigrating):
		return &exitError{code: exitDamaged, err: err}
	case errors.Is(err, recovery.ErrDamaged), errors.As(err, &corrupt), errors.Is(err, wal.ErrStray),
		errors.Is(err, backends.ErrDamaged), errors.Is(err, backends.ErrNotStore):
		return &exitError{exitDamaged, err, []string{
			"a crash does not explain this damage, so nothing was repaired, skipped or changed",
			"copy the data directory before anything else, and check the disk",
			"what is wrong: comqtt recover verify; what can be saved: comqtt recover repair --dry-run; both with --data DIR",
		}}
	case errors.As(err, &broken):
		return &exitError{exitSoftware, err, []string{
			"this is a defect of comqtt; the log holds everything that was acknowledged, and the next start rebuilds the state from it",
			"please report it, with these lines and a copy of the data directory",
		}}
	case errors.Is(err, recovery.ErrLocked), errors.Is(err, wal.ErrLocked), errors.Is(err, backends.ErrLocked):
		return &exitError{exitLocked, err, []string{
			"another comqtt uses this data directory; stop it, or choose another with --data DIR (COMQTT_DATA)",
		}}
	case errors.Is(err, recovery.ErrBackend):
		return &exitError{exitConfig, err, []string{
			"nothing was changed; --backend (COMQTT_BACKEND) says which backend to use, and for Redis which server and prefix",
		}}
	case errors.Is(err, recovery.ErrCreate), errors.Is(err, fs.ErrPermission):
		return &exitError{exitCantCreate, err, []string{
			"the data directory must be writable; choose another with --data DIR (COMQTT_DATA)",
		}}
	case errors.Is(err, wal.ErrPoisoned), errors.Is(err, backends.ErrSyncFailed),
		errors.Is(err, backends.ErrFull), errors.Is(err, syscall.ENOSPC):
		return &exitError{exitIO, err, []string{
			"everything that was acknowledged is on disk; free space or replace the disk, then start again",
		}}
	case isFileError(err):
		return &exitError{code: exitIO, err: err}
	}
	return &exitError{code: exitFailed, err: err}
}

func isFileError(err error) bool {
	var path *fs.PathError
	var link *os.LinkError
	var sys *os.SyscallError
	return errors.As(err, &path) || errors.As(err, &link) || errors.As(err, &sys)
}

// bindFailed explains why an address could not be bound and which setting
// changes it. Listener ids are the names of their flags.
func bindFailed(e *listeners.BindError) *exitError {
	variable := envName(e.ID)
	change := fmt.Sprintf("choose another with --%s ADDR (%s)", e.ID, variable)
	if e.Network == "unix" {
		change = fmt.Sprintf("choose another with --%s PATH (%s)", e.ID, variable)
	} else {
		change += fmt.Sprintf(", or leave it out with --%s off", e.ID)
	}
	if !e.InUse() {
		return &exitError{exitUnavailable, fmt.Errorf("cannot listen on %s %s: %w", e.ID, e.Address, e.Err), []string{change}}
	}
	who := ""
	if owner := addressOwner(e.Network, e.Address); owner != "" {
		who = " by " + owner
	}
	return &exitError{
		exitUnavailable,
		fmt.Errorf("cannot listen on %s %s: the address is in use%s", e.ID, e.Address, who),
		[]string{change},
	}
}
