package backendtest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/wind-c/comqtt/v3/backends"
)

// testDamage damages one value and expects ErrDamaged from opening the store
// again, or from every call that reads that pair and from no other.
func (s *suite) testDamage(t *testing.T) {
	for _, key := range []string{"S\x00victim", "B" + strings.Repeat("long", 2000)} {
		t.Run(key[:1], func(t *testing.T) {
			b := s.new(t)
			for i := range 500 {
				b.put(fmt.Sprintf("M%d", i), strings.Repeat("m", i))
				// Neighbours, so that the damage is deep in its table.
				b.put(fmt.Sprintf("%s\xffneighbour%d", key[:1], i), strings.Repeat("n", 100))
			}
			b.put(key, strings.Repeat("v", 100))
			b.commit()
			after, err := s.damage(t, b.dir, b.Store, []byte(key))
			if err != nil {
				if !errors.Is(err, backends.ErrDamaged) {
					t.Fatalf("open = %v, want ErrDamaged", err)
				}
				return
			}
			b.Store = after
			_, err = scan(t.Context(), b.Store, key[:1])
			wantDamaged(t, "scan", err)
			_, err = scan(t.Context(), b.Store, "")
			wantDamaged(t, "scan of all", err)
			err = b.Get(t.Context(), [][]byte{[]byte(key)}, func(int, []byte) error { return errors.New("served") })
			wantDamaged(t, "get", err)
			b.wantGet([]string{"M3", key[:1] + "\xffneighbour499"}, "mmm", strings.Repeat("n", 100))
		})
	}
}

func wantDamaged(t *testing.T, what string, err error) {
	t.Helper()
	var c *backends.CorruptError
	if !errors.Is(err, backends.ErrDamaged) || !errors.As(err, &c) {
		t.Errorf("%s = %v, want a *CorruptError", what, err)
		return
	}
	if c.Store == "" || c.Key == nil {
		t.Errorf("%s: %+v lacks the store or the key", what, c)
	}
}
