package recovery

import (
	"errors"
	"fmt"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// load builds the machine from the backend's entries, and checks that they are
// what the mark says.
func (p *opening) load() error {
	if p.mark == (backends.Mark{}) {
		p.machine = core.New()
		return nil
	}
	t := readTables(p.ctx, p.store, core.LoadOrder(), &p.manifest.m.HashKey)
	m, err := core.Load(t.scan, p.mark.Applied, p.mark.LogTime)
	t.stop()
	if err != nil {
		return p.refuseStore(p.path(p.backendName()), err)
	}
	if t.hash.Bytes() != p.mark.Hash {
		return p.refuseStore(p.path(p.backendName()), fmt.Errorf("%w: entries are missing or were added: the state hash is %x, at record %d it was %x",
			core.ErrEntry, t.hash.Bytes(), p.mark.Applied, p.mark.Hash))
	}
	if p.mark.Applied > 0 {
		p.report.Hashes++
	}
	p.machine = m
	return nil
}

// survey is what a first look at the records to be replayed gave.
type survey struct {
	bytes  int64
	hashes []record.StateHash // what the log says about states, by index
}

// survey counts the records to be replayed and finds the state hashes among
// them.
func (p *opening) survey(from uint64) (v survey, err error) {
	err = p.log.Replay(from, func(f *wal.Frame) error {
		v.bytes += int64(len(f.Body))
		return f.Records(func(_ uint64, rec []byte) error {
			if record.KindOf(rec) != record.KindStateHash {
				return nil
			}
			var h record.StateHash
			if err := h.Decode(rec); err != nil {
				return err
			}
			if h.Index >= from-1 && (len(v.hashes) == 0 || h.Index > v.hashes[len(v.hashes)-1].Index) {
				v.hashes = append(v.hashes, h)
			}
			return nil
		})
	})
	return v, err
}

// progressStep is how many bytes are replayed between two calls of Progress.
const progressStep = 1 << 20

// replay applies the records that the backend does not have. What they ask to
// be sent was either sent before the crash, or is asked for again by the state.
func (p *opening) replay() error {
	from := p.mark.Applied + 1
	if from > p.log.Last() {
		return nil
	}
	v, err := p.survey(from)
	if err != nil {
		return p.refuseRecord(err)
	}
	c := checker{p: p, hashes: v.hashes}
	if err := c.check(from - 1); err != nil {
		return err
	}
	var fx core.Effects
	var told int64
	r := &p.report
	p.opt.Progress(0, v.bytes)
	err = p.log.Replay(from, func(f *wal.Frame) error {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		r.Frames++
		r.Records += uint64(f.Count)
		r.Bytes += int64(len(f.Body))
		err := f.Records(func(index uint64, rec []byte) error {
			if err := p.machine.Apply(index, f.Time, rec, &fx); err != nil {
				return err
			}
			return c.check(index)
		})
		if err == nil && r.Bytes-told >= progressStep {
			told = r.Bytes
			p.opt.Progress(told, v.bytes)
		}
		return err
	})
	if err != nil {
		return p.refuseRecord(err)
	}
	p.opt.Progress(v.bytes, v.bytes)
	return nil
}

// refuseRecord explains why a record could not be replayed.
func (p *opening) refuseRecord(err error) error {
	var unknown *record.UnknownError
	var damage *DamageError
	switch {
	case p.ctx.Err() != nil:
		return fmt.Errorf("recovery: replay: %w", p.ctx.Err())
	case errors.As(err, &damage):
		return damage
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: %w", ErrVersion, err)
	}
	return &DamageError{
		File: p.path(walName), What: fmt.Sprintf("the records after %d cannot be replayed", p.machine.Applied()), Err: err,
		Lost: "those records", Do: Advice(p.opt.Dir),
	}
}

// checker compares the state during a replay with the hashes in the log.
type checker struct {
	p      *opening
	hashes []record.StateHash // that are still to come
	at     uint64             // index of the last comparison
}

// check compares the state after a record, if the log says what its hash is.
// Computing one walks the whole state: so it is done for the last hash of the
// log, which vouches for all before it, and for others when so many records
// came since that it does not matter.
func (c *checker) check(index uint64) error {
	if len(c.hashes) == 0 || index < c.hashes[0].Index {
		return nil
	}
	h := c.hashes[0]
	c.hashes = c.hashes[1:]
	m := c.p.machine
	if index == c.p.mark.Applied { // load has compared the state with it
		return c.compare(h, c.p.mark.Hash)
	}
	if len(c.hashes) > 0 {
		n := m.Counts()
		if entries := 2*n.Messages + n.Sessions + n.Subscriptions + n.Retained + n.Queued; uint64(entries) > index-c.at {
			return nil
		}
	}
	c.at = index
	return c.compare(h, m.Hash(&c.p.manifest.m.HashKey).Bytes())
}

func (c *checker) compare(h record.StateHash, got [16]byte) error {
	if got != h.Hash {
		return &DamageError{
			File: c.p.path(walName),
			What: fmt.Sprintf("the state after record %d has hash %x, the log says %x", h.Index, got, h.Hash),
			Lost: "unknown: backend and log are not of one history, or one of them was altered",
			Do:   Advice(c.p.opt.Dir),
		}
	}
	c.p.report.Hashes++
	return nil
}
