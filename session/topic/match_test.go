package topic

import (
	"strings"
	"testing"
)

// naiveMatch is §4.7 written down level by level.
func naiveMatch(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (f[0] == "+" || f[0] == "#") {
		return false
	}
	for i, level := range f {
		if level == "#" {
			return true
		}
		if i == len(t) || level != "+" && level != t[i] {
			return false
		}
	}
	return len(f) == len(t)
}

// matchCases are the examples of §4.7 and their neighbours.
var matchCases = []struct {
	name, filter string
	match, not   []string
}{
	{
		"4.7.1.2", "sport/tennis/player1/#",
		[]string{"sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"},
		[]string{"sport/tennis", "sport/tennis/player2", "sport/tennis/player10", "sport/tennis/player"},
	},
	{
		"4.7.1.2 includes the parent", "sport/#",
		[]string{"sport", "sport/", "sport/x", "sport//"},
		[]string{"sports", "spor", "/sport", "Sport"},
	},
	{
		"MQTT-4.7.2-1 hash", "#",
		[]string{"a", "/", "a/b", "a/$b", "/$SYS"},
		[]string{"$SYS", "$SYS/a", "$", "$/"},
	},
	{
		"4.7.1.3", "sport/tennis/+",
		[]string{"sport/tennis/player1", "sport/tennis/player2", "sport/tennis/"},
		[]string{"sport/tennis/player1/ranking", "sport/tennis", "sport/tennis//"},
	},
	{
		"4.7.1.3 sport/+", "sport/+",
		[]string{"sport/", "sport/x"},
		[]string{"sport", "sport/x/y"},
	},
	{
		"4.7.1.3 +/+", "+/+",
		[]string{"/finance", "/", "a/b"},
		[]string{"a", "a/b/c", "$SYS/a"},
	},
	{"4.7.1.3 /+", "/+", []string{"/finance", "/", "/$SYS"}, []string{"finance", "a/finance", "//"}},
	{"4.7.1.3 +", "+", []string{"finance"}, []string{"/finance", "$SYS", "$"}},
	{
		"+/tennis/#", "+/tennis/#",
		[]string{"a/tennis", "a/tennis/b/c", "/tennis"},
		[]string{"tennis", "a/b/tennis", "$a/tennis"},
	},
	{"a/+/#", "a/+/#", []string{"a/b", "a/", "a/b/c/d", "a//"}, []string{"a", "b/b"}},
	{"+/#", "+/#", []string{"a", "a/b", "/"}, []string{"$a", "$a/b"}},
	{"MQTT-4.7.2-1 plus", "+/monitor/Clients", []string{"a/monitor/Clients"}, []string{"$SYS/monitor/Clients"}},
	{
		"4.7.2 $SYS/#", "$SYS/#",
		[]string{"$SYS", "$SYS/", "$SYS/monitor/Clients"},
		[]string{"SYS/a", "$SYSX", "$sys/a"},
	},
	{"4.7.2 $SYS/monitor/+", "$SYS/monitor/+", []string{"$SYS/monitor/Clients"}, []string{"$SYS/monitor", "a/monitor/Clients"}},
	{"4.7.3 case", "ACCOUNTS", []string{"ACCOUNTS"}, []string{"Accounts", "accounts"}},
	{"4.7.3 space", "Accounts payable", []string{"Accounts payable"}, []string{"Accounts", "Accounts  payable"}},
	{"4.7.3 leading separator", "/finance", []string{"/finance"}, []string{"finance", "/finance/", "//finance"}},
	{"MQTT-4.7.3-4 no normalization", "a\u0308", []string{"a\u0308"}, []string{"\u00e4", "a"}},
	{"empty levels", "a//b", []string{"a//b"}, []string{"a/b", "a///b", "a/x/b"}},
	{"plus takes an empty level", "a/+/b", []string{"a//b", "a/+x/b"}, []string{"a/b"}},
}

func TestMatch(t *testing.T) {
	for _, c := range matchCases {
		t.Run(c.name, func(t *testing.T) {
			for _, topic := range c.match {
				if !Match(c.filter, topic) {
					t.Errorf("Match(%q, %q) = false", c.filter, topic)
				}
			}
			for _, topic := range c.not {
				if Match(c.filter, topic) {
					t.Errorf("Match(%q, %q) = true", c.filter, topic)
				}
			}
		})
	}
}

// The index and the naive model, by the same cases.
func TestIndexMatch_MQTT_4_7(t *testing.T) {
	for _, c := range matchCases {
		t.Run(c.name, func(t *testing.T) {
			x, m := NewIndex(), new(Matches)
			x.Subscribe(c.filter, Sub{Ref: 1})
			for _, topic := range c.match {
				if x.Match([]byte(topic), m); len(m.Subs) != 1 || !naiveMatch(c.filter, topic) {
					t.Errorf("%q, %q: index %v, model %t", c.filter, topic, m.Subs, naiveMatch(c.filter, topic))
				}
			}
			for _, topic := range c.not {
				if x.Match([]byte(topic), m); len(m.Subs) != 0 || naiveMatch(c.filter, topic) {
					t.Errorf("%q, %q: index %v, model %t", c.filter, topic, m.Subs, naiveMatch(c.filter, topic))
				}
			}
		})
	}
}
