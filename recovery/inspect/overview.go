package inspect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/wal"
	"github.com/wind-c/comqtt/v3/wal/archive"
)

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

// Overview is what a data directory holds and what a start would make of it.
type Overview struct {
	Dir      string       `json:"dir"`
	Manifest ManifestInfo `json:"manifest"`
	Log      LogInfo      `json:"log"`
	Backend  BackendInfo  `json:"backend"`
	State    *StateInfo   `json:"state,omitempty"` // at the end of the intact log; absent if there is no sound state
	Start    StartInfo    `json:"start"`
	Archive  *ArchiveInfo `json:"archive,omitempty"`

	err        error // why a start would refuse
	backendErr error // what is wrong with the backend
}

// Err returns why a start would refuse the directory, nil if it would not.
func (o *Overview) Err() error { return o.err }

// ManifestInfo is the manifest of a data directory.
type ManifestInfo struct {
	StoreID    ID     `json:"store_id"`
	NodeID     ID     `json:"node_id"`
	Backend    string `json:"backend"`
	Floor      uint64 `json:"floor"`
	State      string `json:"state"` // open, or sealed by a clean stop
	Generation uint64 `json:"generation"`
	Problem    string `json:"problem,omitempty"`
}

// LogInfo is the log.
type LogInfo struct {
	First    uint64        `json:"first"` // index of the first record
	Last     uint64        `json:"last"`
	Records  uint64        `json:"records"`
	Frames   uint64        `json:"frames"`
	Marks    uint64        `json:"marks"`
	Bytes    int64         `json:"bytes"`
	Durable  uint64        `json:"durable"` // greatest record index that the log itself says was synced
	From     Time          `json:"from"`    // log time of the first record that is left
	To       Time          `json:"to"`
	Clean    bool          `json:"clean"` // it ends with a clean-close mark
	Segments []SegmentInfo `json:"segments"`
	Damage   *DamageInfo   `json:"damage,omitempty"`
	Saved    []FileInfo    `json:"saved,omitempty"`   // torn tails that earlier starts cut off
	Ignored  []string      `json:"ignored,omitempty"` // files that are no part of the log
	Problem  string        `json:"problem,omitempty"`
}

// The checksum states of a segment.
const (
	ChecksumsGood   = "good"
	ChecksumsBad    = "bad"            // the first damage is in it
	ChecksumsBehind = "behind damage"  // what is in it has lost its place
	ChecksumsNone   = "nothing in it"  // an empty segment at the end of a log
	ChecksumsNot    = "not looked at"  // the scan ended before it
	stepScan        = "scan log"       // progress
	stepReplay      = "replay records" // progress
)

// SegmentInfo is one segment file.
type SegmentInfo struct {
	Name      string `json:"name"`
	First     uint64 `json:"first"` // record indexes; first > last: no records
	Last      uint64 `json:"last"`
	From      Time   `json:"from"` // log time of the first and the last frame
	To        Time   `json:"to"`
	Records   uint64 `json:"records"`
	Bytes     int64  `json:"bytes"`
	Unused    int64  `json:"unused,omitempty"` // zeros at the end
	Sealed    bool   `json:"sealed"`           // it will not change any more
	Checksums string `json:"checksums"`
	BadAt     int64  `json:"bad_at,omitempty"` // offset of the first damage, with bad
}

// DamageInfo is the first place of the log that is not an intact frame in its
// place.
type DamageInfo struct {
	File    string `json:"file"`
	Offset  int64  `json:"offset"`
	Index   uint64 `json:"index"` // of the record that is expected there, 0 if not known
	What    string `json:"what"`
	Bytes   int64  `json:"bytes"` // from there to the end of the log
	Torn    bool   `json:"torn"`  // a crash explains it, and nothing acknowledged is behind it
	Durable uint64 `json:"durable"`
	// Intact frames that follow it.
	LaterRecords uint64 `json:"later_records,omitempty"`
	LaterFirst   uint64 `json:"later_first,omitempty"`
	LaterLast    uint64 `json:"later_last,omitempty"`
}

// FileInfo is a file and its size.
type FileInfo struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// BackendInfo is the backend.
type BackendInfo struct {
	Kind    string `json:"kind"`
	File    string `json:"file,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"`
	Missing bool   `json:"missing,omitempty"`
	Applied uint64 `json:"applied"` // record that its state reaches to
	Sealed  bool   `json:"sealed"`  // no log beyond its state exists
	LogTime Time   `json:"log_time"`
	Hash    ID     `json:"hash"`
	Entries uint64 `json:"entries,omitempty"` // stored pairs, without bodies
	Problem string `json:"problem,omitempty"`
}

// StateInfo are the sizes of a state.
type StateInfo struct {
	Index         uint64 `json:"index"` // of the last record in it
	Time          Time   `json:"time"`
	Boot          uint32 `json:"boot"` // starts of the broker so far
	Sessions      int    `json:"sessions"`
	Connected     int    `json:"connected"`
	Subscriptions int    `json:"subscriptions"`
	Queued        int    `json:"queued"`
	Inflight      int    `json:"inflight"`
	Retained      int    `json:"retained"`
	Messages      int    `json:"messages"` // each counted once
	Pending       int    `json:"pending"`  // in shared groups, with no durable member yet
	Wills         int    `json:"wills"`    // outside a session
	Ending        int    `json:"ending"`   // sessions that ended and have messages still to let go
	Hash          ID     `json:"hash"`
}

func stateOf(m *core.Machine, hash [16]byte) *StateInfo {
	c := m.Counts()
	return &StateInfo{
		Index: m.Applied(), Time: Time(m.Now()), Boot: m.Boot(), Sessions: c.Sessions, Connected: c.Connected,
		Subscriptions: c.Subscriptions, Queued: c.Queued, Inflight: c.Inflight, Retained: c.Retained, Messages: c.Messages,
		Pending: c.Pending, Wills: c.Wills, Ending: c.Ending, Hash: ID(hash),
	}
}

// StartInfo is what a start would do.
type StartInfo struct {
	Serves  bool    `json:"serves"`
	Refusal string  `json:"refusal,omitempty"`
	Cut     *CutOff `json:"cut,omitempty"`
	Rebuild bool    `json:"rebuild_backend,omitempty"` // the backend is missing and the log is the whole story
	NewLog  bool    `json:"new_log,omitempty"`         // the log is missing and the backend is sealed
	Records uint64  `json:"replay_records"`
	Bytes   int64   `json:"replay_bytes"`
	// Measured by doing it: the load of the backend, and the replay.
	Load   Seconds `json:"load_seconds"`
	Replay Seconds `json:"replay_seconds"`
}

// CutOff is a torn tail that a start would save and cut off.
type CutOff struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
	Why    string `json:"why"`
}

// Rate is how many records a second the replay made, 0 if there were too few
// to say.
func (s *StartInfo) Rate() float64 {
	if t := time.Duration(s.Replay); s.Records > 0 && t > 0 {
		return float64(s.Records) / t.Seconds()
	}
	return 0
}

// Overview says what the directory holds. Damage is part of it, see Err; an
// error is returned only if it cannot be told.
func (d *Dir) Overview(ctx context.Context) (*Overview, error) {
	o := &Overview{Dir: d.path, Manifest: d.manifestInfo()}
	o.refuse(d.manifestErr)
	b, err := d.overviewBackend(ctx, o)
	if err != nil {
		return nil, err
	}
	defer b.close() //nolint:errcheck // only read
	var l *loaded
	if b.used() && o.Backend.Problem == "" {
		if l, err = d.load(ctx, b); err == nil && d.manifestErr == nil && l.hash != b.mark.Hash {
			err = d.wrongHash(b, l.hash)
		}
		if err := o.backendProblem(ctx, err); err != nil {
			return nil, err
		}
	}
	p := &player{dir: d}
	if l != nil && o.Backend.Problem == "" {
		p.machine, o.Start.Load, o.Backend.Entries = l.machine, Seconds(l.elapsed), l.entries
	} else {
		p.machine = core.New()
	}
	if err := d.overviewLog(ctx, o, b, p); err != nil {
		return nil, err
	}
	if p.machine.Level() > 0 {
		o.State = stateOf(p.machine, p.machine.Hash(&d.manifest.HashKey).Bytes())
	}
	o.Start.Serves = o.err == nil
	return o, nil
}

func (d *Dir) manifestInfo() ManifestInfo {
	m := &d.manifest
	if d.manifestErr != nil {
		return ManifestInfo{Problem: d.manifestErr.Error()}
	}
	state := "open"
	if m.Sealed {
		state = "sealed"
	}
	return ManifestInfo{
		StoreID: m.StoreID, NodeID: m.NodeID, Backend: m.Backend, Floor: m.Floor, State: state,
		Generation: m.Generation, Problem: d.warning,
	}
}

// refuse notes the first reason to refuse a start.
func (o *Overview) refuse(err error) {
	if err != nil && o.err == nil {
		o.err, o.Start.Refusal = err, err.Error()
	}
}

// backendProblem notes an error of the backend, if it says what is wrong with
// it, and returns any other. Whether a start would refuse, is decided later.
func (o *Overview) backendProblem(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case !isFinding(err):
		return err
	}
	o.Backend.Problem, o.backendErr = err.Error(), err
	return nil
}

func (d *Dir) overviewBackend(ctx context.Context, o *Overview) (*backend, error) {
	b, err := d.openBackend(ctx, false)
	o.Backend.Kind = d.manifest.Backend
	if o.Backend.Kind == "" {
		o.Backend.Kind = recovery.BackendBbolt
	}
	if err := o.backendProblem(ctx, err); err != nil {
		return nil, err
	}
	if d.memoryBackend() {
		return b, nil
	}
	o.Backend.File, o.Backend.Bytes, o.Backend.Missing = b.path, b.size, !exists(b.path)
	m := &b.mark
	o.Backend.Applied, o.Backend.Sealed = m.Applied, m.Sealed
	o.Backend.LogTime, o.Backend.Hash = Time(m.LogTime), m.Hash
	return b, nil
}

// overviewLog walks over the log once: for the segments, and for the state at
// its end.
func (d *Dir) overviewLog(ctx context.Context, o *Overview, b *backend, p *player) error {
	times := map[string]Time{} // of the first frame of each segment
	in, err := d.scan(ctx, logScan{step: stepScan, visit: func(seg *wal.SegmentInfo, f *wal.Frame) error {
		if times[seg.Name] == 0 { // the mark that begins a log has none
			times[seg.Name] = Time(f.Time)
		}
		if o.Log.From == 0 && f.Count > 0 {
			o.Log.From = Time(f.Time)
		}
		return p.play(f)
	}})
	if in == nil {
		return err
	}
	if err != nil && (ctx.Err() != nil || !isFinding(err)) {
		return err
	}
	d.describeLog(o, in, times)
	if err != nil {
		o.Log.Problem = err.Error()
		o.refuse(err)
	}
	if err := d.describeSaved(o); err != nil {
		return err
	}
	if o.Archive, err = d.archiveInfo(in); err != nil {
		return err
	}
	if err := d.decide(ctx, o, in, b, p); err != nil {
		return err
	}
	o.Start.Records, o.Start.Bytes, o.Start.Replay = p.records, p.bytes, Seconds(p.elapsed)
	return nil
}

func (d *Dir) describeLog(o *Overview, in *wal.Inspection, times map[string]Time) {
	l := &o.Log
	l.First, l.Last, l.Records, l.Frames, l.Marks = in.First, in.Last, in.Records, in.Frames, in.Marks
	l.Bytes, l.Durable, l.To, l.Clean, l.Ignored = in.Bytes, in.Durable, Time(in.LastTime), in.Clean, in.Ignored
	state := ChecksumsGood
	for i := range in.Segments {
		s := &in.Segments[i]
		info := SegmentInfo{
			Name: s.Name, First: s.First, Last: s.Last, From: times[s.Name], To: Time(s.LastTime), Records: s.Records,
			Bytes: s.Size, Sealed: s.Sealed, Checksums: state,
		}
		switch damaged := in.Damage != nil && in.Damage.Segment == s.Name; {
		case damaged:
			info.Checksums, info.BadAt, state = ChecksumsBad, in.Damage.Offset, ChecksumsBehind
		case state == ChecksumsGood && s.Entries == 0 && s.First == 0:
			info.Checksums = ChecksumsNot
		case state == ChecksumsGood && s.Entries == 0:
			info.Checksums = ChecksumsNone
		}
		if info.Checksums == ChecksumsGood || info.Checksums == ChecksumsNone {
			info.Unused = s.Size - s.Valid
		}
		l.Segments = append(l.Segments, info)
	}
}

// describeSaved lists the torn tails that earlier starts cut off.
func (d *Dir) describeSaved(o *Overview) error {
	dir := filepath.Join(recovery.LogDir(d.path), "broken")
	names, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("inspect: list saved tails: %w", err)
	}
	for _, n := range names {
		info, err := n.Info()
		if err != nil {
			return fmt.Errorf("inspect: list saved tails: %w", err)
		}
		o.Log.Saved = append(o.Log.Saved, FileInfo{filepath.Join("wal", "broken", n.Name()), info.Size()})
	}
	return nil
}

// decide comes to the verdict of a start: the same function of package wal
// decides there.
func (d *Dir) decide(ctx context.Context, o *Overview, in *wal.Inspection, b *backend, p *player) error {
	lost := o.backendErr != nil && !b.foreign && errors.Is(o.backendErr, recovery.ErrDamaged) ||
		o.backendErr == nil && b.store == nil && in.First != 1
	h, end, rebuild := d.rebuilds(in)
	rebuild = rebuild && lost
	mark := b.mark
	if rebuild || !b.used() {
		mark = backends.Mark{}
	}
	torn, err := d.verdict(in, &mark)
	if rebuild && errors.Is(err, wal.ErrMissing) { // the state that is rebuilt reaches to the log's end
		err = nil
	}
	dir := recovery.LogDir(d.path)
	if dmg := in.Damage; dmg != nil {
		o.Log.Damage = &DamageInfo{
			File: filepath.Join(dir, dmg.Segment), Offset: dmg.Offset, Index: dmg.Index, What: dmg.Err.Error(),
			Bytes: dmg.Bytes, Torn: torn, Durable: max(in.Durable, d.manifest.Floor, b.mark.Applied),
			LaterRecords: dmg.LaterRecords, LaterFirst: dmg.LaterFirst, LaterLast: dmg.LaterLast,
		}
	}
	if torn {
		o.Start.Cut = &CutOff{
			File: filepath.Join(dir, in.Damage.Segment), Offset: in.Damage.Offset, Bytes: in.Damage.Bytes, Why: in.Damage.Err.Error(),
		}
	}
	if !rebuild {
		o.refuse(o.backendErr)
	}
	if o.Log.Problem == "" {
		o.refuse(err)
	}
	if rebuild && p.machine.Applied() != end {
		p.err = nil
		return d.rebuildNow(ctx, o, h, end, p)
	}
	o.refuse(p.err)
	o.Start.NewLog = len(in.Segments) == 0 && b.mark.Sealed
	o.Start.Rebuild = rebuild || !d.memoryBackend() && !b.used() && o.backendErr == nil && in.Records > 0
	return nil
}

// rebuildNow builds the state that a start would make a new backend of.
func (d *Dir) rebuildNow(ctx context.Context, o *Overview, h *archive.History, end uint64, p *player) error {
	o.Start.Rebuild = true
	begin := time.Now()
	from, err := d.build(ctx, h, end)
	switch {
	case err == nil:
		p.machine, o.Start.Load = from.machine, Seconds(time.Since(begin))
		return nil
	case ctx.Err() != nil || !isFinding(err):
		return err
	}
	o.refuse(err)
	return nil
}

// verdict decides about the log as a start does.
func (d *Dir) verdict(in *wal.Inspection, mark *backends.Mark) (torn bool, err error) {
	for _, name := range in.Ignored {
		if strings.HasSuffix(name, ".START") || strings.HasSuffix(name, ".END") {
			return false, fmt.Errorf("%w: %s", wal.ErrStray, filepath.Join(in.Dir, name))
		}
	}
	floor, need := max(d.manifest.Floor, mark.Applied), mark.Applied+1
	if len(in.Segments) == 0 {
		next := uint64(1)
		if mark.Sealed {
			next = mark.Applied + 1
		}
		if floor >= next || need < next {
			return false, &wal.CorruptError{Index: need, Durable: floor, Err: wal.ErrMissing}
		}
		return false, nil
	}
	return in.Verdict(floor, need)
}
