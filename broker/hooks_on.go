//go:build failpoints

package broker

import (
	"fmt"
	"os"
	"syscall"

	"github.com/wind-c/comqtt/v3/broker/failpoint"
	"github.com/wind-c/comqtt/v3/wal"
)

// failHooks ties the log's dangerous moments to the failpoints, and keeps the
// file that COMQTT_SYNCED_FILE names: how much of the log is durable, for a
// torture program that plays a power loss.
func failHooks() *wal.Hooks {
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
		Synced: func(end wal.Position) error {
			if synced == "" {
				return nil
			}
			return noteSynced(end, synced)
		},
		AfterSync: func(uint64) error {
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

// noteSynced writes which segment is durable and how many bytes of it.
func noteSynced(end wal.Position, file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(fmt.Appendf(nil, "%020d %010d\n", end.Segment, end.Offset), 0)
	return err
}
