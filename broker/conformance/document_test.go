package conformance

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// binds says whom a statement binds.
type binds int

const (
	both       binds = iota // the server, or both sides
	clientOnly              // a test shows what the server makes of a breach
)

// statement is a normative statement of a specification.
type statement struct {
	id   string
	whom binds
	text string // in our own words
}

// untestedMax is how many statements that bind a server may go without a
// test, both specifications together.
const untestedMax = 12

// proof lists the tests of each statement: "5.0 MQTT-3.3.1-5" → names.
type proof map[string][]string

var (
	provesLine = regexp.MustCompile(`(?m)^Proves (.*)$`)
	provesPart = regexp.MustCompile(`^(5\.0|3\.1\.1) (.*)$`)
	provesID   = regexp.MustCompile(`\[(MQTT-[0-9.-]+|§[0-9.]+)\]`)
)

// readProofs reads the Proves lines of the tests in this directory.
func readProofs(t *testing.T) proof {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	all := make(proof)
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(fn.Name.Name, "Test") || fn.Name.Name == "TestMain" || fn.Name.Name == "TestDocument" {
				continue
			}
			m := provesLine.FindStringSubmatch(fn.Doc.Text())
			if m == nil {
				t.Errorf("%s: %s proves nothing", file, fn.Name.Name)
				continue
			}
			all.add(t, fn.Name.Name, m[1])
		}
	}
	return all
}

// add reads one line: "5.0 [MQTT-…] [§…]; 3.1.1 [MQTT-…]."
func (p proof) add(t *testing.T, test, line string) {
	for part := range strings.SplitSeq(strings.TrimSuffix(line, "."), "; ") {
		m := provesPart.FindStringSubmatch(part)
		if m == nil || strings.TrimSpace(provesID.ReplaceAllString(m[2], "")) != "" {
			t.Errorf("%s: cannot read %q", test, part)
			continue
		}
		for _, id := range provesID.FindAllStringSubmatch(m[2], -1) {
			key := m[1] + " " + id[1]
			if slices.Contains(p[key], test) {
				t.Errorf("%s: %s twice", test, key)
			}
			p[key] = append(p[key], test)
		}
	}
}

// TestDocument writes docs/conformance.md from the statements and the tests,
// and fails when the file, or a statement, is left behind.
func TestDocument(t *testing.T) {
	proofs := readProofs(t)
	var b strings.Builder
	b.WriteString(preamble)
	open := 0
	for _, spec := range []struct {
		version    string
		statements []statement
		untested   map[string]string
		sections   map[string]string
	}{
		{"5.0", statements5, untested5, sections5},
		{"3.1.1", statements311, untested311, sections311},
	} {
		open += len(spec.untested)
		known := make(map[string]bool)
		fmt.Fprintf(&b, "\n## MQTT %s\n\n| Statement | In our words | Tests |\n|---|---|---|\n", spec.version)
		for _, s := range spec.statements {
			key := spec.version + " " + s.id
			if known[key] {
				t.Errorf("%s stands twice", key)
			}
			known[key] = true
			fmt.Fprintf(&b, "| %s | %s | %s |\n", s.id, s.text, cell(t, key, s, proofs[key], spec.untested[s.id]))
		}
		for id := range spec.untested {
			if !known[spec.version+" "+id] {
				t.Errorf("%s %s is no statement", spec.version, id)
			}
		}
		fmt.Fprintf(&b, "\nRules of MQTT %s without a number:\n\n| Section | In our words | Tests |\n|---|---|---|\n", spec.version)
		for _, id := range slices.SortedFunc(keys(spec.sections), bySection) {
			key := spec.version + " " + id
			known[key] = true
			if len(proofs[key]) == 0 {
				t.Errorf("%s has no test", key)
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", id, spec.sections[id], code(proofs[key]))
		}
		for key, tests := range proofs {
			if strings.HasPrefix(key, spec.version+" ") && !known[key] {
				t.Errorf("%s: %s is in no table", tests, key)
			}
		}
	}
	if open > untestedMax {
		t.Errorf("%d statements without a test, at most %d", open, untestedMax)
	}
	const file = "../../docs/conformance.md"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Errorf("%s is stale: go test ./broker/conformance -run TestDocument -update", file)
	}
}

const preamble = `# Conformance

Written by ` + "`go test ./broker/conformance -run TestDocument -update`" + ` from the comments of the tests; the build
fails when it is stale. Every normative statement of MQTT 5.0 and MQTT 3.1.1 stands here in our own words, with the tests
of package broker/conformance that prove it against a running broker.
`

// cell is what the table says about the tests of a statement.
func cell(t *testing.T, key string, s statement, tests []string, reason string) string {
	t.Helper()
	switch {
	case len(tests) > 0 && reason != "":
		t.Errorf("%s has tests and a reason for having none", key)
	case len(tests) == 0 && s.whom == both && reason == "":
		t.Errorf("%s has no test: %s", key, s.text)
	}
	switch {
	case reason != "":
		return "none: " + reason
	case s.whom == clientOnly && len(tests) == 0:
		return "binds the client"
	case s.whom == clientOnly:
		return "binds the client; the server's part: " + code(tests)
	}
	return code(tests)
}

func code(tests []string) string {
	var list []string
	for _, t := range slices.Sorted(slices.Values(tests)) {
		list = append(list, "`"+t+"`")
	}
	return strings.Join(list, " ")
}

func keys(m map[string]string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// bySection orders §3.8.4 before §3.14.2.
func bySection(a, b string) int {
	x, y := strings.Split(strings.TrimPrefix(a, "§"), "."), strings.Split(strings.TrimPrefix(b, "§"), ".")
	return slices.CompareFunc(x, y, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
}
