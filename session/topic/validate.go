package topic

import (
	"bytes"
	"strings"
)

// MaxBytes is the greatest length of a name or a filter, $share/ prefix
// included, in bytes of UTF-8 [MQTT-4.7.3-3].
const MaxBytes = 65535

// sharePrefix begins every shared filter [MQTT-4.8.2-1].
const sharePrefix = "$share/"

// An Error says which rule of the specification a name or a filter breaks. The
// values are the Err variables of this package: compare with errors.Is, or
// take the statement from one with errors.As.
type Error struct {
	Reason    string // what is wrong, for a log line or a reason string
	Statement string // the MQTT 5.0 statement broken, such as "MQTT-4.7.1-1"
}

// Error returns the reason and the statement.
func (e *Error) Error() string {
	return "topic: " + e.Reason + " [" + e.Statement + "]"
}

// What ValidateName and ValidateFilter return.
var (
	// ErrEmpty: a name or filter has at least one character.
	ErrEmpty error = &Error{"empty", "MQTT-4.7.3-1"}
	// ErrNull: a name or filter has no U+0000.
	ErrNull error = &Error{"contains U+0000", "MQTT-4.7.3-2"}
	// ErrTooLong: a name or filter has at most MaxBytes bytes.
	ErrTooLong error = &Error{"longer than 65535 bytes", "MQTT-4.7.3-3"}
	// ErrWildcardInName: a name has no '+' and no '#'.
	ErrWildcardInName error = &Error{"wildcard in a topic name", "MQTT-4.7.0-1"}
	// ErrMultiLevel: '#' is the whole of the last level of a filter.
	ErrMultiLevel error = &Error{"'#' is not the whole last level", "MQTT-4.7.1-1"}
	// ErrSingleLevel: '+' is the whole of a level of a filter.
	ErrSingleLevel error = &Error{"'+' does not occupy an entire level", "MQTT-4.7.1-2"}
	// ErrShareName: a shared filter has a group name of at least one character.
	ErrShareName error = &Error{"shared subscription without a share name", "MQTT-4.8.2-1"}
	// ErrShareFilter: the group name has no wildcard and is followed by '/' and
	// a filter, which is not itself a shared one.
	ErrShareFilter error = &Error{"share name with a wildcard, or not followed by a topic filter", "MQTT-4.8.2-2"}
)

// ValidateName reports what is wrong with the topic name of a PUBLISH or a
// will, or nil. That b is UTF-8 has been checked by the codec. Names that begin
// with '$' are syntactically fine; who may publish to them is for the broker to
// decide.
func ValidateName(b []byte) error {
	switch {
	case len(b) == 0:
		return ErrEmpty
	case len(b) > MaxBytes:
		return ErrTooLong
	case bytes.IndexByte(b, '+') >= 0 || bytes.IndexByte(b, '#') >= 0:
		return ErrWildcardInName
	case bytes.IndexByte(b, 0) >= 0:
		return ErrNull
	}
	return nil
}

// ValidateFilter reports what is wrong with the topic filter of a SUBSCRIBE or
// an UNSUBSCRIBE, or nil. That b is UTF-8 has been checked by the codec.
//
// A filter which begins with "$share/" is a shared one and has to be complete:
// a group name, and behind it a filter that is not shared again (§4.8.2: "the
// same syntax and semantics as a Topic Filter in a non-shared subscription").
// "$share" alone is an ordinary filter.
func ValidateFilter(b []byte) error {
	switch {
	case len(b) == 0:
		return ErrEmpty
	case len(b) > MaxBytes:
		return ErrTooLong
	case bytes.IndexByte(b, 0) >= 0:
		return ErrNull
	}
	if !bytes.HasPrefix(b, []byte(sharePrefix)) {
		return validateLevels(b)
	}
	group, inner, ok := bytes.Cut(b[len(sharePrefix):], []byte("/"))
	switch {
	case len(group) == 0:
		return ErrShareName
	case !ok || len(inner) == 0 || bytes.ContainsAny(group, "+#") || bytes.HasPrefix(inner, []byte(sharePrefix)):
		return ErrShareFilter
	}
	return validateLevels(inner)
}

// validateLevels checks the wildcards of a filter that is not shared.
func validateLevels(b []byte) error {
	for i, c := range b {
		switch c {
		case '#':
			if i != len(b)-1 || i > 0 && b[i-1] != '/' {
				return ErrMultiLevel
			}
		case '+':
			if i > 0 && b[i-1] != '/' || i < len(b)-1 && b[i+1] != '/' {
				return ErrSingleLevel
			}
		}
	}
	return nil
}

// SplitShare splits a shared filter, "$share/group/inner", into its parts. Of
// any other string, a malformed shared filter included, it returns
// ("", filter, false). The parts share filter's memory.
func SplitShare(filter string) (group, inner string, shared bool) {
	rest, ok := strings.CutPrefix(filter, sharePrefix)
	if !ok {
		return "", filter, false
	}
	group, inner, ok = strings.Cut(rest, "/")
	if !ok || group == "" || inner == "" {
		return "", filter, false
	}
	return group, inner, true
}
