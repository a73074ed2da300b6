package inspect

import (
	"encoding/hex"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable makes a name from the network fit for a terminal: what is not
// printable is escaped, and a name that could be mistaken is quoted.
func Printable(s string) string {
	if s == "" {
		return `""`
	}
	if strings.ContainsFunc(s, func(r rune) bool {
		return r == utf8.RuneError || r == ' ' || r == '"' || r == '\\' || !unicode.IsPrint(r)
	}) {
		return strconv.Quote(s)
	}
	return s
}

// Shorten cuts text to n letters and says that it did; 0 = not at all.
func Shorten(s string, n int) string {
	if n <= 0 || len(s) <= n || utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// The forms of payloads.
const (
	PayloadText = "text" // as text where it is UTF-8, else hexadecimal
	PayloadHex  = "hex"
	PayloadNone = "none"
)

// payload is a payload in one of the forms.
type payload struct {
	Payload      *string `json:"payload,omitempty"`
	PayloadHex   *string `json:"payload_hex,omitempty"`
	PayloadBytes *int    `json:"payload_bytes,omitempty"`
	PayloadCut   bool    `json:"payload_cut,omitempty"` // it is longer than what is shown
}

// setPayload fills p in the form asked for; most is the greatest number of
// bytes to show, 0 = all.
func (p *payload) setPayload(b []byte, form string, most int) {
	n := len(b)
	p.PayloadBytes = &n
	if form == PayloadNone {
		return
	}
	text := form == PayloadText && utf8.Valid(b)
	if most > 0 && len(b) > most {
		b, p.PayloadCut = b[:most], true
		for text && len(b) > 0 && !utf8.Valid(b) { // not in the middle of a letter
			b = b[:len(b)-1]
		}
	}
	s := string(b)
	if text {
		p.Payload = &s
		return
	}
	s = hex.EncodeToString(b)
	p.PayloadHex = &s
}

// words says what the payload is, for a table.
func (p *payload) words() string {
	if p.PayloadBytes == nil {
		return ""
	}
	s := itoa(uint64(*p.PayloadBytes)) + " B"
	switch {
	case p.Payload != nil && *p.Payload != "":
		s += " " + strconv.Quote(*p.Payload)
	case p.PayloadHex != nil && *p.PayloadHex != "":
		s += " " + *p.PayloadHex
	}
	if p.PayloadCut {
		s += "…"
	}
	return s
}
