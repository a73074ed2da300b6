package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// storm connects, subscribes and disconnects as fast as the broker can, on a
// number of connections at a time.
func (l *load) storm() (*Result, error) {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	var (
		cycles  atomic.Uint64
		wg      sync.WaitGroup
		from    = time.Now().Add(l.o.Warmup)
		timings = make([]timing, l.o.Connections)
	)
	for w := range l.o.Connections {
		timings[w] = newTiming()
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				start := time.Now()
				if err := l.cycle(ctx, w, n); err != nil {
					if ctx.Err() == nil {
						l.fail(err)
					}
					return
				}
				cycles.Add(1)
				if start.After(from) {
					timings[w].record(time.Since(start))
				}
			}
		})
	}
	first, last, err := l.measured(cycles.Load)
	cancel()
	wg.Wait()
	if err != nil {
		return nil, err
	}
	all := newTiming()
	for _, t := range timings {
		all.merge(t)
	}
	i := between(first, last)
	res := &Result{Seconds: i.seconds, Metrics: slices.Concat(i.metrics("", "cycle"), all.metrics("cycle "), i.cores())}
	return res, nil
}

// cycle is CONNECT, SUBSCRIBE, DISCONNECT of one client.
func (l *load) cycle(ctx context.Context, worker, n int) error {
	c, err := l.dialer.connect(ctx, login{id: l.id(fmt.Sprintf("c%d-", worker), n)})
	if err != nil {
		return err
	}
	if err := c.subscribe(l.o.QoS, l.topic("storm/%d/%d", worker, n)); err != nil {
		return errors.Join(err, c.nc.Close())
	}
	c.disconnect()
	return nil
}

// idle makes connections that do nothing and says what they weigh.
func (l *load) idle() (*Result, error) {
	before, known := l.gauge.memory()
	if !known {
		return nil, fmt.Errorf("%w: idle needs the broker's process (pid), on this machine", ErrOptions)
	}
	start := l.gauge.sample(0)
	var made atomic.Int64
	conns := make([]*conn, l.o.Connections)
	defer closeAll(conns)
	p := newProgress(l.o.Progress, "connecting")
	var mu sync.Mutex
	err := parallel(l.ctx, len(conns), dialers, func(i int) (err error) {
		if conns[i], err = l.dialer.connect(l.ctx, login{id: l.id("i", i)}); err != nil {
			return err
		}
		n := made.Add(1)
		mu.Lock()
		defer mu.Unlock()
		p.tell(time.Now(), float64(n)/float64(len(conns)), uint64(n))
		return nil
	})
	if err != nil {
		return nil, err
	}
	i := between(start, l.gauge.sample(uint64(len(conns))))
	after, err := l.settledMemory()
	if err != nil {
		return nil, err
	}
	res := &Result{Seconds: i.seconds}
	res.Metrics = append(res.Metrics, Metric{
		"memory", float64(after-before) / float64(len(conns)), "B/connection", false,
	})
	res.Metrics = append(res.Metrics, i.metrics("connect ", "connection")...)
	return res, nil
}

// settledMemory returns the least memory that the broker has in the time that
// it is given to settle: what a garbage collector is about to free is nobody's.
func (l *load) settledMemory() (int64, error) {
	least := int64(-1)
	end := time.Now().Add(l.o.waits.settle)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for now := range tick.C {
		n, ok := l.gauge.memory()
		if !ok {
			return 0, errors.New("bench: the broker's process is gone")
		}
		if least < 0 || n < least {
			least = n
		}
		if now.After(end) || l.ctx.Err() != nil {
			break
		}
	}
	return least, l.ctx.Err()
}
