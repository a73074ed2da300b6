package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// faults are the defects that can be planted in a binary built with the tag
// failpoints. Each breaks one promise; the checker must find every one.
var faults = []struct {
	name    string
	patient bool // shows only after a checkpoint
	breaks  string
}{
	{"ack-before-sync", false, "PUBACK, PUBREC and the like leave before the log is synced"},
	{"early-pubcomp", false, "PUBCOMP leaves before the PUBREL record is durable"},
	{"early-pubrel", false, "PUBREL leaves before the PUBREC record is durable"},
	{"early-pubrec", false, "PUBREC leaves before the PUBLISH record is durable"},
	{"new-identifiers-on-resend", false, "a redelivery gets another packet identifier"},
	{"forget-qos2-receipt", false, "received QoS 2 identifiers are gone after a restart"},
	{"lose-retained", false, "an acknowledged retained value is gone after a restart"},
	{"lose-subscription", false, "an acknowledged subscription is gone after a restart"},
	{"lose-queued-on-checkpoint", true, "a checkpoint forgets what is queued"},
	{"reorder-redelivery", false, "redelivery in another order"},
	{"suback-before-sync", false, "SUBACK leaves before the record is durable"},
	{"drop-before-index", true, "log segments are dropped that no checkpoint covers"},
}

const (
	// faultsMin is how many defects must be found; the list has a few more.
	faultsMin = 10
	// proveKills is how many kills a defect has to show itself.
	proveKills = 40
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
		run.mode, run.fault, run.patient, run.kills = "kill", f.name, f.patient, min(o.kills, proveKills)
		ok, text, err := proveOne(ctx, run, bin, filepath.Join(dir, f.name))
		if err != nil {
			return false, err
		}
		if ok {
			found++
			fmt.Fprintf(out, "found   %-26s %s\n", f.name, text)
			continue
		}
		missed = true
		fmt.Fprintf(out, "MISSED  %-26s %s (%s)\n", f.name, text, f.breaks)
	}
	fmt.Fprintf(out, "%d of %d planted defects found\n", found, len(faults))
	if found < faultsMin && o.fault == "" {
		missed = true
	}
	return missed, nil
}

// proveOne runs one defect until the checker finds something.
func proveOne(ctx context.Context, o options, bin, dir string) (found bool, text string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, "", fmt.Errorf("torture: %w", err)
	}
	o.out = io.Discard
	began := time.Now()
	c, err := newCampaign(o, bin, dir)
	if err != nil {
		return false, "", err
	}
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
