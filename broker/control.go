package broker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wind-c/comqtt/v3/broker/admin"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/retain"
	"github.com/wind-c/comqtt/v3/session"
	"github.com/wind-c/comqtt/v3/session/topic"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// This file is what the admin socket asks for. Each question is a command of
// the apply loop, and a long list is many of them, so that none holds it up;
// each change is a record like any other.

var _ admin.Control = (*Server)(nil)

// How many a command looks at.
const (
	sessionsPerCommand = 256
	retainedPerCommand = 1024
	filtersShown       = 10_000
	loadAttempts       = 3
)

// ErrNotReady says that the broker does not serve yet, or any more.
var ErrNotReady = errors.New("broker: not ready")

// ask runs fn on the apply loop and waits for it.
func (s *Server) ask(ctx context.Context, fn func()) error {
	if !s.Ready() {
		return ErrNotReady
	}
	done := make(chan struct{})
	var b batch
	b.items = append(b.items, item{light: true, command: func() {
		fn()
		close(done)
	}})
	return s.await(ctx, &b, done)
}

// await sends a batch on its way and waits for done.
func (s *Server) await(ctx context.Context, b *batch, done <-chan struct{}) error {
	if !s.lane.put(b, false) {
		return ErrClosed
	}
	select {
	case <-done:
		return nil
	case <-s.stopped:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// log sends a record on its way and waits until it is durable and applied. The
// index is 0 if it found nothing to change.
func (s *Server) logAndWait(ctx context.Context, rec []byte) (index uint64, err error) {
	if !s.Ready() {
		return 0, ErrNotReady
	}
	done := make(chan struct{})
	var b batch
	b.addRecord(item{done: func() {
		if s.fx.Reply.Known {
			index = s.machine.Applied()
		}
		close(done)
	}}, rec)
	err = s.await(ctx, &b, done)
	if err != nil {
		return 0, err
	}
	return index, nil
}

// Sessions implements admin.Control.
func (s *Server) Sessions(ctx context.Context, fn func(admin.Session) error) error {
	var ids []uint64
	if err := s.ask(ctx, func() { ids = s.machine.SessionIDs(nil) }); err != nil {
		return err
	}
	slices.Sort(ids)
	list := make([]admin.Session, 0, sessionsPerCommand)
	for part := range slices.Chunk(ids, sessionsPerCommand) {
		list = list[:0]
		err := s.ask(ctx, func() {
			for _, id := range part {
				if sess := s.machine.SessionByID(id); sess != nil {
					list = append(list, describeSession(sess))
				}
			}
		})
		if err != nil {
			return err
		}
		for _, d := range list {
			if err := fn(d); err != nil {
				return err
			}
		}
	}
	return nil
}

func describeSession(sess *session.Session) admin.Session {
	d := admin.Session{
		Client: sess.ClientID, User: sess.User, ID: sess.ID, Connected: sess.Connected(), Version: sess.Version,
		Expiry: sess.Expiry, Disconnected: sess.Disconnected, Subscriptions: sess.Subscriptions(),
		Queued: sess.Out.Queued(), QueuedBytes: sess.QueuedBytes, Inflight: len(sess.Out.Inflight()),
		Received: len(sess.Received()), Will: sess.HasWill,
	}
	if at, ends := sess.ExpiresAt(); ends {
		d.Ends = at
	}
	return d
}

// SessionDetail implements admin.Control.
func (s *Server) SessionDetail(ctx context.Context, client string) (d *admin.SessionDetail, err error) {
	err = s.ask(ctx, func() {
		sess := s.machine.SessionOf(client)
		if sess == nil {
			return
		}
		d = &admin.SessionDetail{Session: describeSession(sess), Filters: []admin.Subscription{}, InFlight: []admin.Delivery{}}
		filters := sess.Filters()
		for _, f := range filters[:min(len(filters), filtersShown)] {
			sub, _ := sess.Subscription(f)
			o := sub.Options
			d.Filters = append(d.Filters, admin.Subscription{
				Filter: f, QoS: o.QoS(), ID: sub.ID, NoLocal: o.NoLocal(),
				RetainAsPublished: o.RetainAsPublished(), RetainHandling: uint8(o.RetainHandling()),
			})
		}
		for _, e := range sess.Out.Inflight() {
			d.InFlight = append(d.InFlight, admin.Delivery{
				PacketID: e.PID, Message: e.Msg, QoS: e.QoS, Released: e.Phase == session.PhaseRelease,
			})
		}
	})
	return d, err
}

// RemoveSession implements admin.Control.
func (s *Server) RemoveSession(ctx context.Context, client, by string) (uint64, error) {
	r := record.SessionRemove{ClientID: []byte(client), By: []byte(by)}
	return s.logAndWait(ctx, r.AppendTo(nil))
}

// Retained implements admin.Control.
func (s *Server) Retained(ctx context.Context, filter string, fn func(admin.Retained) error) error {
	if filter == "" {
		filter = "#"
	}
	if err := topic.ValidateFilter([]byte(filter)); err != nil || strings.HasPrefix(filter, "$share/") {
		return fmt.Errorf("broker: list retained: %q is not a topic filter", filter)
	}
	list := make([]admin.Retained, 0, retainedPerCommand)
	for after, done := "", false; !done; {
		list = list[:0]
		err := s.ask(ctx, func() {
			after, done = s.machine.RetainedPage(filter, after, retainedPerCommand, func(name string, e retain.Entry) bool {
				list = append(list, describeRetained(name, e))
				return true
			})
		})
		if err != nil {
			return err
		}
		for _, r := range list {
			if err := fn(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func describeRetained(name string, e retain.Entry) admin.Retained {
	return admin.Retained{Topic: name, QoS: e.QoS, Bytes: e.Bytes, Message: e.Message, Time: e.Time, Ends: e.Deadline}
}

// RetainedMessage implements admin.Control.
func (s *Server) RetainedMessage(ctx context.Context, name string) (*admin.RetainedMessage, error) {
	for attempt := 1; ; attempt++ {
		var e retain.Entry
		var held bool
		if err := s.ask(ctx, func() { e, held = s.machine.RetainedMessage(name) }); err != nil || !held {
			return nil, err
		}
		out := &admin.RetainedMessage{Retained: describeRetained(name, e)}
		err := s.bodies.Load(ctx, []uint64{e.Message}, func(_ int, body []byte) error {
			m, err := packets.ParseMessage(body)
			if err != nil {
				return fmt.Errorf("broker: retained message of %q: %w", name, err)
			}
			out.Payload = append([]byte{}, m.Payload...)
			return nil
		})
		if errors.Is(err, recovery.ErrNoBody) && attempt < loadAttempts {
			continue // replaced meanwhile
		}
		if err != nil {
			return nil, err
		}
		return out, nil
	}
}

// ClearRetained implements admin.Control.
func (s *Server) ClearRetained(ctx context.Context, name, by string) (uint64, error) {
	r := record.RetainClear{Topic: []byte(name), By: []byte(by)}
	return s.logAndWait(ctx, r.AppendTo(nil))
}

// Hold implements admin.Control.
func (s *Server) Hold(ctx context.Context, base bool) (h admin.Held, release func(), err error) {
	if !s.Ready() {
		return h, nil, ErrNotReady
	}
	release = s.state.Hold()
	defer func() {
		if err != nil {
			release()
		}
	}()
	if base {
		path := filepath.Join(s.opts.DataDir, "backup.cqb")
		if _, err = s.state.WriteBase(ctx, path); err != nil {
			return h, nil, err
		}
		h.Base = path
	}
	if err = s.log.Sync(); err != nil { // in the other modes than always, too
		return h, nil, fmt.Errorf("broker: hold: %w", err)
	}
	h.Durable = s.log.Durable()
	return h, release, nil
}
