package broker

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/broker/failpoint"
	"github.com/wind-c/comqtt/v3/broker/listeners"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Errors of a Server.
var (
	ErrClosed  = errors.New("broker: closed")
	ErrServing = errors.New("broker: Serve was called before")
	// ErrListenerIDExists reports a second listener with the same id.
	ErrListenerIDExists = errors.New("broker: a listener with this id exists")
)

// A Server is one broker: New, AddListener, Serve, Close.
type Server struct {
	opts Options

	mu         sync.Mutex
	listeners  []listeners.Listener
	conns      map[*conn]struct{}
	serving    bool               // Serve was called
	running    bool               // the state is recovered and the loops run
	closed     bool               // a Close has begun
	cancelOpen context.CancelFunc // ends a recovery under way

	ready    atomic.Bool
	closing  atomic.Bool
	pushback atomic.Bool // the disk is nearly full
	failure  atomic.Pointer[error]
	fatal    chan error    // capacity 1
	stopped  chan struct{} // closed when nothing is applied any more
	ctx      context.Context
	cancel   context.CancelFunc
	loops    sync.WaitGroup // apply, loader, wheel, space
	accepts  sync.WaitGroup
	readers  sync.WaitGroup

	state     *recovery.State
	log       *wal.Log
	bodies    *recovery.Bodies
	compactor *recovery.Compactor
	boot      uint32
	base      time.Time // where the monotonic clock began
	baseWall  int64     // unix ms of base
	lastTime  int64     // log time of the last frame; commit loop
	coarse    atomic.Int64

	lane       *lane
	rounds     chan *round
	spareItems chan []item // items of applied rounds, for the next ones
	loader     *loader
	wheel      *wheel

	connections     atomic.Uint32
	open            atomic.Int64
	unauthenticated atomic.Int64
	free            func(dir string) (int64, error) // bytes free on the file system of a directory
	inBudget        *budget
	works           sync.Pool // *work
	outBuffers      sync.Pool
	stats           stats

	seed maphash.Seed // of the match caches

	// The subscription index and who is connected; see the package comment.
	indexMu    sync.RWMutex
	generation atomic.Uint64
	machine    *core.Machine
	clients    seats

	// Of the apply loop.
	fx          core.Effects
	published   record.Publish
	cache       []encoding
	touched     touch
	byClient    map[string]*conn
	byEpoch     map[record.Epoch]*conn
	dispatching map[core.GroupKey]int
	later       []func()
	turn        uint32
	deadline    *time.Timer
	armed       int64
	ticking     bool   // a Tick is on its way
	patrolled   uint32 // slot at which the patrol goes on
}

// New checks the options. Nothing is opened before Serve.
func New(o *Options) (*Server, error) {
	if o == nil {
		o = &Options{}
	}
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		opts: opts, conns: make(map[*conn]struct{}), fatal: make(chan error, 1), stopped: make(chan struct{}),
		lane: newLane(opts.Limits.LaneRecords, opts.Limits.LaneBytes), rounds: make(chan *round, 1), spareItems: make(chan []item, 4), loader: newLoader(),
		inBudget: newBudget(opts.Limits.InboundBytes), free: freeSpace, seed: maphash.MakeSeed(),
		byClient: make(map[string]*conn), byEpoch: make(map[record.Epoch]*conn), dispatching: make(map[core.GroupKey]int),
	}
	s.wheel = newWheel(s)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// AddListener binds a listener. Connections are taken once Serve has
// recovered the state.
func (s *Server) AddListener(l listeners.Listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.listeners {
		if other.ID() == l.ID() {
			return fmt.Errorf("%w: %s", ErrListenerIDExists, l.ID())
		}
	}
	if err := l.Listen(); err != nil {
		return err
	}
	s.listeners = append(s.listeners, l)
	return nil
}

// Serve recovers the state and serves until Close, a cancelled ctx, or a
// failure of the log or the backend, which it returns.
func (s *Server) Serve(ctx context.Context) error {
	s.mu.Lock()
	if s.serving {
		s.mu.Unlock()
		return ErrServing
	}
	s.serving = true
	var recovering context.Context
	recovering, s.cancelOpen = context.WithCancel(ctx)
	if s.closing.Load() {
		s.cancelOpen()
	}
	s.mu.Unlock()
	err := s.recover(recovering)
	s.cancelOpen()
	if err != nil {
		defer close(s.stopped)
		if s.closing.Load() && errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
	if !s.begin() {
		defer close(s.stopped)
		return s.state.Close(ctx)
	}
	s.start()
	s.ready.Store(true)
	select {
	case <-ctx.Done():
	case <-s.stopped:
	case err := <-s.fatal:
		s.fatal <- err // for Fatal's readers
	}
	closeCtx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err = s.Close(closeCtx)
	if f := s.failure.Load(); f != nil {
		return *f
	}
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

// begin marks the broker as running, unless Close came first.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = !s.closing.Load()
	return s.running
}

// recover opens the data directory.
func (s *Server) recover(ctx context.Context) error {
	o := recovery.Options{
		Dir: s.opts.DataDir, Backend: s.opts.Backend, Sync: s.opts.Sync, Limits: s.opts.Limits.record(),
		Clock: s.opts.Clock, Logger: s.opts.Logger, Progress: s.opts.Progress, CacheBytes: s.opts.Limits.MessageCacheBytes,
	}
	o.Archive = recovery.ArchiveOptions{
		On: !s.opts.NoArchive, Age: s.opts.ArchiveAge, Bytes: s.opts.ArchiveBytes, Free: s.free,
	}
	o.Mirror = s.opts.Mirror
	o.WAL.OnFailure = func(err error) { s.fail(fmt.Errorf("broker: write the log: %w", err)) }
	var err error
	if o.WAL.Engine, err = wal.EngineNamed(s.opts.LogEngine); err != nil {
		return fmt.Errorf("%w: log engine: %w", ErrOptions, err)
	}
	o.WAL.Hooks = failHooks()
	o.SegmentSize = failpoint.Number(failpoint.SegmentSize, 0)
	o.Checkpoint.Interval = checkpointInterval()
	st, err := recovery.Open(ctx, o)
	if err != nil {
		return err
	}
	s.state, s.machine, s.log, s.bodies, s.compactor = st, st.Machine, st.Log, st.Bodies, st.Compactor
	s.boot = st.Machine.Boot()
	s.base, s.baseWall = time.Now(), max(s.opts.Clock(), st.Machine.Now())
	s.lastTime = st.Machine.Now()
	return nil
}

// start runs the loops and the listeners.
func (s *Server) start() {
	s.coarse.Store(s.clock() / 1000)
	s.loops.Add(4)
	go func() {
		defer s.loops.Done()
		s.commitLoop()
	}()
	go func() {
		s.applyLoop()
		close(s.stopped)
	}()
	go s.loadLoop()
	go s.wheel.run()
	s.loops.Go(s.watch)
	s.loops.Go(s.watchSpace)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		s.accepts.Go(func() {
			if err := l.Serve(func(nc net.Conn) { s.serve(nc, l.ID()) }); err != nil {
				s.fail(fmt.Errorf("broker: listener %s: %w", l.ID(), err))
			}
		})
	}
}

// watch waits for the compactor to fail.
func (s *Server) watch() {
	select {
	case err := <-s.compactor.Fatal():
		s.fail(fmt.Errorf("broker: write the backend: %w", err))
	case <-s.ctx.Done():
	}
}

// clock returns the broker's time in unix milliseconds: the wall clock at the
// start, and from there the monotonic clock.
func (s *Server) clock() int64 { return s.baseWall + time.Since(s.base).Milliseconds() }

// Ready reports whether the state is recovered and clients are served.
func (s *Server) Ready() bool { return s.ready.Load() && !s.closing.Load() && s.failure.Load() == nil }

// Recovered says what the start found; the zero Report before Ready.
func (s *Server) Recovered() recovery.Report {
	if !s.ready.Load() {
		return recovery.Report{}
	}
	return s.state.Report
}

// Fatal delivers the failure that ends the broker: of the log, of the
// backend, or of an invariant. Nothing is acknowledged after it.
func (s *Server) Fatal() <-chan error { return s.fatal }

// fail ends the broker with the first failure. Connections are cut: whatever
// was not acknowledged stays so.
func (s *Server) fail(err error) {
	if !s.failure.CompareAndSwap(nil, &err) {
		return
	}
	s.opts.Logger.Error("broker failed", "error", err)
	s.closing.Store(true)
	s.lane.close()
	s.fatal <- err
	s.cancel()
}

// track counts a connection in unless the broker is closing.
func (s *Server) track(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.conns[c] = struct{}{}
	s.readers.Add(1)
	s.stats.connections.Add(1)
	return true
}

func (s *Server) untrack(c *conn) {
	s.wheel.remove(c)
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.open.Add(-1)
	s.readers.Done()
}

// Close stops accepting, tells MQTT 5 clients that the server shuts down
// (0x8B), waits for the connections to end, writes a checkpoint and the
// clean-close mark, and releases the data directory.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closed || s.closing.Load() && s.failure.Load() == nil || !s.running && s.finished() {
		s.mu.Unlock()
		<-s.stopped
		return ErrClosed
	}
	s.closed = true
	s.closing.Store(true)
	running, serving := s.running, s.serving
	if serving {
		s.cancelOpen()
	}
	open := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		open = append(open, c)
	}
	lns := s.listeners
	s.mu.Unlock()
	var errs []error
	for _, l := range lns {
		errs = append(errs, l.Close())
	}
	s.accepts.Wait()
	failed := s.failure.Load() != nil
	for _, c := range open {
		if failed {
			c.shut()
			c.nc.Close()
		} else {
			c.disconnect(packets.CodeServerShuttingDown)
		}
	}
	if !running {
		if serving { // Serve is recovering, and returns now
			select {
			case <-s.stopped:
			case <-ctx.Done():
				errs = append(errs, ctx.Err())
			}
		}
		return errors.Join(errs...)
	}
	errs = append(errs, s.stop(ctx, failed))
	return errors.Join(errs...)
}

func (s *Server) finished() bool {
	select {
	case <-s.stopped:
		return true
	default:
		return false
	}
}

// stop ends the loops in the order of the flow and closes the state.
func (s *Server) stop(ctx context.Context, failed bool) error {
	gone := make(chan struct{})
	go func() {
		s.readers.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
		s.cut()
		<-gone
	}
	s.wheel.stop()
	s.lane.close() // what the connections left is still applied
	<-s.stopped
	s.loader.close()
	if !failed {
		// Also when the last records changed nothing, such as a ServerStart
		// without sessions: only a backend that reaches the log's end is sealed.
		s.compactor.Checkpoint(s.machine, s.machine.Applied(), s.machine.Now())
	}
	err := s.state.Close(ctx)
	s.cancel()
	s.loops.Wait()
	if err != nil && !failed {
		return fmt.Errorf("broker: close the data directory: %w", err)
	}
	return nil
}

// cut closes every connection at once.
func (s *Server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.nc.Close()
	}
}

// Info are counters and sizes of a running broker.
type Info struct {
	Connected   int64 // open connections
	MessagesIn  uint64
	MessagesOut uint64
	BytesIn     uint64
	BytesOut    uint64
	Records     uint64            // appended to the log
	Frames      uint64            // group commits
	LogFirst    uint64            // first record in the log
	LogLast     uint64            // last one
	Applied     uint64            // record that the backend reaches to
	Dropped     map[string]uint64 // by reason
	// Violations counts what clients did wrong, by the statement that was
	// broken, as packets.Error names it: "MQTT-3.3.1-4", or the section where
	// the rule has no number.
	Violations map[string]uint64
}

// Info returns counters; it may be called at any time.
func (s *Server) Info() Info {
	i := Info{
		Connected: s.open.Load(), MessagesIn: s.stats.messagesIn.Load(), MessagesOut: s.stats.messagesOut.Load(),
		BytesIn: s.stats.bytesIn.Load(), BytesOut: s.stats.bytesOut.Load(),
		Records: s.stats.records.Load(), Frames: s.stats.frames.Load(), Dropped: make(map[string]uint64),
		Violations: s.stats.violations.all(),
	}
	for why := range s.stats.drops {
		if n := s.stats.drops[why].Load(); n > 0 {
			i.Dropped[core.DropReason(why).String()] = n
		}
	}
	if s.ready.Load() {
		i.LogFirst, i.LogLast, i.Applied = s.log.First(), s.log.Last(), s.compactor.Applied()
	}
	return i
}

// stats are the broker's counters.
type stats struct {
	connections, refused, denied, takeovers, ended, wills, timeouts counter
	messagesIn, messagesOut, bytesIn, bytesOut, records, frames     counter
	drops                                                           [math.MaxUint8]counter
	violations                                                      violations
}
