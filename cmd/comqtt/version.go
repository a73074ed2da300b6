package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// release is the version this source tree becomes; a build from a commit that
// Go knows adds its revision.
const release = "3.0.0-dev"

const versionHelp = `comqtt version - print the version

USAGE:
   comqtt version [--short]

FLAGS:
   --short    print the version alone

EXAMPLES:
   comqtt version
   test "$(comqtt version --short)" = 3.0.0
`

func (p *program) versionCommand() *cli.Command {
	return &cli.Command{
		Name:               "version",
		CustomHelpTemplate: versionHelp,
		OnUsageError:       usageErrorOf([]string{"--short", "--help"}),
		Flags:              []cli.Flag{&cli.BoolFlag{Name: "short"}},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			text := "comqtt " + versionLine()
			if c.Bool("short") {
				text = version()
			}
			if _, err := fmt.Fprintln(p.stdout, text); err != nil {
				return &exitError{code: exitIO, err: fmt.Errorf("write version: %w", err)}
			}
			return nil
		},
	}
}

// version returns the release, with the commit if the build recorded one.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	const shown = 12 // digits of the revision
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) > shown {
			return release + "+" + s.Value[:shown]
		}
	}
	return release
}

// versionLine is the version and what it was built with and for.
func versionLine() string {
	return fmt.Sprintf("%s (%s, %s/%s)", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
