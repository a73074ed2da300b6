package inspect_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/wind-c/comqtt/v3/recovery"
	"github.com/wind-c/comqtt/v3/recovery/inspect"
	"github.com/wind-c/comqtt/v3/recovery/inspect/inspecttest"
	"github.com/wind-c/comqtt/v3/wal/record"
)

func diff(t *testing.T, dir string, a, b inspect.Point) *inspect.Difference {
	t.Helper()
	var d *inspect.Difference
	looking(t, dir, func(x *inspect.Dir) {
		var err error
		if d, err = x.Diff(background, a, b); err != nil {
			t.Fatalf("diff %s %s: %v", a, b, err)
		}
	})
	return d
}

func TestDiff_Story(t *testing.T) {
	dir, hash := build(t, inspecttest.Options{})
	lines, _ := dump(t, dir, inspect.Filter{})
	last := uint64(len(lines))
	d := diff(t, dir, inspect.Point{Index: 5}, inspect.Point{Index: last})
	if d.A.Index != 5 || d.B.Index != last || d.B.Hash != inspect.ID(hash) || d.Same {
		t.Errorf("%+v", d)
	}
	began := ""
	for _, s := range d.Began {
		began += fmt.Sprintf("%s %d;", s.Client, len(s.Subscribed))
	}
	if began != "bob 2;"+inspecttest.Hostile+" 0;" || len(d.Ended) != 0 || len(d.Others) != 1 || d.Others[0].Client != "alice" {
		t.Errorf("began %q, ended %v, changed %+v", began, d.Ended, d.Others)
	}
	topics := ""
	for _, r := range d.Topics {
		topics += r.Topic + " "
	}
	if topics != "alarm/fire room/t2 room/t4 " {
		t.Errorf("retained: %s", topics)
	}
	// The same points as times.
	byTime := diff(t, dir, inspect.Point{Time: int64(lines[4].Time)}, inspect.Point{Time: int64(lines[last-1].Time) + 5})
	if byTime.A.Hash != d.A.Hash || byTime.B.Hash != d.B.Hash {
		t.Errorf("by time %d to %d", byTime.A.Index, byTime.B.Index)
	}
	for _, p := range [][2]inspect.Point{{{Index: 5}, {Index: last + 1}}, {{Index: last + 1}, {Index: last + 2}}, {{Time: 1}, {Index: last}}} {
		if _, err := open(t, dir).Diff(background, p[0], p[1]); !errors.Is(err, inspect.ErrNothing) {
			t.Errorf("diff %v: %v", p, err)
		}
	}
}

// The hash at each point is that of the running broker, and nothing is said to
// have changed exactly if nothing has, but for what is not compared.
func TestDiff_Hashes(t *testing.T) {
	for seed := range uint64(4) {
		hashes := map[uint64][16]byte{}
		o := inspecttest.Options{Records: func(b *inspecttest.Builder) error {
			r := rand.New(rand.NewPCG(seed, 2))
			for range 60 {
				if err := traffic(b, r, 1); err != nil {
					return err
				}
				m := b.State.Machine
				hashes[m.Applied()] = m.Hash(&b.State.Manifest.HashKey).Bytes()
			}
			return nil
		}}
		dir, _ := build(t, o)
		r := rand.New(rand.NewPCG(seed, 3))
		for range 20 {
			a := 2 + r.Uint64N(50)
			b := a + r.Uint64N(10)
			if _, ok := hashes[a]; !ok {
				continue
			}
			if _, ok := hashes[b]; !ok {
				continue
			}
			d := diff(t, dir, inspect.Point{Index: a}, inspect.Point{Index: b})
			if d.A.Hash != inspect.ID(hashes[a]) || d.B.Hash != inspect.ID(hashes[b]) {
				t.Fatalf("seed %d: hashes at %d and %d differ from the broker's", seed, a, b)
			}
			said := len(d.Began)+len(d.Ended)+len(d.Others)+len(d.Topics) > 0
			if said == d.Same {
				t.Fatalf("seed %d: %d to %d: same %v, but %+v", seed, a, b, d.Same, d)
			}
		}
	}
}

// The archive reaches further back than the log.
func TestArchive(t *testing.T) {
	dir, hash := build(t, inspecttest.Options{SegmentSize: 1024, Clean: true, Archive: true})
	d := open(t, dir)
	ov, err := d.Overview(background)
	if err != nil || ov.Err() != nil {
		t.Fatal(err, ov.Err())
	}
	if ov.Archive == nil || !ov.Archive.Reaches || ov.Log.First == 1 {
		t.Fatalf("archive %+v, log from record %d", ov.Archive, ov.Log.First)
	}
	v, err := d.Verify(background)
	if err != nil || !v.Sound || v.State.Hash != inspect.ID(hash) {
		t.Fatalf("%v %+v", err, v)
	}
	var first uint64
	_, err = d.Dump(background, &inspect.Filter{Kinds: map[record.Kind]bool{record.KindGenesis: true}}, func(l *inspect.Line) error {
		first = l.Index
		return nil
	})
	if err != nil || first != 1 {
		t.Errorf("dump: %v, the genesis is record %d", err, first)
	}
	story, err := d.Why(background, &inspect.Question{Client: "alice"}, func(*inspect.Event) error { return nil })
	if err != nil || story.From != 0 || len(story.Fates) == 0 {
		t.Errorf("why: %v %+v", err, story)
	}
	// Damage in the archive is found, and keeps nobody from the rest.
	for _, pattern := range []string{"base-*", "seg-*"} {
		harmed := copyTree(t, dir)
		files, err := filepath.Glob(filepath.Join(recovery.ArchiveDir(harmed), pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no %s in the archive: %v", pattern, err)
		}
		file := files[0]
		flip(t, file, fileSize(t, file)/2, 4)
		looking(t, harmed, func(x *inspect.Dir) {
			v, err := x.Verify(background)
			if err != nil || v.Sound || len(v.Findings) == 0 || v.Findings[0].File != file {
				t.Errorf("%s: %v %+v", pattern, err, v)
			}
			ov, err := x.Overview(background)
			if err != nil || ov.Err() != nil {
				t.Errorf("%s: a start does not need it: %v %v", pattern, err, ov.Err())
			}
			last := uint64(0)
			_, err = x.Dump(background, &inspect.Filter{}, func(l *inspect.Line) error {
				last = l.Index
				return nil
			})
			if err != nil || last != story.To {
				t.Errorf("%s: dump ends at record %d: %v", pattern, last, err)
			}
		})
	}
	df, err := d.Diff(background, inspect.Point{Index: 3}, inspect.Point{Index: story.To})
	if err != nil || df.B.Hash != inspect.ID(hash) {
		t.Errorf("diff: %v", err)
	}
}
