package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	progressBar      = 24                     // cells of the bar
	progressTerminal = 100 * time.Millisecond // between two states of the line on a terminal
	progressPlain    = time.Second            // between two lines off it
)

// progress tells on standard error how far a long look at files has come: one
// line that is redrawn on a terminal, a plain line a second off it. Work that
// takes less than that says nothing off a terminal. One goroutine uses it.
type progress struct {
	w        io.Writer // nil: quiet
	terminal bool
	now      func() time.Time

	step        string
	begin, told time.Time
	width       int // of what stands on the terminal's line
}

// newProgress returns the progress of one command.
func (p *program) newProgress(quiet bool) *progress {
	g := &progress{now: time.Now}
	if quiet {
		return g
	}
	g.w = p.stderr
	if f, ok := p.stderr.(*os.File); ok {
		info, err := f.Stat()
		g.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return g
}

// show says that done of total bytes of a step are dealt with; total 0 = not
// known. Another step begins a new line.
func (g *progress) show(step string, done, total int64) {
	if g.w == nil {
		return
	}
	now := g.now()
	if step != g.step {
		g.end()
		g.step, g.begin, g.told = step, now, now
	}
	every := progressPlain
	if g.terminal {
		every = progressTerminal
	}
	if now.Sub(g.told) < every {
		return
	}
	g.told = now
	text := progressText(step, done, total, now.Sub(g.begin), g.terminal)
	if !g.terminal {
		// Nobody is left to tell when standard error is gone.
		_, _ = fmt.Fprintln(g.w, text)
		return
	}
	_, _ = fmt.Fprintf(g.w, "\r%-*s", g.width, text)
	g.width = utf8.RuneCountInString(text)
}

// end takes the line off the terminal. show may follow.
func (g *progress) end() {
	if g.w != nil && g.width > 0 {
		_, _ = fmt.Fprintf(g.w, "\r%*s\r", g.width, "")
	}
	g.step, g.width = "", 0
}

// progressText is one state in words: step, bar, share, rate, time left.
func progressText(step string, done, total int64, elapsed time.Duration, bar bool) string {
	var b strings.Builder
	b.WriteString(step)
	if total > 0 {
		share := min(float64(done)/float64(total), 1)
		if bar {
			full := int(share * progressBar)
			fmt.Fprintf(&b, " [%s%s]", strings.Repeat("=", full), strings.Repeat(" ", progressBar-full))
		}
		fmt.Fprintf(&b, " %d %% of %s", int(share*100), roughSize(total))
	} else {
		fmt.Fprintf(&b, " %s", roughSize(done))
	}
	seconds := elapsed.Seconds()
	if seconds <= 0 || done <= 0 {
		return b.String()
	}
	rate := float64(done) / seconds
	fmt.Fprintf(&b, ", %s/s", roughSize(int64(rate)))
	if total > done {
		left := time.Duration(float64(total-done) / rate * float64(time.Second))
		fmt.Fprintf(&b, ", ETA %s", max(left.Round(time.Second), time.Second))
	}
	return b.String()
}

// roughSize writes a size for people: three digits and a binary unit.
func roughSize(n int64) string {
	for _, u := range byteUnits[:3] {
		if n >= u.bytes {
			v := float64(n) / float64(u.bytes)
			if v < 10 {
				return fmt.Sprintf("%.1f %s", v, u.name)
			}
			return fmt.Sprintf("%.0f %s", v, u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
