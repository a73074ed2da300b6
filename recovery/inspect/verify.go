package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// Verdict is what Verify came to.
type Verdict struct {
	Dir      string     `json:"dir"`
	Sound    bool       `json:"sound"`
	Checks   []Check    `json:"checks"`
	Findings []Finding  `json:"findings,omitempty"` // what is wrong, the first bad place first
	State    *StateInfo `json:"state,omitempty"`    // after the last record that could be replayed

	err error
}

// Err returns the first finding's error, nil if there is none.
func (v *Verdict) Err() error { return v.err }

// The results of a check.
const (
	CheckGood    = "good"
	CheckBad     = "bad"
	CheckSkipped = "skipped" // it could not be made
)

// Check is one thing that was verified.
type Check struct {
	Name   string `json:"name"`
	Result string `json:"result"`
	Detail string `json:"detail"`
}

// Finding is one thing that is wrong.
type Finding struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"` // bytes from the begin of the file, -1 if not known
	Index  uint64 `json:"index"`  // record concerned, 0 if not known
	What   string `json:"what"`
	Stake  string `json:"stake,omitempty"` // what is lost, as far as it can be told
}

func (v *Verdict) good(name, format string, args ...any) {
	v.Checks = append(v.Checks, Check{name, CheckGood, fmt.Sprintf(format, args...)})
}

func (v *Verdict) skipped(name, format string, args ...any) {
	v.Checks = append(v.Checks, Check{name, CheckSkipped, fmt.Sprintf(format, args...)})
}

// bad notes a finding. It returns an error that is none: a failure to look.
func (v *Verdict) bad(ctx context.Context, name, file string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !isFinding(err) {
		return err
	}
	v.Checks = append(v.Checks, Check{name, CheckBad, err.Error()})
	v.Findings = append(v.Findings, findingOf(file, err))
	if v.err == nil {
		v.err = err
	}
	return nil
}

// findingOf takes the place out of an error.
func findingOf(file string, err error) Finding {
	f := Finding{File: file, Offset: -1, What: err.Error()}
	var damage *recovery.DamageError
	if errors.As(err, &damage) {
		f.File, f.Stake = damage.File, damage.Lost
		f.What = damage.What
		if damage.Err != nil {
			f.What += ": " + damage.Err.Error()
		}
	}
	var page *backends.CorruptError
	if errors.As(err, &page) {
		f.Offset = page.Offset
	}
	var frame *wal.CorruptError
	if errors.As(err, &frame) {
		f.Offset, f.Index = frame.Offset, frame.Index
		if filepath.Base(file) != frame.Segment { // else it is that of the segment already
			f.File = filepath.Join(file, frame.Segment)
		}
		f.What = frame.Err.Error()
		f.Stake = fmt.Sprintf("records up to %d were acknowledged", frame.Durable)
		if frame.LaterRecords > 0 {
			f.Stake += fmt.Sprintf("; %d of them, %d to %d, follow intact", frame.LaterRecords, frame.LaterFirst, frame.LaterLast)
		}
	}
	return f
}

// verifier is one Verify.
type verifier struct {
	*Dir
	ctx    context.Context
	v      *Verdict
	b      *backend
	l      *loaded // nil: no state in the backend, or a damaged one
	in     *wal.Inspection
	logBad bool
	hashes []record.StateHash // in the log, ascending
}

// Verify checks everything that can be checked: the manifest, every frame of
// the log and its place, every page and seal of the backend, that the two join,
// that the entries of the backend have the hash of its mark, that every message
// has its body, and that a replay comes to every state hash that was recorded.
//
// Findings are in the Verdict. An error is returned only if it could not look.
func (d *Dir) Verify(ctx context.Context) (*Verdict, error) {
	c := &verifier{Dir: d, ctx: ctx, v: &Verdict{Dir: d.path}}
	for _, step := range []func() error{
		c.checkManifest, c.openAndLoad, c.checkLog, c.checkBodies, c.checkArchive, c.checkReplay,
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	c.v.Sound = c.v.err == nil
	return c.v, c.close()
}

func (c *verifier) close() error {
	if c.b == nil {
		return nil
	}
	return c.b.close()
}

func (c *verifier) checkManifest() error {
	file := filepath.Join(c.path, "MANIFEST")
	switch {
	case c.manifestErr != nil:
		return c.v.bad(c.ctx, "manifest", file, c.manifestErr)
	case c.warning != "":
		c.v.good("manifest", "generation %d; %s", c.manifest.Generation, c.warning)
	default:
		c.v.good("manifest", "generation %d", c.manifest.Generation)
	}
	return nil
}

// openAndLoad checks the backend's pages, seals and entries.
func (c *verifier) openAndLoad() (err error) {
	const name = "backend"
	c.b, err = c.openBackend(c.ctx, true)
	if err != nil {
		return c.v.bad(c.ctx, name, c.backendFile(), err)
	}
	switch {
	case c.memoryBackend():
		c.v.skipped(name, "kept in memory: the log is the only copy")
		return nil
	case c.b.store == nil:
		c.v.skipped(name, "%s is not there", filepath.Base(c.b.path))
		return nil
	case !c.b.used():
		c.v.good(name, "made, and not used yet")
		return nil
	}
	if c.l, err = c.load(c.ctx, c.b); err == nil && c.manifestErr == nil && c.l.hash != c.b.mark.Hash {
		err = c.wrongHash(c.b, c.l.hash)
	}
	if err == nil {
		if cerr := c.l.machine.Check(); cerr != nil {
			err = c.refuse(c.b, fmt.Errorf("%w: %w", core.ErrEntry, cerr))
		}
	}
	if err != nil {
		c.l = nil
		return c.v.bad(c.ctx, name, c.b.path, err)
	}
	hash := "hash not checked: its key is in the manifest"
	if c.manifestErr == nil {
		hash = "hash " + ID(c.l.hash).String()
	}
	c.v.good(name, "%d bytes, %d entries, state at record %d, %s", c.b.size, c.l.entries, c.b.mark.Applied, hash)
	return nil
}

// checkLog checks every frame and its place, and that log and backend join.
func (c *verifier) checkLog() error {
	const name = "log"
	dir := recovery.LogDir(c.path)
	var err error
	c.in, err = c.scan(c.ctx, logScan{step: stepScan, visit: func(_ *wal.SegmentInfo, f *wal.Frame) error {
		return f.Records(func(_ uint64, rec []byte) error { return c.note(rec) })
	}})
	if err != nil {
		c.logBad = true
		return c.v.bad(c.ctx, name, dir, err)
	}
	torn, err := c.verdict(c.in, c.joinAt())
	if err != nil {
		c.logBad = true
		return c.v.bad(c.ctx, name, dir, err)
	}
	if len(c.in.Segments) == 0 {
		c.v.good(name, "none, and none is needed")
		return nil
	}
	tail := ""
	if torn {
		t := c.in.Damage
		tail = fmt.Sprintf("; a torn tail of %d bytes at %s:%d, which a crash explains and a start cuts off", t.Bytes, t.Segment, t.Offset)
	}
	c.v.good(name, "%d segments, %d bytes, %d frames, %d marks, records %d to %d%s", len(c.in.Segments), c.in.Bytes,
		c.in.Frames, c.in.Marks, c.in.First, c.in.Last, tail)
	if c.b.used() {
		c.v.good("join", "the backend's state at record %d lies in the log, which begins with record %d", c.b.mark.Applied, c.in.First)
	}
	return nil
}

// joinAt is the state that the log has to join: that of the backend, or none if
// a start would build a new one.
func (c *verifier) joinAt() *backends.Mark {
	if _, _, ok := c.rebuilds(c.in); ok && c.l == nil && !c.b.foreign {
		return &backends.Mark{}
	}
	return &c.b.mark
}

// note keeps the state hashes of the log.
func (c *verifier) note(rec []byte) error {
	if record.KindOf(rec) != record.KindStateHash {
		return nil
	}
	var h record.StateHash
	if err := h.Decode(rec); err != nil {
		return nil //nolint:nilerr // the replay says so, with its index
	}
	c.hashes = append(c.hashes, h)
	return nil
}

// checkReplay replays what there is from the oldest state, and compares every
// recorded hash on the way.
func (c *verifier) checkReplay() error {
	const name = "replay"
	if c.in == nil || c.in.First == 0 {
		c.v.skipped(name, "no records")
		return nil
	}
	o, err := c.begin()
	if errors.Is(err, ErrNothing) {
		c.v.skipped(name, "%v", err)
		return nil
	}
	if err != nil {
		return c.v.bad(c.ctx, name, recovery.ArchiveDir(c.path), err)
	}
	p := &player{dir: c.Dir, machine: o.machine}
	slices.SortFunc(c.hashes, func(a, b record.StateHash) int { return cmp.Compare(a.Index, b.Index) })
	c.hashes = slices.CompactFunc(c.hashes, func(a, b record.StateHash) bool { return a.Index == b.Index })
	k := hashChecker{c: c, p: p}
	k.skipTo(p.machine.Applied())
	p.after = k.after
	c.l = nil // its machine is in use, or may go
	_, _, err = c.history(c.ctx, logScan{step: stepReplay, visit: func(_ *wal.SegmentInfo, f *wal.Frame) error { return p.play(f) }},
		p.machine.Applied()+1)
	if err != nil && (c.ctx.Err() != nil || !isFinding(err)) {
		return err
	}
	if err := errors.Join(p.err, k.err); err != nil {
		return c.v.bad(c.ctx, name, recovery.LogDir(c.path), err)
	}
	if err := p.machine.Check(); err != nil {
		return c.v.bad(c.ctx, name, recovery.LogDir(c.path), &recovery.DamageError{
			File: recovery.LogDir(c.path), What: "the replayed state contradicts itself", Err: err,
		})
	}
	if p.machine.Level() > 0 {
		c.v.State = stateOf(p.machine, p.machine.Hash(&c.manifest.HashKey).Bytes())
	}
	c.v.good(name, "%d records from %s on, %d state hashes agree, %d not compared", p.records, o.source, k.compared, k.passed)
	return nil
}

// begin returns the oldest state that the records join.
func (c *verifier) begin() (*origin, error) {
	if c.l != nil {
		return c.oldest(c.ctx, c.b)
	}
	return c.oldest(c.ctx, &backend{})
}

// hashChecker compares the state during a replay with the hashes in the log and
// the backend's mark.
type hashChecker struct {
	c        *verifier
	p        *player
	at       uint64 // index of the last comparison
	compared int
	passed   int // not compared: older than the replay, or vouched for by a later one
	err      error
}

// skipTo passes over the hashes of states before the replay.
func (k *hashChecker) skipTo(index uint64) {
	for len(k.c.hashes) > 0 && k.c.hashes[0].Index <= index {
		k.c.hashes = k.c.hashes[1:]
		k.passed++
	}
}

// after compares the state after a record. Computing a hash walks the whole
// state: so with a large one, hashes that a later one vouches for are passed
// over unless many records came since the last.
func (k *hashChecker) after(index uint64, _ int64, _ []byte) error {
	mark := k.c.b != nil && k.c.b.used() && index == k.c.b.mark.Applied
	recorded := len(k.c.hashes) > 0 && k.c.hashes[0].Index == index
	if k.err != nil || k.c.manifestErr != nil || !mark && !recorded {
		return nil
	}
	m := k.p.machine
	if recorded && !mark && len(k.c.hashes) > 1 {
		const share = 8 // of the time of the replay
		n := m.Counts()
		if entries := 2*n.Messages + n.Sessions + n.Subscriptions + n.Retained + n.Queued; uint64(entries) > share*(index-k.at) {
			k.c.hashes = k.c.hashes[1:]
			k.passed++
			return nil
		}
	}
	k.at = index
	got := m.Hash(&k.c.manifest.HashKey).Bytes()
	if mark {
		k.compare(got, k.c.b.mark.Hash, index, "the backend's mark")
	}
	if recorded {
		k.compare(got, k.c.hashes[0].Hash, index, "the log")
		k.c.hashes = k.c.hashes[1:]
	}
	return nil
}

func (k *hashChecker) compare(got, want [16]byte, index uint64, who string) {
	if got == want {
		k.compared++
		return
	}
	k.err = &recovery.DamageError{
		File: recovery.LogDir(k.c.path),
		What: fmt.Sprintf("the state after record %d has hash %x, %s says %x", index, got, who, want),
		Lost: "unknown: backend and log are not of one history, or one of them was altered",
	}
}
