package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/packets"
)

// spaceInterval is how often the room for the log is looked at.
const spaceInterval = time.Second

// watchSpace raises and lowers the pushback: when the disk is nearly full, or
// the backend lags so far behind that the log has reached its limit, nothing
// that makes the log grow for long is taken, while acknowledgements and
// removals go on in the reserve. A failing write is thereby never the normal
// way to learn of a full disk.
func (s *Server) watchSpace() {
	tick := time.NewTicker(spaceInterval)
	defer tick.Stop()
	for {
		s.checkSpace()
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *Server) checkSpace() {
	why := s.noRoom(s.pushback.Load())
	if (why != "") == s.pushback.Load() {
		return
	}
	s.pushback.Store(why != "")
	if why != "" {
		s.opts.Logger.Error("durable publishes are refused", "reason", why, "directory", s.opts.DataDir)
		return
	}
	s.opts.Logger.Warn("durable publishes are taken again", "directory", s.opts.DataDir)
	s.wakeHeld()
}

// noRoom says why the log must not grow, "" when it may. To end a pushback
// takes a quarter more room than to begin it.
func (s *Server) noRoom(already bool) string {
	l := &s.opts.Limits
	low, high := l.FreeSpaceLow, l.LogBytes
	if already {
		low, high = low+low/4, high-high/4
	}
	free, err := s.free(s.opts.DataDir)
	switch {
	case err != nil:
		s.opts.Logger.Log(s.ctx, slog.LevelDebug, "free space unknown", "directory", s.opts.DataDir, "error", err)
	case free < low:
		return fmt.Sprintf("%d bytes free on the file system, the watermark is %d", free, l.FreeSpaceLow)
	}
	if s.opts.Backend == "memory" { // keeps the whole log by its nature
		return ""
	}
	if n := s.log.Bytes(); n > high {
		return fmt.Sprintf("the backend lags behind: %d bytes of log, the limit is %d", n, l.LogBytes)
	}
	if lag := s.compactor.Lag(); lag.Over {
		return fmt.Sprintf("the backend lags behind: %d bytes of changes wait for it", lag.Bytes)
	}
	return ""
}

// wakeHeld lets readers look at the publishes they hold back.
func (s *Server) wakeHeld() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.holding.Load() {
			if err := c.nc.SetReadDeadline(time.Now()); err != nil {
				c.log(slog.LevelDebug, "wake reader", "error", err)
			}
		}
	}
}

// held is a publish that waits for room on the disk.
type held struct {
	header byte
	body   []byte
}

// pushBack deals with a publish while the disk is nearly full. An MQTT 5
// client is told (0x97). An MQTT 3 client, which cannot be, is kept waiting up
// to its window, while its other packets are read; beyond that the connection
// ends.
func (c *conn) pushBack(p *packets.Publish, f packets.Frame) error {
	switch {
	case p.QoS == 0:
		c.srv.dropped(c, core.DropDiskFull)
		return nil
	case c.version == packets.V5:
		return c.answer(p, packets.CodeQuotaExceeded)
	case len(c.in.held) >= int(c.srv.opts.Limits.MaxInflight):
		c.log(slog.LevelWarn, "connection closed: too many publishes while the disk is full")
		return errClosed
	}
	c.hold(f)
	return nil
}

func (c *conn) hold(f packets.Frame) {
	c.in.held = append(c.in.held, held{f.Header, slices.Clone(f.Body)})
	c.holding.Store(true)
}

// unhold takes up the publishes held back, when there is room again.
func (c *conn) unhold() error {
	if len(c.in.held) == 0 || c.srv.pushback.Load() {
		return nil
	}
	list := c.in.held
	c.in.held = nil
	c.holding.Store(false)
	for _, h := range list {
		if err := c.publish(packets.Frame{Header: h.header, Body: h.body}); err != nil {
			return err
		}
	}
	return nil
}

// woken reports whether a read ended because wakeHeld asked for it, and
// makes the socket wait again.
func (c *conn) woken(err error) bool {
	if !c.holding.Load() || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	return c.readUntil(time.Time{}) == nil
}
