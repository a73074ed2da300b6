package broker

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"sync"

	"github.com/wind-c/comqtt/v3/broker/listeners"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/session/topic"
)

// violation returns the error for a broken rule of the specification: the
// reason code it is answered with, the statement as in packets.Error, and what
// is wrong.
func violation(code packets.Code, statement, why string) error {
	return &packets.Error{Code: code, Reason: why, Statement: statement}
}

// refusal is what the broker does not allow although no rule is broken.
type refusal struct {
	code packets.Code
	why  string
}

func (e *refusal) Error() string { return e.code.String() + ": " + e.why }

func refuse(code packets.Code, why string) error { return &refusal{code, why} }

// codeOf returns the reason code that an error of the reader is answered with,
// and what is wrong in words.
func codeOf(err error) (code packets.Code, why string, ok bool) {
	var r *refusal
	if errors.As(err, &r) {
		return r.code, r.why, true
	}
	var v *packets.Error
	if errors.As(err, &v) {
		return v.Code, v.Reason, true
	}
	return 0, "", false
}

// brokenBy returns the violation behind an error that ended a reader, nil if
// the client has done nothing wrong.
func (c *conn) brokenBy(err error) *packets.Error {
	var v *packets.Error
	switch {
	case errors.As(err, &v):
		return v
	case errors.Is(err, listeners.ErrTextFrame):
		return &packets.Error{Code: packets.CodeMalformedPacket, Reason: "text frame", Statement: "MQTT-6.0.0-1"}
	case errors.Is(err, listeners.ErrFrame):
		return &packets.Error{Code: packets.CodeMalformedPacket, Reason: err.Error(), Statement: "6"}
	case c.version == 0 && errors.Is(err, os.ErrDeadlineExceeded):
		return &packets.Error{Code: packets.CodeMalformedPacket, Reason: "no CONNECT in time", Statement: "3.1.4"}
	}
	return nil
}

// violated counts and logs that a client broke a rule.
func (c *conn) violated(v *packets.Error) {
	c.srv.stats.violations.add(v.Statement)
	c.log(slog.LevelDebug, "protocol violation", "statement", v.Statement, "code", v.Code.String(), "reason", v.Reason)
}

// invalidTopic returns the violation for an error of topic.ValidateName or
// topic.ValidateFilter.
func invalidTopic(code packets.Code, err error) *packets.Error {
	v := &packets.Error{Code: code, Reason: err.Error(), Statement: "4.7"}
	var t *topic.Error
	if errors.As(err, &t) {
		v.Reason, v.Statement = t.Reason, t.Statement
	}
	return v
}

// violations counts broken rules by statement. There are no more entries than
// statements in the code.
type violations struct {
	mu sync.Mutex
	by map[string]uint64
}

func (v *violations) add(statement string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.by == nil {
		v.by = make(map[string]uint64)
	}
	v.by[statement]++
}

func (v *violations) all() map[string]uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.by)
}
