package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// The comparison that `make bench-compare` runs is valid, and its page has a
// place for it.
func TestRepositoryFiles(t *testing.T) {
	f, err := ReadFile("../../tools/bench-compare.yml")
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Sections) == 0 {
		t.Error("nothing to compare")
	}
	page, err := os.ReadFile("../../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&Report{}).Insert(page); err != nil {
		t.Error(err)
	}
}

const goodFile = `
ours: a
duration: 100ms
brokers:
  - {name: a, command: [a]}
  - {name: b, command: [b]}
sections:
  - title: t
    brokers: [a, b]
    rows:
      - name: r
        mode: fanin
        load: {qos: 0, publishers: 3}
        quick: {publishers: 2}
        bars: [{metric: cpu, against: b, least: 2}]
`

func TestParseFile(t *testing.T) {
	f, err := ParseFile([]byte(goodFile))
	if err != nil {
		t.Fatal(err)
	}
	row := f.Sections[0].Rows[0]
	if f.Rounds != 3 || f.Duration != 100*time.Millisecond || f.Sections[0].Layout != LayoutRatios || len(row.Show) != 2 {
		t.Errorf("%+v", f)
	}
	o, err := row.options(false)
	if err != nil || o.QoS != 0 || o.Publishers != 3 || o.Subscribers != 1 {
		t.Errorf("%+v, %v", o, err)
	}
	if o, _ := row.options(true); o.Publishers != 2 || o.QoS != 0 {
		t.Errorf("quick: %+v", o)
	}
	for what, change := range map[string][2]string{
		"unknown mode":                      {"mode: fanin", "mode: fanio"},
		"bad option: qos 3":                 {"qos: 0", "qos: 3"},
		`unknown field "qoss"`:              {"qos: 0", "qoss: 0"},
		"publishers 0":                      {"publishers: 2", "publishers: 0"},
		`"c" is not among the brokers`:      {"ours: a", "ours: c"},
		`no broker "c"`:                     {"brokers: [a, b]", "brokers: [a, c]"},
		`against "c"`:                       {"against: b", "against: c"},
		`a bar for "p99"`:                   {"metric: cpu", "metric: p99"},
		"needs either least or most":        {", least: 2", ""},
		"a name of its own":                 {"name: b, ", "name: a, "},
		"neither ratios nor brokers":        {"- title: t", "- title: t\n    layout: round"},
		"rounds, duration and limit have":   {"ours: a", "ours: a\nrounds: 0"},
		"a command are needed":              {"command: [b]", "command: []"},
		"3 subscribers without a shared gr": {"publishers: 3", "subscribers: 3"},
	} {
		text := strings.Replace(goodFile, change[0], change[1], 1)
		if text == goodFile {
			t.Fatalf("%q is not in the file", change[0])
		}
		if _, err := ParseFile([]byte(text)); !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), what) {
			t.Errorf("error %v does not say %s", err, what)
		}
	}
}

func TestMedians(t *testing.T) {
	all := []*Result{
		{Metrics: []Metric{{Name: "a", Value: 1}, {Name: "b", Value: 10}}},
		{Metrics: []Metric{{Name: "a", Value: 9}, {Name: "b", Value: 20}}},
		{Metrics: []Metric{{Name: "a", Value: 2}}},
	}
	m := metricsOf(medians(all))
	if m["a"] != 2 || m["b"] != 15 {
		t.Errorf("%v", m)
	}
}

// report is one with figures known in advance.
func report() *Report {
	cell := func(rate, cpu float64) Cell {
		return Cell{Rounds: 1, Metrics: []Metric{{"rate", rate, "msg/s", true}, {"cpu", cpu, "µs/msg", false}}}
	}
	lossy := cell(500, 4)
	lossy.Checks = Tally{Sent: 5, Received: 3, Lost: 2}
	return &Report{
		Ours: "us", Rounds: 1, Brokers: []ReportBroker{{Name: "us", Version: "v1"}, {Name: "gone", Missing: "not found"}},
		Calibration: Calibrations{{"load", 1e6, 0.1, 0.2}},
		Sections: []ReportSection{
			{
				Title: "Ratios", Layout: LayoutRatios, Brokers: []string{"us", "them", "dead"},
				Rows: []ReportRow{{
					Name: "row", Show: []string{"rate", "cpu"},
					Bars: []FileBar{
						{Metric: "rate", Against: "them", Least: 2},
						{Metric: "cpu", Against: "them", Least: 3},
						{Metric: "cpu", Most: 2},
						{Metric: "cpu", Against: "them", Most: 1.2},
						{Metric: "rate", Against: "dead", Least: 1},
					},
					Cells: map[string]Cell{"us": cell(1000, 2), "them": lossy, "dead": {Error: "fell over"}},
				}},
			},
			{
				Title: "Table", Layout: LayoutBrokers, Brokers: []string{"us", "them"},
				Rows: []ReportRow{{Name: "two", Show: []string{"rate"}, Cells: map[string]Cell{"us": cell(1234567, 1), "them": lossy}}},
			},
		},
	}
}

func TestReportTables(t *testing.T) {
	r := report()
	want := [][]string{
		{"load", "figure", "us", "them", "dead", "ratio to them", "ratio to dead", "must be"},
		{"row", "rate", "1 000 msg/s", "500 msg/s (!)", "failed", "2.0×", "-", "≥ 2.0×, ≥ 1.0× (not measured)"},
		{"", "cpu", "2.00 µs/msg", "4.00 µs/msg (!)", "failed", "2.0×", "-", "≥ 3.0× MISSED, ≤ 2.00 µs/msg, ≤ 1.2× theirs"},
	}
	got := r.lines(r.Sections[0])
	for i := range want {
		if strings.Join(got[i], "|") != strings.Join(want[i], "|") {
			t.Errorf("line %d:\n%q, want\n%q", i, got[i], want[i])
		}
	}
	if got := r.lines(r.Sections[1]); len(got) != 3 || strings.Join(got[1], "|") != "us|1 234 567" || strings.Join(got[2], "|") != "them|500" {
		t.Errorf("%q", got)
	}
	if err := r.Err(); !errors.Is(err, ErrBehind) || !strings.Contains(err.Error(), "row: cpu 2.0× instead of ≥ 3.0×") {
		t.Errorf("error %v", err)
	}
	var table, js bytes.Buffer
	if err := errors.Join(r.WriteTable(&table), r.WriteJSON(&js)); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"gone is left out: not found", "row, dead: fell over", "row, them: (!) 5 sent, 3 received, 2 lost"} {
		if !strings.Contains(table.String(), s) {
			t.Errorf("the table does not say %q:\n%s", s, &table)
		}
	}
	var back Report
	if err := json.Unmarshal(js.Bytes(), &back); err != nil || len(back.Sections) != 2 {
		t.Errorf("JSON: %v", err)
	}
}

// Our own failures come before missed bars, and the others' are no error.
func TestReportErr(t *testing.T) {
	r := report()
	r.Sections[0].Rows[0].Bars = nil
	if err := r.Err(); err != nil {
		t.Errorf("error %v", err)
	}
	cell := r.Sections[0].Rows[0].Cells["us"]
	cell.Checks.Lost = 1
	r.Sections[0].Rows[0].Cells["us"] = cell
	if err := r.Err(); !errors.Is(err, ErrChecks) {
		t.Errorf("error %v", err)
	}
	cell.Checks, cell.Error = Tally{}, "fell over"
	r.Sections[0].Rows[0].Cells["us"] = cell
	if err := r.Err(); err == nil {
		t.Error("our failure is no error")
	}
}

func TestInsert(t *testing.T) {
	page := []byte("before\n" + generatedBegin + "\nold\n" + generatedEnd + "\nafter\n")
	out, err := report().Insert(page)
	if err != nil {
		t.Fatal(err)
	}
	s := string(out)
	if !strings.HasPrefix(s, "before\n"+generatedBegin) || !strings.HasSuffix(s, generatedEnd+"\nafter\n") || strings.Contains(s, "old") {
		t.Errorf("%s", s)
	}
	for _, want := range []string{
		"| load | figure | us | them | dead | ratio to them | ratio to dead | must be |\n|---|---|--:|--:|--:|--:|--:|--:|\n| row | rate |",
		"| two | rate |\n|---|--:|\n| us | 1 234 567 |\n", "| load | 1 000 000 | 0.100 µs/msg | 0.200 µs/msg |",
	} {
		if !strings.Contains(s, want) {
			t.Errorf("no %q in\n%s", want, s)
		}
	}
	again, err := report().Insert(out)
	if err != nil || !bytes.Equal(again, out) {
		t.Errorf("the second time differs: %v", err)
	}
	if _, err := report().Insert([]byte("nothing")); !errors.Is(err, ErrMarkers) {
		t.Errorf("error %v", err)
	}
}

func TestFormat(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.1284: "0.128", 1.7: "1.70", 17.04: "17.0", 170.4: "170", 1704: "1 704", 1234567.8: "1 234 568", -1234: "-1 234", -123: "-123",
	} {
		if got := formatValue(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]string{0.834: "0.83×", 2.44: "2.4×", 25.3: "25×"} {
		if got := formatRatio(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
}

// A whole comparison with real processes: the broker, the relay as its rival,
// and one that is not installed.
func TestCompare(t *testing.T) {
	bin := comqttBinary(t)
	f, err := ParseFile([]byte(strings.NewReplacer("BIN", bin, "goodFile", "").Replace(`
ours: comqtt
rounds: 2
duration: 80ms
brokers:
  - name: comqtt
    command: [BIN, serve, --data, "{dir}/data", --tcp, "127.0.0.1:{port}", --ws, "off", --http, "off", --log-level, error]
    version: [BIN, version]
  - {name: relay, command: [BIN, bench, relay, --listen, "127.0.0.1:{port}"]}
  - {name: none, command: [no-such-broker]}
sections:
  - title: one
    brokers: [comqtt, relay, none]
    rows:
      - {name: pairs, mode: pairs, load: {pairs: 2, qos: 1}, bars: [{metric: rate, least: 1}]}
      - {name: left out, mode: pairs}
      - {name: offline, mode: offline, load: {messages: 100}, show: [in rate]}
  - title: two
    brokers: [comqtt]
    rows:
      - {name: restart, mode: restart, rounds: 1, load: {messages: 10, topics: 10}, show: [SIGTERM to exit]}
`)))
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	r, err := Compare(t.Context(), f, CompareOptions{
		Quick: true, Dir: t.TempDir(),
		Only:     func(row string) bool { return row == "pairs" || row == "offline" },
		Progress: func(step string, _ Progress) { steps = append(steps, step) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if len(r.Sections) != 1 || len(r.Sections[0].Rows) != 2 || len(r.Sections[0].Brokers) != 2 {
		t.Fatalf("%+v", r.Sections)
	}
	for _, b := range []string{"comqtt", "relay"} {
		cell := r.Sections[0].Rows[0].Cells[b]
		if rate, ok := cell.get("rate"); !ok || rate.Value < 1 || cell.Rounds != 1 || !cell.Checks.ok() {
			t.Errorf("%s: %+v", b, cell)
		}
	}
	// The relay has no sessions: its row fails and says why.
	if cell := r.Sections[0].Rows[1].Cells["relay"]; !strings.Contains(cell.Error, "lost the session") {
		t.Errorf("%+v", cell)
	}
	if cell := r.Sections[0].Rows[1].Cells["comqtt"]; cell.Error != "" {
		t.Errorf("%+v", cell)
	}
	if r.Brokers[2].Missing == "" || !strings.HasPrefix(r.Brokers[0].Version, "comqtt ") || len(steps) < 4 {
		t.Errorf("%+v, steps %q", r.Brokers, steps)
	}
}
