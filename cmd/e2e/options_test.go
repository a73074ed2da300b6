package e2e

import (
	"bufio"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// run is the command line of a mosquitto program, without the address.
type run []string

func pub(words ...string) run { return append(run{"mosquitto_pub"}, words...) }
func sub(words ...string) run { return append(run{"mosquitto_sub"}, words...) }

// optionCase plays programs one after another.
type optionCase struct {
	name   string
	before []run    // run to their ends
	sub    run      // then this one, until it has printed what is wanted
	after  []run    // once it is subscribed
	want   []string // regular expressions for all that it prints
}

// format shows all properties of a message that mosquitto_sub knows.
const format = "MSG %t %p q%q r%r A=%A C=%C D=%D E=%E F=%F P=%P R=%R S=%S"

// plain is what format shows of a message without properties.
func plain(topic, payload, flags string) string { return with(topic, payload, flags, "") }

// with is what format shows of a message with one kind of property.
func with(topic, payload, flags, property string) string {
	line := topic + " " + payload + " " + flags
	for _, name := range strings.Fields("A C D E F P R S") {
		value, ok := strings.CutPrefix(property, name+"=")
		if !ok {
			value = ""
		}
		line += " " + name + "=" + value
	}
	return line
}

// publishCases: what a publisher says arrives unchanged
// [MQTT-3.3.2-4, -15, -16, -17, -18, -20], but for the topic alias, which is
// between the two of them, and the time that has passed [MQTT-3.3.2-6].
func publishCases() []optionCase {
	var cases []optionCase
	for _, p := range []struct{ name, value, want string }{
		{"payload-format-indicator", "1", "F=1"},
		{"message-expiry-interval", "3600", "E=(3600|35[0-9][0-9])"},
		{"content-type", "text/plain", "C=text/plain"},
		{"response-topic", "answers/here", "R=answers/here"},
		{"correlation-data", "c-1", "D=c-1"},
		{"user-property", "k v", "P=k:v"},
		{"topic-alias", "3", ""},
	} {
		option := append(run{"-q", "1", "-D", "publish", p.name}, strings.Fields(p.value)...)
		cases = append(cases, optionCase{
			"publish " + p.name, nil, sub("-t", "a", "-q", "1"),
			[]run{append(pub("-t", "a", "-m", "m"), option...)},
			[]string{with("a", "m", "q1 r0", p.want)},
		}, optionCase{ // the same from the store: the subscriber comes later
			"publish retained " + p.name,
			[]run{append(pub("-r", "-t", "kept/"+p.name, "-m", "m"), option...)},
			sub("-t", "kept/"+p.name, "-q", "1"), nil,
			[]string{with("kept/"+p.name, "m", "q1 r1", p.want)},
		})
	}
	return append(cases, optionCase{
		"publish user-property, several in order", nil, sub("-t", "a"),
		[]run{pub("-t", "a", "-m", "m", "-D", "publish", "user-property", "b", "1", "-D", "publish", "user-property", "a", "2", "-D", "publish", "user-property", "b", "3")},
		[]string{with("a", "m", "q0 r0", "P=b:1 a:2 b:3")},
	}, optionCase{ // the topic is in the first packet only [MQTT-3.3.2-12]
		"publish by topic-alias alone", nil, sub("-t", "a/#", "-q", "2"),
		[]run{pub("-t", "a/b", "-m", "m", "-q", "2", "--repeat", "3", "-D", "publish", "topic-alias", "64")},
		[]string{plain("a/b", "m", "q2 r0"), plain("a/b", "m", "q2 r0"), plain("a/b", "m", "q2 r0")},
	})
}

// subscriberCases: what a subscriber asks for in CONNECT, SUBSCRIBE, UNSUBSCRIBE
// and DISCONNECT is heeded.
func subscriberCases() []optionCase {
	hello := []run{pub("-t", "a", "-m", "m", "-q", "1")}
	got := []string{plain("a", "m", "q1 r0")}
	queued := pub("-t", "queue", "-m", "queued", "-q", "1")
	last := []run{pub("-t", "last", "-m", "m", "-q", "1")}
	lastGot := plain("last", "m", "q1 r0")
	return []optionCase{
		{"subscribe subscription-identifier", nil, sub("-t", "a", "-q", "1", "-D", "subscribe", "subscription-identifier", "268435455"), hello, []string{with("a", "m", "q1 r0", "S=268435455")}},
		{"subscribe user-property", nil, sub("-t", "a", "-q", "1", "-D", "subscribe", "user-property", "k", "v"), hello, got},
		{"connect user-property", nil, sub("-t", "a", "-q", "1", "-D", "connect", "user-property", "k", "v"), hello, got},
		{"connect request-problem-information", nil, sub("-t", "a", "-q", "1", "-D", "connect", "request-problem-information", "0"), hello, got},
		{"connect request-response-information", nil, sub("-t", "a", "-q", "1", "-D", "connect", "request-response-information", "1"), hello, got},
		{
			"connect topic-alias-maximum", nil, sub("-t", "al/#", "-D", "connect", "topic-alias-maximum", "1"),
			[]run{pub("-t", "al/1", "-m", "m"), pub("-t", "al/2", "-m", "m")},
			[]string{with("al/1", "m", "q0 r0", "A=1"), plain("al/2", "m", "q0 r0")},
		},
		{ // [MQTT-3.1.2-24]
			"connect maximum-packet-size", nil, sub("-t", "a", "-q", "1", "-D", "connect", "maximum-packet-size", "60"),
			append([]run{pub("-t", "a", "-q", "1", "-m", strings.Repeat("x", 60))}, hello...), got,
		},
		{ // one at a time, yet all and in order [MQTT-3.3.4-9]
			"connect receive-maximum",
			[]run{sub("-i", "one", "-c", "-t", "a", "-q", "2", "-E"), pub("-t", "a", "-m", "1", "-q", "1"), pub("-t", "a", "-m", "2", "-q", "2"), pub("-t", "a", "-m", "3", "-q", "1")},
			sub("-i", "one", "-c", "-t", "a", "-q", "2", "-D", "connect", "receive-maximum", "1"), nil,
			[]string{plain("a", "1", "q1 r0"), plain("a", "2", "q2 r0"), plain("a", "3", "q1 r0")},
		},
		{"-c", []run{sub("-i", "c", "-c", "-t", "queue", "-q", "1", "-E"), queued}, sub("-i", "c", "-c", "-t", "last", "-q", "1"), last, []string{plain("queue", "queued", "q1 r0"), lastGot}},
		{"-x", []run{sub("-i", "x", "-c", "-x", "60", "-t", "queue", "-q", "1", "-E"), queued}, sub("-i", "x", "-c", "-t", "last", "-q", "1"), last, []string{plain("queue", "queued", "q1 r0"), lastGot}},
		{"-x 0", []run{sub("-i", "x0", "-x", "0", "-t", "queue", "-q", "1", "-E"), queued}, sub("-i", "x0", "-c", "-t", "last", "-q", "1"), last, []string{lastGot}},
		{
			"connect session-expiry-interval",
			[]run{sub("-i", "s", "-D", "connect", "session-expiry-interval", "60", "-t", "queue", "-q", "1", "-E"), queued},
			sub("-i", "s", "-c", "-t", "last", "-q", "1"), last,
			[]string{plain("queue", "queued", "q1 r0"), lastGot},
		},
		{ // [MQTT-3.14.2-2] allows to shorten it
			"disconnect session-expiry-interval",
			[]run{sub("-i", "d", "-c", "-x", "60", "-t", "queue", "-q", "1", "-E", "-D", "disconnect", "session-expiry-interval", "0"), queued},
			sub("-i", "d", "-c", "-t", "last", "-q", "1"), last,
			[]string{lastGot},
		},
		{"disconnect user-property", []run{pub("-t", "a", "-m", "m", "-D", "disconnect", "user-property", "k", "v")}, sub("-t", "a", "-q", "1"), hello, got},
		{ // [MQTT-3.10.4-1]
			"-U, unsubscribe user-property",
			[]run{sub("-i", "u", "-c", "-t", "queue", "-q", "1", "-E"), sub("-i", "u", "-c", "-t", "other", "-U", "queue", "-E", "-D", "unsubscribe", "user-property", "k", "v"), queued},
			sub("-i", "u", "-c", "-t", "last", "-q", "1"), last,
			[]string{lastGot},
		},
		{"-T", nil, sub("-t", "t/#", "-T", "t/1"), []run{pub("-t", "t/1", "-m", "m"), pub("-t", "t/2", "-m", "m")}, []string{plain("t/2", "m", "q0 r0")}},
	}
}

// retainCases: the options of retained messages [MQTT-3.3.1-10, -12, -13].
// (mosquitto_sub 2.0.11 has none for retain handling.)
func retainCases() []optionCase {
	keep := func(topic string) run { return pub("-r", "-t", topic, "-m", "kept", "-q", "1") }
	live := func(topic string) []run { return []run{pub("-t", topic, "-m", "live", "-q", "1")} }
	return []optionCase{
		{"--retain-as-published", nil, sub("-t", "rap", "-q", "1", "--retain-as-published"), []run{keep("rap")}, []string{plain("rap", "kept", "q1 r1")}},
		{"without --retain-as-published", nil, sub("-t", "norap", "-q", "1"), []run{keep("norap")}, []string{plain("norap", "kept", "q1 r0")}},
		{"-R", []run{keep("stale")}, sub("-t", "stale", "-q", "1", "-R"), live("stale"), []string{plain("stale", "live", "q1 r0")}},
		{"--retained-only", []run{keep("only")}, sub("-t", "only", "-q", "1", "--retained-only"), live("only"), []string{plain("only", "kept", "q1 r1")}},
		{"--remove-retained", []run{keep("gone")}, sub("-t", "gone", "-q", "1", "--remove-retained"), nil, []string{plain("gone", "kept", "q1 r1"), plain("gone", "", "q1 r0")}},
		{"after --remove-retained", nil, sub("-t", "gone", "-q", "1"), live("gone"), []string{plain("gone", "live", "q1 r0")}},
	}
}

// connectionCases: the ways to connect; each publishes through one of them.
func connectionCases() []optionCase {
	var cases []optionCase
	for _, words := range [][]string{
		{"-k", "5"},
		{"-A", "127.0.0.1"},
		{"--nodelay"},
		{"-i", "chosen"},
		{"-I", "prefix-"},
		{"-M", "1"},
		{"-c", "-i", "stays", "-x", "1"},
		{"-D", "connect", "session-expiry-interval", "5"},
		{"-D", "connect", "receive-maximum", "1"},
		{"-D", "connect", "maximum-packet-size", "128"},
		{"-D", "connect", "topic-alias-maximum", "10"},
		{"-D", "connect", "request-problem-information", "1"},
		{"-D", "connect", "user-property", "k", "v"},
		{"-D", "disconnect", "session-expiry-interval", "0"},
		{"--will-topic", "w", "--will-payload", "p", "--will-qos", "2", "-D", "will", "content-type", "x"},
	} {
		cases = append(cases, optionCase{
			"pub " + strings.Join(words, " "), nil, sub("-t", "a", "-q", "2"),
			[]run{append(pub("-t", "a", "-m", "m", "-q", "2"), words...)},
			[]string{plain("a", "m", "q2 r0")},
		})
	}
	return append(
		cases,
		optionCase{"--unix", nil, sub("--unix", "SOCKET", "-t", "a", "-q", "1"), []run{pub("--unix", "SOCKET", "-t", "a", "-m", "m", "-q", "1")}, []string{plain("a", "m", "q1 r0")}},
		optionCase{"-L", nil, sub("-L", "mqtt://ADDRESS/a", "-q", "1"), []run{pub("-L", "mqtt://ADDRESS/a", "-m", "m", "-q", "1")}, []string{plain("a", "m", "q1 r0")}},
	)
}

// TestMosquittoOptions: every option for MQTT 5 that mosquitto_pub and
// mosquitto_sub have, TLS, proxy and enhanced authentication apart.
func TestMosquittoOptions(t *testing.T) {
	b := mosquittoBroker(t)
	for _, cases := range [][]optionCase{publishCases(), subscriberCases(), retainCases(), connectionCases()} {
		for _, tc := range cases {
			t.Run(tc.name, func(t *testing.T) {
				for _, r := range tc.before {
					play(t, b, r)
				}
				s := watch(t, b, tc.sub)
				for _, r := range tc.after {
					play(t, b, r)
				}
				s.expect(t, tc.want...)
			})
		}
	}
	b.stop()
}

// TestMosquittoWill: a will comes with its properties, QoS and retain flag
// [MQTT-3.1.2-8, -17], after its delay.
func TestMosquittoWill(t *testing.T) {
	b := mosquittoBroker(t)
	s := watch(t, b, sub("-t", "will/#", "-q", "2", "--retain-as-published"))
	for _, p := range []struct{ name, value, want string }{
		{"payload-format-indicator", "1", "F=1"},
		{"message-expiry-interval", "3600", "E=(3600|35[0-9][0-9])"},
		{"content-type", "text/plain", "C=text/plain"},
		{"response-topic", "answers/here", "R=answers/here"},
		{"correlation-data", "c-1", "D=c-1"},
		{"user-property", "k v", "P=k:v"},
	} {
		owner := watch(t, b, append(sub("-t", "other", "--will-topic", "will/"+p.name, "--will-payload", "died", "--will-qos", "2", "--will-retain",
			"-D", "will", p.name), strings.Fields(p.value)...))
		owner.kill()
		s.expect(t, with("will/"+p.name, "died", "q2 r1", p.want))
		watch(t, b, sub("-t", "will/"+p.name, "-q", "2")).expect(t, with("will/"+p.name, "died", "q2 r1", p.want))
	}
	owner := watch(t, b, sub("-t", "other", "-c", "-i", "late", "-x", "60", "--will-topic", "will/late", "-D", "will", "will-delay-interval", "1"))
	owner.kill()
	play(t, b, pub("-t", "will/marker", "-m", "m", "-q", "1"))
	s.expect(t, plain("will/marker", "m", "q1 r0"), plain("will/late", "", "q0 r0"))
	b.stop()
}

func mosquittoBroker(t *testing.T) *broker {
	t.Helper()
	if what := missingMosquitto(); what != "" {
		t.Skip(what)
	}
	return startBroker(t, "--unix", filepath.Join(t.TempDir(), "s"))
}

// command completes a command line with the address, unless it has one.
func command(b *broker, r run) []string {
	host, port, _ := net.SplitHostPort(b.tcp)
	socket := b.args[len(b.args)-1]
	words, addressed := []string{r[0], "-V", "mqttv5"}, false
	for _, w := range r[1:] {
		addressed = addressed || w == "--unix" || w == "-L"
		words = append(words, strings.NewReplacer("SOCKET", socket, "ADDRESS", b.tcp).Replace(w))
	}
	if !addressed {
		words = append(words, "-h", host, "-p", port)
	}
	return words
}

// play runs a program to its end, which must be a success.
func play(t *testing.T, b *broker, r run) {
	t.Helper()
	words := command(b, r)
	if got := finish(t, exec.Command(words[0], words[1:]...)); got.code != 0 || got.stderr != "" {
		t.Fatalf("%q: exit code %d\n%s%s", words, got.code, got.stdout, got.stderr)
	}
}

// watcher is a mosquitto_sub that runs.
type watcher struct {
	cmd   *exec.Cmd
	lines chan string // messages, without the word MSG; closed at its end
}

// watch starts a mosquitto_sub and waits until it is subscribed.
func watch(t *testing.T, b *broker, r run) *watcher {
	t.Helper()
	words := append([]string{"-oL"}, command(b, r)...)
	s := &watcher{cmd: exec.Command("stdbuf", append(words, "-d", "-F", format)...), lines: make(chan string, queueSize)}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = s.cmd.Stdout
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	subscribed := make(chan struct{})
	var once bool
	go func() {
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			line := scanner.Text()
			if strings.HasPrefix(line, "Subscribed (mid:") && !once {
				once = true
				close(subscribed)
			}
			if m, ok := strings.CutPrefix(line, "MSG "); ok {
				s.lines <- m
			}
		}
		_ = s.cmd.Wait()
		close(s.lines)
	}()
	t.Cleanup(s.kill)
	wait(t, subscribed, "SUBACK")
	return s
}

// expect waits for messages, in order.
func (s *watcher) expect(t *testing.T, want ...string) {
	t.Helper()
	for _, pattern := range want {
		if got := wait(t, s.lines, pattern); !regexp.MustCompile("^" + pattern + "$").MatchString(got) {
			t.Fatalf("received %q\nwant     %q", got, pattern)
		}
	}
}

// kill ends the program with SIGKILL and forgets what it still printed.
func (s *watcher) kill() {
	_ = s.cmd.Process.Kill()
	for range s.lines {
	}
}
