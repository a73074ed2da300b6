//go:build !linux

package bench

import (
	"errors"
	"os"
	"syscall"
	"time"
)

var errNoProc = errors.New("bench: CPU time and memory of other processes are known on Linux only")

func processCPU(int) (time.Duration, error) { return 0, errNoProc }

func processMemory(int) (int64, error) { return 0, errNoProc }

func selfCPU() time.Duration { return 0 }

func exact(t time.Time) { time.Sleep(time.Until(t)) }

func diesWithParent() *syscall.SysProcAttr { return nil }

func syncData(f *os.File) error { return f.Sync() }
