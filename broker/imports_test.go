package broker_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// module is the path every package of this repository begins with.
const module = "github.com/wind-c/comqtt/v3/"

// floors is the house, lowest floor first. A package imports from the floors
// below its own, and from its own floor only what stands in the same wing. A
// new package is given its place here, in a reviewed commit; the longest prefix
// counts.
var floors = []map[string]string{ // path prefix → wing
	{"broker/packets": "", "session/topic": "", "broker/failpoint": ""},
	{"wal/record": ""},
	{"session": "", "retain": "", "wal": ""},
	{"broker/core": "", "backends": "backends"},
	{"recovery": "recovery"},
	{"broker/": "broker"},
	{"broker": ""},
	{"cmd/bench": ""}, // the engine of a verb of cmd/comqtt
	{"cmd": "", "examples": ""},
}

// pure packages compute and do nothing else: no files, no network, no clock, no
// chance, no goroutines. Replay gives the same state because of it.
var pure = []string{"broker/packets", "session/topic", "wal/record", "session", "retain", "broker/core"}

// impure are the standard library's doors to the outside; a trailing slash
// stands for everything below.
var impure = []string{
	"os", "os/", "net", "net/", "time", "sync", "sync/", "math/rand", "math/rand/", "crypto/rand",
	"log", "log/", "syscall", "runtime", "runtime/", "io/fs", "io/ioutil", "path/filepath", "context", "plugin", "embed", "testing",
}

// listed is what `go list -json` says about a package.
type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func modulePackages(t *testing.T) []listed {
	t.Helper()
	// From the root of the module, whatever the test's directory.
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatal("go list -m:", err)
	}
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports", "./...")
	cmd.Dir = strings.TrimSpace(string(root))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal("go list:", err)
	}
	var pkgs []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// place returns the floor and the wing of a package, by the longest prefix.
func place(pkg string) (floor int, wing string, ok bool) {
	longest := -1
	for n, prefixes := range floors {
		for prefix, w := range prefixes {
			dir := strings.TrimSuffix(prefix, "/") + "/"
			if (pkg == prefix || strings.HasPrefix(pkg, dir)) && len(prefix) > longest {
				longest, floor, wing, ok = len(prefix), n, w, true
			}
		}
	}
	return floor, wing, ok
}

func mayImport(from, to string) bool {
	f, fw, ok1 := place(from)
	g, gw, ok2 := place(to)
	switch {
	case !ok1 || !ok2:
		return false
	case f != g:
		return f > g
	case fw != "" && fw == gw:
		return true
	}
	// Without a wing, a folder belongs to the package above it.
	return strings.HasPrefix(from, to+"/") || strings.HasPrefix(to, from+"/")
}

func TestImportOrder(t *testing.T) {
	pkgs := modulePackages(t)
	if len(pkgs) < len(pure) {
		t.Fatalf("go list found %d packages", len(pkgs))
	}
	for _, p := range pkgs {
		from := strings.TrimPrefix(p.ImportPath, module)
		if _, _, ok := place(from); !ok {
			t.Errorf("%s has no place in the house: add it to floors", from)
		}
		for _, imp := range p.Imports {
			if to, ours := strings.CutPrefix(imp, module); ours && !mayImport(from, to) {
				t.Errorf("%s imports %s, which is not below it", from, to)
			}
		}
	}
}

// The pure core must stay pure. This test is the architecture rule; change it
// in a reviewed commit.
func TestPurePackages(t *testing.T) {
	found := 0
	for _, p := range modulePackages(t) {
		pkg := strings.TrimPrefix(p.ImportPath, module)
		if !slices.Contains(pure, pkg) {
			continue
		}
		found++
		for _, imp := range p.Imports {
			if why := impurity(imp); why != "" {
				t.Errorf("%s imports %s: %s", pkg, imp, why)
			}
		}
		for _, file := range p.GoFiles {
			for _, pos := range goroutines(t, filepath.Join(p.Dir, file)) {
				t.Errorf("%s starts a goroutine at %s", pkg, pos)
			}
		}
	}
	if found != len(pure) {
		t.Errorf("%d of the %d pure packages exist", found, len(pure))
	}
}

// impurity says why a pure package may not import a path, or "".
func impurity(imp string) string {
	if ours, ok := strings.CutPrefix(imp, module); ok {
		if !slices.Contains(pure, ours) {
			return "not a pure package"
		}
		return ""
	}
	if first, _, _ := strings.Cut(imp, "/"); strings.Contains(first, ".") {
		return "not the standard library"
	}
	for _, i := range impure {
		if imp == i || strings.HasSuffix(i, "/") && strings.HasPrefix(imp, i) {
			return "reaches outside"
		}
	}
	return ""
}

// goroutines returns where a file has go statements.
func goroutines(t *testing.T, file string) []string {
	t.Helper()
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var at []string
	ast.Inspect(tree, func(n ast.Node) bool {
		if g, ok := n.(*ast.GoStmt); ok {
			at = append(at, fset.Position(g.Pos()).String())
		}
		return true
	})
	return at
}

// The rules themselves, on cases that are right and wrong today.
func TestImportRules(t *testing.T) {
	for _, tt := range []struct {
		from, to string
		want     bool
	}{
		{"broker/core", "session", true},
		{"broker/core", "wal/record", true},
		{"broker/core", "wal", true}, // by order; purity forbids it
		{"broker/core", "backends", false},
		{"backends/bbolt", "backends", true},
		{"backends/bbolt", "backends/backendtest", true},
		{"backends", "broker/core", false},
		{"wal", "wal/record", true},
		{"wal/record", "wal", false},
		{"wal", "session", false},
		{"session", "session/topic", true},
		{"session/topic", "session", false},
		{"recovery", "broker", false},
		{"recovery", "backends/bbolt", true},
		{"broker/admin", "broker/listeners", true},
		{"broker/admin", "broker", false},
		{"broker", "broker/admin", true},
		{"broker", "cmd/comqtt", false},
		{"cmd/comqtt", "broker", true},
		{"cmd/comqtt", "cmd/bench", true},
		{"cmd/bench", "cmd/comqtt", false},
		{"cmd/torture", "cmd/comqtt", false},
		{"cmd/comqtt", "cmd/bench", true},
		{"cmd/bench", "cmd/comqtt", false},
		{"somewhere", "session", false},
	} {
		if got := mayImport(tt.from, tt.to); got != tt.want {
			t.Errorf("mayImport(%s, %s) = %v", tt.from, tt.to, got)
		}
	}
	for imp, bad := range map[string]bool{
		"os": true, "os/exec": true, "time": true, "sync/atomic": true, "log/slog": true, "math/rand/v2": true,
		"strings": false, "math/bits": false, "encoding/binary": false, "slices": false,
		"github.com/tidwall/wal": true, module + "wal": true, module + "session/topic": false,
	} {
		if (impurity(imp) != "") != bad {
			t.Errorf("impurity(%s) = %q", imp, impurity(imp))
		}
	}
}
