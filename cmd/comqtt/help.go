package main

import (
	"fmt"
	"strings"
)

const serveIntro = `comqtt serve - run the broker

USAGE:
   comqtt serve [flags]

FLAGS, with defaults in parentheses. Each is an environment variable too, COMQTT_
and the name in capitals (COMQTT_MAX_PACKET_SIZE); a flag wins.
`

const serveExamples = `
EXAMPLES:
   comqtt serve
   comqtt serve --data /var/lib/comqtt --tcp :1883 --ws off --allow-anonymous
   COMQTT_SYNC=100ms comqtt serve --log-format json

SIGTERM and Ctrl-C stop gracefully, a second one at once.
`

// serveHelp is the help text of serve, from the options themselves.
func serveHelp(opts []option) string {
	var b strings.Builder
	b.WriteString(serveIntro)
	for _, o := range opts {
		def := o.def
		if o.value == "" {
			def = "off"
		}
		fmt.Fprintf(&b, "   %-31s %s (%s)\n", strings.TrimSpace("--"+o.name+" "+o.value), o.usage, def)
	}
	b.WriteString(serveExamples)
	return b.String()
}
