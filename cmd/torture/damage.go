package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wind-c/comqtt/v3/recovery"
)

const (
	// damageBinary is how many damages pass between two that the real binary
	// starts on; all others are opened in this process.
	damageBinary = 25
	// bitsOfByte are flipped one after another wherever a byte is drawn.
	bitsOfByte = 8
)

// A harm is something that happens to a data directory while no broker runs.
type harm struct {
	what  string // flip, zero, truncate, delete, swap, duplicate, foreign
	file  storeFile
	other string // second file, or the new name
	off   int64
	n     int64
	bit   uint
	from  string // directory of the other store
	also  *harm
}

func (h *harm) String() string {
	s := h.what + " " + h.file.path
	switch h.what {
	case "flip":
		s += fmt.Sprintf(" at %d bit %d", h.off, h.bit)
	case "zero":
		s += fmt.Sprintf(" %d bytes at %d", h.n, h.off)
	case "truncate":
		s += fmt.Sprintf(" from %d to %d bytes", h.file.size, h.off)
	case "swap", "duplicate":
		s += " with " + h.other
	}
	if h.also != nil {
		s += ", " + h.also.String()
	}
	return s
}

// touches returns the files that the harm changes or makes.
func (h *harm) touches() []string {
	list := []string{h.file.path}
	if h.other != "" {
		list = append(list, h.other)
	}
	if h.also != nil {
		list = append(list, h.also.touches()...)
	}
	return list
}

// apply does it in a copy of the store.
func (h *harm) apply(dir string) error {
	path := filepath.Join(dir, h.file.path)
	var err error
	switch h.what {
	case "flip":
		err = flip(path, h.off, h.bit)
	case "zero":
		err = zero(path, h.off, h.off+h.n)
	case "truncate":
		err = os.Truncate(path, h.off)
	case "delete":
		err = os.Remove(path)
	case "duplicate":
		err = copyFile(path, filepath.Join(dir, h.other))
	case "foreign":
		err = copyFile(filepath.Join(h.from, h.file.path), path)
	case "swap":
		var a, b []byte
		other := filepath.Join(dir, h.other)
		a, err = os.ReadFile(path)
		if err == nil {
			b, err = os.ReadFile(other)
		}
		if err == nil {
			err = errors.Join(os.WriteFile(path, b, 0o600), os.WriteFile(other, a, 0o600))
		}
	}
	if err == nil && h.also != nil {
		err = h.also.apply(dir)
	}
	if err != nil {
		return fmt.Errorf("torture: %s: %w", h, err)
	}
	return nil
}

func flip(path string, off int64, bit uint) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var b [1]byte
	if _, err = f.ReadAt(b[:], off); err == nil {
		b[0] ^= 1 << bit
		_, err = f.WriteAt(b[:], off)
	}
	return errors.Join(err, f.Close())
}

// damageStats counts what became of the damages.
type damageStats struct {
	tried    map[string]int // kind of harm and file → damages
	refused  int            // exit 65, nothing changed
	repaired int            // a torn tail was reported, nothing acknowledged is missing
	warned   int            // a warning, nothing is missing
	harmless int            // nothing is missing and nothing was said
	hole     int            // the documented one: the end of a log that was killed under load
	flips    int            // of bits in frames of the log
	binary   int            // started by the real binary
}

// A damager runs mode damage.
type damager struct {
	options
	bin, dir string
	rnd      *rand.Rand
	stores   []*store
	work     string // the copy that is damaged
	dirty    *store // whose copy work is; nil = none
	stats    damageStats
	findings []string
	env      []string // of the real binary
}

// damage runs mode damage: so many damages, one after another.
func damage(ctx context.Context, o options, bin, dir string, tries int) (found bool, err error) {
	d, err := newDamager(ctx, o, bin, filepath.Join(dir, "damage"))
	if err != nil {
		return false, err
	}
	began := time.Now()
	for i := 0; i < tries && len(d.findings) == 0 && err == nil; {
		i, err = d.step(ctx, i)
	}
	if err == nil {
		err = ctx.Err()
	}
	d.summary(time.Since(began))
	if err != nil {
		return false, errors.Join(err, os.RemoveAll(filepath.Dir(d.work)))
	}
	if len(d.findings) > 0 {
		fmt.Fprintf(o.out, "kept: %s (as damaged: %s); repeat with -seed %d -mode damage\n", d.dir, d.work, o.seed)
		return true, nil
	}
	return false, errors.Join(os.RemoveAll(filepath.Dir(d.work)), os.RemoveAll(d.dir))
}

func newDamager(ctx context.Context, o options, bin, dir string) (*damager, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("torture: %w", err)
	}
	d := &damager{options: o, bin: bin, dir: dir, rnd: rand.New(rand.NewPCG(o.seed, 7))}
	d.stats.tried = map[string]int{}
	fast := "/dev/shm" // thousands of starts, and what they sync is worth nothing
	if _, err := os.Stat(fast); err != nil {
		fast = dir
	}
	var err error
	if d.stores, err = makeStores(ctx, o, bin, dir, d.rnd); err == nil {
		d.work, err = os.MkdirTemp(fast, "torture-damage-")
	}
	if err != nil {
		return nil, err
	}
	d.work = filepath.Join(d.work, "data")
	return d, nil
}

// step does the next damage, or the eight of all bits of a byte, and returns
// the number of the one after.
func (d *damager) step(ctx context.Context, i int) (int, error) {
	s := d.stores[d.rnd.IntN(len(d.stores))]
	h := d.draw(s)
	binary := i/damageBinary > d.stats.binary
	if err := d.try(ctx, s, h, binary); err != nil {
		return i, err
	}
	if h.what != "flip" || h.also != nil || binary {
		return i + 1, nil
	}
	for bit := uint(1); bit < bitsOfByte && len(d.findings) == 0; bit++ {
		next := *h
		next.bit = (h.bit + bit) % bitsOfByte
		if err := d.try(ctx, s, &next, false); err != nil {
			return i, err
		}
	}
	return i + bitsOfByte, nil
}

// draw draws a damage.
func (d *damager) draw(s *store) *harm {
	kinds := [...]string{"log", "log", "log", "log", "backend", "backend", "manifest", "archive"}
	h := &harm{file: d.file(s, kinds[d.rnd.IntN(len(kinds))])}
	f := &h.file
	switch d.rnd.IntN(12) {
	default:
		h.what, h.off, h.bit = "flip", d.rnd.Int64N(f.size), uint(d.rnd.IntN(bitsOfByte))
		if f.kind == "log" && f.used > 0 && d.rnd.IntN(8) > 0 { // rather in frames than in what is left of a segment
			h.off = d.rnd.Int64N(f.used)
		}
	case 5, 6:
		h.what, h.n = "zero", []int64{512, 4096}[d.rnd.IntN(2)]
		h.off = d.rnd.Int64N(f.size) / h.n * h.n
		h.n = min(h.n, f.size-h.off)
	case 7:
		h.what, h.off = "truncate", d.rnd.Int64N(f.size)
	case 8:
		h.what = "delete"
	case 9:
		h.what, h.other = "swap", d.file(s, f.kind).path
	case 10:
		h.what, h.other = "duplicate", d.file(s, f.kind).path
		if d.rnd.IntN(2) == 0 {
			h.other = d.newName(f)
		}
	case 11:
		from := d.stores[d.rnd.IntN(len(d.stores))]
		if _, err := os.Stat(filepath.Join(from.dir, f.path)); err != nil || from == s {
			h.what = "delete"
			break
		}
		h.what, h.from = "foreign", from.dir
	}
	if f.kind == "archive" && d.rnd.IntN(2) == 0 { // is it needed? with the backend gone it is
		h.also = &harm{what: "delete", file: d.file(s, "backend")}
		if d.rnd.IntN(2) == 0 { // or broken: its first two pages are what bbolt opens
			h.also.what, h.also.n = "zero", 8192
		}
	}
	return h
}

func (d *damager) file(s *store, kind string) storeFile {
	var of []storeFile
	for i := range s.files {
		if s.files[i].kind == kind {
			of = append(of, s.files[i])
		}
	}
	if len(of) == 0 {
		return d.file(s, "log")
	}
	return of[d.rnd.IntN(len(of))]
}

// newName returns a name that a file of this kind might have.
func (d *damager) newName(f *storeFile) string {
	if f.kind == "log" {
		return filepath.Join("wal", fmt.Sprintf("%020d", 1+d.rnd.IntN(2000)))
	}
	return f.path + ".copy"
}

// try does one damage and judges what comes of it.
func (d *damager) try(ctx context.Context, s *store, h *harm, binary bool) error {
	if d.dirty != s {
		if err := copyStore(s.dir, d.work); err != nil {
			return err
		}
		d.dirty = s
	}
	before := map[string][]byte{}
	if err := h.apply(d.work); err != nil {
		return err
	}
	if err := contents(d.work, before); err != nil {
		return err
	}
	changed := modified(d.work)
	d.stats.tried[h.what+" "+h.file.kind]++
	if h.what == "flip" && h.file.kind == "log" && h.off < h.file.used {
		d.stats.flips++
	}
	if binary {
		d.stats.binary++
		d.dirty = nil
		return d.serve(ctx, s, h)
	}
	rep, got, err := d.opened(ctx, s)
	if err == nil || !d.judgeRefusal(s, h, err) {
		d.dirty = nil // a start has written
		if err == nil {
			d.judge(s, h, &rep, &got, got.hash == s.want.hash)
		}
		return nil
	}
	after := map[string][]byte{}
	if err := contents(d.work, after); err != nil {
		return err
	}
	for path, b := range before {
		if !bytes.Equal(b, after[path]) {
			d.finding(s, h, "it refuses, but has changed %s", path)
		}
		delete(after, path)
	}
	for path := range after {
		d.finding(s, h, "it refuses, but has made %s", path)
	}
	if modified(d.work) != changed { // by opening it, whatever is in it
		d.dirty = nil
		return nil
	}
	return d.restore(s, h)
}

// opened opens the copy; a panic is an error.
func (d *damager) opened(ctx context.Context, s *store) (rep recovery.Report, c content, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("torture: panic: %v", p)
		}
	}()
	return s.open(ctx, d.work)
}

// restore undoes a damage that nothing has followed from.
func (d *damager) restore(s *store, h *harm) error {
	for _, path := range h.touches() {
		if h.what == "flip" && h.also == nil {
			return flip(filepath.Join(d.work, path), h.off, h.bit)
		}
		from, to := filepath.Join(s.dir, path), filepath.Join(d.work, path)
		err := copyFile(from, to)
		if errors.Is(err, fs.ErrNotExist) {
			err = os.Remove(to)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("torture: undo: %w", err)
		}
	}
	return nil
}

// judgeRefusal judges an error of the start.
func (d *damager) judgeRefusal(s *store, h *harm, err error) bool {
	var late *contentError
	code := recovery.ExitCode(err)
	switch {
	case errors.As(err, &late):
		d.finding(s, h, "%v", err)
	case code != recovery.ExitDamaged:
		d.finding(s, h, "refused with exit code %d, want %d: %v", code, recovery.ExitDamaged, err)
	case len(err.Error()) < 40:
		d.finding(s, h, "refused without a report: %v", err)
	default:
		d.stats.refused++
		return true
	}
	return false
}

// judge judges a start that was made.
func (d *damager) judge(s *store, h *harm, rep *recovery.Report, got *content, sameHash bool) {
	same := got.digest == s.want.digest && sameHash
	said := rep.TornBytes > 0 || len(rep.Warnings) > 0
	switch {
	case !same && d.inHole(s, h):
		d.stats.hole++
	case !same:
		d.finding(s, h, "it starts and has %d sessions and %d messages, of %d and %d, or others; report: %v, warnings %q",
			got.sessions, got.messages, s.want.sessions, s.want.messages, rep, rep.Warnings)
	case h.what == "flip" && h.file.kind == "log" && h.off < h.file.used && !said:
		d.finding(s, h, "a flipped bit in a frame of the log was not noticed")
	case h.what == "delete" && h.file.path == "MANIFEST" && !said:
		d.finding(s, h, "the manifest is gone, and nothing was said")
	case rep.TornBytes > 0:
		d.stats.repaired++
	case said:
		d.stats.warned++
	default:
		d.stats.harmless++
	}
}

// inHole says whether a damage is one that docs/guarantees.md says is not
// noticed: of the end of a log that was killed under load.
func (d *damager) inHole(s *store, h *harm) bool {
	if !s.busy || h.file.kind != "log" || h.file.path != s.lastSeg && h.other != s.lastSeg {
		return false
	}
	return h.what != "flip" || h.off >= s.lastOff
}

// serve starts the real binary on the copy.
func (d *damager) serve(ctx context.Context, s *store, h *harm) error {
	run := filepath.Join(d.dir, "serve")
	if err := os.MkdirAll(run, 0o755); err != nil {
		return fmt.Errorf("torture: %w", err)
	}
	srv, err := newServer(d.bin, run)
	if err != nil {
		return err
	}
	defer srv.log.Close()
	srv.data, srv.engine = d.work, d.engine
	if err := os.Truncate(srv.log.Name(), 0); err != nil {
		return fmt.Errorf("torture: %w", err)
	}
	p, err := srv.start(append([]string{crumbs}, d.env...)...)
	if err != nil {
		return err
	}
	defer func() { p.kill(); <-p.exited }()
	switch err := p.ready(ctx, srv.addr()); {
	case errors.Is(err, errExited):
		said, err := os.ReadFile(srv.log.Name())
		switch code := p.state.ExitCode(); {
		case err != nil:
			return fmt.Errorf("torture: %w", err)
		case code != exitDamaged:
			d.finding(s, h, "the broker ended with %v, want exit status %d: %s", p.state, exitDamaged, lastLine(said))
		case !bytes.Contains(said, []byte("comqtt: ")) || bytes.Contains(said, []byte("panic")):
			d.finding(s, h, "the broker refused without a report: %s", lastLine(said))
		default:
			d.stats.refused++
		}
		return nil
	case err != nil:
		return err
	}
	if err := announced(ctx, srv.log.Name(), p); err != nil {
		return err
	}
	p.term()
	if !p.wait(stopTimeout) || p.state.ExitCode() != 0 {
		d.finding(s, h, "the broker started, and ended with %v", p.state)
		return nil
	}
	said, err := os.ReadFile(srv.log.Name())
	if err != nil {
		return fmt.Errorf("torture: %w", err)
	}
	rep, got, err := d.opened(ctx, s)
	if err != nil {
		d.finding(s, h, "the broker started and stopped, and then: %v", err)
		return nil
	}
	if bytes.Contains(said, []byte("repaired")) {
		rep.TornBytes++
	}
	if bytes.Contains(said, []byte("level=WARN")) || bytes.Contains(said, []byte("warning")) {
		rep.Warnings = append(rep.Warnings, "said by the broker")
	}
	d.judge(s, h, &rep, &got, true)
	return nil
}

// announced waits for the banner: clients are served a moment before.
func announced(ctx context.Context, log string, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if b, err := os.ReadFile(log); err != nil || bytes.Contains(b, []byte("\nsync ")) {
			return err
		}
		select {
		case <-tick.C:
		case <-p.exited:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("torture: no banner: %w", ctx.Err())
		}
	}
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// contents reads what a refused start must leave as it is.
func contents(dir string, into map[string][]byte) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == "LOCK" || e.Name() == "state.bbolt" {
			return err
		}
		into[path], err = os.ReadFile(path)
		return err
	})
}

// modified says when the backend's file was written.
func modified(dir string) time.Time {
	info, err := os.Stat(filepath.Join(dir, "state.bbolt"))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

func (d *damager) finding(s *store, h *harm, format string, args ...any) {
	text := fmt.Sprintf("store %s, %s: %s", s.name, h, fmt.Sprintf(format, args...))
	d.findings = append(d.findings, text)
	fmt.Fprintf(d.out, "FINDING %s\n", text)
}

func (d *damager) summary(took time.Duration) {
	n := 0
	for _, k := range d.stats.tried {
		n += k
	}
	t := &d.stats
	fmt.Fprintf(d.out, "seed %d, mode damage: %d damages in %.0fs, %d of them started by the real binary\n", d.seed, n, took.Seconds(), t.binary)
	fmt.Fprintf(d.out, "damages   %s\n", counted(t.tried))
	fmt.Fprintf(d.out, "outcomes  %d refused with exit 65, %d a torn tail cut off, %d with a warning, %d without consequence, %d at the end of a log killed under load\n",
		t.refused, t.repaired, t.warned, t.harmless, t.hole)
	fmt.Fprintf(d.out, "log       %d bits flipped in frames, all noticed\n", t.flips)
	fmt.Fprintf(d.out, "findings  %d\n", len(d.findings))
}
