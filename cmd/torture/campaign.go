package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

const (
	// setUpTimeout bounds the time until all clients have subscribed.
	setUpTimeout = 60 * time.Second
	// quietFor is how long nothing must come to believe that nothing will.
	quietFor = 100 * time.Millisecond
	// quietTimeout bounds the wait for progress while everything drains.
	quietTimeout = 20 * time.Second
	// stopTimeout bounds an orderly end of the broker.
	stopTimeout = 30 * time.Second
	// unlinkTimeout bounds the time until all clients have seen the broker die.
	unlinkTimeout = 30 * time.Second
)

// options say what a campaign does.
type options struct {
	kills   int
	seed    uint64
	mode    string   // kill, failpoint, mixed, enospc, fsync, power
	engine  string   // of the log, "" = the broker's default
	fault   string   // planted defect, "" = none
	lie     string   // planted defect of the disk, "" = none
	sync    string   // mode power: when the log is synced, "" = always
	ignore  []string // rules of the checker not to report
	history int      // events kept as evidence
	brief   bool     // short lives only
	at      Kind     // most kills follow the receipt of this packet; 0 = any moment
	patient bool     // long lives: the defect shows only after a checkpoint
	out     io.Writer
}

// A campaign runs the fleet against one broker that is killed again and again.
type campaign struct {
	options
	server  *server
	journal *Journal
	fleet   *fleet
	rnd     *rand.Rand
	draw    func(c *campaign, round int) plan // how the next life ends

	kills int // deaths without warning
	open  int // of these, with a publish unacknowledged and a QoS 2 handshake open
	cuts  int // of these, with a simulated power failure
	stops int // orderly ends in between

	disk    *lossyDisk     // under the data directory; nil = an ordinary one
	instant int            // the next of instants
	reached map[string]int // instants at which the power was cut

	missed bool // the moment that this life's end waited for did not come
}

func newCampaign(o options, bin, dir string) (*campaign, error) {
	rnd := rand.New(rand.NewPCG(o.seed, 0))
	s, err := newServer(bin, dir)
	if err == nil {
		s.engine = o.engine
	}
	if err != nil {
		return nil, err
	}
	c := &campaign{options: o, server: s, journal: NewJournal(o.history), rnd: rnd, draw: (*campaign).plan}
	c.journal.checker.ignore = o.ignore
	c.fleet = newFleet(o.seed, s.addr(), c.journal)
	return c, nil
}

// errFound ends a campaign that has found something.
var errFound = errors.New("torture: finding")

// run goes through set-up, the kills and the quiet phase. An error other than
// errFound means that the campaign itself failed.
func (c *campaign) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.fleet.start(ctx)
	defer c.fleet.wg.Wait()
	defer cancel()
	for round := 0; max(c.kills, c.cuts) < c.options.kills; round++ {
		if err := c.round(ctx, c.draw(c, round)); err != nil {
			return err
		}
	}
	return c.quiet(ctx)
}

// start starts the broker and waits until it serves. A process that ended is
// not an error here.
func (c *campaign) start(ctx context.Context, env []string) (*process, error) {
	if c.fault != "" {
		env = append(env, "COMQTT_FAULT="+c.fault)
	}
	p, err := c.server.start(env...)
	if err != nil {
		return nil, err
	}
	if c.disk != nil {
		c.disk.watch(p)
	}
	c.fleet.control.setUp(true)
	switch err := p.ready(ctx, c.server.addr()); {
	case err == nil:
		c.journal.Add(&Event{Kind: Ready})
	case errors.Is(err, errExited):
	default:
		p.kill()
		<-p.exited
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		c.process("the broker did not serve within %v: %v", readyTimeout, err)
		return nil, errFound
	}
	return p, nil
}

// process reports a finding about the process itself.
func (c *campaign) process(format string, args ...any) {
	c.journal.Report(Finding{Rule: "process", Statement: "P2", Text: fmt.Sprintf(format, args...)})
}

// ended reports a broker that ended when nobody meant it to. A refusal to start
// because the data is damaged is a rule of its own.
func (c *campaign) ended(p *process) {
	f := Finding{
		Rule: "process", Statement: "P2",
		Text: fmt.Sprintf("the broker ended by itself: %v (start %d of it)", p.state, c.server.starts),
	}
	if p.state.ExitCode() == exitDamaged {
		f.Rule = "refused"
	}
	c.journal.Report(f)
}

// round is one life of the broker, from its start to its planned death.
func (c *campaign) round(ctx context.Context, pl plan) error {
	if pl.at != nil && !pl.term && !pl.late {
		pl.at.arm(c.disk.disk, pl.pass)
	}
	p, err := c.start(ctx, pl.env)
	if err != nil {
		return err
	}
	defer func() { p.kill(); <-p.exited }()
	if m, _, _ := c.fleet.control.now(); m == modeSetUp {
		if err := c.setUp(ctx, p); err != nil {
			return err
		}
	}
	began := time.Now()
	live := c.live
	if pl.live != nil {
		live = pl.live
	}
	if err := live(ctx, p, pl); err != nil {
		return err
	}
	return c.died(ctx, p, pl, time.Since(began))
}

// setUp waits until everybody has subscribed, then lets traffic begin.
func (c *campaign) setUp(ctx context.Context, p *process) error {
	timer := time.NewTimer(setUpTimeout)
	defer timer.Stop()
	settled := c.fleet.settled()
	select {
	case <-settled:
		c.fleet.control.setMode(modeRun)
		return nil
	case <-p.exited:
		// A failpoint has struck; the next life goes on.
		return nil
	case <-c.journal.Found():
		return errFound
	case <-timer.C:
		c.process("the clients could not connect and subscribe within %v", setUpTimeout)
		return errFound
	case <-ctx.Done():
		return ctx.Err()
	}
}

// live lets the broker live until it dies as planned, or of itself.
func (c *campaign) live(ctx context.Context, p *process, pl plan) error {
	kill := p.kill
	if c.disk != nil {
		kill = c.disk.disk.Cut // the process is killed by it
	}
	strike := kill
	if pl.term {
		strike = func() {
			if pl.at != nil {
				pl.at.arm(c.disk.disk, pl.pass)
			}
			p.term()
		}
	}
	if pl.late {
		pl.at.arm(c.disk.disk, pl.pass)
	}
	after := time.NewTimer(pl.after)
	defer after.Stop()
	limit := time.NewTimer(pl.after + pl.limit)
	defer limit.Stop()
	defer c.journal.Arm(0, false, 0, nil)
	c.missed = false
	for {
		select {
		case <-p.exited:
			return nil
		case <-after.C:
			switch {
			case pl.kind != 0:
				c.journal.Arm(pl.kind, pl.sent, pl.count, strike)
			case pl.limit == 0 || pl.term:
				strike()
			}
			if pl.term {
				p.wait(stopTimeout)
			}
		case <-limit.C:
			c.missed = pl.limit > 0
			kill()
		case <-c.journal.Found():
			return errFound
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// died takes stock after the end of a process.
func (c *campaign) died(ctx context.Context, p *process, pl plan, lived time.Duration) error {
	c.fleet.control.setUp(false)
	killed := p.killed() || pl.exit != 0 && p.state.ExitCode() == pl.exit
	orderly := pl.term && p.state.ExitCode() == 0
	switch {
	case killed:
		c.journal.Add(&Event{Kind: Kill})
	case orderly:
		c.journal.Add(&Event{Kind: Stop})
	default:
		c.ended(p)
		return errFound
	}
	if err := c.unlinked(ctx); err != nil {
		return err
	}
	o := c.journal.Outstanding()
	var lost fmt.Stringer = (*cut)(nil)
	if killed {
		c.kills++
		if o.Publishes > 0 && o.Handshakes > 0 {
			c.open++
		}
	} else {
		c.stops++
	}
	if pl.power {
		var err error
		if lost, err = c.cutPower(pl, killed); err != nil {
			return err
		}
	}
	c.line(p, pl, lived, o, lost, killed)
	if race, err := c.server.races(); err != nil {
		return err
	} else if race != "" {
		c.process("data race in the broker:%s", race)
	}
	select {
	case <-c.journal.Found():
		return errFound
	default:
		return nil
	}
}

// cutPower loses what was not synced.
func (c *campaign) cutPower(pl plan, killed bool) (fmt.Stringer, error) {
	if c.disk != nil {
		c.cuts++
		loss := drawLoss(c.rnd)
		if pl.at != nil && pl.at.torn {
			loss = pl.at.loss
		}
		switch {
		case !killed:
			c.reached["stopped"]++
		case pl.at != nil && !c.missed:
			c.reached[pl.at.name]++
		default:
			c.reached["any moment"]++
		}
		return c.disk.crash(loss, c.rnd)
	}
	if !killed {
		return (*cut)(nil), nil
	}
	lost, err := cutPower(filepath.Join(c.server.data, "wal"), c.server.syncedFile(), c.rnd)
	if lost != nil {
		c.cuts++
	}
	return lost, err
}

// unlinked waits until every client has read its connection to the end.
func (c *campaign) unlinked(ctx context.Context) error {
	timer := time.NewTimer(unlinkTimeout)
	defer timer.Stop()
	select {
	case <-c.fleet.control.unlinked():
		return nil
	case <-timer.C:
		return fmt.Errorf("torture: clients still connected %v after the broker's end", unlinkTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *campaign) line(p *process, pl plan, lived time.Duration, o Outstanding, lost fmt.Stringer, killed bool) {
	s := c.journal.Stats()
	what := fmt.Sprintf("kill %3d/%d", c.kills, c.options.kills)
	if !killed {
		what = "stop       "
	}
	if c.missed {
		pl.name += " (not reached)"
	}
	if code := p.state.ExitCode(); code > 0 {
		pl.name += fmt.Sprintf(" → exit %d", code)
	}
	fmt.Fprintf(c.out, "%s %5dms %-38s unacked %3d  qos2 open %3d (%d past PUBREC)  owed %5d  sent %d acked %d got %d dup %d  %s\n",
		what, lived.Milliseconds(), pl.name, o.Publishes, o.Handshakes, o.Released, o.Owed,
		s.Published, s.Accepted, s.Delivered, s.Duplicates, lost)
}

// quiet starts the broker a last time, lets everything finish and checks; then
// everybody comes back once more, before and after an orderly stop.
func (c *campaign) quiet(ctx context.Context) error {
	c.fleet.control.setMode(modeDrain)
	for lap := 1; ; lap++ {
		p, err := c.start(ctx, nil)
		if err != nil {
			return err
		}
		err = c.drained(ctx, p)
		if err == nil && lap == 1 { // and once more on the same broker
			c.fleet.quit()
			c.fleet.control.setMode(modeDrain)
			c.fleet.start(ctx)
			err = c.drained(ctx, p)
		}
		if err == nil {
			err = c.looks(ctx)
		}
		if err != nil {
			p.kill()
			<-p.exited
			return err
		}
		c.fleet.quit()
		c.fleet.control.setUp(false)
		p.term()
		if !p.wait(stopTimeout) || p.state.ExitCode() != 0 {
			c.process("SIGTERM: %v, want exit status 0 within %v", p.state, stopTimeout)
			return errFound
		}
		c.journal.Add(&Event{Kind: Stop})
		c.stops++
		if lap == 2 {
			break
		}
		c.fleet.control.setMode(modeDrain)
		c.fleet.start(ctx)
	}
	c.journal.Finish()
	if f, _ := c.journal.Findings(); len(f) > 0 {
		return errFound
	}
	return nil
}

// drained waits until nothing is outstanding and every client is connected. As
// long as something moves it is patient.
func (c *campaign) drained(ctx context.Context, p *process) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	var last Stats
	moved := time.Now()
	for {
		select {
		case <-ticker.C:
		case <-p.exited:
			c.ended(p)
			return errFound
		case <-c.journal.Found():
			return errFound
		case <-ctx.Done():
			return ctx.Err()
		}
		if s := c.journal.Stats(); s != last {
			last, moved = s, time.Now()
		}
		still := time.Since(moved)
		if still < quietFor {
			continue
		}
		o := c.journal.Outstanding()
		if o == (Outstanding{}) && c.fleet.calm() {
			return nil
		}
		if still > quietTimeout {
			c.process("nothing moves for %v, but outstanding are %+v", quietTimeout, o)
			c.journal.Finish()
			return errFound
		}
	}
}

// looks lets every reader look at the retained messages in the quiet.
func (c *campaign) looks(ctx context.Context) error {
	for _, r := range c.fleet.readers {
		if err := r.look(ctx); err != nil {
			c.process("look at the retained messages: %v", err)
			return errFound
		}
	}
	select {
	case <-c.journal.Found():
		return errFound
	default:
		return nil
	}
}

// release ends the use of the lossy disk; what it holds is kept as evidence.
func (c *campaign) release(keep bool) error {
	if c.disk == nil {
		return nil
	}
	err := c.disk.off()
	if keep {
		err = errors.Join(err, c.disk.save(filepath.Join(c.server.dir, "kept")))
	}
	c.disk = nil
	return err
}

// remove deletes the run's directory.
func (c *campaign) remove() error {
	if err := c.release(false); err != nil {
		return err
	}
	return errors.Join(c.server.log.Close(), os.RemoveAll(c.server.dir))
}
