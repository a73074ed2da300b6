package bbolt_test

import (
	"path/filepath"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/backendtest"
	"github.com/wind-c/comqtt/v3/backends/bbolt"
)

func open(t *testing.T, dir string) backends.Store {
	t.Helper()
	s, err := bbolt.Open(filepath.Join(dir, "state.bbolt"), bbolt.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	backendtest.Run(t, open)
}
