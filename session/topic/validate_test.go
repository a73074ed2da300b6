package topic

import (
	"errors"
	"strings"
	"testing"
)

func TestValidateName(t *testing.T) {
	longest := strings.Repeat("x", MaxBytes)
	for _, c := range []struct {
		name string
		in   string
		want error
	}{
		{"one character", "a", nil},
		{"levels", "sport/tennis/player1", nil},
		{"only a separator is two empty levels", "/", nil},
		{"empty levels", "//a//", nil},
		{"space and case", "Accounts payable", nil},
		{"dollar", "$SYS/broker/uptime", nil},
		{"looks like a shared filter", "$share/g/x", nil},
		{"multi-byte", "ünïcode/☃/𝄞", nil},
		{"byte order mark", "\uFEFFa", nil},
		{"greatest length", longest, nil},
		{"MQTT-4.7.3-1", "", ErrEmpty},
		{"MQTT-4.7.3-2", "a\x00b", ErrNull},
		{"MQTT-4.7.3-2 alone", "\x00", ErrNull},
		{"MQTT-4.7.3-3", longest + "x", ErrTooLong},
		{"MQTT-3.3.2-2 plus", "a/+/b", ErrWildcardInName},
		{"MQTT-3.3.2-2 hash", "a/#", ErrWildcardInName},
		{"MQTT-4.7.0-1 inside a level", "a#b", ErrWildcardInName},
		{"MQTT-4.7.0-1 last byte", "ab+", ErrWildcardInName},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ValidateName([]byte(c.in)); got != c.want {
				t.Errorf("ValidateName(%.40q) = %v, want %v", c.in, got, c.want)
			}
		})
	}
}

func TestValidateFilter(t *testing.T) {
	longest := strings.Repeat("x", MaxBytes)
	for _, c := range []struct {
		name string
		in   string
		want error
	}{
		{"literal", "sport/tennis/player1", nil},
		{"separator", "/", nil},
		{"dollar", "$SYS/#", nil},
		{"dollar and plus", "$SYS/monitor/+", nil},
		{"greatest length", longest, nil},
		// §4.7.1.2, examples of the specification.
		{"4.7.1.2 with levels", "sport/tennis/player1/#", nil},
		{"4.7.1.2 sport/#", "sport/#", nil},
		{"4.7.1.2 alone", "#", nil},
		{"4.7.1.2 sport/tennis/#", "sport/tennis/#", nil},
		{"MQTT-4.7.1-1 not on its own", "sport/tennis#", ErrMultiLevel},
		{"MQTT-4.7.1-1 not last", "sport/tennis/#/ranking", ErrMultiLevel},
		{"MQTT-4.7.1-1 first", "#/a", ErrMultiLevel},
		{"MQTT-4.7.1-1 before a separator", "#/", ErrMultiLevel},
		{"MQTT-4.7.1-1 a#", "a#", ErrMultiLevel},
		{"MQTT-4.7.1-1 #a", "#a", ErrMultiLevel},
		{"MQTT-4.7.1-1 ##", "##", ErrMultiLevel},
		{"MQTT-4.7.1-1 twice", "#/#", ErrMultiLevel},
		{"MQTT-4.7.1-1 a/b#", "a/b#", ErrMultiLevel},
		// §4.7.1.3, examples of the specification.
		{"4.7.1.3 alone", "+", nil},
		{"4.7.1.3 with hash", "+/tennis/#", nil},
		{"4.7.1.3 between", "sport/+/player1", nil},
		{"4.7.1.3 both ends", "+/+", nil},
		{"4.7.1.3 behind an empty level", "/+", nil},
		{"before an empty level", "+/", nil},
		{"plus and hash", "+/#", nil},
		{"MQTT-4.7.1-2 sport+", "sport+", ErrSingleLevel},
		{"MQTT-4.7.1-2 a+", "a+", ErrSingleLevel},
		{"MQTT-4.7.1-2 +a", "+a", ErrSingleLevel},
		{"MQTT-4.7.1-2 ++", "++", ErrSingleLevel},
		{"MQTT-4.7.1-2 a/b+/c", "a/b+/c", ErrSingleLevel},
		{"MQTT-4.7.1-2 +#", "+#", ErrSingleLevel},
		{"MQTT-4.7.1-1 #+", "#+", ErrMultiLevel},
		{"MQTT-4.7.3-1", "", ErrEmpty},
		{"MQTT-4.7.3-2", "a/\x00/#", ErrNull},
		{"MQTT-4.7.3-2 in a share name", "$share/g\x00/a", ErrNull},
		{"MQTT-4.7.3-3", longest + "x", ErrTooLong},
		{"MQTT-4.7.3-3 counts the share prefix", "$share/g/" + longest[9:] + "x", ErrTooLong},
		// §4.8.2 and its examples.
		{"4.8.2 consumer1", "$share/consumer1/sport/tennis/+", nil},
		{"4.8.2 consumer2", "$share/consumer2/sport/tennis/+", nil},
		{"4.8.2 hash", "$share/consumer1/#", nil},
		{"4.8.2 leading separator", "$share/consumer1//finance", nil},
		{"4.8.2 only a separator", "$share/g//", nil},
		{"4.8.2 dollar", "$share/g/$SYS/#", nil},
		{"MQTT-4.8.2-1 empty share name", "$share//x", ErrShareName},
		{"MQTT-4.8.2-1 nothing at all", "$share/", ErrShareName},
		{"MQTT-4.8.2-1 only separators", "$share//", ErrShareName},
		{"MQTT-4.8.2-2 no separator", "$share/g", ErrShareFilter},
		{"MQTT-4.8.2-2 no filter", "$share/g/", ErrShareFilter},
		{"MQTT-4.8.2-2 plus in the share name", "$share/g+/x", ErrShareFilter},
		{"MQTT-4.8.2-2 plus as share name", "$share/+/x", ErrShareFilter},
		{"MQTT-4.8.2-2 hash as share name", "$share/#/x", ErrShareFilter},
		{"MQTT-4.8.2-2 hash in place of the filter", "$share/#", ErrShareFilter},
		{"MQTT-4.8.2-2 shared twice", "$share/g/$share/h/x", ErrShareFilter},
		{"filter of a group: hash", "$share/g/a#", ErrMultiLevel},
		{"filter of a group: plus", "$share/g/+a/b", ErrSingleLevel},
		{"not shared: no separator", "$share", nil},
		{"not shared: other case", "$SHARE/g", nil},
		{"not shared: other word", "$shared/", nil},
		{"not shared: wildcard in the word", "$share+/g/x", ErrSingleLevel},
		{"not shared: $share below another level", "/$share/", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ValidateFilter([]byte(c.in)); got != c.want {
				t.Errorf("ValidateFilter(%.40q) = %v, want %v", c.in, got, c.want)
			}
		})
	}
}

func TestErrorTellsStatement(t *testing.T) {
	err := ValidateFilter([]byte("a#"))
	var te *Error
	if !errors.As(err, &te) || te.Statement != "MQTT-4.7.1-1" {
		t.Fatalf("errors.As(%v) gives %+v, want statement MQTT-4.7.1-1", err, te)
	}
	if got, want := err.Error(), "topic: '#' is not the whole last level [MQTT-4.7.1-1]"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}

func TestSplitShare(t *testing.T) {
	for _, c := range []struct {
		in, group, inner string
		shared           bool
	}{
		{"$share/g/a/b", "g", "a/b", true},
		{"$share/g//", "g", "/", true},
		{"$share/g/#", "g", "#", true},
		{"$share/two words/x", "two words", "x", true},
		{"a/b", "", "a/b", false},
		{"$share", "", "$share", false},
		{"$share/g", "", "$share/g", false},
		{"$share/g/", "", "$share/g/", false},
		{"$share//x", "", "$share//x", false},
		{"/$share/g/x", "", "/$share/g/x", false},
		{"$Share/g/x", "", "$Share/g/x", false},
		{"", "", "", false},
	} {
		group, inner, shared := SplitShare(c.in)
		if group != c.group || inner != c.inner || shared != c.shared {
			t.Errorf("SplitShare(%q) = %q, %q, %t, want %q, %q, %t",
				c.in, group, inner, shared, c.group, c.inner, c.shared)
		}
	}
}

func TestLevels(t *testing.T) {
	for in, want := range map[string]int{"a": 1, "a/b": 2, "/": 2, "//": 3, "a//b/": 4, "#": 1, "$share/g/a": 3} {
		if got := Levels(in); got != want {
			t.Errorf("Levels(%q) = %d, want %d", in, got, want)
		}
		if got := Levels([]byte(in)); got != want {
			t.Errorf("Levels of bytes %q = %d, want %d", in, got, want)
		}
	}
}

// §3.8.3.1: the bits of the Subscription Options byte.
func TestOptions(t *testing.T) {
	o := MakeOptions(2, RetainSendIfNew, NoLocal|RetainAsPublished)
	if o != 0b0001_1110 {
		t.Fatalf("MakeOptions = %08b, want 00011110", o)
	}
	if o.QoS() != 2 || !o.NoLocal() || !o.RetainAsPublished() || o.RetainHandling() != RetainSendIfNew {
		t.Errorf("accessors of %08b: %d %t %t %d", o, o.QoS(), o.NoLocal(), o.RetainAsPublished(), o.RetainHandling())
	}
	if o = 0; o.QoS() != 0 || o.NoLocal() || o.RetainAsPublished() || o.RetainHandling() != RetainSend {
		t.Error("the zero Options have something set")
	}
	valid := 0
	for b := range 256 {
		if Options(b).Valid() {
			valid++
		}
	}
	if valid != 3*2*2*3 {
		t.Errorf("%d bytes are valid Options, want 36", valid)
	}
	for _, bad := range []Options{3, 0x30, 0x40, 0x80} { // [MQTT-3.8.3-5] and §3.8.3.1
		if bad.Valid() {
			t.Errorf("Options %08b are valid", bad)
		}
	}
}
