package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// Run puts one load on one broker. The error is about the run: it could not
// connect, the broker closed a connection, ctx ended. What the checks found is
// in the result: see Result.Err. All goroutines and connections are gone when
// Run returns.
func Run(ctx context.Context, options Options) (*Result, error) {
	o, err := options.complete()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := newLoad(ctx, &o)
	run := map[Mode]func(*load) (*Result, error){
		Pairs: (*load).pairs, Durable: (*load).pairs, FanOut: (*load).fanOut, FanIn: (*load).fanIn,
		Offline: (*load).offline, Latency: (*load).latency, Connect: (*load).storm, Idle: (*load).idle,
		Retained: (*load).retained, Subscribe: (*load).subscribe, Restart: (*load).restart, Stresser: (*load).stresser,
	}[o.Mode]
	res, err := run(l)
	if err = errors.Join(err, l.end()); err != nil {
		return nil, err
	}
	res.Mode, res.Target, res.Load = o.Mode, o.Target, o.describe()
	res.Notes = append(res.Notes, l.notes...)
	return res, nil
}

// throughput lets the load run and measures how much of it arrives. expected
// is the number of deliveries that the messages sent so far make.
func (l *load) throughput(expected func() uint64) (*Result, error) {
	i, err := l.measure()
	if errors.Is(err, errStalled) {
		l.stopped.Store(true) // waiting once more would bring nothing
		err = l.stalled(err)
	} else if err == nil {
		err = l.drain(expected)
	}
	if err != nil {
		return nil, err
	}
	l.closeConns()
	if i.known && i.self > i.broker {
		l.note("the generator used more CPU time than the broker: the rate says little about the broker")
	}
	return &Result{Seconds: i.seconds, Metrics: append(i.metrics("", "msg"), i.cores()...), Checks: l.checks()}, nil
}

// measure starts the load and measures: all of it if it is counted, else what
// comes after the warm-up.
func (l *load) measure() (interval, error) {
	first := l.gauge.sample(0)
	l.begin()
	if l.o.counted() {
		total := uint64(l.o.Messages)
		err := l.wait("measuring", total, l.received, func() bool { return l.received() >= total })
		return between(first, l.gauge.sample(l.received())), err
	}
	first, last, err := l.measured(l.received)
	return between(first, last), err
}

// measured waits out the warm-up, then takes samples before and after the
// duration.
func (l *load) measured(count func() uint64) (first, last sample, err error) {
	first = l.gauge.sample(count())
	if err = l.during("warm-up", l.o.Warmup, count); err != nil {
		return first, l.gauge.sample(count()), err
	}
	first = l.gauge.sample(count())
	err = l.during("measuring", l.o.Duration, count)
	return first, l.gauge.sample(count()), err
}

// pairs is one publisher to one subscriber, many times.
func (l *load) pairs() (*Result, error) {
	sinks, err := l.makePairs()
	if err != nil {
		return nil, err
	}
	for i, p := range l.publishers {
		p.group = newGroup(int(p.window))
		p.group.only = p
		l.receivers[i].passed = func(before, after uint64) { p.group.give(int(after - before)) }
		if l.o.counted() {
			// Every pair its share, the first ones what is left over.
			p.limit = uint64(l.o.Messages / l.o.Pairs)
			if i < l.o.Messages%l.o.Pairs {
				p.limit++
			}
			if p.limit == 0 {
				p.due = new(atomic.Int64) // nothing is due, ever
			}
		}
	}
	res, err := l.throughput(l.published)
	if err != nil {
		return nil, err
	}
	for i, s := range sinks {
		res.Checks.add(s.stream.tally(uint64(l.publishers[i].sent.Load()), false))
	}
	return res, nil
}

// makePairs connects subscribers and publishers two by two.
func (l *load) makePairs() ([]*one, error) {
	subs, err := l.subscribers(l.o.Pairs, "s", func(i int) string { return l.topic("pair/%d", i) })
	if err != nil {
		return nil, err
	}
	pubs, err := l.connectAll(l.o.Pairs, "p", l.o.Durable && l.o.QoS == 2)
	if err != nil {
		closeAll(subs)
		return nil, err
	}
	var sinks []*one
	for i := range l.o.Pairs {
		s := &one{source: uint32(i)}
		sinks = append(sinks, s)
		l.newReceiver(subs[i], s)
		l.newAckReader(l.newPublisher(pubs[i], publisherSpec{topic: l.topic("pair/%d", i), source: uint32(i), qos: l.o.QoS}))
	}
	return sinks, nil
}

// fanOut is one publisher to many subscribers.
func (l *load) fanOut() (*Result, error) {
	topic := l.topic("out")
	subs, err := l.subscribers(l.o.Subscribers, "s", func(int) string { return topic })
	if err != nil {
		return nil, err
	}
	pubs, err := l.connectAll(1, "p", l.o.Durable && l.o.QoS == 2)
	if err != nil {
		closeAll(subs)
		return nil, err
	}
	b := newBarrier(l.o.Window, len(subs))
	p := l.newPublisher(pubs[0], publisherSpec{topic: topic, qos: l.o.QoS, group: b.group})
	b.group.only = p
	l.newAckReader(p)
	var sinks []*one
	for _, c := range subs {
		s := &one{}
		sinks = append(sinks, s)
		l.newReceiver(c, s).passed = b.passed
	}
	n := uint64(len(subs))
	res, err := l.throughput(func() uint64 { return l.published() * n })
	if err != nil {
		return nil, err
	}
	for _, s := range sinks {
		res.Checks.add(s.stream.tally(uint64(p.sent.Load()), false))
	}
	return res, nil
}

// fanIn is many publishers to one subscriber, or to the members of a shared
// group.
func (l *load) fanIn() (*Result, error) {
	filter := l.topic("in/+")
	if l.o.Shared {
		filter = fmt.Sprintf("$share/bench/%s", filter)
	}
	subs, err := l.subscribers(l.o.Subscribers, "s", func(int) string { return filter })
	if err != nil {
		return nil, err
	}
	pubs, err := l.connectAll(l.o.Publishers, "p", l.o.Durable && l.o.QoS == 2)
	if err != nil {
		closeAll(subs)
		return nil, err
	}
	g := newGroup(l.o.Window * len(pubs))
	for i, c := range pubs {
		p := l.newPublisher(c, publisherSpec{topic: l.topic("in/%d", i), source: uint32(i), qos: l.o.QoS, group: g})
		l.newAckReader(p)
	}
	all := &shared{streams: make(many, len(pubs))}
	var members []*member
	for _, c := range subs {
		var s sink = all.streams
		if l.o.Shared {
			m := &member{group: all, next: make([]uint64, len(pubs))}
			members, s = append(members, m), m
		}
		r := l.newReceiver(c, s)
		r.buffer = readBufferMany
		r.passed = func(before, after uint64) { g.give(int(after - before)) }
	}
	res, err := l.throughput(l.published)
	if err != nil {
		return nil, err
	}
	for i, p := range l.publishers {
		res.Checks.add(all.streams[i].tally(uint64(p.sent.Load()), l.o.Shared))
	}
	for _, m := range members {
		res.Checks.Reordered += m.reordered
	}
	return res, nil
}
