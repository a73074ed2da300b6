package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/wind-c/comqtt/v3/broker/admin"
)

func (p *program) retainedCommand() *cli.Command {
	return p.groupCommand("retained", "retained messages of the running broker", "retained message", []verb{
		{
			name: "ls", about: "list them",
			flags:    []verbFlag{{"filter", "FILTER", "#", "topic filter"}},
			notes:    "As for a subscription, # and + at the begin leave topics that begin with $ out.",
			examples: []string{"retained ls", "retained ls --filter 'plant/+/state' -o ndjson"},
			run:      (*verbRun).listRetained,
		},
		{
			name: "get", about: "write the payload of one to standard output", args: "TOPIC",
			examples: []string{"retained get plant/1/state", "retained get -o json plant/1/state"},
			run:      (*verbRun).getRetained,
		},
		{
			name: "rm", about: "remove one", args: "TOPIC",
			notes:    "It is removed by a record that names you. Subscribers are not told.",
			examples: []string{"retained rm plant/1/state", "retained rm --data /var/lib/comqtt plant/1/state"},
			run:      (*verbRun).removeRetained,
		},
	}, "retained ls --filter 'plant/#'", "retained get plant/1/state")
}

func (r *verbRun) listRetained() error {
	return r.control(func(c *admin.Client) error {
		t := columns(r.out)
		if r.out.isTable() {
			fmt.Fprintln(t, "TOPIC\tQOS\tBYTES\tRECORD\tSINCE\tENDS")
		}
		err := c.Retained(r.ctx, r.c.String("filter"), func(m admin.Retained) error {
			r.out.item(m, func(io.Writer) {
				fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%s\n", safe(m.Topic), m.QoS, m.Bytes, m.Message, moment(m.Time), moment(m.Ends))
			})
			return nil
		})
		r.out.end()
		return errors.Join(err, t.Flush())
	})
}

// noRetained says which topic has none.
func noRetained(err error, topic string) error {
	if errors.Is(err, admin.ErrNotFound) {
		return fmt.Errorf("%w: topic %q has no retained message", err, topic)
	}
	return err
}

func (r *verbRun) getRetained() error {
	topic, err := r.name("topic")
	if err != nil {
		return err
	}
	return r.control(func(c *admin.Client) error {
		m, err := c.RetainedMessage(r.ctx, topic)
		if err != nil {
			return noRetained(err, topic)
		}
		r.out.one(m, func(w io.Writer) { _, _ = w.Write(m.Payload) }) // to the buffer of the output, which keeps errors
		return nil
	})
}

func (r *verbRun) removeRetained() error {
	topic, err := r.name("topic")
	if err != nil {
		return err
	}
	return r.control(func(c *admin.Client) error {
		index, err := c.ClearRetained(r.ctx, topic)
		if err != nil {
			return noRetained(err, topic)
		}
		r.out.one(struct {
			Topic string `json:"topic"`
			Index uint64 `json:"index"`
		}{topic, index}, func(w io.Writer) {
			fmt.Fprintf(w, "retained message of %s removed by record %d\n", safe(topic), index)
		})
		return nil
	})
}
