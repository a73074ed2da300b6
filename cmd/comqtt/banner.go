package main

import (
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/wind-c/comqtt/v3/wal"
)

// recovered is what the broker found and did before it served.
type recovered struct {
	created  bool   // nothing was there
	records  uint64 // replayed from the log
	elapsed  time.Duration
	sessions uint64
	retained uint64
	queued   uint64 // messages waiting in sessions
	repaired string // what was cut off a torn log, empty if nothing
}

// addresses are where things are: bound addresses, empty meaning off, and the
// data directory as an absolute path.
type addresses struct {
	tcp, tls, ws, wss, wsPath, unix, http string
	data                                  string
}

// banner is what a person sees at start: at most 12 lines.
func banner(s *settings, r *recovered, a *addresses) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("comqtt", "%s", versionLine())
	line("data", "%s   backend %s", a.data, s.backendName())
	if r.created {
		line("recovered", "nothing: a new data directory")
	} else {
		line("recovered", "%s records in %s   sessions %s   retained %s   queued %s",
			formatCount(r.records), formatElapsed(r.elapsed), formatCount(r.sessions), formatCount(r.retained), formatCount(r.queued))
	}
	if r.repaired != "" {
		line("repaired", "%s", r.repaired)
	}
	line("sync", "%s: %s", s.sync, syncMeaning(s.sync))
	if a.tcp != "" {
		line("mqtt", "mqtt://%s", a.tcp)
	}
	if a.tls != "" {
		line("mqtts", "mqtts://%s", a.tls)
	}
	if a.wss != "" {
		line("websocket", "wss://%s%s", a.wss, a.wsPath)
	}
	if a.ws != "" {
		line("websocket", "ws://%s%s", a.ws, a.wsPath)
	}
	if a.unix != "" {
		line("unix", "unix:%s   mode %04o", a.unix, s.unixMode)
	}
	if a.http != "" {
		line("health", "http://%s/readyz", a.http)
	}
	line("access", "%s", access(s))
	line("try", "%s", nextStep(a))
	return b.String()
}

// syncMeaning says what an acknowledgement is worth.
func syncMeaning(m wal.SyncMode) string {
	switch {
	case m == wal.SyncAlways:
		return "what is acknowledged is on stable storage"
	case m.Interval() > 0:
		return fmt.Sprintf("power loss may take the last %s of what was acknowledged, a killed process nothing", m)
	}
	return "power loss may take what was acknowledged since the last checkpoint, a killed process nothing"
}

func access(s *settings) string {
	if s.local() {
		return "anonymous, from this machine only"
	}
	return "ANONYMOUS, FROM THE NETWORK (--allow-anonymous)"
}

// nextStep is a command to see the broker work.
func nextStep(a *addresses) string {
	var where string
	switch {
	case a.tcp != "":
		where = clientAddress(a.tcp)
	case a.unix != "":
		where = " --unix " + a.unix
	case a.tls != "":
		where = clientAddress(a.tls) + " --cafile CERT"
	case a.wss != "":
		return fmt.Sprintf("in Node: require('mqtt').connect('wss://%s%s')", a.wss, a.wsPath)
	default:
		return fmt.Sprintf("in Node: require('mqtt').connect('ws://%s%s')", a.ws, a.wsPath)
	}
	return fmt.Sprintf("mosquitto_sub%s -t '#' -v     mosquitto_pub%s -q 1 -t hello -m world", where, where)
}

// clientAddress is the address as options of mosquitto's clients, leaving out
// what is their default.
func clientAddress(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	var options string
	// Clients connect to localhost by default, which a wildcard includes.
	if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() && !ip.Equal(net.IPv4(127, 0, 0, 1)) {
		options += " -h " + host
	}
	const mqttPort = "1883"
	if port != mqttPort {
		options += " -p " + port
	}
	return options
}
