package inspect

import (
	"fmt"
	"testing"

	"github.com/wind-c/comqtt/v3/wal/record"
)

// The memory of a dump does not grow with the log: only the latest names are
// kept, but all of the client that is asked for.
func TestNames_Bounded(t *testing.T) {
	n := newNames("mine")
	n.connect(1, record.NewEpoch(1, 1), "mine")
	for i := range uint32(2 * namesKept) {
		n.connect(uint64(i)+2, record.NewEpoch(2, i+1), fmt.Sprint("client", i))
	}
	if len(n.recent.byKey) != namesKept || len(n.recent.ring) != namesKept {
		t.Errorf("%d names kept, %d places", len(n.recent.byKey), len(n.recent.ring))
	}
	if got := n.of(1, record.NewEpoch(1, 1)); got != "mine" {
		t.Errorf("the client asked for is %q", got)
	}
	last := uint32(2*namesKept - 1)
	if got := n.of(0, record.NewEpoch(2, last+1)); got != fmt.Sprint("client", last) {
		t.Errorf("the latest is %q", got)
	}
	if got := n.of(0, record.NewEpoch(2, 1)); got != "" {
		t.Errorf("the oldest is %q", got)
	}
	// A session that a resumed connection names is the client's as well.
	n.connect(9_000_000, record.NewEpoch(3, 1), "mine")
	if n.of(77, record.NewEpoch(3, 1)) != "mine" || n.of(77, 0) != "mine" {
		t.Error("the session of a known connection is not known")
	}
}
