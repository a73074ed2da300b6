package redistest

import "syscall"

// dieWithParent keeps a server from outliving a test that is killed.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
