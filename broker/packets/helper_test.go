package packets

import (
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// wire reads the notation of the tables: hexadecimal digits, blanks, and text
// between single quotes.
func wire(s string) []byte {
	var b []byte
	for i, part := range strings.Split(s, "'") {
		if i%2 == 1 {
			b = append(b, part...)
			continue
		}
		h, err := hex.DecodeString(strings.Join(strings.Fields(part), ""))
		if err != nil {
			panic(fmt.Sprintf("%q: %v", s, err))
		}
		b = append(b, h...)
	}
	return b
}

// str is a string as a UTF-8 field, in the notation of wire.
func str(s string) string { return fmt.Sprintf("%04x '%s' ", len(s), s) }

// sec puts a one-byte length before a packet body or property section, in the
// notation of wire. Longer lengths have tests of their own.
func sec(s string) string {
	n := len(wire(s))
	if n > 127 {
		panic("sec: too long")
	}
	return fmt.Sprintf("%02x ", n) + s
}

// frame puts the header byte and the length before a body.
func frame(header byte, body []byte) []byte {
	return append(appendVarint([]byte{header}, len(body)), body...)
}

// decodeWhole decodes b, which must be exactly one packet.
func decodeWhole(v Version, b []byte) (Packet, error) {
	f, n, _, err := Next(b, 0)
	if err != nil {
		return nil, err
	}
	if n != len(b) {
		return nil, fmt.Errorf("Next took %d of %d bytes", n, len(b))
	}
	return f.Decode(v)
}

// describe writes out everything a packet says. nil and empty slices are the
// same, and so are user properties that were interleaved with others.
func describe(p Packet) string {
	if p == nil {
		return "none"
	}
	c := reflect.New(reflect.TypeOf(p).Elem())
	c.Elem().Set(reflect.ValueOf(p).Elem())
	canonical(c.Elem())
	return fmt.Sprintf("%T%+v", p, c.Elem().Interface())
}

func canonical(v reflect.Value) {
	if v.Kind() != reflect.Struct {
		return
	}
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		switch u, ok := f.Interface().(UserProperties); {
		case ok:
			f.Set(reflect.ValueOf(UserProperties(u.appendTo(nil))))
		case name == "Raw" || name == "Level" || name == "Version":
			f.SetZero()
		default:
			canonical(f)
		}
	}
}

// wantError checks that err is an *Error with this code and statement.
func wantError(t *testing.T, err error, code Code, statement string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want %v [%s]", err, code, statement)
	}
	if e.Code != code || e.Statement != statement {
		t.Errorf("error %v, want %v [%s]", e, code, statement)
	}
	if e.Reason == "" {
		t.Error("error without a reason")
	}
}

func user(pairs ...string) UserProperties {
	var u UserProperties
	for i := 0; i < len(pairs); i += 2 {
		u = u.Append(pairs[i], pairs[i+1])
	}
	return u
}
