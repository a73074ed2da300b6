package bench

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// Mode is a kind of load.
type Mode string

// The modes.
const (
	Pairs     Mode = "pairs"     // one publisher to one subscriber, many times
	Durable   Mode = "durable"   // the same with sessions that outlive their connection
	FanOut    Mode = "fanout"    // one publisher to many subscribers
	FanIn     Mode = "fanin"     // many publishers to one subscriber, or to a shared group
	Offline   Mode = "offline"   // store messages for sessions that are away, then drain them
	Latency   Mode = "latency"   // open loop at a fixed rate
	Connect   Mode = "connect"   // CONNECT, SUBSCRIBE, DISCONNECT, again and again
	Idle      Mode = "idle"      // memory of connections that do nothing
	Retained  Mode = "retained"  // set retained messages, then get them by wildcard
	Subscribe Mode = "subscribe" // wildcard subscriptions: make, store, match
	Restart   Mode = "restart"   // time from the start of the process to the first CONNACK, with a backlog
	Stresser  Mode = "stresser"  // the procedure of mqtt-stresser
)

// mode is what a mode is for and its defaults.
type mode struct {
	Mode
	about string
	def   Options
}

func modes() []mode {
	return []mode{
		{Pairs, "one publisher to one subscriber, many times", Options{Pairs: 50, Size: 64}},
		{Durable, "the same with durable sessions", Options{Pairs: 50, Size: 64, QoS: 1, Durable: true}},
		{FanOut, "one publisher to many subscribers", Options{Subscribers: 500, Size: 64}},
		{FanIn, "many publishers to one subscriber, or to a shared group", Options{Publishers: 200, Subscribers: 1, Size: 64, QoS: 1}},
		{Offline, "messages stored for absent sessions, then drained", Options{
			Publishers: 10, Sessions: 10, Messages: 200_000, Size: 256, QoS: 1, Window: 100, Durable: true,
		}},
		{Latency, "delivery time at a fixed rate", Options{Pairs: 20, Rate: 2000, Size: 64, QoS: 1}},
		{Connect, "CONNECT, SUBSCRIBE, DISCONNECT, again and again", Options{Connections: 50, Size: minSize}},
		{Idle, "memory of idle connections", Options{Connections: 10_000, Size: minSize}},
		{Retained, "retained messages set, then got by wildcard", Options{Publishers: 10, Topics: 100_000, Clients: 5, Size: 64, Window: 100}},
		{Subscribe, "wildcard subscriptions: made, stored, matched", Options{Clients: 10, Subscriptions: 100_000, Size: 64}},
		{Restart, "time to the first CONNACK after a restart with a backlog", Options{
			Publishers: 10, Sessions: 10, Messages: 20_000, Topics: 100_000, Size: 64, QoS: 1, Window: 100, Durable: true,
		}},
		{Stresser, "the procedure of mqtt-stresser", Options{Pairs: 10, Messages: 10_000, Size: stresserSize}},
	}
}

// Modes lists the modes with a line about each, in the order of help.
func Modes() (names []Mode, about []string) {
	for _, m := range modes() {
		names, about = append(names, m.Mode), append(about, m.about)
	}
	return names, about
}

// Options say what to do to which broker. Begin with Defaults; fields that a
// mode does not use are ignored.
type Options struct {
	Mode   Mode
	Target string // host:port, tls:host:port or unix:PATH
	// PID is the broker's process if it runs on this machine: its CPU time and
	// memory are part of the result then. 0: unknown.
	PID int

	Version  packets.Version // V311 (default) or V5
	QoS      byte            // of messages and subscriptions, 0 to 2
	Size     int             // payload, bytes, 16 to 16 MiB
	Window   int             // messages under way per publisher, 1 to 65535; 0: 256 with QoS 0, else 20
	Duration time.Duration   // measured time, after Warmup
	Warmup   time.Duration   // 0: a quarter of Duration, at most a second
	Messages int             // in all; instead of Duration in pairs and durable, per client in stresser

	Pairs         int // pairs, durable, latency, stresser
	Publishers    int // fanin, offline, retained, restart
	Subscribers   int // fanout, fanin
	Shared        bool
	Durable       bool // subscribers (and QoS 2 publishers) have sessions that outlive the connection
	Sessions      int  // offline, restart
	Spread        bool // offline, restart: each message to one session instead of to all
	Rate          int  // latency: messages per second in all
	Connections   int  // connect: at a time; idle: in all
	Topics        int  // retained, restart
	Clients       int  // retained: that get; subscribe: that hold the subscriptions
	Subscriptions int

	// ProbeDir makes latency time fdatasync in this directory during the run.
	ProbeDir string
	// Keep leaves sessions and retained messages in the broker.
	Keep bool

	Username, Password string

	// Process starts and stops the broker: for restart.
	Process Process
	// Progress is told about the state of a run a few times a second; nil: nobody.
	Progress func(Progress)

	waits waits
}

// waits are how long a run waits for what may not come. Zero: the default.
type waits struct {
	stall  time.Duration // nothing arrives: the run is over, what is missing is lost
	settle time.Duration // memory is given to settle before it is read
	calm   time.Duration // nothing is written before a broker is killed
}

const (
	defaultStall  = 10 * time.Second
	defaultSettle = 2 * time.Second
	defaultCalm   = 5 * time.Second
)

// Progress is the state of a run.
type Progress struct {
	Phase string  // what is being done: "warm-up", "measuring", "storing" …
	Done  float64 // share of the phase that is done, 0 to 1; below 0: unknown
	Count uint64  // messages (connections …) so far
	Rate  float64 // of them, per second, lately
}

const (
	minSize = 16 // run, source and sequence number
	maxSize = 16 << 20

	windowQoS0   = 256
	windowQoS1   = 20
	stresserSize = 20 // "this is msg #10000!" has 19

	defaultDuration = 5 * time.Second
	maxWarmup       = time.Second
)

// ErrOptions is in every error about Options.
var ErrOptions = errors.New("bench: bad option")

// Defaults returns the defaults of a mode.
func Defaults(m Mode) (Options, bool) {
	for _, d := range modes() {
		if d.Mode == m {
			o := d.def
			o.Mode = m
			o.Version = packets.V311
			o.Duration = defaultDuration
			return o, true
		}
	}
	return Options{}, false
}

// complete derives what may be left open and checks everything.
func (o Options) complete() (Options, error) {
	if o.Window == 0 {
		o.Window = windowQoS1
		if o.QoS == 0 {
			o.Window = windowQoS0
		}
	}
	if o.Warmup == 0 {
		o.Warmup = min(o.Duration/4, maxWarmup)
	}
	o.waits.stall = cmp.Or(o.waits.stall, defaultStall)
	o.waits.settle = cmp.Or(o.waits.settle, defaultSettle)
	o.waits.calm = cmp.Or(o.waits.calm, defaultCalm)
	return o, o.validate()
}

// validate checks ranges and what does not go together.
func (o *Options) validate() error {
	var wrong []string
	check := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	within := func(name string, v, least, most int) {
		check(v >= least && v <= most, "%s %d is not %d to %d", name, v, least, most)
	}
	_, known := Defaults(o.Mode)
	check(known, "unknown mode %q", o.Mode)
	within("size", o.Size, minSize, maxSize)
	within("window", o.Window, 1, 65535)
	within("qos", int(o.QoS), 0, 2)
	check(o.Version == packets.V311 || o.Version == packets.V5, "version %d is not 4 or 5", o.Version)
	check(o.Duration > 0 && o.Warmup >= 0, "a duration is negative")
	check(o.Target != "" || o.Process != nil, "no target")
	for _, n := range o.needs() {
		within(n.name, *n.field, n.least, n.most)
	}
	switch o.Mode {
	case FanIn:
		check(o.Subscribers == 1 || o.Shared, "%d subscribers without a shared group: each would get everything", o.Subscribers)
	case Offline, Durable:
		check(o.QoS > 0, "messages of QoS 0 are not kept for absent sessions")
	case Restart:
		check(o.QoS > 0, "messages of QoS 0 are not kept for absent sessions")
		check(o.Process != nil, "restart has to start the broker itself: give its command line")
	case Subscribe:
		check(o.Clients > 0 && o.Subscriptions >= o.Clients, "%d subscriptions are too few for %d clients", o.Subscriptions, o.Clients)
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		return fmt.Errorf("%w: %s", ErrOptions, strings.Join(wrong, "; "))
	}
	return nil
}

// need is a number that a mode uses.
type need struct {
	name        string
	field       *int
	least, most int
}

// needs returns the numbers that the mode uses.
func (o *Options) needs() []need {
	const connections, messages = 1_000_000, 1_000_000_000
	var (
		pairs       = need{"pairs", &o.Pairs, 1, connections}
		publishers  = need{"publishers", &o.Publishers, 1, connections}
		subscribers = need{"subscribers", &o.Subscribers, 1, connections}
		sessions    = need{"sessions", &o.Sessions, 1, connections}
		clients     = need{"clients", &o.Clients, 1, connections}
		inParallel  = need{"connections", &o.Connections, 1, connections}
		topics      = need{"topics", &o.Topics, 1, maxNumbered}
		stored      = need{"messages", &o.Messages, 1, messages}
	)
	switch o.Mode {
	case Pairs, Durable:
		return []need{pairs, {"messages", &o.Messages, 0, messages}}
	case FanOut:
		return []need{subscribers}
	case FanIn:
		return []need{publishers, subscribers}
	case Offline:
		return []need{publishers, sessions, stored}
	case Restart:
		return []need{publishers, sessions, stored, topics}
	case Latency:
		return []need{pairs, {"rate", &o.Rate, 1, 10_000_000}}
	case Connect, Idle:
		return []need{inParallel}
	case Retained:
		return []need{publishers, topics, clients}
	case Subscribe:
		return []need{clients, {"subscriptions", &o.Subscriptions, 1, maxNumbered}}
	case Stresser:
		return []need{pairs, stored}
	}
	return nil
}

// counted reports whether the run ends with a number of messages instead
// of a duration.
func (o *Options) counted() bool { return o.Messages > 0 && (o.Mode == Pairs || o.Mode == Durable) }

// describe is the load in words, for the result.
func (o *Options) describe() string {
	var s []string
	add := func(format string, args ...any) { s = append(s, fmt.Sprintf(format, args...)) }
	switch o.Mode {
	case Pairs, Durable:
		add("%d pairs", o.Pairs)
	case FanOut:
		add("1 to %d", o.Subscribers)
	case FanIn:
		add("%d to %d", o.Publishers, o.Subscribers)
		if o.Shared {
			add("shared")
		}
	case Offline, Restart:
		to := "to each of"
		if o.Spread {
			to = "spread over"
		}
		add("%d messages %s %d sessions", o.Messages, to, o.Sessions)
		if o.Mode == Restart {
			add("%d retained", o.Topics)
		}
	case Latency:
		add("%d pairs, %d msg/s", o.Pairs, o.Rate)
	case Connect:
		add("%d at a time", o.Connections)
	case Idle:
		add("%d connections", o.Connections)
	case Retained:
		add("%d topics, %d clients", o.Topics, o.Clients)
	case Subscribe:
		add("%d subscriptions of %d clients", o.Subscriptions, o.Clients)
	case Stresser:
		add("%d clients, %d messages each", o.Pairs, o.Messages)
	}
	if o.Mode != Connect && o.Mode != Idle {
		add("QoS %d", o.QoS)
		add("%d B", o.Size)
	}
	if o.Mode != Connect && o.Mode != Idle && o.Mode != Latency && o.Mode != Stresser {
		add("window %d", o.Window)
	}
	if o.Durable {
		add("durable sessions")
	}
	add("MQTT %s", o.Version)
	return strings.Join(s, ", ")
}
