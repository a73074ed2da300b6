package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/wind-c/comqtt/v3/cmd/torture/powerfs"
)

// A fault is a defect that can be planted in a binary built with the tag
// failpoints. It breaks one promise, and the checker must find that by what
// follows from it: by is the rules that count, so that a plant which also, say,
// sends an acknowledgement twice does not prove more than it should.
type fault struct {
	name    string
	breaks  string
	at      Kind // most kills follow the receipt of this packet; 0 = any moment
	patient bool // shows only after the broker's regular checkpoint
	slow    bool // needs many kills: three times as many, and not in the short run
	by      []string
}

var faults = []fault{
	{
		name: "ack-before-sync", breaks: "PUBACK, PUBREC and the like leave before the log is synced",
		by: []string{"lost", "duplicate-qos2", "session", "subscription", "retained"},
	},
	{
		name: "early-pubcomp", breaks: "PUBCOMP leaves before the PUBREL record is durable",
		at: Pubcomp, by: []string{"lost"},
	},
	{
		name: "early-pubrel", breaks: "PUBREL leaves before the PUBREC record is durable",
		at: Pubrel, by: []string{"duplicate-qos2"},
	},
	{
		name: "early-pubrec", breaks: "PUBREC leaves before the PUBLISH record is durable",
		at: Pubrec, by: []string{"lost"},
	},
	{
		name: "new-identifiers-on-resend", breaks: "a redelivery gets another packet identifier",
		by: []string{"identifier", "redelivery", "duplicate-qos2"},
	},
	{
		name: "forget-qos2-receipt", breaks: "received QoS 2 identifiers are gone after a restart",
		by: []string{"duplicate-qos2"},
	},
	{
		name: "lose-retained", breaks: "an acknowledged retained value is gone after a restart",
		slow: true, by: []string{"retained", "refused"},
	},
	{
		name: "lose-subscription", breaks: "an acknowledged subscription is gone after a restart",
		by: []string{"subscription", "lost"},
	},
	{
		name: "lose-queued-on-checkpoint", breaks: "a checkpoint forgets what is queued",
		patient: true, by: []string{"lost", "retained", "refused"},
	},
	{
		name: "reorder-redelivery", breaks: "redelivery in another order",
		by: []string{"redelivery", "order", "lost"},
	},
	{
		name: "suback-before-sync", breaks: "SUBACK leaves before the record is durable",
		at: Suback, by: []string{"subscription", "lost"},
	},
	{
		name: "drop-before-index", breaks: "a message is acknowledged and dropped",
		by: []string{"lost", "refused"},
	},
}

const (
	// faultsMin is how many defects must be found; the list has a few more.
	faultsMin = 10
	// proveKills is how many kills a defect has to show itself.
	proveKills = 60
)

// prove runs every planted defect and reports whether the checker missed one.
func prove(ctx context.Context, o options, bin, dir string) (missed bool, err error) {
	out := o.out
	found := 0
	for _, f := range faults {
		if o.fault != "" && o.fault != f.name {
			continue
		}
		run := o
		run.kills = proveKills
		if f.slow {
			run.kills *= 3
		}
		ok, text, err := f.prove(ctx, run, bin, filepath.Join(dir, f.name))
		if err != nil {
			return false, err
		}
		if ok {
			found++
			fmt.Fprintf(out, "found   %-30s %s\n", f.name, text)
			continue
		}
		missed = true
		fmt.Fprintf(out, "MISSED  %-30s %s (%s)\n", f.name, text, f.breaks)
	}
	all := len(faults)
	if o.fault == "" {
		lost, n, err := proveLies(ctx, o, bin, dir)
		if err != nil {
			return false, err
		}
		missed = missed || lost > 0
		found, all = found+n, all+lost+n
		ok, text, err := proveDamage(ctx, o, bin, dir)
		if err != nil {
			return false, err
		}
		if all++; ok {
			found++
		}
		missed = missed || !ok
		fmt.Fprintln(out, text)
	}
	fmt.Fprintf(out, "%d of %d planted defects found\n", found, all)
	if found < faultsMin && o.fault == "" {
		missed = true
	}
	return missed, nil
}

// proveLies does the same with every planted defect of the disk, or the one that
// the options name. Where there is no FUSE there are none.
func proveLies(ctx context.Context, o options, bin, dir string) (missed, found int, err error) {
	for i := range lies {
		l := &lies[i]
		if o.lie != "" && o.lie != l.name {
			continue
		}
		ok, text, err := l.prove(ctx, o, bin, filepath.Join(dir, l.name))
		switch {
		case errors.Is(err, powerfs.ErrUnavailable):
			return 0, 0, nil
		case err != nil:
			return 0, 0, err
		case ok:
			found++
			fmt.Fprintf(o.out, "found   %-30s %s\n", l.name, text)
		default:
			missed++
			fmt.Fprintf(o.out, "MISSED  %-30s %s (%s)\n", l.name, text, l.breaks)
		}
	}
	return missed, found, nil
}

// prove runs one defect until the checker finds what follows from it.
func (f *fault) prove(ctx context.Context, o options, bin, dir string) (found bool, text string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, "", fmt.Errorf("torture: %w", err)
	}
	o.mode, o.fault, o.patient, o.at, o.out = "kill", f.name, f.patient, f.at, io.Discard
	began := time.Now()
	c, err := newCampaign(o, bin, dir)
	if err != nil {
		return false, "", err
	}
	c.journal.checker.only = f.by
	runErr := c.run(ctx)
	list, _ := c.journal.Findings()
	if len(list) > 0 {
		text = fmt.Sprintf("after %d kills, %.1fs: %s: %s", c.kills, time.Since(began).Seconds(), list[0].Rule, list[0].Text)
		return true, text, c.remove()
	}
	if runErr != nil {
		return false, "", runErr
	}
	return false, fmt.Sprintf("%d kills, %.1fs, nothing found", c.kills, time.Since(began).Seconds()), c.remove()
}

// prove cuts the power of a disk that lies until something is found.
func (l *lie) prove(ctx context.Context, o options, bin, dir string) (found bool, text string, err error) {
	o.mode, o.lie, o.kills, o.out = "power", l.name, proveKills, io.Discard
	began := time.Now()
	c, err := powerCuts(o, bin, dir)
	if err != nil {
		return false, "", err
	}
	if c.disk == nil {
		return false, "", errors.Join(powerfs.ErrUnavailable, c.remove())
	}
	runErr := c.run(ctx)
	list, _ := c.journal.Findings()
	text = fmt.Sprintf("after %d cuts, %.1fs", c.cuts, time.Since(began).Seconds())
	switch {
	case len(list) > 0:
		return true, fmt.Sprintf("%s: %s: %s", text, list[0].Rule, list[0].Text), c.remove()
	case runErr != nil:
		return false, "", errors.Join(runErr, c.remove())
	}
	return false, text + ", nothing found", c.remove()
}

// proveDamage damages the log of a broker that ignores the checksums of bodies.
func proveDamage(ctx context.Context, o options, bin, dir string) (found bool, text string, err error) {
	const name = "ignore-checksum"
	o.out = io.Discard
	began := time.Now()
	d, err := newDamager(ctx, o, bin, filepath.Join(dir, name))
	if err != nil {
		return false, "", err
	}
	d.env = []string{"COMQTT_FAULT=" + name}
	tries := 0
	for ; tries < proveKills && len(d.findings) == 0 && err == nil; tries++ {
		s := d.stores[0]
		h := &harm{what: "flip", file: d.file(s, "log"), bit: uint(tries % bitsOfByte)}
		h.off = d.rnd.Int64N(max(h.file.used, 1))
		err = d.try(ctx, s, h, true)
	}
	if err = errors.Join(err, os.RemoveAll(filepath.Dir(d.work)), os.RemoveAll(d.dir)); err != nil {
		return false, "", err
	}
	text = fmt.Sprintf("%-30s after %d flipped bits, %.1fs", name, tries, time.Since(began).Seconds())
	if len(d.findings) == 0 {
		return false, "MISSED  " + text + ", nothing found", nil
	}
	return true, "found   " + text + ": " + d.findings[0], nil
}
