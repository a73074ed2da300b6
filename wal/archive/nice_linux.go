package archive

import (
	"runtime"
	"syscall"
)

// lowerPriority keeps the calling goroutine on a thread of its own, of the least
// priority. The thread ends with the goroutine. Where that is not allowed, the
// work runs at the usual priority.
func lowerPriority() {
	runtime.LockOSThread()
	const lowest = 19
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), lowest)
}
