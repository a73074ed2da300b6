//go:build failpoints

package broker

import (
	"fmt"
	"os"
	"syscall"

	"github.com/wind-c/comqtt/v3/broker/failpoint"
	"github.com/wind-c/comqtt/v3/wal"
)

// failHooks ties the log's dangerous moments to the failpoints.
func failHooks() *wal.Hooks {
	hit := func(name string) func(uint64) error {
		return func(uint64) error {
			failpoint.Hit(name)
			return nil
		}
	}
	return &wal.Hooks{
		BeforeWrite: hit(failpoint.WALBeforeWrite),
		AfterWrite:  hit(failpoint.WALAfterWrite),
		AfterSync:   hit(failpoint.WALAfterSync),
		AfterRotate: hit(failpoint.WALMidRotation),
		BeforeSync: func(index uint64) error {
			if failpoint.FaultAt(failpoint.FaultFsyncError) {
				return fmt.Errorf("planted at record %d: %w", index, syscall.EIO)
			}
			return nil
		},
	}
}

var _ = os.Getenv
