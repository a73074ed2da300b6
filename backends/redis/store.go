package redis

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	rdb "github.com/redis/go-redis/v9"

	"github.com/wind-c/comqtt/v3/backends"
)

var _ backends.Store = (*Store)(nil)

const (
	// stageBytes is the size of a batch above which it is staged.
	stageBytes = 4 << 20
	// stageOps is the same in operations: Redis takes a million arguments.
	stageOps = 100_000
	// stageLife is how long a stage outlives the last piece that came.
	stageLife = 10 * time.Minute
	// replyWait is how long to wait for the answer to the question whether a
	// commit was done.
	replyWait = 2 * time.Second
)

// Options say whose keys they are.
type Options struct {
	// StoreID is the store that the keys must belong to; one of nobody becomes
	// this store's. Zero takes what is there: for tools.
	StoreID [16]byte

	// Epoch is how often the broker has started, see doc.go.
	Epoch uint64

	// ReadOnly looks at what is there and takes nothing: a broker goes on with
	// it meanwhile.
	ReadOnly bool
}

// Store is the keys of one prefix. Make one with Open.
type Store struct {
	name    string
	o       Options
	owner   string
	client  rdb.UniversalClient
	scripts scripts

	meta, keys, data, stage string

	// life is held shared by whatever uses the client and exclusively by Close,
	// which sets closing first: calls that are under way end with ErrClosed.
	life    sync.RWMutex
	closed  bool
	closing atomic.Bool

	mu      sync.Mutex // one Commit, Attach or Check at a time
	store   string     // id the keys have, in hexadecimal
	token   string     // of the last commit this Store knows of
	applied uint64     // of it
	asked   string     // token of a commit whose answer was lost
	asking  uint64     // applied index of it
}

// Open connects to the server and takes the keys, see Attach. IsURL says what a
// URL may be. The error of one that is not understood is ErrURL.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	t, err := parse(url)
	if err != nil {
		return nil, err
	}
	rdb.SetLogger(silent{}) // its lines would stand beside the log; errors say the same
	tag := "{" + t.prefix + "}:"
	s := &Store{
		name: t.name, o: o, owner: newToken(), client: t.dial(), scripts: newScripts(),
		meta: tag + "meta", keys: tag + "keys", data: tag + "data", stage: tag + "stage:",
	}
	if _, err := s.Attach(ctx); err != nil {
		return nil, errors.Join(err, s.client.Close())
	}
	return s, nil
}

// silent is the logger of the client.
type silent struct{}

// Printf does nothing.
func (silent) Printf(context.Context, string, ...any) {}

func newToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func storeName(id [16]byte) string {
	if id == ([16]byte{}) {
		return ""
	}
	return hex.EncodeToString(id[:])
}

// Name returns the URL without its secrets.
func (s *Store) Name() string { return s.name }

// Attach takes the keys for this Store, as they are now, and returns their mark:
// the zero Mark if there was nothing. It is the answer to ErrForgot, and fails
// with ErrForeign if the keys belong to another store.
func (s *Store) Attach(ctx context.Context) (backends.Mark, error) {
	s.life.RLock()
	defer s.life.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var m backends.Mark
	if s.closed {
		return m, backends.ErrClosed
	}
	want := storeName(s.o.StoreID)
	reply, err := s.take(ctx, want)
	if err != nil {
		return m, s.explain("attach to", err)
	}
	f := fields(reply)
	if f[6] != "1" {
		return m, fmt.Errorf("redis: attach to %s: format %q: %w", s.name, f[6], backends.ErrSchema)
	}
	if want != "" && f[1] != want {
		return m, fmt.Errorf("redis: attach to %s: store %s, this is %s: %w", s.name, f[1], want, ErrForeign)
	}
	if f[3] != "" {
		if m, err = backends.DecodeMark([]byte(f[3])); err != nil {
			return m, s.complete(err)
		}
	}
	s.token, s.store, s.applied, s.asked = f[0], f[1], m.Applied, ""
	return m, nil
}

// Clear removes all pairs and the mark, if the keys are as this Store left them.
// It is for keys that were damaged.
func (s *Store) Clear(ctx context.Context) error {
	s.life.RLock()
	defer s.life.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return backends.ErrClosed
	case s.o.ReadOnly:
		return fmt.Errorf("redis: clear %s: %w", s.name, backends.ErrReadOnly)
	}
	if err := s.check(ctx); err != nil {
		return err
	}
	if err := s.client.Unlink(ctx, s.meta, s.keys, s.data).Err(); err != nil {
		return s.explain("clear", err)
	}
	return nil // the next call finds out, as after a FLUSHALL
}

// take runs the script of Attach, or only looks.
func (s *Store) take(ctx context.Context, want string) ([]any, error) {
	if !s.o.ReadOnly {
		return s.scripts.attach.Run(ctx, s.client, []string{s.meta, s.keys, s.data},
			want, s.owner, strconv.FormatUint(s.o.Epoch, 10), newToken()).Slice()
	}
	reply, err := s.client.HMGet(ctx, s.meta, "token", "store", "applied", "mark", "owner", "epoch", "format").Result()
	if err == nil && reply[0] == nil {
		err = fmt.Errorf("no keys with this prefix: %w", fs.ErrNotExist)
	}
	return reply, err
}

// fields makes strings of a reply; what is missing is empty.
func fields(reply []any) []string {
	out := make([]string, max(7, len(reply)))
	for i, v := range reply {
		out[i], _ = v.(string)
	}
	return out
}

// Check asks whether the server still has what was committed last. See doc.go
// for the errors.
func (s *Store) Check(ctx context.Context) error {
	s.life.RLock()
	defer s.life.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return backends.ErrClosed
	}
	return s.check(ctx)
}

// check compares the meta with what this Store knows. It also finds out about a
// commit whose answer was lost.
func (s *Store) check(ctx context.Context) error {
	reply, err := s.client.HMGet(ctx, s.meta, "token", "store", "applied", "owner", "epoch").Result()
	if err != nil {
		return s.explain("look at", err)
	}
	f := fields(reply)
	token, store, owner := f[0], f[1], f[3]
	applied, _ := strconv.ParseUint(f[2], 10, 64)
	epoch, _ := strconv.ParseUint(f[4], 10, 64)
	if token != "" && token == s.asked && owner == s.owner {
		s.token, s.applied = s.asked, s.asking
	}
	s.asked = ""
	switch {
	case token == "":
		return fmt.Errorf("redis: %s is empty: %w", s.name, ErrForgot)
	case store != s.store:
		return fmt.Errorf("redis: %s has store %s, this is %s: %w", s.name, store, s.store, ErrForeign)
	case owner != s.owner && epoch >= s.o.Epoch:
		return fmt.Errorf("redis: %s: owner of epoch %d: %w", s.name, epoch, ErrTaken)
	case token == s.token && owner == s.owner:
		return nil
	case applied > s.applied:
		return fmt.Errorf("redis: %s is at record %d, this broker left it at %d: %w", s.name, applied, s.applied, ErrNewer)
	}
	return fmt.Errorf("redis: %s has gone back from record %d to %d: %w", s.name, s.applied, applied, ErrForgot)
}

// Commit applies b and m in one script, see [backends.Store] and doc.go. The
// mark's StoreID is not looked at: the keys belong to the store of the Options.
func (s *Store) Commit(ctx context.Context, b *backends.Batch, m backends.Mark) error {
	if err := b.Err(); err != nil {
		return err
	}
	s.life.RLock()
	defer s.life.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return backends.ErrClosed
	}
	if s.o.ReadOnly {
		return fmt.Errorf("redis: commit to %s: %w", s.name, backends.ErrReadOnly)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.asked != "" {
		if err := s.check(ctx); err != nil {
			return err
		}
	}
	token := newToken()
	args := []any{
		s.token, s.owner, token, s.store, strconv.FormatUint(m.Applied, 10), backends.EncodeMark(nil, m),
		strconv.FormatUint(s.o.Epoch, 10), 0,
	}
	stage := s.stage + token
	var err error
	if b.Bytes() > stageBytes || b.Len() > stageOps {
		args[7], err = s.send(ctx, stage, b)
		if err != nil {
			return s.explain("stage a commit to", err)
		}
	} else {
		for op := range b.Sorted() {
			args = append(args, opKey(op), op.Value)
		}
	}
	s.asked, s.asking = token, m.Applied
	answer, err := s.scripts.commit.Run(ctx, s.client, []string{s.meta, s.keys, s.data, stage}, args...).Text()
	if err != nil {
		return s.lost(ctx, token, err)
	}
	s.asked = ""
	switch answer {
	case "ok", "again":
		s.token, s.applied = token, m.Applied
		return nil
	case "stage":
		return fmt.Errorf("redis: commit to %s: the staged batch is gone", s.name)
	}
	if err := s.check(ctx); err != nil {
		return err
	}
	return fmt.Errorf("redis: commit to %s: refused, and then it was as before", s.name)
}

// lost finds out what became of a commit that was not answered. If nobody can
// say, the next Commit asks again.
func (s *Store) lost(ctx context.Context, token string, err error) error {
	err = s.explain("commit to", err)
	var reply rdb.Error
	if errors.As(err, &reply) { // it was answered: with a refusal
		s.asked = ""
		return err
	}
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), replyWait)
	defer cancel()
	asking := s.asking
	got, herr := s.client.HGet(ask, s.meta, "token").Result()
	switch {
	case herr == nil && got == token:
		s.token, s.applied, s.asked = token, asking, ""
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("redis: commit to %s: %w", s.name, ctx.Err())
	}
	return err
}

func opKey(op backends.Op) []byte {
	kind := byte('P')
	if op.Delete {
		kind = 'D'
	}
	return append(append(make([]byte, 0, 1+len(op.Key)), kind), op.Key...)
}

// send brings a batch to the server without applying it, and returns how many
// elements the list has.
func (s *Store) send(ctx context.Context, stage string, b *backends.Batch) (n int, err error) {
	var part []any
	bytes := 0
	push := func() error {
		if len(part) == 0 {
			return nil
		}
		n += len(part)
		p := s.client.Pipeline()
		p.RPush(ctx, stage, part...)
		p.Expire(ctx, stage, stageLife)
		part, bytes = part[:0], 0
		_, err := p.Exec(ctx)
		return err
	}
	for op := range b.Sorted() {
		value := op.Value
		if value == nil {
			value = []byte{}
		}
		part = append(part, opKey(op), value)
		if bytes += len(op.Key) + len(op.Value); bytes >= stageBytes/4 || len(part) >= stageOps {
			if err := push(); err != nil {
				return 0, err
			}
		}
	}
	return n, push()
}

// Mark reads the mark, see [backends.Store].
func (s *Store) Mark(ctx context.Context) (m backends.Mark, err error) {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return m, backends.ErrClosed
	}
	enc, err := s.client.HGet(ctx, s.meta, "mark").Result()
	if errors.Is(err, rdb.Nil) {
		return m, nil
	}
	if err != nil {
		return m, s.explain("read the mark of", err)
	}
	m, err = backends.DecodeMark([]byte(enc))
	return m, s.complete(err)
}

// Get looks up keys with one command, see [backends.Store].
func (s *Store) Get(ctx context.Context, keys [][]byte, fn func(i int, val []byte) error) error {
	values, stored, err := s.lookup(ctx, keys)
	if err != nil {
		return err
	}
	for i, v := range values {
		var val []byte
		if text, ok := v.(string); ok && keys[i] != nil && len(keys[i]) > 0 && keys[i][0] != backends.MarkKey[0] {
			if _, val, err = backends.Unseal([]byte(stored[i]), []byte(text)); err != nil {
				return s.complete(err)
			}
		}
		if err := fn(i, val); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) lookup(ctx context.Context, keys [][]byte) (values []any, stored []string, err error) {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return nil, nil, backends.ErrClosed
	}
	if err := ctx.Err(); err != nil || len(keys) == 0 {
		return nil, nil, err
	}
	for _, k := range keys {
		stored = append(stored, string(backends.StoredKey(k)))
	}
	values, err = s.client.HMGet(ctx, s.data, stored...).Result()
	if err != nil {
		return nil, nil, s.explain("read from", err)
	}
	return values, stored, nil
}

// Close closes the connections, see [backends.Store].
// Calls under way may hang for as long as the server does: they are cut off.
func (s *Store) Close() error {
	var err error
	if !s.closing.Swap(true) {
		err = s.client.Close()
	}
	s.life.Lock()
	defer s.life.Unlock()
	s.closed = true
	if err != nil {
		return fmt.Errorf("redis: close %s: %w", s.name, err)
	}
	return nil
}

// complete fills the name into an error of Unseal or DecodeMark.
func (s *Store) complete(err error) error {
	var c *backends.CorruptError
	if errors.As(err, &c) {
		c.Store = s.name
	}
	return err
}
