package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/wind-c/comqtt/v3/recovery/inspect"
)

// The forms of a result, for -o.
const (
	formTable  = "table"
	formJSON   = "json"
	formNDJSON = "ndjson"
)

// output writes the result of a verb to standard output in the form that -o
// asked for. A verb gives either one value, by one, or a stream, by item and
// end. The first error sticks; flush returns it.
type output struct {
	w     *bufio.Writer
	form  string
	items int
	err   error
}

const outputBuffer = 64 << 10

// newOutput checks the form.
func (p *program) newOutput(form string) (*output, error) {
	switch form {
	case formTable, formJSON, formNDJSON:
		return &output{w: bufio.NewWriterSize(p.stdout, outputBuffer), form: form}, nil
	}
	return nil, fmt.Errorf("--output: %q is not valid; allowed: table, json or ndjson", form)
}

// one writes a single value: as an indented object, as one line of JSON, or by
// table.
func (o *output) one(v any, table func(w io.Writer)) {
	switch o.form {
	case formJSON:
		o.json(v, "  ")
		o.text("\n")
	case formNDJSON:
		o.json(v, "")
		o.text("\n")
	default:
		table(o)
	}
}

// item writes one value of a stream: an element of one JSON array, a line of
// JSON, or by row.
func (o *output) item(v any, row func(w io.Writer)) {
	switch o.form {
	case formJSON:
		if o.items == 0 {
			o.text("[\n")
		} else {
			o.text(",\n")
		}
		o.json(v, "")
	case formNDJSON:
		o.json(v, "")
		o.text("\n")
	default:
		row(o)
	}
	o.items++
}

// end ends a stream.
func (o *output) end() {
	if o.form != formJSON {
		return
	}
	if o.items == 0 {
		o.text("[")
	}
	o.text("\n]\n")
}

// isTable reports whether people are to read it.
func (o *output) isTable() bool { return o.form == formTable }

// Write implements io.Writer for tables.
func (o *output) Write(b []byte) (int, error) {
	if o.err == nil {
		_, o.err = o.w.Write(b)
	}
	return len(b), nil
}

func (o *output) text(s string) { _, _ = o.Write([]byte(s)) } // the error is kept

func (o *output) json(v any, indent string) {
	var b []byte
	var err error
	if indent == "" {
		b, err = json.Marshal(v)
	} else {
		b, err = json.MarshalIndent(v, "", indent)
	}
	if err != nil && o.err == nil {
		o.err = err
	}
	_, _ = o.Write(b) // the error is kept
}

// failed returns the first error, for a stream that may as well end then.
func (o *output) failed() error { return o.err }

// flush writes what is buffered and returns the first error.
func (o *output) flush() error {
	if o.err == nil {
		o.err = o.w.Flush()
	}
	if o.err != nil {
		return &exitError{code: exitIO, err: fmt.Errorf("write the result: %w", o.err)}
	}
	return nil
}

// columns returns a writer that lines up cells, which tabs end. Flush it.
func columns(w io.Writer) *tabwriter.Writer {
	const gap = 3
	return tabwriter.NewWriter(w, 0, 0, gap, ' ', 0)
}

// safe makes a name from the network fit for a terminal.
func safe(s string) string { return inspect.Printable(s) }
