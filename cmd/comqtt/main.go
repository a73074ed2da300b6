package main

import (
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// Two signals may arrive before the first is read: one to stop, one to
	// stop at once.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	p := &program{
		stdin:     os.Stdin,
		stdout:    os.Stdout,
		stderr:    os.Stderr,
		lookupEnv: os.LookupEnv,
		environ:   os.Environ(),
		signals:   signals,
	}
	os.Exit(p.run(os.Args[1:]))
}

// program is the process around the verbs: what a test would have to replace.
type program struct {
	stdin     io.Reader // nil: nobody is there to be asked
	stdout    io.Writer
	stderr    io.Writer
	lookupEnv func(name string) (string, bool)
	environ   []string // NAME=value
	signals   <-chan os.Signal
}

// run executes the command line (without the program's name) and returns the
// exit code. What went wrong is on stderr by then.
func (p *program) run(args []string) int {
	err := p.app().Run(append([]string{"comqtt"}, normalize(args)...))
	return p.report(err)
}

// normalize maps the spellings people try to the verbs there are.
func normalize(args []string) []string {
	if len(args) == 0 {
		return []string{"serve"}
	}
	switch first := args[0]; {
	case first == "help" && len(args) > 1:
		return []string{args[1], "--help"}
	case first == "help", first == "--help", first == "-help", first == "-h":
		return []string{"--help"}
	case first == "--version", first == "-version", first == "-v":
		return []string{"version"}
	case first == "recover" && len(args) > 1 && args[1] == "diff":
		return append([]string{"recover", "diff"}, flagsFirst(args[2:], "quiet", "help", "h")...)
	case first[:min(1, len(first))] == "-":
		return append([]string{"serve"}, args...)
	}
	return args
}
