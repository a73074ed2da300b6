package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wind-c/comqtt/v3/broker/packets"
)

// Mode power with a sync mode that acknowledges before it syncs. The checker of
// the other campaigns cannot judge that, since what was acknowledged may be
// lost. What must hold:
//
//   - the broker starts after every cut;
//   - the log is a prefix: of what one publisher sent, in order, a part from the
//     beginning is there and nothing after it, in a queue and in the retained
//     messages alike;
//   - nothing is lost that was acknowledged before the last sync of the log
//     began;
//   - with an interval, that sync began no longer ago than the interval.
const (
	lazyWindow = 256                    // publishes under way
	lazyLife   = 700 * time.Millisecond // how long a life is at most, but for what it waits for
	lazySlack  = time.Second            // for syncing and for being scheduled, on a busy machine
	lazyAnswer = 60 * time.Second       // how long an answer may take
	lazySub    = "lazy-sub"
	lazyPub    = "lazy-pub"
)

// lazyCampaign cuts the power of a broker that syncs at an interval or never.
type lazyCampaign struct {
	*campaign
	sync  string
	every time.Duration // the interval, 0 = never
	pulse *pulse

	lost    int           // messages, acknowledged, not there after a cut
	longest time.Duration // between the last sync and a cut
	acked   int
	lives   int
}

// pulse is a clock that stands still while this process does: a machine that
// stops everything for a while must not look like a broker that forgot to sync.
type pulse struct {
	mu   sync.Mutex
	now  time.Duration
	at   []pulseAt
	stop chan struct{}
	wg   sync.WaitGroup
}

type pulseAt struct {
	wall  time.Time
	pulse time.Duration
}

func newPulse() *pulse {
	p := &pulse{stop: make(chan struct{})}
	p.wg.Go(func() {
		const beat = 5 * time.Millisecond
		tick := time.NewTicker(beat)
		defer tick.Stop()
		last := time.Now()
		for {
			select {
			case now := <-tick.C:
				p.mu.Lock()
				p.now += min(now.Sub(last), 4*beat)
				p.at = append(p.at, pulseAt{now, p.now})
				if len(p.at) > 1<<14 {
					p.at = p.at[1<<13:]
				}
				p.mu.Unlock()
				last = now
			case <-p.stop:
				return
			}
		}
	})
	return p
}

// since returns how long ago a moment was, by the pulse.
func (p *pulse) since(wall time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.at) - 1; i >= 0; i-- {
		if !p.at[i].wall.After(wall) {
			return p.now - p.at[i].pulse
		}
	}
	return p.now
}

func (p *pulse) end() {
	close(p.stop)
	p.wg.Wait()
}

// lazyPower runs such a campaign.
func lazyPower(ctx context.Context, o options, bin, dir, syncMode string) (found bool, err error) {
	c, err := powerCuts(o, bin, dir)
	if err != nil {
		return false, err
	}
	if c.disk == nil {
		return false, c.remove() // it has said why; nothing else shows what an interval loses
	}
	c.server.sync = syncMode
	l := &lazyCampaign{campaign: c, sync: syncMode, pulse: newPulse()}
	defer l.pulse.end()
	if syncMode != "never" {
		if l.every, err = time.ParseDuration(syncMode); err != nil {
			return false, errors.Join(fmt.Errorf("torture: sync mode: %w", err), c.remove())
		}
	}
	err = l.run(ctx)
	if err == nil {
		fmt.Fprintf(o.out, "seed %d, sync %s: %d cuts, %d published and acknowledged, %d of them lost; at most %v after the last sync; cut at %s\n",
			o.seed, syncMode, c.cuts, l.acked, l.lost, l.longest.Round(time.Millisecond), counted(c.reached))
	}
	return c.finish(err, false)
}

func (l *lazyCampaign) run(ctx context.Context) error {
	if err := l.setUp(ctx); err != nil {
		return err
	}
	for l.cuts < l.campaign.options.kills {
		if err := l.life(ctx); err != nil {
			return err
		}
		select {
		case <-l.journal.Found():
			return errFound
		default:
		}
	}
	return nil
}

// setUp makes the subscriber, in a life that ends in good order.
func (l *lazyCampaign) setUp(ctx context.Context) error {
	p, err := l.start(ctx, smallLog())
	if err != nil {
		return err
	}
	defer func() { p.kill(); <-p.exited }()
	s, err := l.connect(ctx, lazySub, false)
	if err != nil {
		return err
	}
	defer s.close()
	s.out = (&packets.Subscribe{PacketID: 1, Filters: []packets.Subscription{{Filter: []byte("q/#"), Options: 1}}}).AppendTo(s.out, packets.V5)
	if _, err := await[*packets.Suback](ctx, s); err != nil {
		return err
	}
	p.term()
	if !p.wait(stopTimeout) || p.state.ExitCode() != 0 {
		return fmt.Errorf("torture: set-up: %v", p.state)
	}
	return nil
}

// life starts the broker, sees what the cut before it has left, publishes, and
// cuts the power.
func (l *lazyCampaign) life(ctx context.Context) error {
	pl := l.powerPlan(l.lives)
	pl.kind, pl.limit = 0, min(pl.limit, 2*lazyLife) // there is no fleet whose packets could be waited for
	if pl.at == nil && !pl.term {
		pl.name, pl.limit = "power", 0
		pl.after = time.Duration(l.rnd.Int64N(int64(lazyLife)))
	}
	l.lives++
	if pl.at != nil && !pl.term && !pl.late {
		pl.at.arm(l.disk.disk, pl.pass)
	}
	p, err := l.start(ctx, pl.env)
	if err != nil {
		return err
	}
	defer func() { p.kill(); <-p.exited }()
	w := &lazyWriter{life: l.lives, done: make(chan struct{})}
	publishing, stop := context.WithCancel(ctx)
	defer stop()
	go w.run(publishing, l)
	err = l.campaign.live(ctx, p, pl)
	sync := l.disk.disk.LastSync(logSegment)
	age := l.pulse.since(sync)
	if off := l.disk.disk.OffAt(); !off.IsZero() {
		age -= l.pulse.since(off)
	}
	stop()
	<-w.done
	if err != nil {
		return err
	}
	killed, orderly := p.killed(), pl.term && p.state.ExitCode() == 0
	if !killed && !orderly {
		l.ended(p)
		return errFound
	}
	dmg, err := l.cutPower(pl, killed)
	if err != nil {
		return err
	}
	last, err := l.left(ctx, w)
	if err != nil || len(w.acked) == 0 {
		return err
	}
	return l.judge(w, last, sync, age, orderly, fmt.Sprintf("%s, %v", pl.name, dmg))
}

// judge compares what is left with what was acknowledged.
func (l *lazyCampaign) judge(w *lazyWriter, last int, sync time.Time, age time.Duration, orderly bool, how string) error {
	lost, before := 0, 0
	for i, at := range w.acked {
		if at.IsZero() || i+1 <= last {
			continue
		}
		lost++
		if orderly || at.Before(sync) {
			before++
		}
	}
	l.acked += len(w.acked)
	l.lost += lost
	fmt.Fprintf(l.out, "cut %3d  %-60s acked %5d  lost %4d  last sync %v before\n", l.cuts, how, len(w.acked), lost, age.Round(time.Millisecond))
	if before > 0 {
		l.process("%d messages of life %d are lost that were acknowledged before the last sync of the log began, or before an orderly stop (%s)",
			before, w.life, how)
		return errFound
	}
	if lost > 0 {
		l.longest = max(l.longest, age)
	}
	if l.every > 0 && lost > 0 && age > l.every+lazySlack {
		l.process("--sync %s: the last sync of the log began %v before the cut, and %d messages are lost (%s)", l.sync, age, lost, how)
		return errFound
	}
	return nil
}

// left starts the broker and returns the number of the last message of the
// writer that it has; it reports a finding if that is no prefix. The broker is
// stopped in order.
func (l *lazyCampaign) left(ctx context.Context, w *lazyWriter) (last int, err error) {
	p, err := l.start(ctx, smallLog())
	if err != nil {
		return 0, err
	}
	defer func() { p.kill(); <-p.exited }()
	select {
	case <-p.exited:
		l.ended(p)
		return 0, errFound
	default:
	}
	queued, err := l.drain(ctx)
	if err != nil {
		return 0, err
	}
	prefix := fmt.Sprintf("q/%d", w.life)
	for _, m := range queued {
		n, err := strconv.Atoi(m.payload)
		switch {
		case m.topic != prefix || n <= last && m.dup:
		case err != nil || n%2 == 0 || n > w.sent:
			l.process("life %d: unknown message %q on %s", w.life, m.payload, m.topic)
			return 0, errFound
		case last == 0 && n != 1, last > 0 && n != last+2:
			l.process("life %d: message %d follows on %d: what is left is no prefix of the log", w.life, n, last)
			return 0, errFound
		default:
			last = n
		}
	}
	value, err := l.retained(ctx, fmt.Sprintf("r/%d", w.life), last > 1)
	if err != nil {
		return 0, err
	}
	if value != last-1 && value != last+1 && (value != 0 || last != 0) {
		l.process("life %d: the queue ends with message %d, the retained one is %d: that was never so", w.life, last, value)
		return 0, errFound
	}
	p.term()
	if !p.wait(stopTimeout) || p.state.ExitCode() != 0 {
		l.process("SIGTERM: %v, want exit status 0 within %v", p.state, stopTimeout)
		return 0, errFound
	}
	return max(last, value), nil
}

// lazyWriter publishes numbers in turn to a queue (odd) and to a retained topic
// (even) and notes when each was acknowledged.
type lazyWriter struct {
	life  int
	sent  int
	acked []time.Time // of message i+1; zero = not acknowledged
	done  chan struct{}
}

func (w *lazyWriter) run(ctx context.Context, l *lazyCampaign) {
	defer close(w.done)
	link, err := l.connect(ctx, lazyPub, true)
	if err != nil {
		return // the power was cut first
	}
	defer link.close()
	confirmed := 0
	for ctx.Err() == nil {
		for w.sent-confirmed < lazyWindow {
			w.sent++
			m := packets.Publish{
				QoS: 1, PacketID: uint16(w.sent-1)%60_000 + 1, Payload: []byte(strconv.Itoa(w.sent)),
				Topic: fmt.Appendf(nil, "q/%d", w.life),
			}
			if w.sent%2 == 0 {
				m.Topic, m.Retain = fmt.Appendf(nil, "r/%d", w.life), true
			}
			link.out = m.AppendTo(link.out, packets.V5)
		}
		link.flush()
		select {
		case chunk, ok := <-link.in:
			if !ok {
				return
			}
			link.take(chunk)
		case <-ctx.Done():
			return
		}
		at := time.Now()
		for {
			f, ok, err := link.next()
			if err != nil || !ok {
				break
			}
			if f.Type() == packets.TypePuback { // acknowledgements come in order
				w.acked = append(w.acked, at)
				confirmed++
			}
		}
	}
}

func (l *lazyCampaign) connect(ctx context.Context, id string, clean bool) (*link, error) {
	return connect(ctx, l.server.addr(), id, clean)
}

// connect connects a client, with a session that never ends unless it is clean,
// and waits for the CONNACK.
func connect(ctx context.Context, addr, id string, clean bool) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, lazyAnswer)
	defer cancel()
	c, err := dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	begin := packets.Connect{CleanStart: clean, ClientID: []byte(id)}
	if !clean {
		begin.Props.HasSessionExpiry, begin.Props.SessionExpiry = true, NeverExpires
	}
	c.out = begin.AppendTo(c.out, packets.V5)
	ack, err := await[*packets.Connack](ctx, c)
	if err == nil && ack.Code != packets.CodeSuccess {
		err = fmt.Errorf("torture: %s: CONNACK %v", id, ack.Code)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// await sends what is to be sent and waits for a packet of a type, ignoring
// others.
func await[P packets.Packet](ctx context.Context, c *link) (want P, err error) {
	ctx, cancel := context.WithTimeout(ctx, lazyAnswer)
	defer cancel()
	for {
		p, err := c.packet(ctx)
		if err != nil {
			return want, err
		}
		if p, ok := p.(P); ok {
			return p, nil
		}
	}
}

// packet sends what is to be sent and waits for the next packet.
func (l *link) packet(ctx context.Context) (packets.Packet, error) {
	l.flush()
	for {
		f, ok, err := l.next()
		if err != nil {
			return nil, err
		}
		if ok {
			return f.Decode(packets.V5)
		}
		select {
		case chunk, ok := <-l.in:
			if !ok {
				return nil, errEnded
			}
			l.take(chunk)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

type lazyMessage struct {
	topic, payload string
	dup            bool
}

// drain takes everything that is queued for the subscriber.
func (l *lazyCampaign) drain(ctx context.Context) (got []lazyMessage, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*lazyAnswer)
	defer cancel()
	c, err := l.connect(ctx, lazySub, false)
	if err != nil {
		return nil, err
	}
	defer c.close()
	marker := fmt.Sprintf("marker %d", l.lives)
	m := packets.Publish{QoS: 1, PacketID: 1, Topic: []byte("q/marker"), Payload: []byte(marker)}
	c.out = m.AppendTo(c.out, packets.V5)
	for {
		p, err := c.packet(ctx)
		if err != nil {
			return nil, fmt.Errorf("torture: read the queue: %w", err)
		}
		m, ok := p.(*packets.Publish)
		if !ok {
			continue
		}
		c.out = packets.AppendAck(c.out, packets.V5, packets.TypePuback, m.PacketID, packets.CodeSuccess)
		if string(m.Payload) == marker {
			c.out = (&packets.Disconnect{}).AppendTo(c.out, packets.V5)
			c.flush()
			for range c.in { // until the broker has closed: it has read the acknowledgements
			}
			return got, nil
		}
		if !strings.HasPrefix(string(m.Topic), "q/marker") {
			got = append(got, lazyMessage{string(m.Topic), string(m.Payload), m.Dup})
		}
	}
}

// retained returns the number in a retained message, 0 if there is none. One
// that must be there may come behind the marker: its body has to be read first.
func (l *lazyCampaign) retained(ctx context.Context, topic string, must bool) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, lazyAnswer)
	defer cancel()
	c, err := l.connect(ctx, "lazy-look", true)
	if err != nil {
		return 0, err
	}
	defer c.close()
	const marker = "lazy/marker"
	c.out = (&packets.Subscribe{PacketID: 1, Filters: []packets.Subscription{
		{Filter: []byte(topic), Options: 0}, {Filter: []byte(marker), Options: 0},
	}}).AppendTo(c.out, packets.V5)
	if _, err := await[*packets.Suback](ctx, c); err != nil {
		return 0, err
	}
	c.out = (&packets.Publish{Topic: []byte(marker)}).AppendTo(c.out, packets.V5)
	for {
		m, err := await[*packets.Publish](ctx, c)
		switch {
		case must && errors.Is(err, context.DeadlineExceeded):
			return 0, nil
		case err != nil:
			return 0, err
		case string(m.Topic) == topic:
			return strconv.Atoi(string(m.Payload))
		case !must:
			return 0, nil
		}
		var end context.CancelFunc
		ctx, end = context.WithTimeout(ctx, missingFor)
		defer end()
	}
}
