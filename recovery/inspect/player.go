package inspect

import (
	"errors"
	"fmt"
	"time"

	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// player replays frames into a machine. Frames whose records the machine has
// are passed over. Once a record cannot be applied it does nothing more, and
// err says why.
type player struct {
	dir     *Dir
	machine *core.Machine // nil: no state to start from
	fx      core.Effects

	// before and after, if not nil, are called around each record that is applied.
	before func(index uint64, now int64, rec []byte) error
	after  func(index uint64, now int64, rec []byte) error

	records uint64
	bytes   int64
	elapsed time.Duration
	err     error // a finding
}

// play applies the records of a frame. The error is one of before or after.
func (p *player) play(f *wal.Frame) error {
	if p.machine == nil || p.err != nil || f.Count == 0 || f.Last() <= p.machine.Applied() {
		return nil
	}
	begin := time.Now()
	var stop error
	err := f.Records(func(index uint64, rec []byte) error {
		if index <= p.machine.Applied() {
			return nil
		}
		if p.before != nil {
			if stop = p.before(index, f.Time, rec); stop != nil {
				return stop
			}
		}
		if err := p.machine.Apply(index, f.Time, rec, &p.fx); err != nil {
			return err
		}
		p.records++
		p.bytes += int64(len(rec))
		if p.after != nil {
			stop = p.after(index, f.Time, rec)
		}
		return stop
	})
	p.elapsed += time.Since(begin)
	if stop != nil {
		return stop
	}
	if err != nil {
		p.err = p.explain(err)
	}
	return nil
}

// explain says why a record could not be applied.
func (p *player) explain(err error) error {
	var unknown *record.UnknownError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: %w", recovery.ErrVersion, err)
	case errors.Is(err, core.ErrGap) && p.machine.Applied() == 0:
		return &recovery.DamageError{
			File: p.dir.backendFile(), What: "missing or empty, and the log does not begin with record 1", Err: err,
			Lost: "the state that the earlier records built",
		}
	}
	return &recovery.DamageError{
		File: recovery.LogDir(p.dir.path), Err: err, Lost: "those records",
		What: fmt.Sprintf("the records after %d cannot be replayed", p.machine.Applied()),
	}
}
