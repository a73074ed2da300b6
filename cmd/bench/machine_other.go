//go:build !linux

package bench

import "runtime"

func describeSystem(m *Machine, _ string) {
	m.Processor, m.FileSystem = runtime.GOARCH, "file system unknown"
}
