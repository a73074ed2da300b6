// Package failpoint marks the moments at which the torture program kills the
// process, and the places where it plants a defect to prove its checker.
//
// Without the build tag "failpoints" every function here is an empty constant
// that the compiler removes: a released binary can neither be killed nor
// broken through it. With the tag, two environment variables steer it:
//
//	COMQTT_FAILPOINT=name:k   the k-th Hit(name) sends SIGKILL to the process
//	COMQTT_FAULT=name[:arg]   Fault(name) reports true
//
// and two more make rare moments frequent:
//
//	COMQTT_SEGMENT_SIZE=n     bytes of a segment of the log
//	COMQTT_CHECKPOINT_MS=n    milliseconds between checkpoints
//
// The names in use are the constants of this package.
package failpoint

// Environment variables of Number.
const (
	SegmentSize  = "COMQTT_SEGMENT_SIZE"
	CheckpointMS = "COMQTT_CHECKPOINT_MS"
)

// Moments at which the process can be killed.
const (
	WALBeforeWrite         = "wal-before-write"
	WALAfterWrite          = "wal-after-write"
	WALAfterSync           = "wal-after-sync"
	WALMidRotation         = "wal-mid-rotation"
	CheckpointBeforeCommit = "checkpoint-before-commit"
	CheckpointAfterCommit  = "checkpoint-after-commit"
	CheckpointBeforeDrop   = "checkpoint-before-drop"
	ApplyBeforeAck         = "apply-before-ack"
	ShutdownBeforeMark     = "shutdown-before-mark"
)

// Planted defects, each of which breaks one promise.
const (
	FaultAckBeforeSync    = "ack-before-sync"
	FaultEarlyPubcomp     = "early-pubcomp"
	FaultEarlyPubrel      = "early-pubrel"
	FaultEarlyPubrec      = "early-pubrec"
	FaultNewIdentifiers   = "new-identifiers-on-resend"
	FaultForgetReceipt    = "forget-qos2-receipt"
	FaultLoseRetained     = "lose-retained"
	FaultLoseSubscription = "lose-subscription"
	FaultLoseQueued       = "lose-queued-on-checkpoint"
	FaultReorder          = "reorder-redelivery"
	FaultSubackBeforeSync = "suback-before-sync"
	FaultDropBeforeIndex  = "drop-before-index"
	FaultFsyncError       = "fsync-error"
	FaultIgnoreChecksum   = "ignore-checksum"
)
