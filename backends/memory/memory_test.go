package memory_test

import (
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/backendtest"
	"github.com/wind-c/comqtt/v3/backends/memory"
)

func TestStore(t *testing.T) {
	backendtest.Run(t,
		func(*testing.T, string) backends.Store { return memory.New() },
		backendtest.Volatile,
		backendtest.WithDamage(func(t *testing.T, _ string, st backends.Store, key []byte) (backends.Store, error) {
			if !st.(*memory.Store).Damage(key, func(stored []byte) { stored[len(stored)/2] ^= 4 }) {
				t.Fatalf("no key %.20q", key)
			}
			return st, nil
		}))
}
