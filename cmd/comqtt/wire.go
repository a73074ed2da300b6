package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/wind-c/comqtt/v3/broker"
	"github.com/wind-c/comqtt/v3/broker/admin"
	"github.com/wind-c/comqtt/v3/recovery"
)

const (
	// healthCloseTimeout is how long health requests under way may hold up the
	// end of the process.
	healthCloseTimeout = 2 * time.Second
	// readyPoll is how often the broker is asked whether it has recovered.
	readyPoll = 2 * time.Millisecond
)

// brokerServer is the broker as a life sees it.
type brokerServer struct {
	*broker.Server
	s     *settings
	ready chan struct{}

	replayed, toReplay atomic.Int64 // bytes
}

var _ server = (*brokerServer)(nil)

func newBroker(s *settings, log *slog.Logger) (*brokerServer, error) {
	b := &brokerServer{s: s, ready: make(chan struct{})}
	srv, err := broker.New(&broker.Options{
		DataDir: s.data,
		Backend: s.backend,
		Sync:    s.sync,

		LogEngine: s.engine,
		NoArchive: !s.archive, ArchiveAge: s.archiveAge, ArchiveBytes: s.archiveBytes,
		Version: version(),
		// Who may come in was decided with the settings: without
		// --allow-anonymous the listeners are out of the network's reach.
		AllowAnonymous: true,
		Limits:         limits(s),
		Logger:         log,
		Progress: func(done, total int64) {
			b.replayed.Store(done)
			b.toReplay.Store(total)
		},
	})
	if err != nil {
		return nil, &exitError{code: exitUsage, err: err, hints: []string{"see comqtt serve --help"}}
	}
	b.Server = srv
	return b, nil
}

// limits are the settings in the broker's types; the options have checked the
// ranges.
func limits(s *settings) broker.Limits {
	l := broker.Limits{
		MaxPacketSize:       uint32(s.maxPacketSize),
		MaxPacketBeforeAuth: uint32(s.maxConnectSize),
		MaxClients:          int(s.maxClients),
		MaxUnauthenticated:  int(s.maxConnecting),
		ConnectTimeout:      s.connectTimeout,
		ReceiveMaximum:      uint16(s.receiveMaximum),
		TopicAliasMaximum:   uint16(s.topicAliasMaximum),
		MaxInflight:         uint16(s.maxInflight),
		MaxSubscriptions:    int(s.maxSubscriptions),
		MaxTopicLevels:      int(s.maxTopicLevels),
		MaxSessionExpiry:    uint32(s.maxSessionExpiry / time.Second), // 0 = the default, no limit
		MaxKeepAlive:        uint16(s.maxKeepAlive / time.Second),
		QueueMessages:       uint64(s.maxQueueMessages),
		QueueBytes:          uint64(s.maxQueueBytes),
		EphemeralQueueBytes: int(s.maxQueueMemory),
		InboundBytes:        s.maxInbound,
		MessageCacheBytes:   s.messageCache,
		RestartGrace:        s.restartGrace,
		FreeSpaceLow:        s.minFreeSpace,
		LogBytes:            s.maxLog,
		DropOldest:          s.queueFull == "oldest",
	}
	return l
}

// Serve implements server.
func (b *brokerServer) Serve(ctx context.Context) error {
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		b.watchReady(done)
	}()
	err := b.Server.Serve(ctx)
	close(done)
	<-watched
	return err
}

// watchReady closes ready when the broker serves, unless it ends before.
func (b *brokerServer) watchReady(done <-chan struct{}) {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for !b.Server.Ready() {
		select {
		case <-tick.C:
		case <-done:
			return
		}
	}
	close(b.ready)
}

// Ready implements server.
func (b *brokerServer) Ready() <-chan struct{} { return b.ready }

// Close implements server. Before the broker is ready it gives the recovery up:
// nothing is lost by that, and a long replay must not hold up the stop.
func (b *brokerServer) Close(ctx context.Context) error {
	if err := b.Server.Close(ctx); !errors.Is(err, broker.ErrClosed) {
		return err
	}
	return nil
}

// describe adds to a status what the broker knows.
func (b *brokerServer) describe(st admin.Status) admin.Status {
	info := b.Info()
	if total := b.toReplay.Load(); total > 0 {
		st.Percent = int(100 * b.replayed.Load() / total)
	}
	found := admin.Check{Name: "recovery", Detail: "under way"}
	if st.State != admin.Recovering {
		r := b.Recovered()
		found.OK, found.Detail = true, r.String()
	}
	working := st.State == admin.Ready || st.State == admin.Stopping
	st.Checks = append(st.Checks,
		found,
		admin.Check{Name: "log", OK: working, Detail: fmt.Sprintf(
			"records %d to %d, sync %s", info.LogFirst, info.LogLast, b.s.sync)},
		admin.Check{Name: "backend", OK: working, Detail: fmt.Sprintf(
			"%s, state up to record %d", b.s.backendName(), info.Applied)},
		b.archiveCheck(working),
		admin.Check{Name: "clients", OK: working, Detail: fmt.Sprintf("%d connected", info.Connected)},
	)
	if m, on := b.MirrorInfo(); on {
		st.Checks = append(st.Checks, mirrorCheck(&m))
	}
	return st
}

// mirrorCheck says how the second target is. One that is away is no reason to
// take the broker out of service.
func mirrorCheck(m *recovery.MirrorStatus) admin.Check {
	c := admin.Check{Name: "mirror", OK: m.State != recovery.MirrorAway && m.State != recovery.MirrorRefused}
	c.Detail = fmt.Sprintf("%s %s, state up to record %d; %d keys wait, %d commits, %d failures, %d fills",
		m.Name, m.State, m.Applied, m.Waiting, m.Commits, m.Failures, m.Fills)
	if !c.OK {
		c.Detail += fmt.Sprintf("; for %v: %v", m.Age.Round(time.Second), m.Err)
	}
	return c
}

// archiveCheck says how far back the archive reaches. One that fails is no
// reason to take the broker out of service.
func (b *brokerServer) archiveCheck(working bool) admin.Check {
	c := admin.Check{Name: "archive", OK: true, Detail: "off"}
	if !working {
		c.OK, c.Detail = false, "unknown"
		return c
	}
	a, on := b.ArchiveInfo()
	if !on {
		return c
	}
	c.OK = a.Err == nil && a.Reaches
	switch {
	case !a.Reaches:
		c.Detail = "reaches nowhere yet"
	case a.Time == 0:
		c.Detail = fmt.Sprintf("reaches back to record %d, the first", a.Index)
	default:
		c.Detail = fmt.Sprintf("reaches back to record %d (%s)", a.Index, time.UnixMilli(a.Time).UTC().Format(time.RFC3339))
	}
	c.Detail += fmt.Sprintf("; %d segments with %d bytes, %d bases with %d", a.Segments, a.SegmentBytes, a.BaseFiles, a.BaseBytes)
	if a.Failed > 0 {
		c.Detail += fmt.Sprintf("; %d failures", a.Failed)
	}
	if a.Err != nil {
		c.Detail += fmt.Sprintf(", the last: %v", a.Err)
	}
	return c
}

// recovered is what the banner shows. Call it when ready.
func (b *brokerServer) recovered() *recovered {
	r := b.Recovered()
	out := &recovered{
		created: r.Created, records: r.Records, elapsed: r.Duration,
		sessions: uint64(r.Sessions), retained: uint64(r.Retained), queued: uint64(r.Queued),
	}
	if r.TornBytes > 0 {
		out.repaired = fmt.Sprintf("a torn write at %s was cut off (%d bytes, kept in wal/broken); with --sync always nothing of it was acknowledged", r.TornAt, r.TornBytes)
	}
	return out
}
