package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/wind-c/comqtt/v3/recovery/inspect"
	"github.com/wind-c/comqtt/v3/wal/archive"
)

// look runs fn on the data directory, under the shared lock.
func (r *verbRun) look(fn func(d *inspect.Dir) error) error {
	d, err := inspect.Open(r.data, r.progress.show)
	if errors.Is(err, inspect.ErrNothing) {
		return &exitError{exitNoInput, err, []string{"--data DIR (COMQTT_DATA) names the data directory of a broker"}}
	}
	if err != nil {
		return lookFailed(err)
	}
	err = fn(d)
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return lookFailed(err)
}

// lookFailed gives the errors of those who only look their exit codes.
func lookFailed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, inspect.ErrNothing):
		return &exitError{code: exitNoInput, err: err}
	case errors.Is(err, archive.ErrVersion):
		return &exitError{exitConfig, err, []string{"the data is intact; use the newer version of comqtt that wrote it"}}
	case errors.Is(err, archive.ErrBase), errors.Is(err, archive.ErrReach):
		return &exitError{exitDamaged, err, []string{"the archive is damaged, or there is a gap in it; a start does not need it"}}
	case errors.Is(err, fs.ErrPermission):
		return &exitError{exitIO, err, []string{"run it as the user that the broker runs as"}}
	}
	return err
}

// finding ends a verb that has told all, but found something that is wrong.
func (r *verbRun) finding(err error, text string, next ...string) error {
	if err == nil {
		return nil
	}
	code := classify(lookFailed(err)).code
	if code == exitFailed {
		code = exitDamaged
	}
	return &exitError{code, errors.New(text), next}
}

func (p *program) inspectVerb() verb {
	return verb{
		name: "inspect", about: "what is there, and what a start would do",
		notes: `Reads the manifest, the whole log and the backend's state, and replays the log
into memory as a start would: so it takes about as long as one. A torn tail is
described and left alone. Exit 65 or 78 if a start would refuse.`,
		examples: []string{"recover inspect", "recover inspect --data /var/lib/comqtt -o json"},
		run: func(r *verbRun) error {
			return r.look(func(d *inspect.Dir) error {
				o, err := d.Overview(r.ctx)
				if err != nil {
					return err
				}
				r.progress.end()
				r.out.one(o, func(w io.Writer) { writeOverview(w, o) })
				return r.finding(o.Err(), "a start would refuse this directory; nothing was changed",
					"for the whole story: comqtt recover verify --data "+r.data)
			})
		},
	}
}

func writeOverview(w io.Writer, o *inspect.Overview) {
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%-9s %s\n", name, fmt.Sprintf(format, args...)) // output keeps its error
	}
	line("data", "%s", o.Dir)
	if m := &o.Manifest; m.Generation == 0 {
		line("manifest", "%s", m.Problem)
	} else {
		line("manifest", "store %s, node %s", m.StoreID, m.NodeID)
		line("", "%s, generation %d, floor %s", m.State, m.Generation, formatCount(m.Floor))
		if m.Problem != "" {
			line("", "%s", m.Problem)
		}
	}
	writeOverviewLog(w, line, &o.Log)
	writeOverviewBackend(line, &o.Backend)
	writeArchive(line, o.Archive)
	if s := o.State; s != nil {
		line("state", "at record %s, %s, boot %d", formatCount(s.Index), s.Time, s.Boot)
		line("", "%s sessions (%s connected), %s subscriptions", number(s.Sessions), number(s.Connected), number(s.Subscriptions))
		line("", "%s messages: %s queued, %s in flight, %s retained, %s waiting in groups", number(s.Messages),
			number(s.Queued), number(s.Inflight), number(s.Retained), number(s.Pending))
		line("", "hash %s", s.Hash)
	}
	writeStart(line, &o.Start)
}

func writeArchive(line func(name, format string, args ...any), a *inspect.ArchiveInfo) {
	if a == nil {
		line("archive", "none")
		return
	}
	reach := "does not reach the log: there is a gap"
	switch {
	case a.Reaches && a.Index == 0:
		reach = "reaches back to the first record"
	case a.Reaches:
		reach = fmt.Sprintf("reaches back to record %s, %s", formatCount(a.Index), a.Time)
	}
	line("archive", "%s; %s segments and %s bases, %s", reach, number(a.Segments), number(a.Bases), roughSize(a.Bytes))
}

// number is formatCount of an int.
func number(n int) string { return formatCount(uint64(max(n, 0))) }

func writeOverviewLog(w io.Writer, line func(name, format string, args ...any), l *inspect.LogInfo) {
	if len(l.Segments) == 0 {
		line("log", "none")
		return
	}
	end := "not closed in good order"
	if l.Clean {
		end = "closed in good order"
	}
	line("log", "%s in %s frames and %s marks, %s; %s", recordRange(l.First, l.Last), formatCount(l.Frames),
		formatCount(l.Marks), roughSize(l.Bytes), end)
	if l.Problem != "" {
		line("", "%s", l.Problem)
	}
	if dmg := l.Damage; dmg != nil {
		what := "DAMAGE"
		if dmg.Torn {
			what = "torn tail"
		}
		line("", "%s at %s:%d: %s", what, filepath.Base(dmg.File), dmg.Offset, dmg.What)
	}
	for _, f := range l.Saved {
		line("", "cut off earlier: %s, %s", f.Name, roughSize(f.Bytes))
	}
	for _, f := range l.Ignored {
		line("", "not part of the log: %s", safe(f))
	}
	_, _ = fmt.Fprintln(w) // output keeps its error
	t := columns(w)
	_, _ = fmt.Fprintln(t, "SEGMENT\tRECORDS\tFROM\tTO\tBYTES\tUNUSED\tSTATE\tCHECKSUMS")
	for i := range l.Segments {
		s := &l.Segments[i]
		state := "open"
		if s.Sealed {
			state = "sealed"
		}
		sums := s.Checksums
		if sums == inspect.ChecksumsBad {
			sums = fmt.Sprintf("BAD at %d", s.BadAt)
		}
		records := "none"
		if s.Last >= s.First {
			records = fmt.Sprintf("%d..%d", s.First, s.Last)
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", s.Name, records, when(s.From), when(s.To), s.Bytes, s.Unused, state, sums)
	}
	_ = t.Flush() // output keeps its error
	_, _ = fmt.Fprintln(w)
}

// when is a time in a table.
func when(t inspect.Time) string {
	if t == 0 {
		return "-"
	}
	return t.String()
}

func recordRange(first, last uint64) string {
	if last < first || first == 0 {
		return "no records"
	}
	return fmt.Sprintf("records %s to %s", formatCount(first), formatCount(last))
}

func writeOverviewBackend(line func(name, format string, args ...any), b *inspect.BackendInfo) {
	switch {
	case b.File == "":
		line("backend", "%s: the log is the only copy", b.Kind)
		return
	case b.Missing:
		line("backend", "%s, %s is not there", b.Kind, filepath.Base(b.File))
		return
	}
	state := "open"
	if b.Sealed {
		state = "sealed"
	}
	line("backend", "%s, %s, state at record %s, %s", b.Kind, roughSize(b.Bytes), formatCount(b.Applied), state)
	if b.Problem != "" {
		line("", "%s", b.Problem)
	}
}

func writeStart(line func(name, format string, args ...any), s *inspect.StartInfo) {
	if !s.Serves {
		line("a start", "would REFUSE: %s", s.Refusal)
		return
	}
	if c := s.Cut; c != nil {
		line("a start", "would save and cut off %s from %s:%d on", roughSize(c.Bytes), filepath.Base(c.File), c.Offset)
		line("", "(%s; a crash explains it, nothing acknowledged is in it)", c.Why)
	}
	if s.NewLog {
		line("a start", "would begin a new log: the backend is sealed, nothing is missing")
	}
	if s.Rebuild {
		line("a start", "would rebuild the backend from the log, which is complete")
	}
	text := "nothing to replay"
	if s.Records > 0 {
		text = fmt.Sprintf("replay %s records (%s)", formatCount(s.Records), roughSize(s.Bytes))
	}
	line("a start", "would %s", startVerb(s, text))
}

// startVerb says what a start has to do and how long that took here.
func startVerb(s *inspect.StartInfo, text string) string {
	if s.Records == 0 {
		text = "load the state, with " + text
	}
	took := time.Duration(s.Load) + time.Duration(s.Replay)
	if took < time.Millisecond {
		text += " in less than 1ms, as measured now"
	} else {
		text += fmt.Sprintf(" in about %s, as measured now", formatElapsed(took))
	}
	const enough = 10_000 // records, for a rate that means something
	if rate := s.Rate(); s.Records >= enough {
		text += fmt.Sprintf(" (%s records/s)", formatCount(uint64(rate)))
	}
	return text
}
