package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// utime and stime of proc(5), in ticks of 10 ms.
func procTicks(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// The name in parentheses may hold anything; what follows is numbers.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	u, err1 := strconv.Atoi(f[11])
	s, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return time.Duration(u+s) * 10 * time.Millisecond
}

// The clock of another process is what /proc says about it.
func TestProcessCPU(t *testing.T) {
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo; read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it has worked, and waits
		t.Fatal(err)
	}
	got, err := processCPU(cmd.Process.Pid)
	want := procTicks(t, cmd.Process.Pid)
	if err != nil || got == 0 || (got-want).Abs() > 25*time.Millisecond {
		t.Errorf("%v, %v; /proc says %v", got, err, want)
	}
	if n, err := processMemory(cmd.Process.Pid); err != nil || n < 1<<10 || n > 1<<30 {
		t.Errorf("memory %d, %v", n, err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // 1: nothing to read
	if _, err := processCPU(cmd.Process.Pid); err == nil {
		t.Error("CPU time of a process that is gone")
	}
	if _, err := processMemory(cmd.Process.Pid); err == nil {
		t.Error("memory of a process that is gone")
	}
	if selfCPU() <= 0 {
		t.Error("no CPU time of our own")
	}
}
