package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// program is the binary under test.
var program string

func TestMain(m *testing.M) {
	os.Exit(runMain(m))
}

func runMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "comqtt-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // one test runs it as another user
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	program = filepath.Join(dir, "comqtt")
	out, err := exec.Command("go", "build", "-o", program, "github.com/wind-c/comqtt/v3/cmd/comqtt").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "build comqtt: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
