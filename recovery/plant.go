package recovery

import (
	"github.com/wind-c/comqtt/v3/broker/failpoint"
	"github.com/wind-c/comqtt/v3/wal"
)

// plantLog puts the log's failpoints into its hooks. It does nothing in a build
// without failpoints, or if there are hooks already.
func plantLog(o *wal.Options) {
	if !failpoint.Enabled || o.Hooks != nil {
		return
	}
	hit := func(name string) func(uint64) error {
		return func(uint64) error {
			failpoint.Hit(name)
			return nil
		}
	}
	o.Hooks = &wal.Hooks{
		BeforeWrite: hit(failpoint.WALBeforeWrite), AfterWrite: hit(failpoint.WALAfterWrite),
		AfterSync: hit(failpoint.WALAfterSync), AfterRotate: hit(failpoint.WALMidRotation),
	}
}
