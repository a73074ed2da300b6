package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

const (
	// lookTimeout bounds one look at the retained messages of a live broker.
	lookTimeout = 30 * time.Second
	// missingFor is how long a look waits for values that the marker overtook.
	missingFor = 3 * time.Second
	// lookPause is the pause between two looks.
	lookPause = 20 * time.Millisecond
)

// A reader looks at the retained messages again and again, with a new client of
// no durability each time.
//
// When has everything come? MQTT does not say. So the reader also subscribes to
// a topic of its own and publishes to it after SUBACK. A broker that keeps the
// order of what it sends to one client sends that marker last. It need not, so
// a look at which something is missing then waits a while for it.
type reader struct {
	id      string
	filter  string
	addr    string
	journal *Journal
	control *control
	rnd     *rand.Rand
	conn    uint32
}

var errEnded = errors.New("torture: connection ended")

func (r *reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		m, up, changed := r.control.now()
		switch {
		case m == modeQuit:
			return
		case m != modeRun || !up:
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		if err := r.look(ctx); err != nil && !errors.Is(err, errEnded) {
			r.journal.Report(Finding{Rule: "stuck", Statement: "MQTT-3.8.4-1", Client: r.id, Text: err.Error()})
			return
		}
		timer := time.NewTimer(lookPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// look reads all retained messages once. errEnded means that the connection
// ended before it was done, which proves nothing.
func (r *reader) look(ctx context.Context) error {
	r.control.linked(1)
	defer r.control.linked(-1)
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	l, err := dial(ctx, r.addr)
	if err != nil {
		return errEnded
	}
	defer l.close()
	r.conn++
	l2 := &looker{r: r, l: l, v: packets.V5, marker: "m/" + r.id}
	if r.rnd.IntN(2) == 0 {
		l2.v = packets.V311
	}
	defer func() { r.journal.Add(&Event{Client: r.id, Conn: r.conn, Kind: End}) }()
	l2.begin()
	return l2.loop(ctx)
}

// looker is one look.
type looker struct {
	r      *reader
	l      *link
	v      packets.Version
	marker string
	marked bool             // the marker has come
	grace  <-chan time.Time // then what is missing may take this long
	over   bool
}

func (k *looker) add(e Event) {
	e.Client, e.Conn = k.r.id, k.r.conn
	k.r.journal.Add(&e)
}

func (k *looker) begin() {
	k.add(Event{Kind: Connect, Sent: true, Clean: true})
	k.l.out = (&packets.Connect{CleanStart: true, ClientID: []byte(k.r.id)}).AppendTo(k.l.out, k.v)
	k.l.flush()
}

func (k *looker) loop(ctx context.Context) error {
	for !k.over {
		select {
		case chunk, ok := <-k.l.in:
			if !ok {
				return errEnded
			}
			k.l.take(chunk)
		case <-k.grace:
			k.finish()
		case <-ctx.Done():
			if _, up, _ := k.r.control.now(); !up || errors.Is(ctx.Err(), context.Canceled) {
				return errEnded
			}
			return fmt.Errorf("torture: %s: retained messages did not come within %v", k.r.id, lookTimeout)
		}
		for !k.over {
			f, ok, err := k.l.next()
			if err != nil {
				return fmt.Errorf("torture: %s: malformed packet: %w", k.r.id, err)
			}
			if !ok {
				break
			}
			p, err := f.Decode(k.v)
			if err != nil {
				return fmt.Errorf("torture: %s: malformed packet: %w", k.r.id, err)
			}
			if err := k.handle(p); err != nil {
				return err
			}
		}
		k.l.flush()
	}
	return nil
}

func (k *looker) handle(p packets.Packet) error {
	switch p := p.(type) {
	case *packets.Connack:
		k.add(Event{Kind: Connack, Code: byte(p.Code), Present: p.SessionPresent})
		if p.Code != 0 {
			return errEnded
		}
		k.add(Event{Kind: Subscribe, Sent: true, ID: 1, QoS: 1, Filter: k.r.filter})
		s := packets.Subscribe{PacketID: 1, Filters: []packets.Subscription{
			{Filter: []byte(k.r.filter), Options: 1}, {Filter: []byte(k.marker), Options: 1},
		}}
		k.l.out = s.AppendTo(k.l.out, k.v)
	case *packets.Suback:
		if len(p.Codes) != 2 {
			return fmt.Errorf("torture: %s: SUBACK with %d codes for 2 filters", k.r.id, len(p.Codes))
		}
		k.add(Event{Kind: Suback, ID: 1, Code: byte(p.Codes[0]), Filter: k.r.filter})
		m := packets.Publish{QoS: 1, PacketID: 2, Topic: []byte(k.marker), Payload: []byte("marker")}
		k.l.out = m.AppendTo(k.l.out, k.v)
	case *packets.Publish:
		return k.publish(p)
	}
	return nil
}

func (k *looker) publish(p *packets.Publish) error {
	if p.QoS == 1 {
		k.l.out = packets.AppendAck(k.l.out, k.v, packets.TypePuback, p.PacketID, packets.CodeSuccess)
	}
	if string(p.Topic) == k.marker {
		k.marked = true
		timer := time.NewTimer(missingFor)
		k.grace = timer.C
		k.check()
		return nil
	}
	if len(p.Payload) == 0 && !p.Retain {
		return nil // the live message that removes a value
	}
	m, err := ParsePayload(p.Payload)
	if err != nil || m.Topic != string(p.Topic) || !strings.HasPrefix(m.Topic, "r/") {
		k.r.journal.Report(Finding{
			Rule: "payload", Statement: "MQTT-3.3.1-5", Client: k.r.id, Msg: m,
			Text: fmt.Sprintf("%s: retained payload of %d bytes on %q names %q: %v", k.r.id, len(p.Payload), p.Topic, m, err),
		})
		return nil
	}
	k.add(Event{Kind: Publish, ID: p.PacketID, QoS: p.QoS, Dup: p.Dup, Retain: p.Retain, Msg: m})
	k.check()
	return nil
}

// check ends the look if the marker has come and nothing is missing.
func (k *looker) check() {
	if k.marked && k.r.journal.Missing(k.r.id) == 0 {
		k.finish()
	}
}

// finish ends the look: everything has come that will.
func (k *looker) finish() {
	k.add(Event{Kind: Read, Filter: k.r.filter})
	k.l.out = (&packets.Disconnect{}).AppendTo(k.l.out, k.v)
	k.over = true
}
