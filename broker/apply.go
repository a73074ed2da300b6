package broker

import (
	"encoding/binary"
	"log/slog"
	"time"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/failpoint"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// When the apply loop gives the compactor what changed: often enough that
// collecting stays a matter of a millisecond or two.
const (
	collectEntries  = 16 << 10
	collectInterval = 2 * time.Second
)

// applyLoop owns the state machine. It applies the rounds of the committer
// and carries out their effects. While it waits, a reader may take its place
// for a command: see direct.go.
func (s *Server) applyLoop() {
	defer s.loops.Done()
	collect := time.NewTicker(checkpointInterval())
	defer collect.Stop()
	s.deadline = time.NewTimer(time.Hour)
	defer s.deadline.Stop()
	s.asApplier(s.resumeState)
	for {
		select {
		case r, ok := <-s.rounds:
			if !ok {
				return
			}
			if err := s.applyNext(r); err != nil {
				s.fail(err)
				return
			}
		case <-collect.C:
			s.asApplier(s.patrol)
			s.asApplier(s.checkpoint)
		case h := <-s.compactor.Hashes():
			s.propose(h.AppendTo(nil), true)
		case <-s.deadline.C:
			s.asApplier(func() { s.ticking = true })
			s.propose(record.Tick{}.AppendTo(nil), false)
		}
	}
}

// checkpointInterval is collectInterval, unless the torture program wants more
// checkpoints.
func checkpointInterval() time.Duration {
	return time.Duration(failpoint.Number(failpoint.CheckpointMS, collectInterval.Milliseconds())) * time.Millisecond
}

// asApplier runs fn while no reader is in the loop's place.
func (s *Server) asApplier(fn func()) {
	s.lane.applying.Lock()
	defer s.lane.applying.Unlock()
	fn()
}

// applyNext applies a round and sees to what is due after it.
func (s *Server) applyNext(r *round) error {
	s.lane.applying.Lock()
	defer s.lane.applying.Unlock()
	defer s.evidence(r)
	if err := s.checkRound(r); err != nil {
		return err
	}
	if err := s.applyRound(r); err != nil {
		return err
	}
	s.lane.applied()
	s.setDeadline()
	if s.machine.Changed() >= collectEntries {
		s.checkpoint()
	}
	return nil
}

// checkpoint hands the net changes to the compactor.
func (s *Server) checkpoint() {
	if s.machine.Changed() > 0 {
		s.compactor.Checkpoint(s.machine, s.machine.Applied(), s.machine.Now())
	}
}

// propose sends a record of the broker's own on its way.
func (s *Server) propose(rec []byte, lazy bool) {
	var b batch
	b.addRecord(item{}, rec)
	b.lazy = lazy
	s.lane.put(&b, true)
}

// setDeadline arms the timer for the next Tick.
func (s *Server) setDeadline() {
	at, ok := s.machine.NextDeadline()
	if !ok || s.ticking {
		return
	}
	if s.armed == at {
		return
	}
	s.armed = at
	s.deadline.Reset(time.Duration(max(at-s.clock(), 0)) * time.Millisecond)
}

// applyRound applies one round and flushes the outboxes it touched.
func (s *Server) applyRound(r *round) error {
	if r.n > 0 {
		f := wal.Frame{First: r.first, Count: uint32(r.n), Body: r.body}
		s.bodies.AddFrame(&f, nil)
	}
	failpoint.Hit(failpoint.ApplyBeforeAck)
	index, body := r.first, r.body
	for i := range r.items {
		it := &r.items[i]
		if it.command != nil {
			s.applyCommand(it)
			continue
		}
		n, w := binary.Uvarint(body)
		rec := body[w : w+int(n)]
		body = body[w+int(n):]
		if err := s.applyRecord(index, r.time, rec, it); err != nil {
			return err
		}
		index++
	}
	s.touched.flush(s)
	clear(r.items)
	select {
	case s.spareItems <- r.items[:0]:
	default:
	}
	return nil
}

// applyRecord applies one record and carries out its effects.
func (s *Server) applyRecord(index uint64, now int64, rec []byte, it *item) error {
	kind := record.KindOf(rec)
	changes := core.ChangesIndex(kind)
	if changes {
		s.indexMu.Lock()
	}
	err := s.machine.Apply(index, now, rec, &s.fx)
	if changes {
		if err == nil {
			s.seat(kind, it)
			s.holdRetained(s.fx.Retained)
		}
		s.generation.Add(1)
		s.indexMu.Unlock()
	}
	if err != nil {
		return err
	}
	if it.conn != nil && kind != record.KindPublish {
		s.reply(kind, it, &s.fx)
	}
	switch kind {
	case record.KindPublish:
		s.spread(rec)
	case record.KindTick:
		s.ticking, s.armed = false, 0
	}
	s.carryOut()
	s.runLater()
	if it.conn != nil && kind == record.KindPublish { // last: bypass packets that waited must not overtake it [MQTT-4.6.0-5]
		s.replyPublish(it.conn, it.qos, &s.fx.Reply)
	}
	if it.done != nil {
		it.done()
	}
	return nil
}

// applyCommand runs a command and carries out its effects.
func (s *Server) applyCommand(it *item) {
	s.fx.Reset()
	if it.light {
		it.command()
	} else {
		s.indexMu.Lock()
		it.command()
		s.indexChanged()
	}
	s.carryOut()
	s.runLater()
}

// indexChanged ends a change of the subscription index.
func (s *Server) indexChanged() {
	s.holdRetained(s.fx.Retained)
	s.generation.Add(1)
	s.indexMu.Unlock()
}

// runLater does what had to wait until indexMu was given back.
func (s *Server) runLater() {
	for len(s.later) > 0 {
		fn := s.later[0]
		s.later = s.later[1:]
		fn()
	}
}

// seat puts connections into and out of the table that the bypass reads. It
// runs under indexMu, in one step with the change of the index.
func (s *Server) seat(kind record.Kind, it *item) {
	for i := range s.fx.Ended {
		s.clients.clear(s.fx.Ended[i].Ref)
	}
	switch {
	case kind == record.KindConnect && it.conn != nil:
		s.clients.set(s.fx.Reply.Ref, it.conn)
	case kind == record.KindDisconnect && it.conn != nil && it.conn.durable && !s.fx.Reply.Stale:
		if s.clients.at(it.conn.ref) == it.conn {
			s.clients.clear(it.conn.ref)
		}
	}
}

// reply answers whoever caused a record.
func (s *Server) reply(kind record.Kind, it *item, fx *core.Effects) {
	c, r := it.conn, &fx.Reply
	switch kind {
	case record.KindAck:
		if !r.Stale {
			s.pump(c)
		}
	case record.KindRec:
		if r.Stale {
			return
		}
		code := packets.CodeSuccess
		if !r.Known {
			code = packets.CodePacketIdentifierNotFound
		}
		if !it.refused { // [MQTT-4.3.3-4]
			c.mu.Lock()
			c.replyLocked(packets.TypePubrel, r.PacketID, code, &s.touched)
			if r.Known {
				c.noteTwo(r.PacketID, true)
			}
			c.mu.Unlock()
		}
		s.pump(c)
	case record.KindPubRel:
		if r.Stale {
			return
		}
		code := packets.CodeSuccess
		if !r.Known {
			code = packets.CodePacketIdentifierNotFound
		}
		c.mu.Lock()
		if r.Known {
			c.answeredFinally()
		}
		c.replyLocked(packets.TypePubcomp, r.PacketID, code, &s.touched)
		c.mu.Unlock()
	case record.KindSubscribe, record.KindUnsubscribe:
		c.mu.Lock()
		c.controls--
		c.unapplied.Add(-1)
		if kind == record.KindSubscribe {
			c.subackLocked(packets.TypeSuback, r.PacketID, it.codes, &s.touched)
		} else if !r.Stale {
			c.subackLocked(packets.TypeUnsuback, r.PacketID, r.Codes, &s.touched)
		}
		c.idle.Broadcast()
		c.mu.Unlock()
	case record.KindConnect:
		s.connectedDurable(c, r)
	case record.KindDisconnect:
		if !r.Stale {
			s.disconnectedDurable(c)
		}
	case record.KindSessionRemove:
		s.indexMu.Lock()
		s.attach(c)
		s.generation.Add(1)
		s.indexMu.Unlock()
	}
}

// replyPublish acknowledges a logged publish to its publisher.
func (s *Server) replyPublish(c *conn, qos uint8, r *core.Reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending[qos]--
	c.unapplied.Add(-1)
	c.idle.Broadcast()
	if r.Stale || qos == 0 {
		return
	}
	code := packets.CodeSuccess
	if r.Matched == 0 && !r.Duplicate {
		code = packets.CodeNoMatchingSubscribers
	}
	t := packets.TypePuback
	if qos == 2 {
		t = packets.TypePubrec
	}
	if qos == 1 || r.Duplicate {
		c.answeredFinally()
	}
	c.replyLocked(t, r.PacketID, code, &s.touched)
}

// spread delivers the message of a Publish record to the clients without
// durable state for it.
func (s *Server) spread(rec []byte) {
	fx := &s.fx
	if len(fx.Direct)+len(fx.Groups)+len(fx.Owned) == 0 {
		return
	}
	p := &s.published
	if err := p.Decode(rec); err != nil || len(p.Message) == 0 {
		return // Apply has read it
	}
	d := delivery{
		srv: s, qos: p.QoS, retain: p.Retain, hasExpiry: p.HasExpiry, expiry: p.Expiry,
		touched: &s.touched, cache: s.cache[:0], single: len(fx.Direct) == 1,
	}
	if !d.parse(p.Message) {
		return
	}
	for i := range fx.Direct {
		e := &fx.Direct[i]
		if c := s.clients.at(e.Ref); c != nil {
			d.to(c, e.QoS, e.Retain, e.IDs(fx), ownership{})
		}
	}
	for _, g := range fx.Groups {
		r := &route{}
		r.addGroup(s, g)
		if m := r.groups[0].pick(&s.turn); m != nil {
			d.toMember(m, r.groups[0].key)
		}
	}
	for i := range fx.Owned {
		s.deliverOwned(&d, &fx.Owned[i])
	}
	s.cache = d.cache
}

// carryOut does what the last Apply or command asks for beyond replies.
func (s *Server) carryOut() {
	fx := &s.fx
	for i := range fx.Ended {
		s.sessionEnded(&fx.Ended[i])
	}
	for _, ref := range fx.Touched {
		if c := s.clients.at(ref); c != nil {
			s.pump(c)
		}
	}
	if len(fx.Retained) > 0 {
		s.sendHeld(fx.Retained)
	}
	for i := range fx.Dropped {
		s.dropped(s.clients.at(fx.Dropped[i].Ref), fx.Dropped[i].Reason)
	}
	for _, id := range fx.WillsDue {
		s.publishWill(id)
	}
	for _, key := range fx.Waiting {
		s.dispatch(key)
	}
	if len(fx.Orphans) > 0 || fx.Reply.Kind != record.KindPublish && len(fx.Owned)+len(fx.Direct) > 0 {
		s.carryGroups()
	}
}

// dropped counts a message that a client will not get.
func (s *Server) dropped(c *conn, why core.DropReason) {
	n := s.stats.drops[why].Add(1)
	if n&(n-1) == 0 { // a sample: the first, second, fourth …
		args := []any{"reason", why.String(), "total", n}
		if c != nil {
			args = append(args, "client", c.clientID)
		}
		s.opts.Logger.Log(s.ctx, slog.LevelWarn, "message dropped", args...)
	}
}

// seats is the table of connected clients by slot.
type seats []*conn

func (t *seats) set(ref uint32, c *conn) {
	for uint32(len(*t)) <= ref {
		*t = append(*t, nil)
	}
	(*t)[ref] = c
}

func (t *seats) clear(ref uint32) {
	if ref < uint32(len(*t)) {
		(*t)[ref] = nil
	}
}

func (t seats) at(ref uint32) *conn {
	if ref < uint32(len(t)) {
		return t[ref]
	}
	return nil
}
