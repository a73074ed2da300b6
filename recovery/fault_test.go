//go:build failpoints

package recovery

import (
	"testing"

	"github.com/wind-c/comqtt/v3/broker/failpoint"
)

// The planted defects lose a message silently: the store opens without a word,
// so that only a checker that knows what was acknowledged can find them.
func TestPlantedFaultsAreSilent(t *testing.T) {
	for _, fault := range []string{failpoint.FaultLoseQueued, failpoint.FaultLoseRetained} {
		t.Run(fault, func(t *testing.T) {
			d := newDriver(t, testOptions(t))
			queueing(t, d)
			d.log(publish("a", 1, false, []byte("queued")))
			d.log(publish("nobody", 0, true, []byte("retained")))
			t.Setenv("COMQTT_FAULT", fault)
			d.close()
			t.Setenv("COMQTT_FAULT", "")
			s, err := Open(t.Context(), d.opt)
			if err != nil {
				t.Fatal(err)
			}
			want := 1
			if n := s.Report.Queued + s.Report.Inflight + s.Report.Retained; n != want {
				t.Errorf("%d messages left, want %d", n, want)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}
