package main

import (
	"context"
	"fmt"
	"time"
)

// A plan says how the broker's next life ends.
type plan struct {
	name  string
	env   []string
	after time.Duration // undisturbed life before anything else
	kind  Kind          // then kill at the count-th event of this kind, if any
	sent  bool
	count int
	limit time.Duration // how long to wait for that event or for a failpoint
	term  bool          // strike with SIGTERM instead of SIGKILL
	power bool          // lose what was not synced
	at    *instant      // cut the power there,
	pass  int           // after so many operations more,
	late  bool          // counted only when it serves
	exit  int           // an exit code that is as good as a kill; 0 = none

	// live replaces the campaign's own way to let the process live and die.
	live func(ctx context.Context, p *process, pl plan) error
}

// moments are the events that a kill follows at once: each is an
// acknowledgement whose record must not be younger than itself, or the first
// step of an exchange.
var moments = [...]struct {
	kind Kind
	sent bool
}{
	{Puback, false},
	{Pubrec, false},
	{Pubcomp, false},
	{Pubrel, false},
	{Suback, false},
	{Unsuback, false},
	{Connack, false},
	{Publish, false},
	{Publish, true},
	{Pubrel, true},
	{Subscribe, true},
	{Unsubscribe, true},
	{Connect, true},
	{Puback, true},
	{Pubrec, true},
	{Pubcomp, true},
}

// failpoints are the places in the broker at which it can be told to die, and
// the greatest number of passes before it does.
var failpoints = [...]struct {
	name   string
	passes int
	limit  time.Duration
}{
	{"wal-before-write", 250, 3 * time.Second},
	{"wal-after-write", 250, 3 * time.Second},
	{"wal-after-sync", 250, 3 * time.Second},
	{"apply-before-ack", 250, 3 * time.Second},
	{"shutdown-before-mark", 1, time.Second},
	{"checkpoint-before-commit", 2, 6 * time.Second},
	{"checkpoint-after-commit", 2, 6 * time.Second},
	{"wal-mid-rotation", 1, 8 * time.Second},
	{"checkpoint-before-drop", 1, 8 * time.Second},
}

// briefFailpoints are those at the front of the list that come often enough for
// a short run.
const briefFailpoints = 5

// plan draws the next death.
func (c *campaign) plan(round int) plan {
	pl := plan{}
	switch c.mode {
	case "failpoint":
		pl = c.failpointPlan(round)
	case "mixed":
		switch {
		case round%2 == 1:
			pl = c.failpointPlan(round / 2)
		case round%16 == 14:
			pl = plan{name: "SIGTERM", after: c.lifetime(), term: true, limit: stopTimeout}
		default:
			pl = c.killPlan()
		}
		pl.power = c.rnd.IntN(2) == 0
	default:
		pl = c.killPlan()
	}
	if c.fault != "" {
		pl.power = true
	}
	if c.at != 0 {
		pl.after = min(pl.after, 300*time.Millisecond)
	}
	if c.patient {
		pl.after += 2500 * time.Millisecond
	}
	return pl
}

// lifetime draws how long the broker lives: mostly short, now and then long
// enough for a checkpoint or two.
func (c *campaign) lifetime() time.Duration {
	if !c.brief && c.rnd.IntN(12) == 0 {
		return time.Duration(2000+c.rnd.IntN(2500)) * time.Millisecond
	}
	return time.Duration(50+c.rnd.IntN(500)) * time.Millisecond
}

func (c *campaign) killPlan() plan {
	pl := plan{name: "SIGKILL", after: c.lifetime()}
	if c.rnd.IntN(4) == 0 {
		return pl
	}
	m := moments[c.rnd.IntN(len(moments))]
	if c.at != 0 {
		m.kind, m.sent = c.at, false
	}
	pl.kind, pl.sent, pl.count, pl.limit = m.kind, m.sent, 1+c.rnd.IntN(3), time.Second
	dir := "from broker"
	if m.sent {
		dir = "to broker"
	}
	pl.name = fmt.Sprintf("SIGKILL at %s %s", m.kind, dir)
	return pl
}

func (c *campaign) failpointPlan(round int) plan {
	f := failpoints[round%len(failpoints)]
	if c.brief {
		f = failpoints[round%briefFailpoints]
	}
	k := 1 + c.rnd.IntN(f.passes)
	pl := plan{name: fmt.Sprintf("%s:%d", f.name, k), limit: f.limit}
	pl.env = []string{"COMQTT_FAILPOINT=" + pl.name}
	if f.name == "shutdown-before-mark" {
		pl.after, pl.term, pl.limit = c.lifetime(), true, stopTimeout
	}
	return pl
}
