package bench

import (
	"fmt"
)

// offline stores messages for sessions that are away, then lets them come and
// get them.
func (l *load) offline() (*Result, error) {
	store, err := l.store()
	if err != nil {
		return nil, err
	}
	metrics := store.metrics("in ", "msg")
	if n, known := l.gauge.memory(); known {
		metrics = append(metrics, Metric{"in memory", float64(n) / (1 << 20), "MiB", false})
	}
	drain, sinks, err := l.drainSessions()
	if err != nil {
		return nil, err
	}
	res := &Result{Seconds: store.seconds + drain.seconds, Checks: l.checks()}
	res.Metrics = append(metrics, drain.metrics("out ", "msg")...)
	l.tallySessions(&res.Checks, sinks)
	return res, nil
}

// sessionFilter is what session i subscribes to. With Spread, message n of a
// source goes to session n modulo the number of sessions.
func (l *load) sessionFilter(i int) string {
	if l.o.Spread {
		return l.topic("away/%0*d/+", numberDigits, i)
	}
	return l.topic("away/#")
}

// store makes the sessions, leaves, and publishes to them until everything is
// acknowledged. The publishers are disconnected afterwards.
func (l *load) store() (interval, error) {
	subs, err := l.subscribers(l.o.Sessions, "s", l.sessionFilter)
	if err != nil {
		return interval{}, err
	}
	if err := parallel(l.ctx, len(subs), dialers, func(i int) error { subs[i].disconnect(); return nil }); err != nil {
		return interval{}, err
	}
	if err := l.makeStorers("away", l.o.Messages, false); err != nil {
		return interval{}, err
	}
	return l.untilConfirmed("storing", l.o.Messages)
}

// makeStorers connects publishers that send a number of messages in all, with
// acknowledgements, so that it is known when they are stored.
func (l *load) makeStorers(kind string, messages int, retain bool) error {
	pubs, err := l.connectAll(l.o.Publishers, kind+"-p", false)
	if err != nil {
		return err
	}
	for i, c := range pubs {
		s := publisherSpec{source: uint32(i), qos: max(1, l.o.QoS), retain: retain, limit: uint64(messages / len(pubs))}
		if i < messages%len(pubs) {
			s.limit++
		}
		if s.limit == 0 {
			c.disconnect()
			continue
		}
		s.topic, s.number = numbered(l.topic("%s/", kind))
		s.topic += fmt.Sprintf("/%d", i)
		p := l.newPublisher(c, s)
		p.choose = l.storedTopic(p, i, retain)
		l.newAckReader(p)
	}
	return nil
}

// storedTopic says which number goes into the topic of publisher i's messages:
// the retained topic, of which each is set once, or the session.
func (l *load) storedTopic(p *publisher, i int, retain bool) func(frame int, seq uint64) {
	if retain {
		step := uint64(l.o.Publishers)
		return func(frame int, seq uint64) { p.frames.setTopic(frame, seq*step+uint64(i)) }
	}
	sessions := uint64(l.o.Sessions)
	return func(frame int, seq uint64) { p.frames.setTopic(frame, seq%sessions) }
}

// untilConfirmed lets the publishers send all they have.
func (l *load) untilConfirmed(phase string, messages int) (interval, error) {
	total := uint64(messages)
	first := l.gauge.sample(0)
	l.begin()
	err := l.wait(phase, total, l.confirmed, func() bool { return l.confirmed() >= total })
	i := between(first, l.gauge.sample(l.confirmed()))
	if err != nil {
		return i, err
	}
	l.closeConns()
	// What comes now are other connections.
	l.closing.Store(false)
	l.ackReaders = nil
	return i, nil
}

// drainSessions reconnects the sessions and reads what waits for them.
func (l *load) drainSessions() (interval, [][]stream, error) {
	total := uint64(l.o.Messages)
	if !l.o.Spread {
		total *= uint64(l.o.Sessions)
	}
	sinks := make([][]stream, l.o.Sessions)
	first := l.gauge.sample(0)
	conns := make([]*conn, l.o.Sessions)
	err := parallel(l.ctx, len(conns), dialers, func(i int) (err error) {
		conns[i], err = l.dialer.connect(l.ctx, login{id: l.id("s", i), resume: true, expiry: durableExpiry})
		if err == nil && !conns[i].present {
			err = fmt.Errorf("bench: %s: the broker has lost the session", conns[i].id)
		}
		return err
	})
	if err != nil {
		closeAll(conns)
		return interval{}, nil, err
	}
	for i, c := range conns {
		sinks[i] = make([]stream, l.o.Publishers)
		var s sink = many(sinks[i])
		if l.o.Spread {
			s = &spread{many: sinks[i], sessions: uint64(l.o.Sessions)}
		}
		r := l.newReceiver(c, s)
		r.buffer = readBufferMany
		r.start()
	}
	err = l.wait("draining", total, l.received, func() bool { return l.received() >= total })
	last := l.gauge.sample(l.received())
	if err = l.stalled(err); err != nil {
		return interval{}, nil, err
	}
	l.closeConns()
	return between(first, last), sinks, nil
}

// spread is the sink of a session that gets every n-th message.
type spread struct {
	many
	sessions uint64
}

func (s *spread) take(d *delivery) bool {
	d.seq /= s.sessions
	return s.many.take(d)
}

// tallySessions closes the streams of the sessions.
func (l *load) tallySessions(t *Tally, sinks [][]stream) {
	for i := range sinks {
		for j := range sinks[i] {
			sent := uint64(0)
			if j < len(l.publishers) {
				sent = uint64(l.publishers[j].sent.Load())
			}
			if l.o.Spread { // of sent, those with number ≡ i
				sent = (sent + uint64(l.o.Sessions-1-i)) / uint64(l.o.Sessions)
			}
			t.add(sinks[i][j].tally(sent, false))
		}
	}
}
