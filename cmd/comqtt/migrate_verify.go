package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/wind-c/comqtt/v3/recovery/migrate"
)

func (p *program) migrateVerifyVerb() verb {
	return verb{
		name: "verify", about: "compare source and target: state hash, and pairs byte by byte", noData: true,
		flags: migrateFlags(verbFlag{
			"sample", "N|all", strconv.Itoa(migrate.DefaultSample), "stored pairs to compare byte by byte, spread over the state",
		}),
		notes: `Replays the log of both sides in memory and reads all entries of both: the state
hash is of every session, subscription, queue entry and retained message. Bodies of
messages are in the sample; all compares every one. Changes nothing; exit 65 and the
first difference if there is one. Verify before the target is served: its state is
another one from its first start on.`,
		examples: []string{
			"migrate verify --from bbolt://comqtt-data --to badger://comqtt-badger",
			"migrate verify --from bbolt:///var/lib/comqtt --to badger:///srv/comqtt --sample all -o json",
		},
		run: func(r *verbRun) error {
			from, to, err := r.sides()
			if err != nil {
				return err
			}
			o := migrate.VerifyOptions{From: from, To: to, Sample: -1, Progress: r.progress.show}
			if text := r.c.String("sample"); text != "all" {
				if o.Sample, err = strconv.Atoi(text); err != nil || o.Sample < 0 {
					return r.usage("--sample: %q is neither a number of pairs nor all", text)
				}
			}
			c, err := migrate.Verify(r.ctx, o)
			if err != nil {
				return r.migrateFailed(err)
			}
			r.progress.end()
			r.out.one(c, func(w io.Writer) { writeComparison(w, c) })
			if c.Equal {
				return nil
			}
			return &exitError{exitDamaged, c.Difference(), []string{
				"a target that was served since has a state of its own; else it is not to be trusted",
			}}
		},
	}
}

func writeComparison(w io.Writer, c *migrate.Comparison) {
	t := columns(w)
	fmt.Fprintf(t, "source\t%s, record %s, hash %s\n", safe(c.From), formatCount(c.Source.Index), c.Source.Hash)
	fmt.Fprintf(t, "target\t%s, record %s, hash %s\n", safe(c.To), formatCount(c.Target.Index), c.Target.Hash)
	for _, text := range c.Warnings {
		fmt.Fprintf(t, "warning\t%s\n", text)
	}
	if c.Equal {
		fmt.Fprintf(t, "equal\t%s of %s pairs compared byte by byte\n", formatCount(c.Compared), formatCount(c.Source.Pairs))
		_ = t.Flush() // to the buffer of the output, which keeps errors
		return
	}
	fmt.Fprintf(t, "differ\t%s\n", safe(c.Where))
	fmt.Fprintf(t, "source has\t%s\n", safe(c.Found))
	fmt.Fprintf(t, "target has\t%s\n", safe(c.Instead))
	_ = t.Flush() // to the buffer of the output, which keeps errors
}
