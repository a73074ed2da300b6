package wal

import "testing"

// What the library leaks with each rotation is freed in time, while it goes on.
func TestEngineReopens(t *testing.T) {
	dir := fastDir(t)
	e := openEngine(t, OpenTidwall, dir, 1, 200).(*tidwallEngine)
	before := e.log
	e.rotations = rotationsMax - 3
	for i := range 10 {
		if _, err := e.Append(appendEntry(nil, make([]byte, 200))); err != nil {
			t.Fatal(err)
		}
		if i == 2 { // the third rotation
			if e.log == before {
				t.Fatal("not reopened")
			}
			before = e.log
		}
		if e.log != before {
			t.Fatalf("reopened by entry %d", i)
		}
	}
	if _, err := e.Append(appendEntry(nil, make([]byte, 1<<20))); err != nil || e.log == before {
		t.Fatalf("not reopened after a large entry: %v", err)
	}
	if len(readFiles(t, dir)) != 12 {
		t.Fatalf("%v", readFiles(t, dir).names())
	}
}
