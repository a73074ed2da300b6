//go:build failpoints

package broker

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/wind-c/comqtt/v3/broker/failpoint"
	"github.com/wind-c/comqtt/v3/wal"
)

// failHooks ties the log's dangerous moments to the failpoints, and keeps the
// file that COMQTT_SYNCED_FILE names: how much of the log is durable, for a
// torture program that plays a power loss.
func failHooks(walDir string) *wal.Hooks {
	hit := func(name string) func(uint64) error {
		return func(uint64) error {
			failpoint.Hit(name)
			return nil
		}
	}
	synced := os.Getenv("COMQTT_SYNCED_FILE")
	return &wal.Hooks{
		BeforeWrite: hit(failpoint.WALBeforeWrite),
		AfterWrite:  hit(failpoint.WALAfterWrite),
		AfterRotate: hit(failpoint.WALMidRotation),
		AfterSync: func(uint64) error {
			if synced != "" {
				if err := noteSynced(walDir, synced); err != nil {
					return err
				}
			}
			failpoint.Hit(failpoint.WALAfterSync)
			return nil
		},
		BeforeSync: func(index uint64) error {
			if failpoint.FaultAt(failpoint.FaultFsyncError) {
				return fmt.Errorf("planted at record %d: %w", index, syscall.EIO)
			}
			return nil
		},
	}
}

// noteSynced writes name and size of the newest segment: the log calls it
// right after a sync and before it writes on.
func noteSynced(walDir, file string) error {
	names, err := filepath.Glob(filepath.Join(walDir, "[0-9]*")) // sorted, names have one width
	if err != nil || len(names) == 0 {
		return err
	}
	last := names[len(names)-1]
	info, err := os.Stat(last)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(fmt.Appendf(nil, "%s %010d\n", filepath.Base(last), info.Size()), 0)
	return err
}
