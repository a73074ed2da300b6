package memory_test

import (
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/backendtest"
	"github.com/wind-c/comqtt/v3/backends/memory"
)

func TestStore(t *testing.T) {
	backendtest.Run(t, func(*testing.T, string) backends.Store { return memory.New() }, backendtest.Volatile)
}
