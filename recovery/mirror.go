package recovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/backends/redis"
)

// A mirror keeps a second target, a Redis server, in step with the backend,
// which stays the truth: the log is shortened and bodies are read by the backend
// alone, and nothing ever waits for the mirror.
//
// The committer tells the mirror which keys it has changed. The mirror's
// goroutine reads what the backend has under them now and puts it into the
// target, with the backend's mark if nothing is left to put. So what waits is a
// set of keys, and when that becomes too large it is forgotten: then, as after
// the target has forgotten something, the mirror compares all pairs of both
// sides, in the order of the keys, and writes what differs.
//
// While it is on the way from one state to another the target has a mark with
// applied index 0, so that nobody takes it for a state.
type mirror struct {
	opt     MirrorOptions
	logger  *slog.Logger
	primary backends.Store
	last    func() uint64 // index of the last record in the log

	commit *sync.Mutex          // held while the backend is written
	mark   func() backends.Mark // of the backend; the caller holds commit

	mu    sync.Mutex
	dirty map[string]struct{} // keys that wait
	bytes int64               // of them
	off   bool                // nothing is collected any more

	target   *redis.Store // nil = not connected yet; owned by the goroutine
	fill     bool         // all pairs have to be compared; owned by the goroutine
	building bool         // the target has the mark of no state; owned by the goroutine
	storeID  [16]byte
	epoch    uint64

	wake   chan struct{}
	quit   chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	state  atomic.Int32 // MirrorState
	at     atomic.Uint64
	since  atomic.Int64 // unix nanoseconds of the last success
	err    atomic.Pointer[error]
	change chan struct{} // poked when the status has changed; for tests
	stats  mirrorCounters
}

type mirrorCounters struct{ commits, failures, fills, pairs atomic.Uint64 }

// MirrorOptions say how a mirror works. Zero values are defaults.
type MirrorOptions struct {
	// URL of the server, see package backends/redis; "" = no mirror.
	URL string
	// Probe is how often an idle mirror asks whether the server still has
	// everything, 5 s.
	Probe time.Duration
	// Retry is the pause after a failure, doubled with each further one up to
	// RetryMax; 200 ms and 10 s.
	Retry, RetryMax time.Duration
	// KeyBytes is the memory that keys which wait may take, 64 MiB.
	KeyBytes int64
}

func (o *MirrorOptions) fill() {
	if o.Probe <= 0 {
		o.Probe = 5 * time.Second
	}
	if o.Retry <= 0 {
		o.Retry = 200 * time.Millisecond
	}
	if o.RetryMax <= 0 {
		o.RetryMax = 10 * time.Second
	}
	if o.KeyBytes <= 0 {
		o.KeyBytes = 64 << 20
	}
}

// MirrorState is what a mirror does.
type MirrorState int32

// The states of a mirror.
const (
	MirrorAway    MirrorState = iota // the server does not answer; tried again
	MirrorFilling                    // all pairs are being compared
	MirrorBehind                     // changes wait
	MirrorLive                       // as far as the backend
	MirrorRefused                    // the keys are not ours; nothing more is done
)

// String returns one word.
func (s MirrorState) String() string {
	return [...]string{"away", "filling", "behind", "live", "refused"}[s]
}

// MirrorStatus says how a mirror is.
type MirrorStatus struct {
	Name     string // URL without secrets
	State    MirrorState
	Applied  uint64        // record index that the server's state reaches to
	Waiting  int           // keys that wait
	Age      time.Duration // since the last success
	Err      error         // why the last attempt failed, nil if it did not
	Commits  uint64        // that reached the server
	Failures uint64        // that did not
	Fills    uint64        // comparisons of all pairs that were finished
	Pairs    uint64        // put and deleted
}

const (
	mirrorChunkKeys  = 8192
	mirrorChunkBytes = 2 << 20
	mirrorKeyCost    = 64              // of a key that waits, beside its bytes
	mirrorAttach     = 3 * time.Second // for connecting, which a start waits for once
	mirrorCall       = 15 * time.Second
	mirrorLast       = 3 * time.Second // for what is left at a clean stop
)

func newMirror(o MirrorOptions, logger *slog.Logger) *mirror {
	o.fill()
	m := &mirror{
		opt: o, logger: logger, dirty: map[string]struct{}{}, fill: true,
		wake: make(chan struct{}, 1), quit: make(chan struct{}), change: make(chan struct{}, 1),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.since.Store(time.Now().UnixNano())
	return m
}

// first tries to connect. An error says that the keys on the server are not
// this store's; that it cannot be reached is none.
func (m *mirror) first(ctx context.Context, now backends.Mark) error {
	err := m.attach(ctx, now)
	if redis.Refused(err) || errors.Is(err, redis.ErrURL) {
		return err
	}
	if err != nil {
		m.failed(err)
	}
	return nil
}

// start begins to keep the target in step.
func (m *mirror) start() {
	m.wg.Go(m.run)
	poke(m.wake)
}

// note says that a key of the backend has changed. The caller holds mu.
func (m *mirror) note(key []byte) {
	if m.off {
		return
	}
	if _, had := m.dirty[string(key)]; had {
		return
	}
	m.dirty[string(key)] = struct{}{}
	m.bytes += int64(len(key)) + mirrorKeyCost
}

// changed tells the mirror of a commit: of the entries in order, and of so many
// notes that are gone. The committer calls it while it holds the backend's lock.
func (m *mirror) changed(f *fold, order []uint32, notes uint32) {
	if m == nil {
		return
	}
	m.mu.Lock()
	for _, at := range order {
		m.note(f.key(&f.entries[at]))
	}
	for n := range notes {
		m.note(noteKey(n))
	}
	m.mu.Unlock()
	poke(m.wake)
}

// changedAhead tells the mirror of bodies that went ahead, and their note.
func (m *mirror) changedAhead(f *fold, ahead []uint32, note uint32) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, at := range ahead {
		m.note(f.key(&f.entries[at]))
	}
	m.note(noteKey(note))
}

func (m *mirror) run() {
	timer := time.NewTimer(m.opt.Probe)
	defer timer.Stop()
	var pause time.Duration
	var retryAt time.Time
	for {
		probe := false
		select {
		case <-m.wake:
		case <-timer.C:
			probe = true
		case <-m.quit:
			return
		}
		if time.Now().Before(retryAt) {
			timer.Reset(time.Until(retryAt))
			continue
		}
		err := m.work(m.ctx, probe)
		switch {
		case m.ctx.Err() != nil:
			return
		case err == nil:
			pause, retryAt = 0, time.Time{}
			timer.Reset(m.opt.Probe)
		case redis.Refused(err):
			m.refuse(err)
			return
		default:
			m.failed(err)
			pause = min(max(2*pause, m.opt.Retry), max(m.opt.Retry, m.opt.RetryMax))
			retryAt = time.Now().Add(pause)
			timer.Reset(pause)
			m.logger.Warn("mirror does not keep up, will be tried again", "mirror", redis.Redact(m.opt.URL), "error", err,
				"in", pause, "waiting", m.waiting(), "applied", m.at.Load())
		}
	}
}

func (m *mirror) waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.dirty)
}

// enter shows a state.
func (m *mirror) enter(s MirrorState) {
	m.state.Store(int32(s))
	poke(m.change)
}

func (m *mirror) failed(err error) {
	m.err.Store(&err)
	m.stats.failures.Add(1)
	m.enter(MirrorAway)
}

// refuse ends the work of the mirror.
func (m *mirror) refuse(err error) {
	m.mu.Lock()
	m.off, m.dirty, m.bytes = true, map[string]struct{}{}, 0
	m.mu.Unlock()
	m.err.Store(&err)
	m.logger.Error("mirror is given up: the keys on the server are not this broker's", "mirror", redis.Redact(m.opt.URL), "error", err)
	m.enter(MirrorRefused)
}

// work does what there is to do. Changes that come meanwhile are part of it.
func (m *mirror) work(ctx context.Context, probe bool) error {
	if m.target == nil {
		m.commit.Lock()
		now := m.mark()
		m.commit.Unlock()
		if err := m.attach(ctx, now); err != nil {
			return err
		}
	} else if probe {
		if err := m.call(ctx, m.target.Check); err != nil {
			return m.forgot(ctx, err)
		}
	}
	if m.fill {
		m.enter(MirrorFilling)
		if err := m.fillAll(ctx); err != nil {
			return m.forgot(ctx, err)
		}
	}
	if err := m.catchUp(ctx); err != nil {
		return m.forgot(ctx, err)
	}
	if was := m.err.Swap(nil); was != nil {
		m.logger.Info("mirror keeps up again", "mirror", m.target.Name(), "applied", m.at.Load())
	}
	m.since.Store(time.Now().UnixNano())
	m.enter(MirrorLive)
	return nil
}

// call gives a call to the target its time.
func (m *mirror) call(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, mirrorCall)
	defer cancel()
	return fn(ctx)
}

// forgot deals with a target that has lost what it had, or has what is not
// known: it is looked at anew. Other errors are returned.
func (m *mirror) forgot(ctx context.Context, err error) error {
	if !errors.Is(err, redis.ErrForgot) && !errors.Is(err, redis.ErrNewer) && !errors.Is(err, backends.ErrDamaged) {
		return err
	}
	m.logger.Warn("mirror has lost what it had and is filled again", "mirror", m.target.Name(), "error", err)
	m.fill = true
	m.stats.failures.Add(1)
	poke(m.wake)
	if errors.Is(err, backends.ErrDamaged) {
		if err := m.call(ctx, m.target.Clear); err != nil && !errors.Is(err, redis.ErrForgot) {
			return err
		}
	}
	return m.again(ctx, backends.Mark{})
}

// attach opens the target.
func (m *mirror) attach(ctx context.Context, now backends.Mark) error {
	ctx, cancel := context.WithTimeout(ctx, mirrorAttach)
	defer cancel()
	t, err := redis.Open(ctx, m.opt.URL, redis.Options{StoreID: m.storeID, Epoch: m.epoch})
	if err != nil {
		return err
	}
	context.AfterFunc(m.ctx, func() { _ = t.Close() }) // a call that hangs must not hold up the stop
	m.target = t
	if err := m.again(ctx, now); err != nil {
		m.target = nil
		return errors.Join(err, t.Close())
	}
	return nil
}

// again takes what the target has, and decides whether it can be gone on with:
// only if it is at the backend's mark, now.
func (m *mirror) again(ctx context.Context, now backends.Mark) error {
	var have backends.Mark
	err := m.call(ctx, func(ctx context.Context) (err error) {
		have, err = m.target.Attach(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if last := m.last(); have.Applied > last {
		return fmt.Errorf("recovery: mirror %s is at record %d, the log ends at %d: %w", m.target.Name(), have.Applied, last, redis.ErrNewer)
	}
	m.at.Store(have.Applied)
	m.building = have.Applied == 0
	m.fill = have.Applied != now.Applied || have.Hash != now.Hash || have.Applied == 0
	return nil
}

// catchUp puts what waits into the target, and then the backend's mark.
func (m *mirror) catchUp(ctx context.Context) error {
	var b backends.Batch
	for {
		b.Reset()
		keys, mark, all, err := m.take(ctx, &b)
		if err != nil {
			return err
		}
		if len(keys) == 0 && !m.building && mark.Applied == m.at.Load() {
			return nil
		}
		if !all {
			m.enter(MirrorBehind)
			mark = backends.Mark{StoreID: m.storeID, Schema: backends.Schema}
		}
		if err := m.put(ctx, &b, mark); err != nil {
			m.putBack(keys)
			return err
		}
		if all { // what came since has woken us up again
			return nil
		}
	}
}

// take reads what the backend has under some of the keys that wait, all of them
// if there are not many, in one view of the backend, whose mark it returns.
func (m *mirror) take(ctx context.Context, b *backends.Batch) (keys [][]byte, mark backends.Mark, all bool, err error) {
	m.commit.Lock()
	defer m.commit.Unlock()
	mark = m.mark()
	mark.Sealed = false
	m.mu.Lock()
	if m.bytes > m.opt.KeyBytes {
		m.dirty, m.bytes = map[string]struct{}{}, 0
		m.mu.Unlock()
		return nil, mark, false, fmt.Errorf("recovery: mirror: too many keys wait: %w", redis.ErrForgot)
	}
	for k := range m.dirty {
		if len(keys) == mirrorChunkKeys {
			break
		}
		keys = append(keys, []byte(k))
		delete(m.dirty, k)
		m.bytes -= int64(len(k)) + mirrorKeyCost
	}
	all = len(m.dirty) == 0
	m.mu.Unlock()
	read := 0
	full := errors.New("full")
	err = m.primary.Get(ctx, keys, func(i int, val []byte) error {
		if b.Bytes() > mirrorChunkBytes {
			return full
		}
		read = i + 1
		if val == nil {
			b.Delete(keys[i])
		} else {
			b.Put(keys[i], val)
		}
		return nil
	})
	if errors.Is(err, full) {
		all, err = false, nil
	}
	if err != nil {
		read = 0
	}
	m.putBack(keys[read:])
	return keys[:read], mark, all, err
}

func (m *mirror) putBack(keys [][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		m.note(k)
	}
}

// put commits to the target.
func (m *mirror) put(ctx context.Context, b *backends.Batch, mark backends.Mark) error {
	err := m.call(ctx, func(ctx context.Context) error { return m.target.Commit(ctx, b, mark) })
	if err != nil {
		return err
	}
	m.building = mark.Applied == 0
	m.at.Store(mark.Applied)
	m.stats.commits.Add(1)
	m.stats.pairs.Add(uint64(b.Len()))
	poke(m.change)
	return nil
}

// status returns what is to be seen of a mirror.
func (m *mirror) status() MirrorStatus {
	s := MirrorStatus{
		Name: redis.Redact(m.opt.URL), State: MirrorState(m.state.Load()), Applied: m.at.Load(), Waiting: m.waiting(),
		Age:     time.Since(time.Unix(0, m.since.Load())),
		Commits: m.stats.commits.Load(), Failures: m.stats.failures.Load(), Fills: m.stats.fills.Load(), Pairs: m.stats.pairs.Load(),
	}
	if err := m.err.Load(); err != nil {
		s.Err = *err
	}
	return s
}

// close ends the mirror. What waits is put into the target, if that answers at
// once: else the next start compares.
func (m *mirror) close() error {
	if m == nil {
		return nil
	}
	timer := time.AfterFunc(mirrorLast, m.cancel) // for what the goroutine is at
	close(m.quit)
	m.wg.Wait()
	timer.Stop()
	if m.target == nil {
		m.cancel()
		return nil
	}
	if m.state.Load() == int32(MirrorLive) && !m.fill && m.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(m.ctx, mirrorLast)
		if err := m.catchUp(ctx); err != nil {
			m.logger.Warn("mirror is behind at the stop", "mirror", m.target.Name(), "error", err)
		}
		cancel()
	}
	m.cancel()
	return m.target.Close()
}
