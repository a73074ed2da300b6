package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// processCPU returns user and system time of a process and all its threads,
// those that have ended included: the sum of utime and stime in proc(5), in
// nanoseconds instead of ticks of 10 ms.
func processCPU(pid int) (time.Duration, error) {
	// clock_getcpuclockid(3): the process's number, inverted, above the kind of
	// clock in the low three bits.
	const sched = 2
	clock := int32(^uint32(pid)<<3 | sched)
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("bench: CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// processMemory returns RssAnon of a process in bytes: what it has written to,
// without files and program text.
func processMemory(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, "RssAnon:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		return kib << 10, err
	}
	return 0, fmt.Errorf("bench: no RssAnon in /proc/%d/status", pid)
}

// selfCPU returns user and system time of this process.
func selfCPU() time.Duration {
	d, err := processCPU(os.Getpid())
	if err != nil {
		return 0
	}
	return d
}

// exact sleeps until t to within some ten microseconds, on a thread of its
// own: the runtime's timers are good to a millisecond when a process is idle.
func exact(t time.Time) {
	for {
		d := time.Until(t)
		if d <= 0 {
			return
		}
		ts := syscall.NsecToTimespec(int64(d))
		_ = syscall.Nanosleep(&ts, nil) // woken early, it sleeps again
	}
}

// diesWithParent makes the kernel end the child when this process is killed.
func diesWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// syncData is fdatasync.
func syncData(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }
