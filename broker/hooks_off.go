//go:build !failpoints

package broker

import "github.com/wind-c/comqtt/v3/wal"

// failHooks returns the log's failpoints: none in this build.
func failHooks() *wal.Hooks { return nil }
