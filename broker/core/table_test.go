package core

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The table holds what a map holds, in the order of the ids, whatever comes
// and goes.
func TestMessageTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, want := newMessageTable(), map[uint64]message{}
		next := uint64(1)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				for range rapid.SampledFrom([]int{1, 3, 64, 500}).Draw(t, "burst") {
					next += rapid.SampledFrom([]uint64{1, 1, 2, 40, 5000}).Draw(t, "apart")
					want[next] = message{size: uint32(next), refs: 1}
					table.put(next, want[next])
				}
			},
			"put old": func(t *rapid.T) { // Load puts in order, nobody else puts behind the newest
				id := rapid.Uint64Range(1, next).Draw(t, "id")
				if _, had := want[id]; had {
					t.Skip("there")
				}
				want[id] = message{size: 7}
				table.put(id, want[id])
			},
			"change": func(t *rapid.T) {
				id := rapid.Uint64Range(1, next+3).Draw(t, "id")
				msg := table.get(id)
				if _, had := want[id]; had != (msg != nil) {
					t.Fatalf("message %d is there: %v", id, msg != nil)
				}
				if msg != nil {
					msg.refs++
					want[id] = *msg
				}
			},
			"delete": func(t *rapid.T) {
				ids := slices.Sorted(maps.Keys(want))
				for range rapid.SampledFrom([]int{1, 10, 300}).Draw(t, "burst") {
					if len(ids) == 0 {
						return
					}
					i := rapid.SampledFrom([]int{0, len(ids) - 1, len(ids) / 2}).Draw(t, "which")
					table.delete(ids[i])
					delete(want, ids[i])
					ids = slices.Delete(ids, i, i+1)
				}
			},
			"": func(t *rapid.T) {
				if table.len() != len(want) {
					t.Fatalf("%d messages, want %d", table.len(), len(want))
				}
				last, n := uint64(0), 0
				table.each(func(id uint64, msg *message) {
					if id <= last || *msg != want[id] || table.get(id) != msg {
						t.Fatalf("message %d after %d: %+v, want %+v", id, last, *msg, want[id])
					}
					last = id
					n++
				})
				if n != len(want) {
					t.Fatalf("%d messages listed, want %d", n, len(want))
				}
				for key, p := range table.pages {
					if p.exist == 0 || key == table.key {
						t.Fatalf("page %d is kept, with %b", key, p.exist)
					}
				}
			},
		})
	})
}

// Memory is used again: a table through which messages pass does not grow.
func TestMessageTableReuses(t *testing.T) {
	table := newMessageTable()
	for id := range uint64(1_000_000) {
		table.put(id+1, message{})
		if id > 10_000 && id%3 > 0 {
			table.delete(id + 1 - 10_000 + id%3*100)
		}
		if id > 20_000 && table.get(id-20_000) != nil {
			table.delete(id - 20_000)
		}
	}
	blocks := len(table.slab.chunks) * slabChunk
	if blocks > 4*table.len() {
		t.Errorf("room for %d messages, %d are there", blocks, table.len())
	}
	if len(table.pages) > 20_000/64+2 {
		t.Errorf("%d pages", len(table.pages))
	}
}
