package record

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// FuzzDecode: no bytes make a decoder panic or allocate out of proportion,
// and what decodes means the same after it is encoded again.
func FuzzDecode(f *testing.F) {
	for _, s := range samples() {
		f.Add(s.rec.AppendTo(nil))
	}
	f.Add([]byte{byte(KindPublish), 2, 0})
	f.Add([]byte{byte(KindSubscribe), 1, 1, 1, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0})
	f.Fuzz(func(t *testing.T, rec []byte) {
		k := KindOf(rec)
		first, second := zero(k), zero(k)
		if first == nil {
			first, second = new(Publish), new(Publish)
		}
		in := bytes.Clone(rec)
		err := first.Decode(rec)
		if !bytes.Equal(in, rec) {
			t.Fatal("decode wrote into the record")
		}
		if err != nil {
			checkError(t, rec, err)
			return
		}
		again := first.AppendTo(nil)
		if err := second.Decode(again); err != nil {
			t.Fatalf("%x, encoded again as %x: %v", rec, again, err)
		}
		if d := cmp.Diff(first, second, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("another meaning after encoding again (-first +second):\n%s", d)
		}
		if third := second.AppendTo(nil); !bytes.Equal(again, third) {
			t.Fatalf("not canonical: %x, then %x", again, third)
		}
	})
}

// checkError holds that an error is one of those a caller tells apart.
func checkError(t *testing.T, rec []byte, err error) {
	var unknown *UnknownError
	switch {
	case errors.As(err, &unknown):
		if len(rec) < 2 || Known(Kind(rec[0])) && rec[1] == 1 {
			t.Fatalf("%x is of a known kind and version, got %v", rec, err)
		}
	case errors.Is(err, ErrTruncated), errors.Is(err, ErrTrailing), errors.Is(err, ErrValue):
	default:
		t.Fatalf("%x: error %v is none of the package's", rec, err)
	}
}
