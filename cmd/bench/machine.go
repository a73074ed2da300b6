package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// Machine is what figures were measured on.
type Machine struct {
	Processor  string  `json:"processor"`
	CPUs       int     `json:"cpus"`
	Memory     int64   `json:"memory"` // bytes; 0: unknown
	Kernel     string  `json:"kernel"`
	FileSystem string  `json:"file_system"` // of the brokers' directories
	SyncP50    float64 `json:"sync_p50_ms"` // fdatasync after a write of 4 KiB there
	SyncP99    float64 `json:"sync_p99_ms"`
	Go         string  `json:"go"`
}

const (
	syncSamples = 300
	syncBudget  = 3 * time.Second
)

// describeMachine describes this machine and the disk under dir.
func describeMachine(dir string) (Machine, error) {
	if dir == "" {
		dir = os.TempDir()
	}
	m := Machine{CPUs: runtime.NumCPU(), Kernel: runtime.GOOS, Go: runtime.Version()}
	describeSystem(&m, dir)
	t, err := timeSync(dir)
	if err != nil {
		return m, err
	}
	ms := t.metrics("")
	m.SyncP50, m.SyncP99 = ms[0].Value, ms[1].Value
	return m, nil
}

// timeSync times fdatasync in dir.
func timeSync(dir string) (timing, error) {
	t := newTiming()
	f, err := os.CreateTemp(dir, "bench-sync-")
	if err != nil {
		return t, fmt.Errorf("bench: time the disk: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, 4096)
	for end, i := time.Now().Add(syncBudget), 0; i < syncSamples && time.Now().Before(end); i++ {
		start := time.Now()
		_, err := f.Write(block)
		if err == nil {
			err = syncData(f)
		}
		if err != nil {
			return t, fmt.Errorf("bench: time the disk: %w", err)
		}
		t.record(time.Since(start))
	}
	return t, nil
}

func (m Machine) String() string {
	memory := ""
	if m.Memory > 0 {
		memory = fmt.Sprintf(", %.0f GiB", float64(m.Memory)/(1<<30))
	}
	return fmt.Sprintf("%s, %d CPUs%s; %s; %s, 4 KiB written and synced in %s ms (p99 %s ms); %s",
		m.Processor, m.CPUs, memory, m.Kernel, m.FileSystem, formatValue(m.SyncP50), formatValue(m.SyncP99), m.Go)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(line)
}
