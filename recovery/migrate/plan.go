package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/wind-c/comqtt/v3/recovery"
)

// Holdings are what a state holds.
type Holdings struct {
	Index         uint64 `json:"index"`    // last record in the state
	Time          string `json:"time"`     // log time of it, RFC 3339
	Replayed      uint64 `json:"replayed"` // records of the log that the backend did not have
	Sessions      int    `json:"sessions"`
	Subscriptions int    `json:"subscriptions"`
	Queued        int    `json:"queued"`
	Inflight      int    `json:"inflight"`
	Retained      int    `json:"retained"`
	Messages      int    `json:"messages"` // bodies, each once
	Pairs         uint64 `json:"pairs"`    // stored keys with their values
	Bytes         int64  `json:"bytes"`    // of the pairs
	Hash          string `json:"state_hash"`
}

// holdings counts what a source holds.
func (s *source) holdings() *Holdings {
	c, m := s.tip.Machine.Counts(), s.tip.Machine
	h := &Holdings{
		Index: m.Applied(), Time: time.UnixMilli(m.Now()).UTC().Format("2006-01-02T15:04:05.000Z"), Replayed: s.tip.Records,
		Sessions: c.Sessions, Subscriptions: c.Subscriptions, Queued: c.Queued, Inflight: c.Inflight,
		Retained: c.Retained, Messages: c.Messages, Hash: id(s.hash).String(),
	}
	m.Export(func(_ byte, key, value []byte) {
		h.Pairs++
		h.Bytes += int64(1 + len(key) + len(value))
	})
	for _, b := range s.crcs {
		h.Pairs++
		h.Bytes += bodyKey + int64(b.size)
	}
	return h
}

// doneInWords is the Target of a plan with nothing to do.
const doneInWords = "made by a migration, not used since"

// bodyKey is the size of a body's key.
const bodyKey = 9

// Plan is what a migration would do.
type Plan struct {
	From     string    `json:"from"`
	To       string    `json:"to"`
	Source   *Holdings `json:"source"`
	Target   string    `json:"target"`     // what is there, in words
	Need     int64     `json:"need_bytes"` // about what the target will take; 0 = not known
	Free     int64     `json:"free_bytes"` // at the target; -1 = not known
	Seconds  float64   `json:"seconds"`    // about how long it will take
	Ready    bool      `json:"ready"`      // run would begin, or with --resume go on
	Resumes  bool      `json:"resumes"`    // a run has begun it already
	Warnings []string  `json:"warnings,omitempty"`

	refusal error
}

// Refusal returns why run would not begin, nil if it would.
func (p *Plan) Refusal() error { return p.refusal }

// What the backends take, in bytes stored for a byte of the state, and how many
// bytes of a state go into one in a second on a small machine: for plans.
const (
	growth     = 1.4
	spare      = 32 << 20
	usualSpeed = 25 << 20
)

// MakePlan looks at both sides and changes neither. Errors are about the source,
// or a target that cannot be looked at; whether the target can be used is in
// the Plan.
func MakePlan(ctx context.Context, o Options) (*Plan, error) {
	o.fill()
	if err := o.check(); err != nil {
		return nil, err
	}
	s, err := openSource(ctx, o.From, o.Progress)
	if err != nil {
		return nil, err
	}
	p, _, err := plan(ctx, s, &o)
	return p, errors.Join(err, s.close())
}

// plan looks at the target of a source, and returns the note of the migration
// that began it, or would.
func plan(ctx context.Context, s *source, o *Options) (*Plan, *note, error) {
	v, err := look(ctx, o.To)
	if err != nil {
		return nil, nil, err
	}
	n := newNote(s, o)
	p := &Plan{From: o.From.String(), To: o.To.String(), Source: s.holdings(), Free: -1, Warnings: s.warnings}
	p.Target = map[stage]string{
		stageEmpty: "empty", stageHalf: "half made by a migration", stageDone: doneInWords, stageTaken: v.why,
	}[v.stage]
	p.Resumes = v.stage == stageHalf
	p.refusal = v.admit(o.To, n, o.Resume)
	p.Seconds = p.estimate(o.Rate)
	if o.To.Dir != "" {
		p.Need = int64(float64(p.Source.Bytes)*growth) + spare
		if free, err := o.Free(existing(o.To.Dir)); err == nil {
			p.Free = free
		}
		if p.Free >= 0 && p.Free < p.Need && v.stage == stageEmpty && p.refusal == nil {
			p.refusal = fmt.Errorf("%w: %s needs about %d bytes, %d are free", ErrSpace, o.To, p.Need, p.Free)
		}
	}
	p.Ready = p.refusal == nil
	if v.note != nil {
		n = v.note
	}
	return p, n, nil
}

// estimate says how long the copying takes, in seconds: it is written, and read
// back much faster.
func (p *Plan) estimate(rate int64) float64 {
	const least = 0.1
	speed := float64(usualSpeed)
	if rate > 0 {
		speed = min(speed, float64(rate))
	}
	return max(float64(p.Source.Bytes)/speed, least)
}

// newNote makes the note of a new migration.
func newNote(s *source, o *Options) *note {
	fresh := recovery.NewManifest(o.To.Kind)
	n := &note{
		From: o.From.String(), To: o.To.String(), StoreID: fresh.StoreID, NodeID: fresh.NodeID,
		HashKey: s.manifest.HashKey, Source: s.manifest.StoreID, Applied: s.tip.Machine.Applied(), Hash: s.hash,
	}
	if o.To.Dir == "" { // beside its directory, not in its place
		n.StoreID = s.manifest.StoreID
	}
	return n
}

// existing returns the nearest directory that exists, at path or above it.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}
