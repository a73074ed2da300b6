package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/wind-c/comqtt/v3/backends/redis"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Options configures a Server. The zero value is an in-place durable broker
// in ./comqtt-data that lets nobody in: set AllowAnonymous or an Authenticator.
type Options struct {
	DataDir string       // data directory; empty = ./comqtt-data
	Backend string       // "bbolt" (default), "badger", "memory", or the URL of a Redis mirror beside bbolt
	Sync    wal.SyncMode // when an acknowledgement is on stable storage; zero = before it leaves
	Version string       // reported to people; empty = "dev"

	// Mirror is a second target beside the backend, a Redis server. Setting
	// Backend to its URL sets Mirror.URL.
	Mirror recovery.MirrorOptions

	// LogEngine is who writes the log: wal.EngineTidwall or wal.EngineNative.
	// Empty is the default of package wal. Each opens the other's logs.
	LogEngine string

	// NoArchive gives up what leaves the log. Otherwise it is kept, at most for
	// ArchiveAge (0 = 24 h) and ArchiveBytes (0 = 1 GiB), to restore a state of the
	// past or a lost backend.
	NoArchive    bool
	ArchiveAge   time.Duration
	ArchiveBytes int64

	// AllowAnonymous lets clients in without an Authenticator.
	AllowAnonymous bool
	// Authenticator decides who may connect and to what; nil with
	// AllowAnonymous means everybody to everything.
	Authenticator Authenticator

	Limits Limits
	Logger *slog.Logger // nil = slog.Default
	// Clock returns the wall clock in unix milliseconds; nil = time.Now.
	Clock func() int64
	// Progress is called during recovery with bytes replayed and in all.
	Progress func(done, total int64)
}

// Authenticator decides about connections, publications and subscriptions. It
// is called on the connection's reader, before anything is logged; it may
// block, and must be safe for concurrent use.
type Authenticator interface {
	// Authenticate reports whether a client may connect.
	Authenticate(c ClientInfo, password []byte) bool
	// Authorize reports whether a client may publish to a topic (write) or
	// subscribe to a filter.
	Authorize(c ClientInfo, topic string, write bool) bool
}

// ClientInfo says who a client is.
type ClientInfo struct {
	ClientID string
	Username string
	Remote   string // address
	Listener string // id
	Version  byte   // protocol level: 3, 4 or 5
}

// Limits bound what clients may ask for. A zero field takes its default, which
// DefaultLimits names.
type Limits struct {
	MaxPacketSize        uint32        // bytes, whole packet, both ways
	MaxPacketBeforeAuth  uint32        // bytes, the CONNECT packet
	MaxClients           int           // connections at a time
	MaxUnauthenticated   int           // connections that have not sent a CONNECT
	ConnectTimeout       time.Duration // from accept to CONNECT
	ReceiveMaximum       uint16        // QoS 1 and 2 publishes from a client without an answer
	TopicAliasMaximum    uint16        // aliases a client may set, and that the broker uses towards it
	MaxInflight          uint16        // identifiers in use towards a client
	MaxSubscriptions     int           // filters of one client
	MaxTopicLevels       int           // levels of a topic or filter
	MaxSessionExpiry     uint32        // seconds; 4294967295 = for ever
	MaxKeepAlive         uint16        // seconds; a client's 0 or more is lowered to it (v5); 0 = no limit
	QueueMessages        uint64        // messages queued for one durable session
	QueueBytes           uint64        // bytes of them
	EphemeralQueueBytes  int           // bytes queued in memory for one client without a durable session
	OutboxBytes          int           // bytes encoded for one connection and not yet written
	InboundBytes         int64         // bytes of incomplete large packets, all connections together
	MessageCacheBytes    int64         // bytes of message bodies kept in memory
	RestartGrace         time.Duration // time that clients cut off by a crash have to return before their wills fire
	LaneRecords          int           // records waiting for the committer before readers are held back
	LaneBytes            int           // bytes of them
	ShutdownWriteTimeout time.Duration // for the last bytes to a connection that is closed
	LogBytes             int64         // bytes of log, kept for a backend that lags behind, above which durable publishes are refused
	FreeSpaceLow         int64         // bytes free on the data directory's file system below which durable publishes are refused
	DropOldest           bool          // a full queue drops its oldest message instead of the new one
	ShareUsers           bool          // a session may be resumed by another user
}

// DefaultLimits returns the limits in force where Options.Limits has zeros.
func DefaultLimits() Limits {
	return Limits{
		MaxPacketSize:        32 << 20,
		MaxPacketBeforeAuth:  64 << 10,
		MaxClients:           1 << 20,
		MaxUnauthenticated:   10_000,
		ConnectTimeout:       10 * time.Second,
		ReceiveMaximum:       1024,
		TopicAliasMaximum:    64,
		MaxInflight:          256,
		MaxSubscriptions:     100_000,
		MaxTopicLevels:       128,
		MaxSessionExpiry:     1<<32 - 1,
		QueueMessages:        1_000_000,
		QueueBytes:           1 << 30,
		EphemeralQueueBytes:  64 << 20,
		OutboxBytes:          1 << 20,
		InboundBytes:         1 << 30,
		MessageCacheBytes:    256 << 20,
		RestartGrace:         30 * time.Second,
		LaneRecords:          8192,
		LaneBytes:            1 << 20,
		ShutdownWriteTimeout: 5 * time.Second,
		LogBytes:             16 << 30,
		FreeSpaceLow:         64 << 20,
	}
}

// MaxPacketSizeLimit is the greatest MaxPacketSize: what the protocol allows.
const MaxPacketSizeLimit = 268_435_460

// ErrOptions is in every error about Options.
var ErrOptions = errors.New("broker: bad option")

// withDefaults returns o with every default filled in, or what is wrong.
func (o Options) withDefaults() (Options, error) {
	if o.DataDir == "" {
		o.DataDir = "comqtt-data"
	}
	if o.Backend == "" {
		o.Backend = "bbolt"
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Clock == nil {
		o.Clock = func() int64 { return time.Now().UnixMilli() }
	}
	o.Limits.fill(DefaultLimits())
	l := &o.Limits
	_, err := wal.EngineNamed(o.LogEngine)
	switch {
	case err != nil:
		return o, fmt.Errorf("%w: log engine: %w", ErrOptions, err)
	case redis.IsURL(o.Backend):
		if err := redis.CheckURL(o.Backend); err != nil {
			return o, fmt.Errorf("%w: backend: %w", ErrOptions, err)
		}
		o.Mirror.URL, o.Backend = o.Backend, recovery.BackendBbolt
	case o.Backend != recovery.BackendBbolt && o.Backend != recovery.BackendBadger && o.Backend != recovery.BackendMemory:
		return o, fmt.Errorf("%w: backend %q: have bbolt, badger, memory and redis://", ErrOptions, o.Backend)
	case l.MaxPacketSize > MaxPacketSizeLimit:
		return o, fmt.Errorf("%w: maximum packet size %d: at most %d", ErrOptions, l.MaxPacketSize, MaxPacketSizeLimit)
	case l.MaxPacketBeforeAuth > l.MaxPacketSize:
		l.MaxPacketBeforeAuth = l.MaxPacketSize
	}
	return o, nil
}

func (l *Limits) fill(d Limits) {
	fill(&l.MaxPacketSize, d.MaxPacketSize)
	fill(&l.MaxPacketBeforeAuth, d.MaxPacketBeforeAuth)
	fill(&l.MaxClients, d.MaxClients)
	fill(&l.MaxUnauthenticated, d.MaxUnauthenticated)
	fill(&l.ConnectTimeout, d.ConnectTimeout)
	fill(&l.ReceiveMaximum, d.ReceiveMaximum)
	fill(&l.TopicAliasMaximum, d.TopicAliasMaximum)
	fill(&l.MaxInflight, d.MaxInflight)
	fill(&l.MaxSubscriptions, d.MaxSubscriptions)
	fill(&l.MaxTopicLevels, d.MaxTopicLevels)
	fill(&l.MaxSessionExpiry, d.MaxSessionExpiry)
	fill(&l.QueueMessages, d.QueueMessages)
	fill(&l.QueueBytes, d.QueueBytes)
	fill(&l.EphemeralQueueBytes, d.EphemeralQueueBytes)
	fill(&l.OutboxBytes, d.OutboxBytes)
	fill(&l.InboundBytes, d.InboundBytes)
	fill(&l.MessageCacheBytes, d.MessageCacheBytes)
	fill(&l.RestartGrace, d.RestartGrace)
	fill(&l.LaneRecords, d.LaneRecords)
	fill(&l.LaneBytes, d.LaneBytes)
	fill(&l.ShutdownWriteTimeout, d.ShutdownWriteTimeout)
	fill(&l.LogBytes, d.LogBytes)
	fill(&l.FreeSpaceLow, d.FreeSpaceLow)
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// record returns the limits that alter what Apply does.
func (l *Limits) record() record.Limits {
	return record.Limits{
		MaxInflight: l.MaxInflight, QueueMessages: l.QueueMessages, QueueBytes: l.QueueBytes,
		SessionExpiryMax: l.MaxSessionExpiry, RestartGrace: uint32(l.RestartGrace / time.Second),
		ShareUsers: l.ShareUsers, DropOldest: l.DropOldest,
	}
}
