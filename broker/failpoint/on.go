//go:build failpoints

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Enabled says whether this binary was built with the tag "failpoints".
const Enabled = true

// hits counts the passes through the one failpoint and the one fault that
// the environment names.
var hits, faults atomic.Int64

// Hit kills the process with SIGKILL when COMQTT_FAILPOINT is "name:k" and
// this is the k-th pass (k counts from 1; without k, the first).
func Hit(name string) {
	want, k := setting("COMQTT_FAILPOINT")
	if want != name || hits.Add(1) != k {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal ends us before another instruction matters
}

// Fault reports whether COMQTT_FAULT names this planted defect.
func Fault(name string) bool {
	want, _ := setting("COMQTT_FAULT")
	return want == name
}

// FaultAt reports true on the k-th call for the defect that COMQTT_FAULT
// names as "name:k", and on every later one.
func FaultAt(name string) bool {
	want, k := setting("COMQTT_FAULT")
	return want == name && faults.Add(1) >= k
}

// Number returns the number that the environment variable holds, or normal.
func Number(env string, normal int64) int64 {
	if n, err := strconv.ParseInt(os.Getenv(env), 10, 64); err == nil {
		return n
	}
	return normal
}

func setting(env string) (name string, k int64) {
	name, arg, _ := strings.Cut(os.Getenv(env), ":")
	k, err := strconv.ParseInt(arg, 10, 64)
	if err != nil || k < 1 {
		k = 1
	}
	return name, k
}
