package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The README says what the program does: its settings and exit codes are
// compared, not trusted. Update with -update where there is a choice.
func TestReadme(t *testing.T) {
	const path = "../../README.md"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	readme, table := string(data), flagTable(options(defaultDataDir))
	const head = "| Flag | Default | Meaning |\n|---|---|---|\n"
	before, rest, ok := strings.Cut(readme, head)
	if !ok {
		t.Fatal("no table of flags in README.md")
	}
	old, after, _ := strings.Cut(rest, "\n\n")
	if old+"\n" != table {
		if !*updateGolden {
			t.Errorf("the flags in README.md differ; go test ./cmd/comqtt -update. They are now:\n%s", table)
		} else if err := os.WriteFile(path, []byte(before+head+table+"\n"+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, code := range []int{
		exitOK, exitFailed, exitUsage, exitDamaged, exitNoInput, exitUnavailable, exitSoftware, exitCantCreate, exitIO, exitLocked, exitConfig,
	} {
		if !strings.Contains(readme, fmt.Sprintf("\n| %d | ", code)) {
			t.Errorf("exit code %d is not in README.md", code)
		}
	}
}

// flagTable is the README's table of settings.
func flagTable(opts []option) string {
	var b strings.Builder
	for _, o := range opts {
		flag, def := strings.TrimSpace("--"+o.name+" "+o.value), o.def
		if o.value == "" {
			def = "off"
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", strings.ReplaceAll(flag, "|", "\\|"), def, o.usage)
	}
	return b.String()
}
