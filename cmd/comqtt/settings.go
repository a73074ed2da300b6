package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wind-c/comqtt/v3/backends/redis"
	"github.com/wind-c/comqtt/v3/broker/listeners"
	"github.com/wind-c/comqtt/v3/wal"
)

// settings are serve's flags, parsed and checked.
type settings struct {
	tcp      string // host:port; empty = off, for all addresses
	tls      string
	ws       string
	wss      string
	tlsFiles listeners.CertificateFiles
	unix     string // path
	unixMode fs.FileMode
	http     string

	anonymous bool // serve anyone who can reach a listener beyond loopback

	data    string
	backend string
	sync    wal.SyncMode
	engine  string

	archive      bool
	archiveAge   time.Duration
	archiveBytes int64

	maxPacketSize     int64
	maxConnectSize    int64
	maxClients        int64
	maxConnecting     int64
	connectTimeout    time.Duration
	maxKeepAlive      time.Duration // 0 = no limit
	receiveMaximum    int64
	topicAliasMaximum int64
	maxInflight       int64
	maxSubscriptions  int64
	maxTopicLevels    int64
	maxSessionExpiry  time.Duration // 0 = no limit
	maxQueueMessages  int64
	maxQueueBytes     int64
	queueFull         string
	messageCache      int64
	maxQueueMemory    int64
	maxInbound        int64
	maxLog            int64
	minFreeSpace      int64
	restartGrace      time.Duration
	shutdownTimeout   time.Duration

	logLevel  slog.Level
	logFormat string
}

// option is one setting: a flag, an environment variable and a line of help,
// all from here.
type option struct {
	name    string // of the flag
	value   string // what it takes, for help; empty for a switch
	def     string // default as text
	usage   string // one line
	allowed string // for the error message
	set     func(s *settings, text string) error
}

const (
	addressForm = "host:port, :port for every interface, or off"
	sizeForm    = "a size such as 64KiB, 32MiB or 1GB, "
	periodForm  = "a duration such as 500ms, 10s or 2m, "
)

// longestExpiry is a century, less than the 32 bits of seconds that MQTT has.
const longestExpiry = 876_000 * time.Hour

// options returns serve's settings in the order of help.
func options(defaultData string) []option {
	return []option{
		{
			"data", "DIR", defaultData, "data directory; default $STATE_DIRECTORY if set",
			"a directory", text(func(s *settings) *string { return &s.data }),
		},
		{
			"tcp", "ADDR|off", "127.0.0.1:1883", "MQTT over TCP",
			addressForm, address(func(s *settings) *string { return &s.tcp }),
		},
		{
			"ws", "ADDR|off", "127.0.0.1:1882", "MQTT over WebSocket, path /mqtt",
			addressForm, address(func(s *settings) *string { return &s.ws }),
		},
		{
			"tls", "ADDR|off", "off", "MQTT over TLS, usually at port 8883",
			addressForm, address(func(s *settings) *string { return &s.tls }),
		},
		{
			"wss", "ADDR|off", "off", "MQTT over WebSocket and TLS, path /mqtt",
			addressForm, address(func(s *settings) *string { return &s.wss }),
		},
		{
			"tls-cert", "FILE", "none", "PEM certificate chain for tls and wss; read again when it changes",
			"a file", file(func(s *settings) *string { return &s.tlsFiles.Cert }),
		},
		{
			"tls-key", "FILE", "none", "PEM private key of the certificate",
			"a file", file(func(s *settings) *string { return &s.tlsFiles.Key }),
		},
		{
			"tls-client-cert", "HOW", "none", "whether clients show a certificate: none, optional, require",
			"none, optional or require", func(s *settings, v string) error { return setClientAuth(s, v) },
		},
		{
			"tls-client-ca", "FILE", "none", "PEM authorities of client certificates; none: those of the system",
			"a file", file(func(s *settings) *string { return &s.tlsFiles.ClientCA }),
		},
		{
			"unix", "PATH|off", "off", "MQTT over a Unix domain socket",
			"a path, or off", func(s *settings, v string) error { return setUnix(s, v) },
		},
		{
			"unix-mode", "MODE", "0660", "permission of the socket file",
			"an octal permission such as 0660", func(s *settings, v string) error { return setMode(s, v) },
		},
		{
			"http", "ADDR|off", "127.0.0.1:8080", "health: /livez, /readyz, /version",
			addressForm, address(func(s *settings) *string { return &s.http }),
		},
		{
			"allow-anonymous", "", "false", "listen beyond loopback although nobody has to log in",
			"true or false", truth(func(s *settings) *bool { return &s.anonymous }),
		},
		{
			"backend", "KIND|URL", "bbolt", "where the state is kept: bbolt, badger, memory (the log is never shortened), or redis://… beside bbolt",
			"bbolt, badger, memory, or redis://user:password@host:port/db?prefix=name", setBackend,
		},
		{
			"sync", "MODE", "always", "when the log reaches stable storage: always, an interval, never",
			"always, never, or an interval from 1ms to 1h such as 100ms",
			func(s *settings, v string) (err error) { s.sync, err = wal.ParseSyncMode(v); return err },
		},
		{
			"log-engine", "KIND", "tidwall", "what writes the log: tidwall, or native, which prepares its files beforehand",
			"tidwall or native", word(func(s *settings) *string { return &s.engine }, wal.EngineTidwall, wal.EngineNative),
		},
		{
			"archive", "on|off", "on", "keep what leaves the log, to restore a state of the past or a lost backend",
			"on or off", func(s *settings, v string) error { return setSwitch(&s.archive, v) },
		},
		{
			"archive-age", "TIME", "24h", "how far back the archive reaches, if archive-bytes allows it",
			periodForm + "from 1m to 8760h", period(func(s *settings) *time.Duration { return &s.archiveAge }, "", time.Minute, 8760*time.Hour),
		},
		{
			"archive-bytes", "SIZE", "1GiB", "most that its segments may take; never more than an eighth of the free disk",
			sizeForm + "from 1MiB to 1024GiB", size(func(s *settings) *int64 { return &s.archiveBytes }, 1<<20, 1<<40),
		},
		{
			"max-packet-size", "SIZE", "32MiB", "largest MQTT packet taken from a client",
			sizeForm + "from 1KiB to 256MiB", size(func(s *settings) *int64 { return &s.maxPacketSize }, 1<<10, 256<<20),
		},
		{
			"max-connect-size", "SIZE", "64KiB", "the same for CONNECT, before anyone has logged in",
			sizeForm + "from 1KiB to 256MiB", size(func(s *settings) *int64 { return &s.maxConnectSize }, 1<<10, 256<<20),
		},
		{
			"max-clients", "N", "1048576", "connections at a time",
			"1 to 2147483647", count(func(s *settings) *int64 { return &s.maxClients }, 1, 1<<31-1),
		},
		{
			"max-connecting", "N", "10000", "connections at a time that have not sent CONNECT",
			"1 to 2147483647", count(func(s *settings) *int64 { return &s.maxConnecting }, 1, 1<<31-1),
		},
		{
			"connect-timeout", "TIME", "10s", "how long a new connection may take to send CONNECT",
			periodForm + "from 1ms to 1h", period(func(s *settings) *time.Duration { return &s.connectTimeout }, "", time.Millisecond, time.Hour),
		},
		{
			"max-keep-alive", "TIME|off", "off", "longest keep-alive (MQTT 5); clients that want more or none get this",
			periodForm + "from 1s to 18h, or off", period(func(s *settings) *time.Duration { return &s.maxKeepAlive }, "off", time.Second, 18*time.Hour),
		},
		{
			"receive-maximum", "N", "1024", "messages under way from one client without our acknowledgement",
			"1 to 65535", count(func(s *settings) *int64 { return &s.receiveMaximum }, 1, 65535),
		},
		{
			"topic-alias-maximum", "N", "64", "topic aliases one client may set",
			"1 to 65535", count(func(s *settings) *int64 { return &s.topicAliasMaximum }, 1, 65535),
		},
		{
			"max-inflight", "N", "256", "messages under way to one client without its acknowledgement",
			"1 to 65535", count(func(s *settings) *int64 { return &s.maxInflight }, 1, 65535),
		},
		{
			"max-subscriptions", "N", "100000", "subscriptions of one client",
			"1 to 2147483647", count(func(s *settings) *int64 { return &s.maxSubscriptions }, 1, 1<<31-1),
		},
		{
			"max-topic-levels", "N", "128", "levels of a topic or filter",
			"1 to 65535", count(func(s *settings) *int64 { return &s.maxTopicLevels }, 1, 65535),
		},
		{
			"max-session-expiry", "TIME|never", "never", "longest time a session outlives its connection",
			periodForm + "from 1s to 876000h, or never",
			period(func(s *settings) *time.Duration { return &s.maxSessionExpiry }, "never", time.Second, longestExpiry),
		},
		{
			"max-queue-messages", "N", "1000000", "messages that may wait for one durable session",
			"1 to 4294967295", count(func(s *settings) *int64 { return &s.maxQueueMessages }, 1, 1<<32-1),
		},
		{
			"max-queue-bytes", "SIZE", "1GiB", "bytes that may wait for one durable session",
			sizeForm + "from 1KiB to 1024GiB", size(func(s *settings) *int64 { return &s.maxQueueBytes }, 1<<10, 1<<40),
		},
		{
			"queue-full", "WHICH", "new", "what a full queue drops: the new message or the oldest",
			"new or oldest", word(func(s *settings) *string { return &s.queueFull }, "new", "oldest"),
		},
		{
			"message-cache", "SIZE", "256MiB", "memory for messages that wait; the others are read from disk",
			sizeForm + "from 1MiB to 1024GiB", size(func(s *settings) *int64 { return &s.messageCache }, 1<<20, 1<<40),
		},
		{
			"max-queue-memory", "SIZE", "64MiB", "memory for what waits for one client without a durable session",
			sizeForm + "from 64KiB to 1024GiB", size(func(s *settings) *int64 { return &s.maxQueueMemory }, 64<<10, 1<<40),
		},
		{
			"max-inbound", "SIZE", "1GiB", "memory for large packets that are still arriving, all clients together",
			sizeForm + "from 1MiB to 1024GiB", size(func(s *settings) *int64 { return &s.maxInbound }, 1<<20, 1<<40),
		},
		{
			"min-free-space", "SIZE", "64MiB", "free disk space below which durable publishes are refused",
			sizeForm + "from 1MiB to 1024GiB", size(func(s *settings) *int64 { return &s.minFreeSpace }, 1<<20, 1<<40),
		},
		{
			"max-log", "SIZE", "16GiB", "log kept for a backend that lags behind, above which durable publishes are refused",
			sizeForm + "from 64MiB to 1024GiB", size(func(s *settings) *int64 { return &s.maxLog }, 64<<20, 1<<40),
		},
		{
			"restart-grace", "TIME", "30s", "how long clients have to return after a crash before their wills are sent",
			periodForm + "from 1s to 24h", period(func(s *settings) *time.Duration { return &s.restartGrace }, "", time.Second, 24*time.Hour),
		},
		{
			"shutdown-timeout", "TIME", "30s", "how long stopping may take",
			periodForm + "from 1ms to 1h", period(func(s *settings) *time.Duration { return &s.shutdownTimeout }, "", time.Millisecond, time.Hour),
		},
		{
			"log-level", "LEVEL", "info", "least important lines to log: debug, info, warn, error",
			"debug, info, warn or error", setLevel,
		},
		{
			"log-format", "FORMAT", "text", "text or json, on standard error",
			"text or json", word(func(s *settings) *string { return &s.logFormat }, "text", "json"),
		},
	}
}

func envName(flag string) string {
	return "COMQTT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func text(field func(*settings) *string) func(*settings, string) error {
	return func(s *settings, v string) error {
		if v == "" {
			return errors.New("empty")
		}
		*field(s) = v
		return nil
	}
}

func word(field func(*settings) *string, allowed ...string) func(*settings, string) error {
	return func(s *settings, v string) error {
		if !slices.Contains(allowed, v) {
			return errors.New("unknown")
		}
		*field(s) = v
		return nil
	}
}

func address(field func(*settings) *string) func(*settings, string) error {
	return func(s *settings, v string) error {
		if v == "off" {
			*field(s) = ""
			return nil
		}
		_, port, err := net.SplitHostPort(v)
		if err != nil {
			return err
		}
		if _, err := net.LookupPort("tcp", port); err != nil || port == "" {
			return errors.New("no such port")
		}
		*field(s) = v
		return nil
	}
}

func truth(field func(*settings) *bool) func(*settings, string) error {
	return func(s *settings, v string) (err error) {
		*field(s), err = strconv.ParseBool(v)
		return err
	}
}

func count(field func(*settings) *int64, least, most int64) func(*settings, string) error {
	return func(s *settings, v string) error {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < least || n > most {
			return errors.New("out of range")
		}
		*field(s) = n
		return nil
	}
}

func size(field func(*settings) *int64, least, most int64) func(*settings, string) error {
	return func(s *settings, v string) error {
		n, err := parseSize(v)
		if err != nil || n < least || n > most {
			return errors.New("out of range")
		}
		*field(s) = n
		return nil
	}
}

// period reads a duration; the word none, if there is one, stands for 0.
func period(field func(*settings) *time.Duration, none string, least, most time.Duration) func(*settings, string) error {
	return func(s *settings, v string) error {
		if none != "" && v == none {
			*field(s) = 0
			return nil
		}
		d, err := time.ParseDuration(v)
		if err != nil || d < least || d > most {
			return errors.New("out of range")
		}
		*field(s) = d
		return nil
	}
}

// setBackend takes a word, or the URL of a Redis server.
func setBackend(s *settings, v string) error {
	if redis.IsURL(v) {
		s.backend = v
		return redis.CheckURL(v)
	}
	return word(func(s *settings) *string { return &s.backend }, "bbolt", "badger", "memory")(s, v)
}

// backendName is the backend as a person may see it, without secrets.
func (s *settings) backendName() string {
	if redis.IsURL(s.backend) {
		return "bbolt, mirror " + redis.Redact(s.backend)
	}
	return s.backend
}

// public returns a value without the secrets it may have.
func public(option, value string) string {
	if option == "backend" && strings.Contains(value, "://") {
		return redis.Redact(value)
	}
	return value
}

func setSwitch(field *bool, v string) error {
	switch v {
	case "on":
		*field = true
	case "off":
		*field = false
	default:
		return errors.New("unknown")
	}
	return nil
}

func setUnix(s *settings, v string) error {
	switch v {
	case "":
		return errors.New("empty")
	case "off":
		s.unix = ""
	default:
		s.unix = filepath.Clean(v)
	}
	return nil
}

func setMode(s *settings, v string) error {
	n, err := strconv.ParseUint(v, 8, 32)
	if err != nil || n == 0 || n > 0o777 {
		return errors.New("no permission")
	}
	s.unixMode = fs.FileMode(n)
	return nil
}

func setLevel(s *settings, v string) error {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	level, ok := levels[v]
	if !ok {
		return errors.New("unknown")
	}
	s.logLevel = level
	return nil
}

// flags are the options as the flag parser wants them.
func flags(opts []option) []cli.Flag {
	var out []cli.Flag
	for _, o := range opts {
		if o.value == "" {
			out = append(out, &cli.BoolFlag{Name: o.name})
			continue
		}
		out = append(out, &cli.StringFlag{Name: o.name})
	}
	return out
}

// flagNames are the flags as one types them.
func flagNames(opts []option) []string {
	names := []string{"--help"}
	for _, o := range opts {
		names = append(names, "--"+o.name)
	}
	return names
}

// readSettings takes each option from the flag, else from the environment, else
// from the default, and reports all that is wrong at once: as a usage error if a
// flag is, as a configuration error if only the environment is.
func (p *program) readSettings(c *cli.Context, opts []option) (*settings, error) {
	s := &settings{}
	var wrong []error
	code := exitConfig
	for _, o := range opts {
		value, source := o.def, "default of --"+o.name
		if v, ok := p.lookupEnv(envName(o.name)); ok && v != "" {
			value, source = v, envName(o.name)
		}
		if c.IsSet(o.name) {
			value, source = fmt.Sprint(c.Value(o.name)), "--"+o.name
		}
		if err := o.set(s, value); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %q is not valid; allowed: %s", source, public(o.name, value), o.allowed))
			if strings.HasPrefix(source, "--") {
				code = exitUsage
			}
		}
	}
	if len(wrong) > 0 {
		return nil, &exitError{code: code, err: errors.Join(wrong...), hints: []string{"see comqtt serve --help"}}
	}
	if err := s.validate(); err != nil {
		return nil, err
	}
	return s, nil
}

// validate checks what no option can check alone.
func (s *settings) validate() error {
	if s.tcp == "" && s.tls == "" && s.ws == "" && s.wss == "" && s.unix == "" {
		return &exitError{
			code:  exitUsage,
			err:   errors.New("nothing to listen on: --tcp, --tls, --ws, --wss and --unix are off"),
			hints: []string{"switch one of them on, for example --tcp 127.0.0.1:1883"},
		}
	}
	if (s.tls != "" || s.wss != "") && (s.tlsFiles.Cert == "" || s.tlsFiles.Key == "") {
		return &exitError{
			code:  exitUsage,
			err:   errors.New("--tls and --wss need --tls-cert and --tls-key"),
			hints: []string{"for a test: openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=localhost -addext subjectAltName=DNS:localhost"},
		}
	}
	if s.anonymous {
		return nil
	}
	for _, l := range s.open() {
		if l.address == "" || isLoopback(l.address) {
			continue
		}
		return &exitError{
			code: exitUsage,
			err:  fmt.Errorf("--%s %s would let anyone on the network in: there is no authentication", l.flag, l.address),
			hints: []string{
				"to want exactly that, add --allow-anonymous (COMQTT_ALLOW_ANONYMOUS=true)",
				fmt.Sprintf("to stay on this machine, use --%s 127.0.0.1:%s", l.flag, portOf(l.address)),
			},
		}
	}
	return nil
}

// place is a listener that lets anybody in who reaches it.
type place struct{ flag, address string }

// open returns the listeners that ask nobody for a certificate.
func (s *settings) open() []place {
	list := []place{{"tcp", s.tcp}, {"ws", s.ws}}
	if s.tlsFiles.ClientAuth != tls.RequireAndVerifyClientCert {
		list = append(list, place{"tls", s.tls}, place{"wss", s.wss})
	}
	return list
}

// local reports whether only this machine can reach the MQTT listeners that
// ask nobody for a certificate.
func (s *settings) local() bool {
	return !slices.ContainsFunc(s.open(), func(p place) bool { return p.address != "" && !isLoopback(p.address) })
}

// isLoopback reports whether only this machine can reach an address. A name
// counts only if everything it resolves to is loopback.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return false
	}
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	ips, err := net.LookupIP(host)
	return err == nil && len(ips) > 0 && !slices.ContainsFunc(ips, func(ip net.IP) bool { return !ip.IsLoopback() })
}

func portOf(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	return port
}

// misspelled returns, for each variable of the environment that looks like one
// of ours but is none, the one it may have meant.
func (p *program) misspelled(opts []option) map[string]string {
	var known []string
	for _, o := range opts {
		known = append(known, envName(o.name))
	}
	wrong := map[string]string{}
	for _, pair := range p.environ {
		name, _, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "COMQTT_") || slices.Contains(known, name) {
			continue
		}
		// Service managers add variables of their own (COMQTT_PORT_1883_TCP);
		// only a near miss is worth a word.
		for _, k := range known {
			if distance(name, k) <= 2 {
				wrong[name] = k
				break
			}
		}
	}
	return wrong
}

// file is text where none means no file.
func file(field func(*settings) *string) func(*settings, string) error {
	return func(s *settings, v string) error {
		switch v {
		case "":
			return errors.New("empty")
		case "none":
			v = ""
		}
		*field(s) = v
		return nil
	}
}

func setClientAuth(s *settings, v string) error {
	switch v {
	case "none":
		s.tlsFiles.ClientAuth = tls.NoClientCert
	case "optional":
		s.tlsFiles.ClientAuth = tls.VerifyClientCertIfGiven
	case "require":
		s.tlsFiles.ClientAuth = tls.RequireAndVerifyClientCert
	default:
		return errors.New("unknown")
	}
	return nil
}
