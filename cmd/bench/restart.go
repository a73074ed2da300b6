package bench

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"
)

// restart fills a broker with queued and retained messages, kills it when it
// has been calm for a while, starts it, stops it gracefully, starts it again,
// and checks that everything is still there. Both times it takes the time from
// the start of the process to the first CONNACK.
func (l *load) restart() (*Result, error) {
	if err := l.launch(); err != nil {
		return nil, err
	}
	defer func() { _ = l.o.Process.Stop(syscall.SIGTERM) }() // at an error; else it has ended
	set, err := l.setRetained()
	if err != nil {
		return nil, err
	}
	retainers := l.publishers
	l.publishers = nil
	store, err := l.store()
	if err != nil {
		return nil, err
	}
	res := &Result{Seconds: set.seconds + store.seconds, Checks: l.checks()}
	if err := l.during("letting it calm down", l.o.waits.calm, func() uint64 { return uint64(time.Now().UnixNano()) }); err != nil {
		return nil, err
	}
	for _, s := range []struct {
		signal os.Signal
		name   string
	}{{syscall.SIGKILL, "SIGKILL"}, {syscall.SIGTERM, "SIGTERM"}} {
		stopped, started, err := l.again(s.signal)
		if err != nil {
			return nil, err
		}
		res.Metrics = append(res.Metrics, Metric{"first CONNACK after " + s.name, millis(started), "ms", false})
		if s.signal == syscall.SIGTERM {
			res.Metrics = append(res.Metrics, Metric{"SIGTERM to exit", millis(stopped), "ms", false})
		}
	}
	drain, sinks, err := l.drainSessions()
	if err != nil {
		return nil, err
	}
	l.tallySessions(&res.Checks, sinks)
	if _, err := l.getRetained(1, &res.Checks); err != nil {
		return nil, err
	}
	for _, p := range retainers {
		res.Checks.Sent += uint64(p.sent.Load())
	}
	res.Metrics = append(res.Metrics, drain.metrics("out ", "msg")...)
	return res, l.quit()
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// launch starts the broker for the first time.
func (l *load) launch() error {
	_, err := l.started()
	return err
}

// again stops the broker by a signal and starts it again. It returns how long
// it took to end, and from its start to the first CONNACK.
func (l *load) again(signal os.Signal) (stopped, started time.Duration, err error) {
	start := time.Now()
	if err := l.o.Process.Stop(signal); err != nil {
		return 0, 0, err
	}
	stopped = time.Since(start)
	started, err = l.started()
	return stopped, started, err
}

// started starts the broker and tries to connect until it gets a CONNACK.
func (l *load) started() (time.Duration, error) {
	start := time.Now()
	pid, address, err := l.o.Process.Start()
	if err != nil {
		return 0, err
	}
	l.o.Target = address
	l.dialer, l.gauge.pid = newDialer(l.o), pid
	ctx, cancel := context.WithTimeout(l.ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		c, err := l.dialer.connect(ctx, login{id: l.id("first", 0)})
		if err == nil {
			took := time.Since(start)
			c.disconnect()
			return took, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("bench: the broker does not come up: %w", err)
		case <-tick.C:
		}
	}
}

// quit ends the broker and with it what would be left to clear.
func (l *load) quit() error {
	l.durable = nil
	return l.o.Process.Stop(syscall.SIGTERM)
}
