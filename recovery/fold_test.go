package recovery

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/wind-c/comqtt/v3/backends"
)

// A fold over any changes, merged in any order of merging, leads from the old
// pairs to the new ones, calls only new what is new, and leaves out what came
// and went.
func TestFold_Model(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old := map[string]string{}
		for i := range rapid.IntRange(0, 4).Draw(t, "old") {
			old[fmt.Sprint("Q", i)] = "old"
		}
		now := maps.Clone(old)
		folds := []*fold{newFold()}
		var d delta
		stored := map[string]bool{} // bodies that went ahead
		for range rapid.IntRange(0, 80).Draw(t, "steps") {
			key := rapid.SampledFrom([]string{"Q0", "Q1", "Q2", "Q5", "Q6", "B0000000x", "B0000000y"}).Draw(t, "key")
			_, there := now[key]
			switch rapid.IntRange(0, 5).Draw(t, "op") {
			case 0, 1:
				value := string(make([]byte, rapid.IntRange(0, 40).Draw(t, "size")))
				d.Put(key[0], []byte(key[1:]), []byte(value), !there)
				now[key] = value
			case 2, 3:
				d.Delete(key[0], []byte(key[1:]))
				delete(now, key)
			case 4:
				folds[len(folds)-1].merge(&d)
				d.reset()
				if rapid.Bool().Draw(t, "new fold") {
					for _, e := range folds[0].entries {
						if k := string(folds[0].key(&e)); k[0] == 'B' && e.flags == foldFresh {
							p, _ := folds[0].find([]byte(k))
							p.flags |= foldStored
							stored[k] = true
						}
					}
					folds = append(folds, newFold())
				}
			case 5:
				if n := len(folds); n > 1 {
					folds[n-2].mergeFold(folds[n-1])
					folds = folds[:n-1]
				}
			}
		}
		folds[len(folds)-1].merge(&d)
		for len(folds) > 1 {
			n := len(folds)
			folds[n-2].mergeFold(folds[n-1])
			folds = folds[:n-1]
		}
		f := folds[0]
		got := maps.Clone(old)
		order := f.sorted(nil)
		if len(order) != f.live {
			t.Fatalf("%d live entries, %d listed", f.live, len(order))
		}
		var size int64
		var last []byte
		for _, at := range order {
			e := &f.entries[at]
			key := f.key(e)
			if bytes.Compare(last, key) >= 0 {
				t.Fatalf("%q after %q", key, last)
			}
			last = key
			size += int64(e.klen + e.vlen)
			_, had := old[string(key)]
			if e.flags&foldFresh != 0 && had {
				t.Fatalf("%q called new", key)
			}
			if e.flags&foldDelete != 0 {
				delete(got, string(key))
				delete(stored, string(key))
			} else {
				got[string(key)] = string(f.value(e))
			}
		}
		if size != f.size {
			t.Fatalf("size %d, counted %d", f.size, size)
		}
		if !maps.Equal(got, now) {
			t.Fatalf("fold leads to %q, want %q", got, now)
		}
		for key := range stored {
			if _, ok := now[key]; !ok {
				t.Fatalf("body %q went ahead, is gone, and is not deleted", key)
			}
		}
		before := slices.Collect(maps.Keys(got))
		f.waste += tidyMin // as if there were much
		f.tidy()
		for _, key := range before {
			e, _ := f.find([]byte(key))
			if e != nil && e.flags&foldDelete == 0 && string(f.value(e)) != got[key] {
				t.Fatalf("%q is %q after tidying, want %q", key, f.value(e), got[key])
			}
		}
	})
}

// Memory stays bounded by what is live, whatever passes through.
func TestFold_BoundedMemory(t *testing.T) {
	f := newFold()
	var d delta
	for i := range 600_000 {
		key := backends.IDKey(nil, 'Q', uint64(i))[1:]
		d.Put('Q', key, []byte("value of some bytes"), true)
		d.Delete('Q', key)
		d.Put('S', []byte("head"), make([]byte, i%300), false)
		if i%1000 == 0 {
			f.merge(&d)
			d.reset()
		}
	}
	f.merge(&d)
	if f.live != 1 || f.bytes() > 2*tidyMin || len(f.mem.blocks)*arenaBlock > 3*tidyMin {
		t.Fatalf("%d live, %d bytes, %d blocks", f.live, f.bytes(), len(f.mem.blocks))
	}
}
