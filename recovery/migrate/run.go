package migrate

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/recovery"
)

// DefaultBatch is the size of a chunk: what goes into one transaction. Redis
// takes so much in one command.
const DefaultBatch = 3 << 20

// Options says what to migrate and how.
type Options struct {
	From, To URL
	// Resume goes on with a target that is half made, and is content with one
	// that is done.
	Resume bool
	// Batch is the size of a chunk in bytes; 0 = DefaultBatch.
	Batch int
	// Rate is the most bytes to copy in a second; 0 = no limit.
	Rate int64
	// Confirm is asked before anything is written, and ends the run by an error.
	// nil = yes.
	Confirm func(p *Plan) error
	// Progress may be nil. The bytes are those of keys and values.
	Progress Progress
	// Free returns the bytes free on a directory's file system; nil = asks it.
	Free func(dir string) (int64, error)
}

func (o *Options) fill() {
	if o.Batch <= 0 {
		o.Batch = DefaultBatch
	}
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if o.Free == nil {
		o.Free = freeSpace
	}
}

func (o *Options) check() error {
	if o.From.same(o.To) {
		return fmt.Errorf("%w: source and target are the same", ErrURL)
	}
	return nil
}

// Report is what Run made.
type Report struct {
	From     string    `json:"from"`
	To       string    `json:"to"`
	StoreID  string    `json:"store_id"`
	Source   *Holdings `json:"source"`
	Resumed  uint64    `json:"resumed_pairs"` // that an earlier run had written
	Written  uint64    `json:"written_pairs"`
	Bytes    int64     `json:"written_bytes"`
	Seconds  float64   `json:"seconds"`
	Already  bool      `json:"already"` // an earlier run had done it all
	Warnings []string  `json:"warnings,omitempty"`
}

// Run copies a whole state, or the rest of it. doc.go says in which steps, and
// what is left when it is interrupted.
//
// Errors: ErrNoData, ErrExists, ErrUnfinished, ErrOther, ErrChanged, ErrSpace,
// ErrUnreachable, ErrDiffer, those of Confirm, of recovery and of the backends.
func Run(ctx context.Context, o Options) (r *Report, err error) {
	o.fill()
	if err := o.check(); err != nil {
		return nil, err
	}
	begin := time.Now()
	s, err := openSource(ctx, o.From, o.Progress)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	p, n, err := plan(ctx, s, &o)
	if err == nil {
		err = p.refusal
	}
	if err != nil {
		return nil, err
	}
	r = &Report{From: p.From, To: p.To, StoreID: n.StoreID.String(), Source: p.Source, Warnings: p.Warnings}
	if p.Target == doneInWords {
		return finished(r, &o)
	}
	if o.Confirm != nil {
		if err := o.Confirm(p); err != nil {
			return nil, err
		}
	}
	if err := fill(ctx, s, n, &o, r); err != nil {
		return nil, unreachable(err)
	}
	r.Seconds = time.Since(begin).Seconds()
	return r, nil
}

// finished is the end of a run that has nothing to do but to tidy up.
func finished(r *Report, o *Options) (*Report, error) {
	r.Already = true
	if o.To.Dir == "" {
		return r, nil
	}
	release, err := recovery.Lock(o.To.Dir)
	if err != nil {
		return nil, err
	}
	return r, errors.Join(removeNote(o.To.Dir), release())
}

// fill brings the source's pairs to the target and makes it whole.
func fill(ctx context.Context, s *source, n *note, o *Options, r *Report) (err error) {
	t, err := openTarget(ctx, o.To, n, s.tip.Machine.Boot())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	mark, err := t.store.Mark(ctx)
	if err != nil {
		return err
	}
	if !mark.Sealed {
		if err := t.copy(ctx, s, o, r); err != nil {
			return err
		}
		if err := t.check(ctx, s, o.Progress); err != nil {
			return err
		}
		if err := t.seal(ctx, backends.Mark{Applied: n.Applied, Hash: s.hash, LogTime: s.tip.Machine.Now()}); err != nil {
			return err
		}
	}
	return t.finish()
}

// copy writes what the target does not have yet.
func (t *target) copy(ctx context.Context, s *source, o *Options, r *Report) error {
	done, err := t.begin(ctx)
	if err != nil {
		return err
	}
	w := &writer{ctx: ctx, t: t, o: o, done: done, total: r.Source.Bytes, begin: time.Now()}
	err = s.pairs(ctx, w.pair)
	if err == nil {
		err = w.flush()
	}
	if err == nil && w.at.pairs < done.pairs {
		err = w.changed()
	}
	r.Resumed, r.Written, r.Bytes = done.pairs, w.at.pairs-done.pairs, int64(w.at.bytes-done.bytes)
	return err
}

// writer fills a target chunk by chunk.
type writer struct {
	ctx   context.Context
	t     *target
	o     *Options
	done  cursor // what an earlier run has written
	at    cursor // what has come from the source
	total int64
	batch backends.Batch
	begin time.Time
}

func (w *writer) pair(key, value []byte) error {
	w.at.pairs++
	w.at.bytes += uint64(len(key) + len(value))
	w.at.crc = crc32.Update(crc32.Update(w.at.crc, castagnoli, key), castagnoli, value)
	switch {
	case w.at.pairs > w.done.pairs:
		w.batch.Put(key, value)
		if w.batch.Bytes() < w.o.Batch {
			return nil
		}
		return w.flush()
	case w.at.pairs == w.done.pairs && w.at != w.done:
		return w.changed()
	}
	return nil
}

func (w *writer) changed() error {
	return fmt.Errorf("%w: its first %d pairs are not those that were written", ErrChanged, w.done.pairs)
}

// flush commits a chunk and the cursor behind it.
func (w *writer) flush() error {
	if w.batch.Len() > 0 {
		w.batch.Put(cursorKey(), w.at.encode())
		if err := w.t.store.Commit(w.ctx, &w.batch, w.t.mark); err != nil {
			return fmt.Errorf("migrate: fill the target: %w", err)
		}
		w.batch.Reset()
	}
	w.o.Progress("copy", int64(w.at.bytes), w.total)
	return w.pace()
}

// pace waits until so much may have been copied.
func (w *writer) pace() error {
	if w.o.Rate <= 0 {
		return w.ctx.Err()
	}
	due := time.Duration(float64(w.at.bytes-w.done.bytes) / float64(w.o.Rate) * float64(time.Second))
	wait := time.NewTimer(due - time.Since(w.begin))
	defer wait.Stop()
	select {
	case <-wait.C:
		return w.ctx.Err()
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// check reads the target back, all of it.
func (t *target) check(ctx context.Context, s *source, progress Progress) error {
	progress("read back", 0, 0)
	hash, err := recovery.StateHash(ctx, t.store, &s.manifest.HashKey)
	if err != nil {
		return err
	}
	if hash != s.hash {
		return fmt.Errorf("%w: the entries of %s have the state hash %x, those of %s %x", ErrDiffer, t.url, hash, s.url, s.hash)
	}
	var total, done int64
	for _, b := range s.crcs {
		total += int64(b.size)
	}
	c := bodyChecker{name: t.url.String(), left: s.crcs}
	err = t.store.Scan(ctx, []byte{backends.TableBody}, func(key, val []byte) error {
		mid, rest, ok := backends.SplitID(key)
		if !ok || len(rest) > 0 {
			return nil // the migration's own
		}
		done += int64(len(val))
		progress("read back", done, total)
		return errors.Join(ctx.Err(), c.check(mid, val))
	})
	if err != nil {
		return err
	}
	return c.end()
}
